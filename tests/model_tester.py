"""What every transformers model port must satisfy, once: subclass `ModelTester` and say which model and inputs."""

import copy
import inspect
import pickle

import pytest
import torch
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import ModelOutput

from fisa import FisaConfig
from tests.models import randomise
from tests.quiet import raising_on_any_warning


def pickled(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


class ModelTester:
    """Subclasses name the model, make its configuration and its inputs, and say what is trained.

    Attributes:
        model_class: the `PreTrainedModel` under test.
        auto_class: the Auto class that must find it, or `None`.
        trained_parameters: the part of a parameter's name that marks it as trained when all else is frozen.
        unused_parameters: parts of names of parameters that a loss on `main_output` rightly leaves alone.
        frozen_modules: sub-modules that never see a gradient.
        pickles: whether all of the model can be pickled.
        main_output: the output that losses and comparisons look at.
    """

    model_class: type[PreTrainedModel]
    auto_class: type | None = None
    trained_parameters = "mask_encoder"
    unused_parameters: tuple[str, ...] = ()
    frozen_modules: tuple[str, ...] = ()
    pickles = True
    main_output = "mask_embeds"

    def config(self) -> FisaConfig:
        raise NotImplementedError

    def inputs(self) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    @pytest.fixture
    def model(self) -> PreTrainedModel:
        return randomise(self.model_class(self.config())).eval()

    def run(self, model: PreTrainedModel, **options) -> ModelOutput:
        with torch.no_grad():
            return model(**self.inputs(), **options)

    def loss(self, model: PreTrainedModel, **options) -> torch.Tensor:
        output = model(**self.inputs(), **options)[self.main_output]
        target = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
        return (output.float() * target).mean()

    def gradients(self, model: PreTrainedModel, **options) -> dict[str, torch.Tensor | None]:
        model.zero_grad()
        self.loss(model, **options).backward()
        return {
            name: None if parameter.grad is None else parameter.grad.clone()
            for name, parameter in model.named_parameters()
        }

    # Configuration

    def test_config_survives_json(self, tmp_path):
        config = self.config()
        config.save_pretrained(tmp_path)
        assert AutoConfig.from_pretrained(tmp_path).to_dict() == {**config.to_dict(), "_name_or_path": str(tmp_path)}

    # Forward

    def test_first_argument_of_forward_is_pixel_values(self):
        assert list(inspect.signature(self.model_class.forward).parameters)[:2] == ["self", "pixel_values"]
        assert self.model_class.main_input_name == "pixel_values"

    def test_evaluation_is_deterministic(self, model):
        assert_outputs_equal(self.run(model), self.run(model))

    def test_seed_alone_decides_the_initial_weights(self):
        torch.manual_seed(3)
        first = self.model_class(self.config()).state_dict()
        torch.manual_seed(3)
        assert_states_equal(self.model_class(self.config()).state_dict(), first)

    def test_tuple_equals_model_output(self, model):
        outputs = self.run(model)
        found = self.run(model, return_dict=False)
        assert isinstance(found, tuple) and not isinstance(found, ModelOutput)
        for value, wanted in zip(found, outputs.to_tuple(), strict=True):
            torch.testing.assert_close(value, wanted, rtol=0, atol=0)

    def test_construction_and_forward_are_silent(self):
        with raising_on_any_warning():
            self.run(self.model_class(self.config()).eval())

    def test_output_is_finite(self, model):
        assert all(value.isfinite().all() for value in self.run(model).to_tuple())

    # Hidden states and attentions

    def test_hidden_states_have_the_documented_shapes(self, model):
        outputs = self.run(model, output_hidden_states=True)
        batch_size, num_proposals = outputs.mask_embeds.shape[:2]
        vision = model.config.vision_config
        tokens = 1 + (vision.image_size // vision.patch_size) ** 2
        layers = vision.num_hidden_layers + 1
        assert [tuple(states.shape) for states in outputs.hidden_states] == (
            [(batch_size, tokens, vision.hidden_size)] * layers
        )
        assert [tuple(states.shape) for states in outputs.mask_hidden_states] == (
            [(batch_size, num_proposals, vision.hidden_size)] * layers
        )

    def test_attentions_have_the_documented_shapes_and_sum_to_one(self, model):
        use_attention(model, "eager")
        outputs = self.run(model, output_attentions=True)
        batch_size, num_proposals = outputs.mask_embeds.shape[:2]
        vision = model.config.vision_config
        tokens = 1 + (vision.image_size // vision.patch_size) ** 2
        for attentions, queries in ((outputs.attentions, tokens), (outputs.mask_attentions, num_proposals)):
            shape = (batch_size, vision.num_attention_heads, queries, tokens)
            assert [tuple(weights.shape) for weights in attentions] == [shape] * vision.num_hidden_layers
            for weights in attentions:
                torch.testing.assert_close(weights.sum(dim=-1), torch.ones(shape[:-1]))

    def test_hidden_states_and_attentions_are_given_only_when_asked_for(self, model):
        outputs = self.run(model)
        for name in ("hidden_states", "mask_hidden_states", "attentions", "mask_attentions"):
            assert outputs[name] is None if name in outputs else getattr(outputs, name) is None

    def test_sdpa_has_no_attentions_to_give(self, model):
        use_attention(model, "sdpa")
        outputs = self.run(model, output_attentions=True)
        assert outputs.attentions is None and outputs.mask_attentions is None

    def test_config_can_ask_for_hidden_states_and_attentions(self):
        config = self.config()
        config.output_hidden_states = True
        model = self.model_class(config).eval()
        use_attention(model, "eager")
        model.config.output_attentions = True
        outputs = self.run(model)
        assert outputs.hidden_states is not None and outputs.mask_attentions is not None

    def test_gradients_reach_hidden_states_and_attentions(self, model):
        use_attention(model, "eager")
        outputs = model(**self.inputs(), output_hidden_states=True, output_attentions=True)
        kept = {
            name: outputs[name] for name in ("hidden_states", "mask_hidden_states", "attentions", "mask_attentions")
        }
        # The image tokens of the last layer feed nothing: neither what they are nor what they attended to.
        kept["hidden_states"], kept["attentions"] = kept["hidden_states"][:-1], kept["attentions"][:-1]
        for tensors in kept.values():
            for tensor in tensors:
                tensor.retain_grad()
        outputs[self.main_output].square().sum().backward()
        for name, tensors in kept.items():
            for layer, tensor in enumerate(tensors):
                assert tensor.grad is not None and tensor.grad.abs().sum() > 0, (name, layer)

    # Back-ends and types

    def test_eager_attention_equals_sdpa(self, model):
        use_attention(model, "eager")
        eager = self.run(model)
        use_attention(model, "sdpa")
        assert_outputs_close(self.run(model), eager, atol=5e-5)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_weights_load_and_run_near_float32(self, model, dtype, tmp_path):
        model.save_pretrained(tmp_path)
        half = self.model_class.from_pretrained(tmp_path, dtype=dtype).eval()
        assert {parameter.dtype for parameter in half.parameters()} == {dtype}
        self.assert_near_float32(self.run(half), self.run(model), dtype)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_autocast_runs_near_float32(self, model, dtype):
        with torch.autocast("cpu", dtype=dtype):
            found = self.run(model)
        self.assert_near_float32(found, self.run(model), dtype)

    def assert_near_float32(self, found: ModelOutput, wanted: ModelOutput, dtype: torch.dtype) -> None:
        found, wanted = found[self.main_output].float(), wanted[self.main_output]
        assert found.isfinite().all()
        error = (found - wanted).norm() / wanted.norm()
        assert error < 16 * torch.finfo(dtype).eps, error

    # Saving and loading

    def test_saved_model_loads_bit_for_bit_with_no_key_missing_or_unexpected(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        with raising_on_any_warning():
            loaded, report = self.model_class.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()), report
        assert_states_equal(loaded.state_dict(), model.state_dict())
        assert not loaded.training
        assert_outputs_equal(self.run(loaded), self.run(model))

    def test_shards_load_with_little_memory(self, model, tmp_path):
        model.save_pretrained(tmp_path, max_shard_size="100KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        loaded = self.model_class.from_pretrained(tmp_path, device_map="cpu")
        assert_states_equal(loaded.state_dict(), model.state_dict())
        assert_outputs_equal(self.run(loaded), self.run(model))

    def test_auto_class_loads_it(self, model, tmp_path):
        if self.auto_class is None:
            pytest.skip("no Auto class of its own")
        model.save_pretrained(tmp_path)
        loaded = self.auto_class.from_pretrained(tmp_path)
        assert type(loaded) is self.model_class
        assert_states_equal(loaded.state_dict(), model.state_dict())

    def test_model_builds_on_the_meta_device(self):
        with torch.device("meta"):
            model = self.model_class(self.config())
        ours = [name for name, _ in model.named_parameters() if not name.startswith(self.frozen_modules)]
        assert {model.get_parameter(name).device.type for name in ours} == {"meta"}
        real = self.model_class(self.config()).state_dict()
        assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
            name: tensor.shape for name, tensor in real.items()
        }

    def test_every_missing_weight_is_initialised(self):
        """Memory that nobody writes to is NaN here; a checkpoint without any weight must leave none of it."""
        torch.use_deterministic_algorithms(True)
        try:
            assert torch.empty(1).isnan()
            model = self.model_class.from_pretrained(None, config=self.config(), state_dict={})
        finally:
            torch.use_deterministic_algorithms(False)
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            assert tensor.isfinite().all(), name
            # Integers have no NaN: unwritten ones are the largest there is.
            assert tensor.is_floating_point() or tensor.max() < torch.iinfo(tensor.dtype).max, name

    def test_initial_weights_have_sane_mean_and_spread(self):
        for name, parameter in self.model_class(self.config()).named_parameters():
            if parameter.numel() > 100 and not name.startswith(self.frozen_modules):
                assert abs(parameter.mean()) < 0.1, name
                assert parameter.std() < 1.1, name

    def test_no_two_names_share_a_tensor(self, model):
        places = [tensor.data_ptr() for tensor in model.state_dict().values() if tensor.numel()]
        assert len(set(places)) == len(places)
        assert not model.all_tied_weights_keys

    @pytest.mark.parametrize("duplicate", [copy.deepcopy, pickled], ids=["deepcopy", "pickle"])
    def test_deep_copy_and_pickle_are_independent_equals(self, model, duplicate):
        if duplicate is pickled and not self.pickles:
            pytest.skip("the mask generator of transformers does not pickle")
        twin = duplicate(model)
        wanted = self.run(model)
        randomise(model, seed=7)
        assert_outputs_equal(self.run(twin), wanted)

    # Training

    def test_every_parameter_gets_a_gradient_except_the_frozen_ones(self, model):
        model.train()
        gradients = self.gradients(model)
        idle = {name for name, gradient in gradients.items() if gradient is None or not gradient.any()}
        expected = {name for name in gradients if name.startswith(self.frozen_modules)} | {
            name for name in gradients if any(part in name for part in self.unused_parameters)
        }
        assert idle == expected

    def test_a_step_moves_what_is_trained_and_nothing_else(self, model):
        before = copy.deepcopy(model.state_dict())
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trained_parameters in name)
        optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
        self.loss(model).backward()
        optimizer.step()
        moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert moved == trained and trained

    @pytest.mark.parametrize("options", [None, {"use_reentrant": False}, {"use_reentrant": True}], ids=str)
    @pytest.mark.parametrize("trained", ["", "query_proj"], ids=["all trained", "query_proj trained"])
    def test_gradient_checkpointing_changes_no_gradient(self, model, options, trained):
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained in name and not name.startswith(self.frozen_modules))
        model.train()
        wanted = self.gradients(model)
        layers = count_forwards(model, "FisaEncoderLayer")
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        if options == {"use_reentrant": True}:
            # Torch's reentrant kind drops a layer of which no input needs a gradient; this is the library's remedy.
            model.enable_input_require_grads()
        found = self.gradients(model)
        assert layers.calls == 2 * layers.modules
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            if gradient is None:
                # Reentrant checkpoints say "zero" where there is none.
                assert found[name] is None or not found[name].any(), name
            else:
                torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)

    # Batches and export

    def test_each_photo_of_a_batch_is_as_it_is_alone(self, model):
        inputs = self.inputs()
        batch = self.run(model)
        batch_size = len(inputs["pixel_values"])
        for index in range(batch_size):
            alone = {
                key: value[index : index + 1] if key in self.batched_inputs else value for key, value in inputs.items()
            }
            with torch.no_grad():
                single = model(**alone)
            torch.testing.assert_close(
                single[self.main_output][0], batch[self.main_output][index], rtol=1e-4, atol=1e-5
            )

    batched_inputs = (
        "pixel_values",
        "mask_proposals",
        "mask_generator_pixel_values",
        "mask_generator_pixel_mask",
        "objectness",
    )


def use_attention(model: nn.Module, implementation: str) -> None:
    """CLIP's attention back-end; a mask generator keeps its own, for not every one has a choice."""
    for module in model.modules():
        if type(module).__name__ == "FisaModel":
            module.set_attn_implementation(implementation)


class count_forwards:
    """Counts the runs of each module of a class, those of a recomputation included."""

    def __init__(self, model: nn.Module, class_name: str):
        self.calls = self.modules = 0
        for module in model.modules():
            if type(module).__name__ == class_name:
                self.modules += 1
                module.mask_attention.register_forward_hook(self._count)

    def _count(self, *_):
        self.calls += 1


def assert_states_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name


def assert_outputs_close(found: ModelOutput, wanted: ModelOutput, *, atol: float) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=atol, rtol=atol, msg=f"{name}: {{}}".format)


def assert_outputs_equal(found: ModelOutput, wanted: ModelOutput) -> None:
    assert_outputs_close(found, wanted, atol=0)
