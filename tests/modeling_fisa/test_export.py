"""torch.compile and torch.export trace the models whole, and what they make gives the same numbers."""

import pytest
import torch
from packaging import version
from torch import nn

from tests.configurations import tiny_inputs
from tests.models import tiny_model, tiny_segmentation_model


class AsTuple(nn.Module):
    """Export wants tensors out, and the inputs by name."""

    def __init__(self, model: nn.Module, *names: str):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, **inputs):
        outputs = self.model(**inputs)
        return tuple(outputs[name] for name in self.names)


def assert_export_equals_eager(model, inputs, *names):
    module = AsTuple(model, *names).eval()
    program = torch.export.export(module, (), inputs)
    others = {
        key: torch.roll(value, 1, dims=0) if key in ("pixel_values", "mask_proposals") else value
        for key, value in inputs.items()
    }
    with torch.no_grad():
        for given in (inputs, others):
            for found, wanted in zip(program.module()(**given), module(**given), strict=True):
                torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_exported_model_equals_eager(attention):
    model = tiny_model(seve_layers=[0, 1], mask_coverage_threshold=0.5)
    model.set_attn_implementation(attention)
    assert_export_equals_eager(model, tiny_inputs(), "mask_embeds", "last_hidden_state")


VOCABULARIES = {
    "embeddings": {},
    "embeddings with synonyms": {
        "prompt_class_ids": torch.tensor([0, 1, 1]),
        "class_is_thing": torch.tensor([True, False]),
    },
}


@pytest.mark.parametrize("vocabulary", VOCABULARIES)
def test_exported_classification_of_ready_proposals_equals_eager(vocabulary):
    model = tiny_segmentation_model("eomt")
    inputs = {**tiny_inputs(), **VOCABULARIES[vocabulary], "objectness": torch.rand(2, 4)}
    assert_export_equals_eager(model, inputs, "class_queries_logits", "masks_queries_logits", "mask_embeds")


def test_exported_classification_with_the_stored_vocabulary_equals_eager():
    model = tiny_segmentation_model()
    inputs = tiny_inputs()
    classes = [{"name": "a", "synonyms": ["b"], "is_thing": True}, {"name": "c", "synonyms": [], "is_thing": False}]
    model.config.store_vocabulary(classes)
    model.fisa.register_buffer("class_embeds", inputs.pop("class_embeds"))
    assert_export_equals_eager(model, inputs, "class_queries_logits", "class_is_thing")


@pytest.mark.skipif(version.parse(torch.__version__) < version.parse("2.12"), reason="older PyTorch breaks the graph")
# Inductor calls a C++ compiler, which takes a minute; what could break here, the tracing, is the same for both.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.large)])
def test_compiled_model_is_one_graph_and_equals_eager(backend):
    torch.compiler.reset()
    model = tiny_model(seve_layers=[0], vision={"num_hidden_layers": 1}).train()
    inputs = tiny_inputs()
    runs = []
    for run in (model, torch.compile(model, fullgraph=True, backend=backend)):
        model.zero_grad()
        outputs = run(**inputs)
        outputs.mask_embeds.square().sum().backward()
        gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
        runs.append({"mask_embeds": outputs.mask_embeds, "class_embeds": outputs.class_embeds, **gradients})
    wanted, found = runs
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-4)
    # Where a parameter has no part in the loss, a compiled graph says zero.
    assert not any(found[name].any() for name in found.keys() - wanted.keys())
