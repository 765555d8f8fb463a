"""The ends of the ranges: nothing covered, nothing proposed, one class, thousands; and inputs that do not fit."""

import pytest
import torch

from fisa import FisaForUniversalSegmentation, FisaModel
from fisa.processing.vocabulary import Vocabulary
from tests.configurations import PROJECTION_DIM, tiny_config, tiny_inputs
from tests.models import tiny_model, tiny_segmentation_model
from tests.quiet import raising_on_any_warning


@pytest.fixture(params=["eager", "sdpa"])
def model(request) -> FisaForUniversalSegmentation:
    model = tiny_segmentation_model()
    model.fisa.set_attn_implementation(request.param)
    return model


def run_silently(model, inputs):
    with raising_on_any_warning(), torch.no_grad():
        outputs = model(**inputs)
    assert all(value.isfinite().all() for value in outputs.to_tuple())
    probabilities = outputs.class_queries_logits.softmax(dim=-1)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(probabilities.shape[:-1]))
    return outputs


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_a_proposal_that_covers_nothing_attends_to_the_class_token_alone(threshold):
    model = tiny_model(mask_coverage_threshold=threshold)
    model.set_attn_implementation("eager")
    inputs = tiny_inputs()
    inputs["mask_proposals"][:, 1] = -1.0
    with raising_on_any_warning(), torch.no_grad():
        outputs = model(**inputs, output_attentions=True)
    assert outputs.mask_embeds.isfinite().all()
    for weights in outputs.mask_attentions:
        assert torch.equal(weights[:, :, 1], torch.eye(1, 17).expand(2, 4, 17))


def test_no_proposal_covers_anything(model):
    inputs = tiny_inputs()
    run_silently(model, {**inputs, "mask_proposals": torch.zeros_like(inputs["mask_proposals"])})


def test_no_proposals(model):
    outputs = run_silently(model, tiny_inputs(num_proposals=0))
    assert outputs.class_queries_logits.shape == (2, 0, 4)
    assert outputs.masks_queries_logits.shape == (2, 0, 13, 17)


def test_one_class_takes_all_the_objectness(model):
    inputs = tiny_inputs(num_classes=1)
    objectness = torch.rand(2, 4)
    outputs = run_silently(model, {**inputs, "objectness": objectness})
    torch.testing.assert_close(outputs.class_queries_logits[..., 0].exp(), objectness)


def test_five_thousand_classes(model):
    outputs = run_silently(model, tiny_inputs(num_classes=5000))
    assert outputs.class_queries_logits.shape == (2, 4, 5001)


@pytest.mark.parametrize("objectness", [0.0, 1.0])
def test_certain_objectness_stays_finite(model, objectness):
    outputs = run_silently(model, {**tiny_inputs(), "objectness": torch.full((2, 4), objectness)})
    torch.testing.assert_close(outputs.class_queries_logits[..., -1].exp(), torch.full((2, 4), 1 - objectness))


def test_sharpest_temperature_stays_finite(model):
    """CLIP's checkpoints have the temperature of 1 / 100; a class that is out of the question must not become −∞."""
    with torch.no_grad():
        model.fisa.logit_scale.fill_(100.0).log_()
    run_silently(model, tiny_inputs(num_classes=50))


def test_gradients_are_finite_at_every_edge():
    model = tiny_segmentation_model(mask_coverage_threshold=0.5).train()
    inputs = tiny_inputs()
    inputs["mask_proposals"][:, 0] = -1.0
    objectness = torch.tensor([[0.0, 1.0, 0.5, 0.1]] * 2)
    outputs = model(**inputs, objectness=objectness, prompt_class_ids=torch.tensor([0, 0, 1]))
    outputs.class_queries_logits.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (512, 512)], ids=str)
def test_masks_of_any_size(model, size):
    run_silently(model, tiny_inputs(mask_size=size))


# Ready proposals


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=str)
def test_masks_of_any_type_are_the_same_masks(model, dtype):
    inputs = tiny_inputs()
    wanted = run_silently(model, inputs)
    masks = (inputs["mask_proposals"] > 0).to(dtype)
    if dtype.is_floating_point:
        masks = masks - 0.5
    found = run_silently(model, {**inputs, "mask_proposals": masks})
    assert torch.equal(found.class_queries_logits, wanted.class_queries_logits)
    assert torch.equal(found.masks_queries_logits > 0, wanted.masks_queries_logits > 0)
    assert found.masks_queries_logits.is_floating_point()


def test_binary_masks_survive_sigmoid_and_threshold(model):
    masks = tiny_inputs()["mask_proposals"] > 0
    logits = run_silently(model, {**tiny_inputs(), "mask_proposals": masks}).masks_queries_logits
    torch.testing.assert_close(logits.sigmoid(), masks.float(), atol=1e-4, rtol=0)


def test_objectness_is_one_unless_given(model):
    inputs = tiny_inputs()
    assert torch.equal(run_silently(model, inputs).objectness, torch.ones(2, 4))
    objectness = torch.rand(2, 4, dtype=torch.float64)
    found = run_silently(model, {**inputs, "objectness": objectness}).objectness
    assert torch.equal(found, objectness.float())


def test_the_mask_generator_does_not_run_for_ready_proposals():
    model = tiny_segmentation_model("mask2former")
    inputs = tiny_inputs()
    with torch.no_grad():
        wanted = model(**inputs)
        model.mask_generator = Refusing()
        assert torch.equal(model(**inputs).class_queries_logits, wanted.class_queries_logits)


