"""The loss: a plain reference, gradients, batches in pieces, and the two ways in which labels come."""

import math

import pytest
import torch

from fisa.modeling_fisa.loss_fisa import IGNORED, mask_classification_loss
from tests.configurations import tiny_inputs
from tests.models import tiny_segmentation_model


LABELS = torch.tensor([[0, 2, IGNORED, 1], [IGNORED] * 4, [IGNORED, 1, IGNORED, IGNORED]])


def logits_for(labels, *, num_classes=3, dtype=torch.float32):
    random = torch.Generator().manual_seed(0)
    return torch.randn(*labels.shape, num_classes, generator=random, dtype=dtype)


def plain_loss(logits, labels):
    total = 0.0
    for photo, photo_labels in zip(logits.tolist(), labels.tolist()):
        losses = []
        for scores, label in zip(photo, photo_labels):
            if label != IGNORED:
                losses.append(math.log(sum(math.exp(score) for score in scores)) - scores[label])
        total += sum(losses) / len(losses) if losses else 0.0
    return total / len(labels)


def test_equals_a_plain_loop():
    logits = logits_for(LABELS, dtype=torch.float64)
    assert mask_classification_loss(logits, LABELS).item() == pytest.approx(plain_loss(logits, LABELS), abs=1e-12)


def test_gradients_are_those_of_finite_differences():
    logits = logits_for(LABELS, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits: mask_classification_loss(logits, LABELS), [logits])


@pytest.mark.parametrize("shape", [(2, 4), (2, 0)])
def test_nothing_to_learn_gives_zero_and_zero_gradients(shape):
    labels = torch.full(shape, IGNORED)
    logits = logits_for(labels).requires_grad_()
    loss = mask_classification_loss(logits, labels)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_batch_in_pieces_has_the_gradients_of_the_whole():
    whole = logits_for(LABELS, dtype=torch.float64).requires_grad_()
    mask_classification_loss(whole, LABELS).backward()
    pieces = whole.detach().clone().requires_grad_()
    for index in range(len(LABELS)):
        (mask_classification_loss(pieces[index : index + 1], LABELS[index : index + 1]) / len(LABELS)).backward()
    torch.testing.assert_close(pieces.grad, whole.grad)


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_label_that_is_no_class_is_refused(wrong):
    with pytest.raises(ValueError, match=f"holds {wrong}; classes go from 0 to 2"):
        mask_classification_loss(logits_for(LABELS), torch.full_like(LABELS, wrong))
    only_the_last = LABELS.clone()
    only_the_last[-1, -1] = wrong
    with pytest.raises(ValueError, match=f"holds {wrong}; classes go from 0 to 2"):
        mask_classification_loss(logits_for(LABELS), only_the_last)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(3, 2\); there must be one label per mask, \(3, 4\)"):
        mask_classification_loss(logits_for(LABELS), LABELS[:, :2])


