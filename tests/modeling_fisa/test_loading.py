"""Where weights come from: a CLIP checkpoint, a CLIP and a mask generator put together, and one FISA class's folder
through the other."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import normalize
from transformers import (
    AutoConfig,
    AutoModelForUniversalSegmentation,
    CLIPModel,
)

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaModel
from fisa.studies.benchmarks.public_architectures import PUBLIC_CLIPS, PUBLIC_GENERATORS
from tests.configurations import (
    GENERATOR_KINDS,
    tiny_clip_config,
    tiny_config,
    tiny_generator_config,
    tiny_generator_inputs,
    tiny_inputs,
)
from tests.model_tester import assert_outputs_equal, assert_states_equal
from tests.models import randomise, tiny_segmentation_model
from tests.quiet import raising_on_any_warning


SEVE = {"seve_width": 16, "seve_num_heads": 2}


def tiny_clip() -> CLIPModel:
    return randomise(CLIPModel(tiny_clip_config())).eval()


def tiny_generator(kind: str):
    generator = AutoModelForUniversalSegmentation.from_config(tiny_generator_config(kind))
    return randomise(generator, seed=1).eval()


def config_for(clip: CLIPModel, **options) -> FisaConfig:
    return FisaConfig(
        text_config=clip.config.text_config,
        vision_config=clip.config.vision_config,
        projection_dim=clip.config.projection_dim,
        **{**SEVE, **options},
    )


def assert_starts_from_clip(model: FisaModel, clip: CLIPModel) -> None:
    """CLIP's weights bit for bit; queries and position are CLIP's; SEVE is small and ends in zero."""
    weights, original = model.state_dict(), clip.state_dict()
    assert original.keys() == {name for name in weights if not name.startswith("mask_encoder.")}
    assert_states_equal({name: weights[name] for name in original}, original)
    position = "vision_model.embeddings.position_embedding.weight"
    assert torch.equal(weights["mask_encoder.mask_position.weight"], original[position][:1])
    for index, layer in enumerate(model.mask_encoder.layers):
        for kind, tensor in layer.mask_attention.query_proj.state_dict().items():
            assert torch.equal(tensor, original[f"vision_model.encoder.layers.{index}.self_attn.q_proj.{kind}"])
        guidance = layer.semantic_guidance.state_dict()
        assert bool(guidance) == (index in model.config.seve_layers)
        for name, tensor in guidance.items():
            if name.startswith("out_proj") or name.endswith("bias"):
                assert not tensor.any(), name
            elif "norm" in name:
                assert torch.equal(tensor, torch.ones_like(tensor)), name
            else:
                assert 0.5 < tensor.float().std() / model.config.initializer_range < 2, name


@pytest.fixture
def memory_of_nans():
    """Memory that nobody writes to holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


# A CLIP checkpoint


@pytest.mark.parametrize("options", [{}, {"device_map": "cpu"}], ids=str)
@pytest.mark.parametrize("layers", [[], [0], [1, 2]], ids=str)
def test_a_clip_checkpoint_loads_into_fisa_model(tmp_path, memory_of_nans, options, layers):
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    model, report = FisaModel.from_pretrained(
        tmp_path, config=config_for(clip, seve_layers=layers), output_loading_info=True, **options
    )
    assert_starts_from_clip(model, clip)
    assert not report["unexpected_keys"] and not report["mismatched_keys"]
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"mask_encoder"}


def test_a_clip_checkpoint_loads_into_the_segmentation_model(tmp_path, memory_of_nans):
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    model = FisaForUniversalSegmentation.from_pretrained(tmp_path, config=config_for(clip))
    assert_starts_from_clip(model.fisa, clip)


def test_a_clip_checkpoint_of_the_hubs_old_kind_loads_without_a_word(tmp_path):
    """Those hold `position_ids`, and a config that says everything twice."""
    clip = tiny_clip()
    clip.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(16)[None]
    weights["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((tmp_path / "config.json").read_text())
    for tower in ("text_config", "vision_config"):
        content[f"{tower}_dict"] = content[tower]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with raising_on_any_warning():
        model = FisaForUniversalSegmentation.from_clip_and_mask_generator(tmp_path, **SEVE)
    assert_starts_from_clip(model.fisa, clip)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_clip_in_half_precision_makes_a_fisa_in_half_precision(tmp_path, dtype):
    clip = tiny_clip().to(dtype)
    clip.save_pretrained(tmp_path)
    model = FisaModel.from_pretrained(tmp_path, config=config_for(clip), dtype=dtype)
    assert_starts_from_clip(model, clip)
    put_together = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, **SEVE)
    assert {parameter.dtype for parameter in put_together.parameters()} == {dtype}
    assert_starts_from_clip(put_together.fisa, clip)


# A CLIP and a mask generator


def silence(kind):
    """MaskFormer rewrites its own backbone's config to a kind that its config then warns of."""
    return contextlib.nullcontext() if kind == "maskformer" else raising_on_any_warning()


