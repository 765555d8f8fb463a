"""`pixel_values` without a view for the generator: what transformers' own training scripts hand over."""

import logging

import pytest
import torch

from fisa import FisaForUniversalSegmentation, FisaImageProcessor


@pytest.fixture
def model(checkpoint):
    return FisaForUniversalSegmentation.from_pretrained(checkpoint)


@pytest.fixture
def processor(checkpoint):
    return FisaImageProcessor.from_pretrained(checkpoint)


@pytest.fixture
def pixel_values(processor, photo):
    mirrored = photo.transpose(0)
    return processor([photo, mirrored], return_tensors="pt")["pixel_values"]


@pytest.fixture
def truth():
    """Ground truth of two photos with different numbers of masks, on grids of different sizes."""
    masks = torch.zeros(3, 40, 60)
    masks[0, :20], masks[1, 20:, :30], masks[2, 20:, 30:] = 1, 1, 1
    other = torch.zeros(1, 20, 20)
    other[0, 5:15, 5:15] = 1
    return {"mask_labels": [masks, other], "class_labels": [torch.tensor([0, 2, 1]), torch.tensor([1])]}


def loss_of_ready_masks(model, pixel_values, truth):
    """The same loss, photo by photo, from ready proposals."""
    losses = [
        model(pixel_values[index, None], mask_proposals=masks[None] > 0, class_labels=classes[None]).loss
        for index, (masks, classes) in enumerate(zip(truth["mask_labels"], truth["class_labels"]))
    ]
    return torch.stack(losses).mean()


def test_training_names_the_ground_truth(model, pixel_values, truth):
    model.train()
    outputs = model(pixel_values, **truth)
    torch.testing.assert_close(outputs.loss, loss_of_ready_masks(model, pixel_values, truth))
    assert outputs.class_queries_logits.shape[1] == 3
    outputs.loss.backward()
    assert model.fisa.visual_projection.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_measuring_never_sees_the_ground_truth(model, pixel_values, truth, training):
    """In training mode without gradients too: so measures transformers' script that has no Trainer."""
    model.train(training)
    with torch.no_grad():
        measured = model(pixel_values, **truth)
        alone = model(pixel_values)
        expected = loss_of_ready_masks(model, pixel_values, truth)
    assert torch.equal(measured.class_queries_logits, alone.class_queries_logits)
    assert torch.equal(measured.masks_queries_logits, alone.masks_queries_logits)
    torch.testing.assert_close(measured.loss, expected)


def test_gradients_in_evaluation_mode_change_no_answer(model, pixel_values, truth):
    outputs = model.eval()(pixel_values, **truth)
    assert torch.equal(outputs.masks_queries_logits, model(pixel_values).masks_queries_logits)
    outputs.loss.backward()


@torch.no_grad()
def test_the_generators_view_is_made_once_and_said(model, processor, pixel_values, caplog):
    with caplog.at_level(logging.WARNING):
        outputs = [model(pixel_values) for _ in range(2)]
    assert sum("came alone" in record.message for record in caplog.records) == 1
    expected = model(pixel_values, **processor.mask_generator_view(pixel_values))
    for output in outputs:
        assert torch.equal(output.class_queries_logits, expected.class_queries_logits)
        assert output.proposal_sizes is None


@torch.no_grad()
def test_no_folder_to_know_the_view_from(model, pixel_values):
    model.name_or_path = ""
    with pytest.raises(ValueError, match="was not loaded from a folder"):
        model(pixel_values)


def test_photos_without_masks(model, pixel_values):
    model.train()
    nothing = [torch.zeros(0, 8, 8), torch.zeros(0, 8, 8)]
    outputs = model(pixel_values, mask_labels=nothing, class_labels=[torch.zeros(0, dtype=torch.long)] * 2)
    assert outputs.loss == 0
    outputs.loss.backward()


def test_masks_without_classes_are_refused(model, pixel_values, truth):
    with pytest.raises(ValueError, match="class_labels"):
        model(pixel_values, mask_labels=truth["mask_labels"])
