"""SIMO: exactly the chosen leaves train, and the adapter lives the life of a PEFT adapter."""

import json
import warnings

import pytest
import torch
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForUniversalSegmentation, pipeline

from fisa import FisaForUniversalSegmentation, FisaModel, SimoConfig, get_simo_model
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_PREFIX, pop_beside_weights
from fisa.modeling_fisa.simo import simo_target_modules
from tests.configurations import NUM_QUERIES, tiny_generator_inputs, tiny_inputs
from tests.models import tiny_model, tiny_segmentation_model


LABELS = torch.tensor([[0, 1, 2, -100], [2, -100, 0, 1]])
NUM_LAYERS = 3


def inputs():
    return tiny_inputs() | {"class_labels": LABELS}


def train(model, *, steps=3, seed=0):
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        model(**inputs()).loss.backward()
        optimiser.step()
    return model.eval()


@torch.no_grad()
def logits(model):
    """With all weights frozen: PyTorch multiplies by trainable ones another way, on some CPUs to other last bits."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    found = model(**tiny_inputs()).logits_per_mask
    for parameter in trainable:
        parameter.requires_grad_(True)
    return found


def snapshot(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def trained_leaves(model):
    names = {name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    return {name.removeprefix("base_model.model.fisa.").replace(".ln_tuning_layers.default", "") for name in names}


def leaves_of(*, image_projections=("self_attn.q_proj",), image_layers=(0, 1)):
    seve = ("token_norm", "text_norm", "q_proj", "k_proj", "v_proj", "out_proj")
    return {
        "mask_encoder.mask_position",
        *(f"mask_encoder.layers.{layer}.mask_attention.query_proj" for layer in range(NUM_LAYERS)),
        *(f"mask_encoder.layers.0.semantic_guidance.{leaf}" for leaf in seve),
        *(f"vision_model.encoder.layers.{layer}.{leaf}" for layer in image_layers for leaf in image_projections),
    }


class TestSelection:
    def test_default(self):
        assert trained_leaves(get_simo_model(tiny_segmentation_model("mask2former"))) == leaves_of()

    def test_chosen_layers_and_projections(self):
        config = SimoConfig(image_projections=("v_proj", "fc1"), image_layers=(2,))
        model = get_simo_model(tiny_segmentation_model(), config)
        assert trained_leaves(model) == leaves_of(image_projections=("self_attn.v_proj", "mlp.fc1"), image_layers=(2,))

    @pytest.mark.parametrize(
        ("switched_off", "gone"),
        [
            ("mask_queries", "mask_attention"),
            ("mask_position", "mask_position"),
            ("semantic_guidance", "semantic_guidance"),
        ],
    )
    def test_parts_switched_off(self, switched_off, gone):
        model = get_simo_model(tiny_segmentation_model(), SimoConfig(**{switched_off: False}))
        assert trained_leaves(model) == {leaf for leaf in leaves_of() if gone not in leaf}

    def test_the_image_stream_can_be_left_as_it_is(self):
        model = get_simo_model(tiny_segmentation_model(), SimoConfig(image_projections=()))
        before = model.get_base_model().fisa.get_image_features(tiny_inputs()["pixel_values"]).pooler_output
        train(model)
        assert torch.equal(
            model.get_base_model().fisa.get_image_features(tiny_inputs()["pixel_values"]).pooler_output, before
        )

    def test_the_last_image_queries_are_refused(self):
        with pytest.raises(ValueError, match="`image_layers` names layer 2, the last"):
            get_simo_model(tiny_segmentation_model(), SimoConfig(image_layers=(1, 2)))

    def test_no_gradient_reaches_the_last_image_queries(self):
        model = tiny_segmentation_model()
        model(**inputs()).loss.backward()
        queries = [layer.self_attn.q_proj.weight.grad for layer in model.fisa.vision_model.encoder.layers]
        assert [gradient is not None and bool(gradient.any()) for gradient in queries] == [True, True, False]

    def test_layers_that_are_not_there_are_named(self):
        with pytest.raises(ValueError, match=r"names \[3\]; this CLIP's image tower has the layers 0 to 2"):
            get_simo_model(tiny_segmentation_model(), SimoConfig(image_layers=(0, 3)))

    def test_it_prints_what_it_trains(self, capsys):
        get_simo_model(tiny_segmentation_model()).print_trainable_parameters()
        assert "trainable params: " in capsys.readouterr().out

    def test_no_warning_about_norms(self):
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Unsupported layer")
            get_simo_model(tiny_segmentation_model())


class TestTraining:
    def test_every_chosen_parameter_moves_and_nothing_else_changes_a_bit(self):
        base = tiny_segmentation_model("mask2former")
        base_before = snapshot(base)
        model = get_simo_model(base)
        before = snapshot(model)
        train(model)
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name]) == (name not in trained), name
        with model.disable_adapter():
            pass
        model.unload()
        assert base_before.keys() == base.state_dict().keys()
        assert all(torch.equal(base.state_dict()[name], tensor) for name, tensor in base_before.items())

    def test_gradient_checkpointing_gives_the_same_gradients(self):
        gradients = []
        for checkpointing in (False, True):
            model = get_simo_model(tiny_segmentation_model())
            if checkpointing:
                model.activation_checkpointing_enable()
            model.train()
            model(**inputs()).loss.backward()
            gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
        plain, checkpointed = gradients
        for name, gradient in plain.items():
            torch.testing.assert_close(checkpointed[name], gradient, msg=name)

    def test_frozen_parts_build_no_graph(self):
        model = get_simo_model(tiny_segmentation_model(), SimoConfig(image_projections=(), semantic_guidance=False))
        model.train()
        outputs = model(**inputs(), output_hidden_states=True)
        assert not any(states.requires_grad for states in outputs.hidden_states)
        assert outputs.loss.requires_grad

    def test_no_graph_below_the_first_trained_layer(self):
        config = SimoConfig(image_layers=(1,), mask_queries=False, mask_position=False, semantic_guidance=False)
        outputs = get_simo_model(tiny_segmentation_model(), config).train()(**inputs(), output_hidden_states=True)
        # Before layers 0 and 1, and after 1, whose image queries train; mask tokens read what those change in layer 2.
        assert [states.requires_grad for states in outputs.hidden_states] == [False, False, True, True]
        assert [states.requires_grad for states in outputs.mask_hidden_states] == [False, False, False, True]

    def test_what_goes_into_frozen_products_is_not_kept(self):
        model = get_simo_model(tiny_segmentation_model()).train()
        seen = {"frozen": [], "trained": []}  # the tensors themselves, or others might come to lie where they lay

        def note(module, arguments, _):
            seen["trained" if module.weight.requires_grad else "frozen"].append(arguments[0])

        products = ("fc1", "fc2", "patch_embedding", "visual_projection", "query_proj.ln_tuning_layers.default")
        for name, module in model.named_modules():
            if name.endswith(products):
                module.register_forward_hook(note)
        kept = saved_storages(lambda: model(**inputs()))
        frozen, trained = ({storage(tensor) for tensor in seen[kind]} for kind in ("frozen", "trained"))
        # Both layers of the MLP for both kinds of tokens, those of the image not in the last; patches and embeddings.
        assert len(frozen) == 4 * NUM_LAYERS - 2 + 2 and not frozen & kept
        assert len(trained) == NUM_LAYERS and trained <= kept

    def test_the_generator_keeps_nothing(self):
        model = get_simo_model(tiny_segmentation_model("mask2former")).train()
        photos = tiny_generator_inputs([(64, 64), (64, 64)], canvas=(64, 64))
        alone = tiny_inputs(num_proposals=NUM_QUERIES)
        texts = {"class_embeds": alone["class_embeds"]}
        in_loop = saved_storages(lambda: model(alone["pixel_values"], **photos, **texts))
        assert len(in_loop) == len(saved_storages(lambda: model(**alone))) > 0


def saved_storages(run):
    """Where what autograd keeps for the backward pass lies."""
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        outputs = run()
        assert outputs.logits_per_mask.requires_grad
    return {storage(tensor) for tensor in kept}


def storage(tensor):
    return tensor.untyped_storage().data_ptr()


class TestAdapter:
    """Saved, loaded, switched, merged."""

    @pytest.fixture
    def base_folder(self, tmp_path):
        tiny_segmentation_model().save_pretrained(tmp_path / "base")
        return tmp_path / "base"

    @pytest.fixture
    def trained(self, base_folder, tmp_path):
        model = train(get_simo_model(FisaForUniversalSegmentation.from_pretrained(base_folder)))
        model.save_pretrained(tmp_path / "adapter")
        return model

    def test_only_the_chosen_leaves_are_saved(self, trained, tmp_path):
        saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
        assert pop_beside_weights(saved, ADAPTER_PREFIX).keys() == {"clip_sample"}
        assert sum(t.numel() for t in saved.values()) == trained.get_nb_trainable_parameters()[0]
        assert not list((tmp_path / "adapter").glob("model*.safetensors"))

    def test_disabled_it_is_the_base_bit_for_bit(self, trained, base_folder):
        base = FisaForUniversalSegmentation.from_pretrained(base_folder)
        assert not torch.equal(logits(trained), logits(base))
        with trained.disable_adapter():
            assert torch.equal(logits(trained), logits(base))

    @pytest.mark.parametrize("way", ["peft", "auto_peft", "load_adapter", "auto_model"])
    def test_it_loads(self, way, trained, base_folder, tmp_path):
        adapter = tmp_path / "adapter"
        if way == "peft":
            loaded = PeftModel.from_pretrained(FisaForUniversalSegmentation.from_pretrained(base_folder), adapter)
        elif way == "auto_peft":
            loaded = AutoPeftModel.from_pretrained(adapter, import_allowlist=["fisa.modeling_fisa.modeling_fisa"])
        elif way == "load_adapter":
            loaded = FisaForUniversalSegmentation.from_pretrained(base_folder)
            loaded.load_adapter(str(adapter))
        else:
            loaded = AutoModelForUniversalSegmentation.from_pretrained(adapter)
        assert torch.equal(logits(loaded.eval()), logits(trained))

    def test_several_are_switched_on_one_base(self, trained, base_folder, tmp_path):
        first = logits(trained)
        other = train(get_simo_model(FisaForUniversalSegmentation.from_pretrained(base_folder)), steps=5)
        other.save_pretrained(tmp_path / "other")
        trained.load_adapter(tmp_path / "other", "other")
        trained.set_adapter("other")
        assert torch.equal(logits(trained), logits(other))
        trained.set_adapter("default")
        assert torch.equal(logits(trained), first)

    def test_merged_it_has_the_keys_of_the_base_and_the_same_outputs(self, trained, base_folder):
        expected = logits(trained)
        merged = trained.merge_and_unload()
        assert (
            merged.state_dict().keys() == FisaForUniversalSegmentation.from_pretrained(base_folder).state_dict().keys()
        )
        assert torch.equal(logits(merged), expected)

    def test_the_merged_model_is_saved_and_loaded_as_any_other(self, trained, tmp_path):
        expected = logits(trained)
        trained.merge_and_unload().save_pretrained(tmp_path / "merged")
        loaded, report = FisaForUniversalSegmentation.from_pretrained(tmp_path / "merged", output_loading_info=True)
        assert not report["missing_keys"] and not report["unexpected_keys"]
        assert torch.equal(logits(loaded), expected)

    def test_its_configuration_is_plain_peft(self, trained, tmp_path):
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        assert config["peft_type"] == "LN_TUNING"
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*(unexpected|missing).*")
            PeftModel.from_pretrained(tiny_segmentation_model(), tmp_path / "adapter")

    def test_pipeline_loads_it(self, checkpoint, photo, tmp_path):
        base = FisaForUniversalSegmentation.from_pretrained(checkpoint)
        model = get_simo_model(base)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    parameter.add_(
                        0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
                    )
        model.save_pretrained(tmp_path)
        tuned = pipeline("image-segmentation", model=str(tmp_path))(photo, threshold=0.0)
        plain = pipeline("image-segmentation", model=str(checkpoint))(photo, threshold=0.0)
        assert [s["score"] for s in tuned] != [s["score"] for s in plain]
        merged = model.merge_and_unload()
        merged.save_pretrained(tmp_path / "merged")
        from transformers import AutoProcessor

        AutoProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "merged")
        again = pipeline("image-segmentation", model=str(tmp_path / "merged"))(photo, threshold=0.0)
        assert [s["score"] for s in tuned] == [s["score"] for s in again]


def test_the_bare_model_takes_an_adapter_too():
    model = get_simo_model(tiny_model())
    embeds = model(**tiny_inputs()).mask_embeds
    embeds.sum().backward()
    assert isinstance(model.get_base_model(), FisaModel)
    moved = [parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad]
    assert all(moved)


def test_the_bare_models_adapter_brings_its_vocabulary(tmp_path):
    model = tiny_model()
    model.store_vocabulary(
        [{"name": name, "synonyms": [], "is_thing": True} for name in ("dog", "cat")],
        torch.randn(2, model.config.projection_dim),
    )
    get_simo_model(model).save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_model(), tmp_path).get_base_model()
    assert loaded.config.class_names == [["dog"], ["cat"]]
    torch.testing.assert_close(loaded.class_embeds, model.class_embeds, rtol=0, atol=0)


def test_lora_of_the_same_places(tmp_path):
    base = tiny_segmentation_model()
    before = snapshot(base)
    places = simo_target_modules(base.config, SimoConfig(), norms=False)
    model = get_peft_model(base, LoraConfig(target_modules=places, r=2, init_lora_weights=True))
    assert torch.equal(logits(model.eval()), logits(tiny_segmentation_model()))
    train(model, steps=4)
    adapted = {
        name.split(".lora")[0].removeprefix("base_model.model.fisa.")
        for name, _ in model.named_parameters()
        if "lora" in name
    }
    assert adapted == {leaf for leaf in leaves_of() if not leaf.endswith("norm")}
    expected = logits(model)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny_segmentation_model(), tmp_path)
    torch.testing.assert_close(logits(again.eval()), expected)
    merged = model.merge_and_unload()
    assert merged.state_dict().keys() == before.keys()
    torch.testing.assert_close(logits(merged), expected, atol=1e-4, rtol=1e-4)