@pytest.mark.parametrize("as_folders", [True, False], ids=["folders", "loaded"])
@pytest.mark.parametrize("kind", [*GENERATOR_KINDS, None])
def test_weights_arrive_bit_for_bit_under_their_own_names(tmp_path, kind, as_folders):
    clip, generator = tiny_clip(), None if kind is None else tiny_generator(kind)
    sources = [clip, generator]
    if as_folders:
        for name, part in (("clip", clip), ("generator", generator)):
            if part is not None:
                part.save_pretrained(tmp_path / name)
        sources = [tmp_path / "clip", None if generator is None else str(tmp_path / "generator")]
    with silence(kind):
        model = FisaForUniversalSegmentation.from_clip_and_mask_generator(*sources, **SEVE)

    assert not model.training
    assert_starts_from_clip(model.fisa, clip)
    weights = model.state_dict()
    parts = {"fisa"} if kind is None else {"fisa", "mask_generator"}
    assert {name.split(".")[0] for name in weights} == parts
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])
    if kind is not None:
        found = {
            name.removeprefix("mask_generator."): tensor
            for name, tensor in weights.items()
            if name.startswith("mask_generator.")
        }
        assert_states_equal(found, generator.state_dict())


@pytest.mark.parametrize("kind", GENERATOR_KINDS)
def test_a_model_put_together_saves_and_loads_bit_for_bit(tmp_path, kind):
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(tiny_clip(), tiny_generator(kind), **SEVE)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert {name.split(".")[0] for name in saved} == {"fisa", "mask_generator"}
    with silence(kind):
        loaded, report = AutoModelForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_states_equal(loaded.state_dict(), model.state_dict())
    inputs = tiny_inputs(batch_size=1) | tiny_generator_inputs([(64, 40)], canvas=(64, 64))
    del inputs["mask_proposals"]
    with torch.no_grad():
        assert_outputs_equal(loaded(**inputs), model(**inputs))


@pytest.mark.parametrize("kind", GENERATOR_KINDS)
@torch.no_grad()
def test_parts_answer_as_they_did_alone(kind):
    clip, generator = tiny_clip(), tiny_generator(kind)
    tokens = torch.tensor([[62, 5, 7, 63], [62, 9, 63, 63]])
    pixels, photos = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 64, 64)
    wanted_clip = clip(input_ids=tokens, pixel_values=pixels)
    wanted_masks = generator(pixel_values=photos).masks_queries_logits
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, generator, **SEVE)
    # Mask2Former's deformable attention sums in another order than it did.
    masks = model.mask_generator(pixel_values=photos).masks_queries_logits
    torch.testing.assert_close(masks, wanted_masks, atol=1e-4, rtol=1e-5)
    image = normalize(model.fisa.get_image_features(pixels).pooler_output, dim=-1)
    text = normalize(model.fisa.get_text_features(tokens).pooler_output, dim=-1)
    torch.testing.assert_close(image, wanted_clip.image_embeds, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(text, wanted_clip.text_embeds, atol=1e-6, rtol=1e-6)
    assert_outputs_equal(clip(input_ids=tokens, pixel_values=pixels), wanted_clip)


def test_options_reach_the_config():
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
        tiny_clip(), seve_layers=[1], mask_coverage_threshold=0.5, **SEVE
    )
    assert model.config.seve_layers == [1] and model.fisa.config.mask_coverage_threshold == 0.5
    assert model.config.mask_generator_config is None


def test_a_misspelt_option_is_refused():
    with pytest.raises((TypeError, ValueError), match="seve_layer"):
        FisaForUniversalSegmentation.from_clip_and_mask_generator(tiny_clip(), seve_layer=[1])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_back_ends_of_the_parts_are_kept(tmp_path, attention):
    tiny_clip().save_pretrained(tmp_path / "clip")
    tiny_generator("eomt").save_pretrained(tmp_path / "generator")
    clip = CLIPModel.from_pretrained(tmp_path / "clip", attn_implementation=attention)
    generator = AutoModelForUniversalSegmentation.from_pretrained(
        tmp_path / "generator", attn_implementation=attention
    )
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, generator, **SEVE)
    configs = (model.fisa.vision_model.config, model.fisa.text_model.config, model.mask_generator.config)
    assert {config._attn_implementation for config in configs} == {attention}


# The shapes and names of the public checkpoints, without their memory


MILLIONS = {
    "clip-vit-base-patch16": 149.6,
    "clip-vit-large-patch14": 427.6,
    "clip-vit-large-patch14-336": 427.9,
    "mask2former-swin-tiny-coco-panoptic": 47.4,
    "mask2former-swin-large-coco-panoptic": 215.5,
    "maskformer-swin-base-coco": 102.0,
    "coco_panoptic_eomt_large_640": 316.0,
}


