"""Segmentation: what it measures of a map, and the forms that others know."""

import numpy as np
import pytest
import torch
from PIL import Image

from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.segmentation import Segmentation
from tests.processing.proposals import proposals


NAMES = {index: f"word {index}" for index in range(7)}


def test_areas_and_boxes_are_those_of_a_plain_loop():
    for seed in range(10):
        ids = torch.randint(0, 5, (9, 14), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
        ids[ids == 3] = 0  # a segment that is hidden entirely
        ids[: 1 + seed % 4] = 0
        for segment in Segmentation.from_map(ids, labels=["a", "b", "a", "c"]):
            pixels = [(x, y) for y in range(9) for x in range(14) if ids[y, x] == segment.id]
            columns, rows = zip(*pixels) if pixels else ((0, -1), (0, -1))
            box = min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
            assert segment.area == len(pixels)
            assert segment.box == (box if pixels else (0, 0, 0, 0))


@pytest.mark.parametrize("rule", ["open_vocabulary", "closed_vocabulary"])
@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
def test_transformers_dictionaries_are_made_of_it(rule, subtask):
    outputs = proposals(2, sharpness=4.0)
    outputs.class_is_thing = torch.tensor([[True, False, True, True, False, True, True]])
    processor = FisaImageProcessor(post_processing_rule=rule)
    options = {"threshold": 0.1, "overlap_mask_area_threshold": 0.2, "target_sizes": [(50, 40)]}
    (segmentation,) = processor.post_process_segmentation(outputs, subtask, id2label=NAMES, **options)
    (stock,) = getattr(processor, f"post_process_{subtask}_segmentation")(outputs, **options)
    assert len(segmentation) == len(stock["segments_info"]) > 1
    for segment, info in zip(segmentation, stock["segments_info"]):
        assert (segment.class_id, segment.score, segment.was_fused) == (
            info["label_id"], info["score"], info["was_fused"]
        )  # fmt: skip
        assert segment.label == NAMES[segment.class_id]
        assert segment.is_thing == outputs.class_is_thing[0, segment.class_id]
        np.testing.assert_array_equal(segmentation.mask(segment), stock["segmentation"] == info["id"])


def test_semantic_segments_are_the_classes_of_the_map():
    outputs = proposals(3, sharpness=4.0)
    processor = FisaImageProcessor()
    (segmentation,) = processor.post_process_segmentation(outputs, "semantic", target_sizes=[(50, 40)])
    (labels,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(50, 40)])
    assert [segment.class_id for segment in segmentation] == labels.unique().tolist()
    assert [segment.label for segment in segmentation] == [f"LABEL_{index}" for index in labels.unique().tolist()]
    for segment in segmentation:
        assert segment.score is None and segment.area == (labels == segment.class_id).sum()
        np.testing.assert_array_equal(segmentation.mask(segment), labels == segment.class_id)


def test_segments_of_a_pipeline_go_there_and_back():
    ids = torch.tensor([[1, 1, 0], [2, 2, 3]], dtype=torch.int32)
    segmentation = Segmentation.from_map(ids, labels=["dog", "grass", "dog"], scores=[0.5, None, 0.25])
    again = Segmentation.from_masks(segmentation.to_segments(), size=segmentation.size)
    assert torch.equal(again.ids, ids) and again.segments == segmentation.segments


def test_later_masks_lie_on_top_and_sizes_must_agree():
    whole, right = Image.new("L", (4, 2), 255), Image.new("L", (4, 2))
    right.paste(1, (2, 0, 4, 2))
    segments = [{"label": "sky", "mask": whole}, {"label": "kite", "score": 0.5, "mask": right}]
    assert Segmentation.from_masks(segments, size=(4, 2)).ids.tolist() == [[1, 1, 2, 2]] * 2
    with pytest.raises(ValueError, match=r"segment 0 \('sky'\) is \(4, 2\) and the photo \(2, 4\)"):
        Segmentation.from_masks(segments, size=(2, 4))


def test_resizing_is_that_of_each_mask():
    ids = torch.randint(0, 4, (30, 40), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    segmentation = Segmentation.from_map(ids, labels=["a", "b", "c"])
    resized = segmentation.resized((17, 11))
    for before, after in zip(segmentation.to_segments(), resized.to_segments()):
        expected = before["mask"].resize((17, 11), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(after["mask"], expected)
    assert [segment.label for segment in resized] == ["a", "b", "c"]


def test_it_is_shown_in_a_line():
    ids = torch.zeros(480, 640, dtype=torch.int32)
    whole = Segmentation.from_map(
        ids, labels=["dog", "road"], scores=[0.906, None], are_others=[False, True], asked=("dog", "cat")
    )
    assert repr(whole) == "Segmentation(640x480: dog 0.91, road (other); not found: cat)"
    assert repr(Segmentation.from_map(ids, labels=[])) == "Segmentation(640x480: no segments)"
    many = Segmentation.from_map(ids, labels=["dog"] * 100, asked=tuple(f"word {index}" for index in range(100)))
    assert "dog, and 92 more; not found: word 0, " in repr(many) and len(repr(many)) < 200