class TestInTheModel:
    """The loss as forward gives it."""

    @pytest.fixture
    def model(self):
        return tiny_segmentation_model()

    def test_without_labels_there_is_none(self, model):
        assert model(**tiny_inputs()).loss is None

    def test_labels_of_ready_proposals(self, model):
        labels = torch.tensor([[0, IGNORED, 2, 1], [1, 1, IGNORED, 0]])
        outputs = model(**tiny_inputs(), class_labels=labels)
        assert outputs.loss.item() == pytest.approx(plain_loss(outputs.logits_per_mask, labels), abs=1e-5)

    def test_matched_labels_equal_labels_given_outright(self, model):
        inputs = tiny_inputs()
        masks = [
            (inputs["mask_proposals"][index] > 0)[[2, 0]] for index in range(2)
        ]  # two of the proposals themselves
        classes = [torch.tensor([1, 2]), torch.tensor([0, IGNORED])]
        matched = model(**inputs, mask_labels=masks, class_labels=classes).loss
        labels = torch.tensor([[2, IGNORED, 1, IGNORED], [IGNORED, IGNORED, 0, IGNORED]])
        expected = model(**inputs, class_labels=labels).loss
        # Other proposals may overlap a mask by half as well; with these photos none does.
        torch.testing.assert_close(matched, expected)

    def test_a_list_of_labels_without_their_masks_is_refused(self, model):
        with pytest.raises(ValueError, match="`class_labels` is a list and `mask_labels` are missing"):
            model(**tiny_inputs(), class_labels=[torch.tensor([1, 2]), torch.tensor([0])])

    def test_each_photo_may_have_its_own_vocabulary(self, model):
        inputs = tiny_inputs()
        texts = torch.stack([inputs.pop("class_embeds"), torch.randn(3, model.config.projection_dim)])
        labels = torch.tensor([[0, 1, 2, IGNORED], [2, IGNORED, 0, 0]])
        together = model(**inputs, class_embeds=texts, class_labels=labels).loss
        alone = [
            model(
                **{name: tensor[index : index + 1] for name, tensor in inputs.items()},
                class_embeds=texts[index],
                class_labels=labels[index : index + 1],
            ).loss
            for index in range(2)
        ]
        torch.testing.assert_close(together, sum(alone) / 2)

    def test_a_batch_without_ground_truth_gives_zero_gradients(self, model):
        inputs = tiny_inputs()
        nothing = [torch.zeros(0, 13, 17, dtype=torch.bool)] * 2
        model.zero_grad()
        loss = model(**inputs, mask_labels=nothing, class_labels=[torch.zeros(0, dtype=torch.long)] * 2).loss
        loss.backward()
        assert loss.item() == 0
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert gradients and all(torch.equal(gradient, torch.zeros_like(gradient)) for gradient in gradients)

    def test_under_autocast_it_is_finite_and_near(self, model):
        inputs = tiny_inputs()
        inputs["mask_proposals"] = inputs["mask_proposals"] * 1e4
        masks, classes = [inputs["mask_proposals"][index][:2] > 0 for index in range(2)], [torch.tensor([0, 1])] * 2
        model.config.proposal_matcher = "hungarian"
        plain = model(**inputs, mask_labels=masks, class_labels=classes).loss
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model(**inputs, mask_labels=masks, class_labels=classes).loss
        model.config.proposal_matcher = "iou"
        assert rounded.isfinite() and plain.isfinite()
        torch.testing.assert_close(rounded.float(), plain, rtol=0.1, atol=0.1)

    def test_labels_of_another_number_of_photos_are_refused(self, model):
        with pytest.raises(ValueError, match="`mask_labels` of 1 photos"):
            model(**tiny_inputs(), mask_labels=[torch.zeros(0, 4, 4)], class_labels=[torch.zeros(0).long()] * 2)


def test_log_priors_are_added_to_the_logits_in_the_loss_alone():
    model, inputs = tiny_segmentation_model(), tiny_inputs()
    labels = torch.tensor([[0, 1, 2, IGNORED], [2, IGNORED, 0, 1]])
    priors = torch.tensor([0.7, 0.2, 0.1]).log()
    with torch.no_grad():
        plain = model(**inputs, class_labels=labels)
        adjusted = model(**inputs, class_labels=labels, class_log_priors=priors)
        a_set_a_photo = model(**inputs, class_labels=labels, class_log_priors=priors.expand(2, -1))
    assert torch.equal(adjusted.class_queries_logits, plain.class_queries_logits)
    assert adjusted.loss.item() == pytest.approx(plain_loss(plain.logits_per_mask + priors, labels), abs=1e-5)
    assert torch.equal(a_set_a_photo.loss, adjusted.loss)


def test_with_true_log_priors_nothing_pulls_towards_frequent_classes():
    """Without them a classifier that sees nothing is pulled to the frequencies, away from equal logits."""
    labels = torch.tensor([[0] * 7 + [1] * 2 + [2]])
    frequencies = torch.bincount(labels.flatten()) / labels.numel()
    for priors, pull in ((torch.zeros(3), 1 / 3 - frequencies), (frequencies.log(), torch.zeros(3))):
        logits = torch.zeros(3, requires_grad=True)
        mask_classification_loss((logits + priors).expand(1, 10, 3), labels).backward()
        torch.testing.assert_close(logits.grad, pull, atol=1e-6, rtol=0)
