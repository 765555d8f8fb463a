"""Perfect classes and perfect masks: the best assignment there is, and what it leaves out."""

import itertools

import numpy as np
import pytest
import torch

from fisa.evaluation.oracle import perfect_classes, perfect_masks
from tests.evaluation.plain_metrics import CATEGORIES, cells


CAT, SKY, DOG = 1, 5, 9


def reference(label, *segments):
    infos = [{"id": i, "category_id": c, "iscrowd": int(bool(rest))} for i, c, *rest in segments]
    return {"image_id": "1", "segmentation": np.asarray(label), "segments_info": infos}


def classes_of(masks, true, *, size=None):
    """Class index of each mask; `None` for no object."""
    found = perfect_classes(torch.as_tensor(masks, dtype=torch.float32) * 2 - 1, size, true, CATEGORIES)
    assert found.shape == (len(masks), len(CATEGORIES) + 1)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(len(masks)))
    return [None if place == len(CATEGORIES) else place for place in found.argmax(-1).tolist()]


def test_masks_are_the_segments_but_for_crowds():
    label = [[1, 1, 2], [3, 3, 0]]
    masks, segments = perfect_masks(reference(label, (1, CAT), (2, SKY), (3, CAT, True)))
    assert [info["id"] for info in segments] == [1, 2]
    assert masks.tolist() == [[[True, True, False], [False] * 3], [[False, False, True], [False] * 3]]


def test_each_segment_gives_its_class_to_one_mask():
    true = reference([[1, 1, 2, 2]], (1, DOG), (2, SKY))
    masks = [[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[0, 0, 0, 1]]]
    # The second mask is the dog's as well, but worse than the first.
    assert classes_of(masks, true) == [2, None, 1]


def test_a_mask_that_touches_no_segment_is_no_object():
    true = reference([[1, 0, 2, 2]], (1, DOG), (2, CAT, True))
    assert classes_of([[[0, 0, 1, 1]], [[0, 1, 0, 0]]], true) == [None, None]
    assert classes_of([[[1, 0, 0, 0]]], reference([[0, 0, 0, 0]])) == [None]


def test_void_and_crowds_are_left_out_of_the_overlap():
    # Over all pixels the first mask fits the dog better; void and crowd left out, the second does.
    true = reference([[1, 1, 1, 0, 0, 2, 2, 2]], (1, DOG), (2, CAT, True))
    masks = [[[1, 1, 0, 0, 0, 0, 0, 0]], [[1, 1, 1, 1, 1, 1, 1, 1]]]
    assert classes_of(masks, true) == [None, 2]


@pytest.mark.parametrize("seed", range(5))
def test_no_assignment_has_a_larger_sum_of_ious(seed):
    random = np.random.default_rng(seed)
    label = cells(random, 12, 14, 3) + 1
    masks = [cells(random, 12, 14, 3) == 0 for _ in range(4)]
    categories = [{"id": i} for i in (1, 2, 3)]
    true = reference(label, (1, 1), (2, 2), (3, 3))
    found = perfect_classes(torch.tensor(np.array(masks)) * 2.0 - 1, None, true, categories).argmax(-1).tolist()

    def iou(mask, i):
        return (mask & (label == i)).sum() / (mask | (label == i)).sum()

    total = sum(iou(masks[place], index + 1) for place, index in enumerate(found) if index < 3)
    best = max(sum(iou(masks[place], i + 1) for i, place in enumerate(order))
               for order in itertools.permutations(range(4), 3))  # fmt: skip
    assert total == pytest.approx(best)


def test_masks_on_a_padded_canvas_are_cropped_and_enlarged():
    true = reference(np.kron([[1, 2]], np.ones((4, 4), int)), (1, CAT), (2, SKY))
    canvas = np.zeros((2, 4, 6))
    canvas[0, :2, :2], canvas[1, :2, 2:4] = 1, 1
    canvas[:, 2:], canvas[:, :, 4:] = 1, 1  # what lies outside the photo
    assert classes_of(canvas, true, size=(2, 4)) == [0, 1]