def test_a_model_without_mask_generator_gives_the_same_for_ready_proposals():
    with_generator = tiny_segmentation_model("eomt")
    without = FisaForUniversalSegmentation(tiny_config()).eval()
    without.fisa.load_state_dict(with_generator.fisa.state_dict())
    assert without.mask_generator is None
    inputs = tiny_inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            without(**inputs).class_queries_logits, with_generator(**inputs).class_queries_logits, atol=1e-5, rtol=1e-5
        )


class Refusing(torch.nn.Module):
    def forward(self, *args, **kwargs):
        raise AssertionError("the mask generator ran")


# What does not fit


def without(inputs, *names):
    return {key: value for key, value in inputs.items() if key not in names}


TOKENS = torch.tensor([[62, 5, 63]])

MISFITS = {
    "no masks, no generator": (lambda i: without(i, "mask_proposals"), "mask_proposals.*no mask generator"),
    "no vocabulary": (lambda i: without(i, "class_embeds"), "input_ids.*class_embeds.*set_vocabulary"),
    "two vocabularies": (lambda i: {**i, "input_ids": TOKENS}, "input_ids.*class_embeds"),
    "masks of one photo": (
        lambda i: {**i, "mask_proposals": i["mask_proposals"][0]},
        r"mask_proposals.*\(4, 13, 17\)",
    ),
    "objectness too long": (lambda i: {**i, "objectness": torch.ones(2, 5)}, r"objectness.*\(2, 5\).*\(2, 4\)"),
    "fewer masks than photos": (
        lambda i: {**i, "mask_proposals": i["mask_proposals"][:1]},
        r"mask_proposals.* 1 .*pixel_values.* 2",
    ),
    "texts of the wrong width": (
        lambda i: {**i, "class_embeds": torch.ones(3, PROJECTION_DIM + 1)},
        f"class_embeds.*{PROJECTION_DIM + 1}.*{PROJECTION_DIM}",
    ),
    "class ids too short": (
        lambda i: {**i, "prompt_class_ids": torch.tensor([0, 1])},
        r"prompt_class_ids.*2.*3",
    ),
    "fewer things than classes": (
        lambda i: {**i, "prompt_class_ids": torch.tensor([0, 1, 2]), "class_is_thing": torch.tensor([True])},
        "class_is_thing.*1",
    ),
    "more things than classes": (
        lambda i: {**i, "class_is_thing": torch.ones(5, dtype=torch.bool)},
        "class_is_thing.*5.*0 to 4",
    ),
    "a class without a prompt": (
        lambda i: {**i, "prompt_class_ids": torch.tensor([0, 0, 2])},
        "classes 0, 2.*0 to 1",
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_is_named(misfit):
    spoil, message = MISFITS[misfit]
    with pytest.raises(ValueError, match=message):
        tiny_segmentation_model()(**spoil(tiny_inputs()))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"objectness": torch.ones(2, 4)}, "mask_proposals"),
        ({"prompt_class_ids": torch.tensor([0])}, "class_embeds"),
        ({"class_kinds": torch.tensor([1, 0])}, "class_embeds"),
        ({"prompt_other_ids": torch.tensor([0])}, "other_embeds"),
    ],
    ids=["objectness", "classes", "kinds", "others"],
)
def test_what_belongs_to_something_that_is_missing_is_refused(given, missing):
    model = tiny_segmentation_model("mask2former")
    inputs = tiny_inputs()
    embeds = inputs["class_embeds"]
    model.fisa.store_vocabulary(Vocabulary.parse("a, b, c").to_config(), embeds)
    if missing != "other_embeds":
        inputs = without(inputs, missing)
    with pytest.raises(ValueError, match=f"`{next(iter(given))}`.*`{missing}`"):
        model(**inputs, **given)


def test_a_model_with_a_generator_names_its_inputs_when_they_are_missing():
    with pytest.raises(ValueError, match="mask_generator_pixel_values"):
        tiny_segmentation_model("eomt")(**without(tiny_inputs(), "mask_proposals"))


def test_seve_without_class_texts_is_refused_and_without_seve_none_are_needed():
    inputs = without(tiny_inputs(), "class_embeds")
    with pytest.raises(ValueError, match="SEVE needs class texts"):
        tiny_model()(**inputs)
    outputs = FisaModel(tiny_config(seve_layers=[])).eval()(**inputs)
    assert outputs.mask_embeds.isfinite().all() and outputs.class_embeds is None


# Devices


@pytest.mark.parametrize("sizes", [None, torch.tensor([[13, 17], [9, 9]])], ids=["whole", "padded"])
def test_everything_is_computed_where_the_model_is(sizes):
    """The meta device refuses tensors from elsewhere as an accelerator does, and needs none."""
    model = tiny_model(seve_layers=[0, 1]).to("meta")
    inputs = {key: value.to("meta") for key, value in tiny_inputs().items()}
    outputs = model(**inputs, proposal_sizes=None if sizes is None else sizes.to("meta"), output_hidden_states=True)
    assert outputs.mask_embeds.is_meta and outputs.mask_embeds.shape == (2, 4, PROJECTION_DIM)


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32], ids=str)
def test_scores_are_computed_where_the_model_is(dtype):
    model = tiny_segmentation_model().to("meta")
    inputs = {key: value.to("meta") for key, value in tiny_inputs().items()}
    outputs = model(**{**inputs, "mask_proposals": inputs["mask_proposals"].to(dtype)})
    assert all(value.is_meta for value in outputs.to_tuple())
