"""Matching of proposals to ground truth: plain references, and the rules for ignored pixels."""

import itertools
import math

import pytest
import torch

from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.modeling_fisa.proposal_matching import UNMATCHED, match_proposals


def match(logits, masks, classes=None, *, size=None, matcher="iou", iou_threshold=0.5):
    classes = torch.arange(len(masks)) if classes is None else torch.tensor(classes)
    return match_proposals(logits, masks, classes, size=size, matcher=matcher, iou_threshold=iou_threshold).tolist()


def rectangle(top, left, bottom, right, *, shape=(8, 10)):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[top:bottom, left:right] = True
    return mask


def as_logits(*masks):
    return torch.stack([torch.where(mask, 3.0, -3.0) for mask in masks])


def random_case(seed, *, num_proposals=4, num_masks=3, shape=(6, 7)):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_proposals, *shape, generator=random)
    owner = torch.randint(num_masks + 1, shape, generator=random)
    return logits, torch.stack([owner == index for index in range(num_masks)])


def plain_iou(logits, mask, ignored):
    intersection = union = 0
    for logit, true, skip in zip(logits.flatten().tolist(), mask.flatten().tolist(), ignored.flatten().tolist()):
        if not skip:
            intersection += logit > 0 and true
            union += logit > 0 or true
    return intersection / union if union else 0.0


@pytest.mark.parametrize("seed", range(10))
def test_best_overlaps_are_those_of_a_plain_loop(seed):
    logits, masks = random_case(seed)
    ignored = masks[2]
    found = match(logits, masks, [0, 1, IGNORED], iou_threshold=0.25)
    for proposal, matched in zip(logits, found):
        overlaps = [plain_iou(proposal, mask, ignored) for mask in masks[:2]]
        inside = proposal > 0
        hidden = (inside & ignored).sum() > 0.5 * inside.sum()
        best = max(range(2), key=lambda index: overlaps[index])
        assert matched == (best if overlaps[best] >= 0.25 and not hidden else UNMATCHED)


def plain_cost(logits, mask):
    probs = [1 / (1 + math.exp(-logit)) for logit in logits.flatten().tolist()]
    truth = mask.flatten().tolist()
    entropy = -sum(math.log(p if true else 1 - p) for p, true in zip(probs, truth)) / len(truth)
    both = sum(p for p, true in zip(probs, truth) if true)
    return 5 * entropy + 5 * (1 - (2 * both + 1) / (sum(probs) + sum(truth) + 1))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("num_proposals", [2, 4])
def test_hungarian_pairs_cost_least_of_all(seed, num_proposals):
    logits, masks = random_case(seed, num_proposals=num_proposals)
    found = match(logits, masks, matcher="hungarian")
    cost = [[plain_cost(proposal, mask) for mask in masks] for proposal in logits]
    pairs = min(num_proposals, len(masks))
    cheapest = min(
        sum(cost[proposal][mask] for proposal, mask in zip(proposals, chosen))
        for proposals in itertools.permutations(range(num_proposals), pairs)
        for chosen in itertools.permutations(range(len(masks)), pairs)
    )
    assert sum(matched != UNMATCHED for matched in found) == pairs
    assert len(set(found) - {UNMATCHED}) == pairs
    total = sum(cost[index][matched] for index, matched in enumerate(found) if matched != UNMATCHED)
    assert total == pytest.approx(cheapest, rel=1e-5)


def test_several_proposals_may_mean_one_segment_by_iou_and_one_by_hungarian():
    mask = rectangle(0, 0, 4, 4)
    logits = as_logits(mask, rectangle(0, 0, 4, 5), rectangle(4, 4, 8, 8))
    assert match(logits, mask[None]) == [0, 0, UNMATCHED]
    assert match(logits, mask[None], matcher="hungarian") == [0, UNMATCHED, UNMATCHED]


def test_ignored_pixels_count_neither_way():
    mask, void = rectangle(0, 0, 4, 4), rectangle(0, 4, 4, 7)
    logits = as_logits(rectangle(0, 0, 4, 7))  # 16 pixels of the segment, 12 of void
    assert match(logits, torch.stack([mask, void]), [0, IGNORED], iou_threshold=1.0) == [0]
    assert match(logits, mask[None], [0], iou_threshold=0.6) == [UNMATCHED]  # as background they count


@pytest.mark.parametrize("matcher", ["iou", "hungarian"])
def test_a_proposal_mostly_on_ignored_pixels_means_nothing(matcher):
    mask, crowd = rectangle(0, 0, 4, 2), rectangle(0, 2, 4, 9)
    logits = as_logits(mask | crowd)
    assert match(logits, torch.stack([mask, crowd]), [0, IGNORED], matcher=matcher) == [UNMATCHED]


@pytest.mark.parametrize("matcher", ["iou", "hungarian"])
def test_ground_truth_is_averaged_to_the_grid_of_the_proposals_without_their_padding(matcher):
    masks = torch.stack([rectangle(0, 0, 8, 10, shape=(16, 20)), rectangle(8, 10, 16, 20, shape=(16, 20))])
    logits = torch.full((2, 10, 12), 50.0)  # beyond the photo's part: padding that looks like mask
    logits[0, :8, :10] = as_logits(rectangle(4, 5, 8, 10))[0]
    logits[1, :8, :10] = as_logits(rectangle(0, 0, 4, 5))[0]
    assert match(logits, masks, size=(8, 10), matcher=matcher) == [1, 0]


@pytest.mark.parametrize("matcher", ["iou", "hungarian"])
def test_extreme_logits_and_half_precision(matcher):
    masks = torch.stack([rectangle(0, 0, 4, 4), rectangle(4, 4, 8, 10)])
    logits = as_logits(masks[1], masks[0]) * 1e4
    logits[0, 0, 0] = -float("inf")
    assert match(logits, masks, matcher=matcher) == [1, 0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert match(logits.bfloat16(), masks, matcher=matcher) == [1, 0]


@pytest.mark.parametrize("matcher", ["iou", "hungarian"])
@pytest.mark.parametrize(("num_proposals", "classes"), [(0, [0]), (2, []), (2, [IGNORED])])
def test_nothing_to_match(matcher, num_proposals, classes):
    masks = torch.ones(len(classes), 8, 10, dtype=torch.bool)
    found = match(torch.ones(num_proposals, 8, 10), masks, classes, matcher=matcher)
    assert found == [UNMATCHED] * num_proposals


def test_ground_truth_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"classes of shape \(2,\)"):
        match(torch.ones(1, 4, 4), torch.ones(1, 4, 4), [0, 1])