@pytest.mark.parametrize(
    "clip_name, generator_name",
    [
        *(("clip-vit-base-patch16", name) for name in PUBLIC_GENERATORS),
        *((name, "mask2former-swin-large-coco-panoptic") for name in PUBLIC_CLIPS if "large" in name),
    ],
)
def test_public_checkpoints_fit_together(clip_name, generator_name):
    """On the meta device: each tensor of the parts is, itself, the tensor of the whole, under the name it had."""
    with torch.device("meta"):
        clip = CLIPModel(PUBLIC_CLIPS[clip_name])
        generator = AutoModelForUniversalSegmentation.from_config(PUBLIC_GENERATORS[generator_name])
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, generator)
    whole = model.state_dict(keep_vars=True)
    for prefix, part, name in (("fisa.", clip, clip_name), ("mask_generator.", generator, generator_name)):
        millions = sum(parameter.numel() for parameter in part.parameters()) / 1e6
        assert millions == pytest.approx(MILLIONS[name], rel=0.01)
        for key, tensor in part.state_dict(keep_vars=True).items():
            assert whole.pop(prefix + key) is tensor
    width, layers = clip.config.vision_config.hidden_size, clip.config.vision_config.num_hidden_layers
    assert {name.split(".")[1] for name in whole} == {"mask_encoder"}
    queries = {name: tensor for name, tensor in whole.items() if "query_proj.weight" in name}
    assert [tuple(tensor.shape) for tensor in queries.values()] == [(width, width)] * layers
    assert model.config.projection_dim == clip.config.projection_dim


@pytest.mark.parametrize("clip_name", PUBLIC_CLIPS)
def test_public_clip_keys_are_those_of_the_hub(clip_name):
    with torch.device("meta"):
        model = FisaModel(config_for(CLIPModel(PUBLIC_CLIPS[clip_name])))
    keys = set(model.state_dict())
    for key in (
        "logit_scale",
        "text_projection.weight",
        "visual_projection.weight",
        "text_model.embeddings.token_embedding.weight",
        "text_model.encoder.layers.11.mlp.fc2.bias",
        "text_model.final_layer_norm.weight",
        "vision_model.embeddings.class_embedding",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.embeddings.position_embedding.weight",
        "vision_model.pre_layrnorm.weight",
        "vision_model.encoder.layers.11.self_attn.out_proj.weight",
        "vision_model.post_layernorm.bias",
    ):
        assert key in keys


@pytest.mark.large
def test_a_real_size_pair_goes_through_folders(tmp_path):
    """ViT-B/16 and Mask2Former with Swin-T, random weights: 200 million parameters saved, put together, run."""
    clip = CLIPModel(PUBLIC_CLIPS["clip-vit-base-patch16"]).eval()
    generator = AutoModelForUniversalSegmentation.from_config(PUBLIC_GENERATORS["mask2former-swin-tiny-coco-panoptic"])
    clip.save_pretrained(tmp_path / "clip")
    generator.save_pretrained(tmp_path / "generator")
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(tmp_path / "clip", tmp_path / "generator")
    assert_starts_from_clip(model.fisa, clip)
    model.save_pretrained(tmp_path / "whole")
    loaded = FisaForUniversalSegmentation.from_pretrained(tmp_path / "whole")
    assert_states_equal(loaded.state_dict(), model.state_dict())
    pixels = torch.randn(1, 3, 224, 224)
    inputs = {"class_embeds": torch.randn(5, 512), **tiny_generator_inputs([(192, 256)], canvas=(256, 256))}
    with torch.no_grad():
        outputs = loaded(pixels, **inputs)
        whole_image = loaded(pixels, mask_proposals=torch.ones(1, 1, 8, 8), class_embeds=inputs["class_embeds"])
        wanted = clip.get_image_features(pixels).pooler_output
    assert outputs.class_queries_logits.shape == (1, 100, 6)
    assert outputs.masks_queries_logits.shape == (1, 100, 48, 64)
    torch.testing.assert_close(whole_image.mask_embeds[:, 0], wanted, atol=1e-4, rtol=1e-4)


# One class's folder through the other


@pytest.mark.parametrize("kind", [*GENERATOR_KINDS, None])
def test_the_base_model_loads_from_a_segmentation_models_folder(tmp_path, kind):
    whole = tiny_segmentation_model(kind, seve_layers=[0, 1])
    whole.save_pretrained(tmp_path)
    model, report = FisaModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"] and not report["mismatched_keys"]
    assert_states_equal(model.state_dict(), whole.fisa.state_dict())


def test_the_segmentation_model_loads_from_a_base_models_folder(tmp_path, memory_of_nans):
    base = randomise(FisaModel(tiny_config()))
    base.save_pretrained(tmp_path)
    model, report = FisaForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert_states_equal(model.fisa.state_dict(), base.state_dict())


def test_a_generator_that_a_base_models_folder_lacks_is_reported_and_initialised(tmp_path, memory_of_nans):
    base = randomise(FisaModel(tiny_config("eomt")))
    base.save_pretrained(tmp_path)
    model, report = FisaForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"mask_generator"}
    assert all(tensor.isfinite().all() for tensor in model.parameters())
    assert_states_equal(model.fisa.state_dict(), base.state_dict())


def test_the_config_says_which_class_was_saved(tmp_path):
    tiny_segmentation_model("eomt").save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is FisaConfig and config.architectures == ["FisaForUniversalSegmentation"]
