"""Areas and boxes of segments, against looking at every pixel."""

import numpy as np
import pytest
import torch

from fisa.processing.coco_panoptic import numbered
from fisa.processing.regions import Runs, areas_and_boxes
from fisa.processing.segmentation import Segmentation


def plainly(ids, count):
    areas, boxes = [], []
    for number in range(count):
        rows, columns = np.nonzero(ids == number)
        areas.append(len(rows))
        left, top = (columns.min(), rows.min()) if len(rows) else (0, 0)
        boxes.append([left, top, columns.max() + 1 - left, rows.max() + 1 - top] if len(rows) else [0, 0, 0, 0])
    return areas, boxes


def maps():
    random = np.random.default_rng(0)
    for size in ((1, 1), (1, 9), (9, 1), (7, 5), (40, 30)):
        yield random.integers(0, 4, size)
        yield np.repeat(random.integers(0, 4, size), 3, axis=1)
        yield np.sort(random.integers(0, 4, size), axis=None).reshape(size)  # runs over the ends of rows
        yield np.full(size, 3)
    yield np.zeros((0, 4), dtype=int)


@pytest.mark.parametrize("ids", list(maps()), ids=lambda ids: str(ids.shape))
@pytest.mark.parametrize("turned", [False, True])
def test_they_are_those_of_the_pixels(ids, turned):
    ids = ids.T if turned else ids
    runs = Runs.of(ids)
    areas, boxes = areas_and_boxes(runs, runs.values, count=6, width=ids.shape[1])
    assert (areas.tolist(), boxes.tolist()) == plainly(ids, 6)


def test_a_map_that_is_numbered_already_is_not_copied():
    ids = np.array([[0, 1, 1], [2, 2, 0]], dtype=np.int32)
    infos = [{"id": number, "category_id": 7} for number in (1, 2, 3)]
    same, described = numbered(ids, infos)
    assert same is ids and [(info["id"], info["area"], info["bbox"]) for info in described] == [
        (1, 2, [1, 0, 2, 1]),
        (2, 2, [0, 1, 2, 1]),
    ]
    wide, _ = numbered(ids.astype(np.int64), infos)
    assert wide.dtype == np.int32 and (wide == ids).all()


@pytest.mark.parametrize(
    "number, said", [(-1, "holds segment -1; segments count from 1"), (3, "holds segment 3, and")]
)
def test_segments_without_a_label_are_refused(number, said):
    with pytest.raises(ValueError, match=said):
        Segmentation.from_map(torch.tensor([[0, 1, number]]), labels=["dog", "cat"])
