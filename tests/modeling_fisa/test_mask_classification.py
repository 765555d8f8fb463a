"""From mask embeddings to scores, each step by itself on numbers that can be followed by hand."""

import pytest
import torch

from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary
from fisa.modeling_fisa.mask_classification import (
    class_logits,
    ensemble_with_generator,
    joint_log_probs,
    known_class_ids,
)
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.models import tiny_segmentation_model


NONE = torch.tensor(0.0)


def logits_of(mask_embeds, class_embeds, *, class_ids=None, scale=NONE):
    class_ids = None if class_ids is None else torch.tensor(class_ids)
    vocabulary = EncodedVocabulary(class_embeds, prompt_class_ids=class_ids)
    return class_logits(mask_embeds, vocabulary, logit_scale=scale)


def test_logits_are_cosines_times_the_temperature():
    masks, texts = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[2.0, 0.0], [0.0, -1.0], [6.0, 8.0]])
    logits = logits_of(masks, texts, scale=torch.tensor(100.0).log())
    torch.testing.assert_close(logits, torch.tensor([[[60.0, -80.0, 100.0]]]))


def test_a_class_counts_as_its_best_prompt():
    masks, texts = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert logits_of(masks, texts, class_ids=[1, 1, 0]).tolist() == [[[-1.0, 1.0], [0.0, 1.0]]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("autocast", [False, True], ids=["half weights", "autocast"])
@torch.no_grad()
def test_scores_are_computed_in_float32_whatever_the_model_runs_in(dtype, autocast):
    model = tiny_segmentation_model()
    model.fisa.logit_scale.fill_(100.0).log_()
    inputs = tiny_inputs(num_classes=7)
    if not autocast:
        model.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        outputs = model(**inputs)
    assert outputs.mask_embeds.dtype == dtype
    masks, texts = (outputs[name].double() for name in ("mask_embeds", "class_embeds"))
    cosines = torch.nn.functional.cosine_similarity(masks.unsqueeze(2), texts.unsqueeze(1), dim=-1)
    wanted = (model.fisa.logit_scale.double().exp() * cosines).float()
    assert outputs.logits_per_mask.dtype == outputs.class_queries_logits.dtype == torch.float32
    torch.testing.assert_close(outputs.logits_per_mask, wanted, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(outputs.class_queries_logits[..., :-1], wanted.log_softmax(-1), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@torch.no_grad()
def test_the_classifier_alone_may_run_in_half_precision(dtype):
    model = tiny_segmentation_model("mask2former")
    inputs = tiny_inputs()
    del inputs["mask_proposals"]
    inputs |= tiny_generator_inputs([(64, 64), (64, 48)], canvas=(64, 64))
    wanted = model(**inputs)
    model.config.classifier_dtype = dtype
    found = model(**inputs)
    assert found.mask_embeds.dtype == getattr(torch, dtype) and found.class_queries_logits.dtype == torch.float32
    assert torch.equal(found.masks_queries_logits, wanted.masks_queries_logits)
    assert torch.equal(found.objectness, wanted.objectness)
    torch.testing.assert_close(found.mask_embeds.float(), wanted.mask_embeds, atol=0.05, rtol=0.05)


def test_gradient_reaches_the_best_prompt_only():
    texts = torch.tensor([[1.0, 0.1], [0.1, 1.0]], requires_grad=True)
    logits_of(torch.tensor([[[1.0, 0.0]]]), texts, class_ids=[0, 0]).sum().backward()
    assert texts.grad[0].any() and not texts.grad[1].any()


@pytest.mark.parametrize(("known", "probability"), [(0, 0.9), (1, 0.1)])
def test_ensemble_mixes_known_classes_and_keeps_the_ratio_of_the_others(known, probability):
    clip = torch.tensor([[[0.5, 0.2, 0.3]]])
    generator = torch.tensor([[[0.9, 0.1]]])
    mixed = ensemble_with_generator(
        clip.log(), generator.log(), generator_class_ids=torch.tensor([known, -1, -1]), weight=0.5
    ).exp()
    unscaled = torch.tensor([(0.5 * probability) ** 0.5, 0.2, 0.3])
    torch.testing.assert_close(mixed[0, 0], unscaled / unscaled.sum())


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_ensemble_stays_a_distribution(weight):
    log_probs = torch.randn(2, 3, 4).log_softmax(-1)
    mixed = ensemble_with_generator(
        log_probs, torch.randn(2, 3, 6), generator_class_ids=torch.tensor([5, -1, 0, 0]), weight=weight
    )
    torch.testing.assert_close(mixed.exp().sum(-1), torch.ones(2, 3))
    if weight == 0:
        torch.testing.assert_close(mixed, log_probs)


def test_generator_logits_of_no_known_class_change_nothing():
    log_probs = torch.randn(2, 3, 4).log_softmax(-1)
    unknown = torch.full((4,), -1)
    mixed = ensemble_with_generator(log_probs, torch.randn(2, 3, 6), generator_class_ids=unknown, weight=0.7)
    torch.testing.assert_close(mixed, log_probs)


@pytest.mark.parametrize(
    "names, known",
    [
        (["cat"], 0),
        (["Cat"], 0),
        (["kitten", "cat"], 0),
        (["wall"], 1),
        (["wall other"], -1),
        (["wall-other-merged"], 1),
        (["traffic light"], 2),
        (["traffic-light"], 2),
        (["floor-wood"], 3),
        (["floor wood"], 3),
        (["water"], 4),
        (["dog"], -1),
        (["category"], -1),
    ],
    ids=str,
)
def test_generator_classes_are_known_by_any_name_without_cocos_marks(names, known):
    labels = {0: "cat", 1: "wall-other-merged", 2: "traffic light", 3: "floor-wood", 4: "water-other"}
    assert known_class_ids([["something else"], names], labels) == [-1, known]


@pytest.mark.parametrize("objectness", [0.0, 1e-38, 1e-7, 0.5, 1 - 1e-7, 1.0])
def test_joint_log_probs_are_finite_and_give_the_scores_back(objectness):
    log_probs = torch.tensor([[[-0.1, -2.3, -200.0]]]).log_softmax(-1)
    joint = joint_log_probs(log_probs, torch.tensor([[objectness]]))
    assert joint.isfinite().all()
    scores = joint.softmax(-1)[0, 0]
    torch.testing.assert_close(scores[:-1], log_probs.exp()[0, 0] * objectness)
    torch.testing.assert_close(scores[-1].item(), 1 - objectness, atol=1e-6, rtol=1e-6)
