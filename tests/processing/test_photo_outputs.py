"""A photo's share of the outputs: padding cut off, sizes in every form, numbers that are none, what is refused."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation, semantic_segmentation
from tests.processing.plain_segments import TASKS, assert_same, plain_instances, plain_panoptic, plain_semantic
from tests.processing.proposals import proposals


@pytest.fixture
def log():
    with CaptureLogger(logging.get_logger("fisa.processing.photo_outputs")) as captured:
        yield captured


def part(outputs, index):
    return SimpleNamespace(**{name: value[index : index + 1] for name, value in vars(outputs).items()})


def test_a_batch_with_padding_is_its_photos_one_by_one():
    random = torch.Generator().manual_seed(0)
    batch = proposals(4, batch=3, sharpness=3.0)
    batch.proposal_sizes = torch.tensor([[24, 32], [24, 11], [7, 32]])
    batch.class_is_thing = torch.rand(3, 7, generator=random) > 0.5
    sizes = torch.tensor([[48, 64], [50, 23], [14, 64]])
    for index, (height, width) in enumerate(batch.proposal_sizes.tolist()):
        single = part(batch, index)
        single.masks_queries_logits = single.masks_queries_logits[..., :height, :width]
        single.proposal_sizes = None
        for task in TASKS.values():
            assert_same(
                task(batch, target_sizes=sizes, threshold=0.2)[index],
                task(single, target_sizes=sizes[index : index + 1], threshold=0.2)[0],
            )
            assert task(batch, threshold=0.2)[index]["segmentation"].shape == (height, width)
        found = semantic_segmentation(batch, target_sizes=sizes)[index]
        assert torch.equal(found, semantic_segmentation(single, target_sizes=sizes[index : index + 1])[0])
    padded = part(batch, 1)
    padded.masks_queries_logits = padded.masks_queries_logits.clone()
    padded.masks_queries_logits[..., 11:] = 50
    assert_same(panoptic_segmentation(padded)[0], panoptic_segmentation(part(batch, 1))[0])


class TestNumbersThatAreNone:
    """A mask logit without a number is outside, and a proposal without class probabilities is no object."""

    def test_mask_logits(self, log):
        for seed in range(4):
            outputs = proposals(seed, queries=8, grid=(9, 12))
            outputs.class_is_thing = torch.rand(1, 7, generator=torch.Generator().manual_seed(seed)) > 0.3
            broken = SimpleNamespace(**vars(outputs))
            broken.masks_queries_logits = outputs.masks_queries_logits.clone()
            broken.masks_queries_logits[0, :3, 2:5, 3] = math.nan
            outputs.masks_queries_logits[0, :3, 2:5, 3] = -200.0
            (found,) = panoptic_segmentation(broken, target_sizes=[(20, 31)], threshold=0.0)
            assert_same(found, plain_panoptic(outputs, (20, 31), 0.0, 0.5, 0.8))
            (found,) = instance_segmentation(broken, target_sizes=[(20, 31)], threshold=0.0)
            assert_same(found, plain_instances(outputs, (20, 31), 0.0, 0.5, 0.0))
            (found,) = semantic_segmentation(broken, target_sizes=[(20, 31)])
            assert torch.equal(found, plain_semantic(outputs, (20, 31)))
            assert "mask logits of 3 of 8 proposals" in log.io.getvalue()

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_class_logits(self, value, log):
        for seed in range(4):
            outputs = proposals(seed, queries=8, grid=(9, 12))
            outputs.class_is_thing = torch.tensor([[False, *[True] * 6]])
            broken = SimpleNamespace(**vars(outputs))
            broken.class_queries_logits = outputs.class_queries_logits.clone()
            broken.class_queries_logits[0, 2, 4] = value
            outputs.class_queries_logits[0, 2] = torch.tensor([*[-200.0] * 7, 0.0])
            (found,) = panoptic_segmentation(broken, target_sizes=[(20, 31)], threshold=0.1)
            assert_same(found, plain_panoptic(outputs, (20, 31), 0.1, 0.5, 0.8))
            (found,) = instance_segmentation(broken, target_sizes=[(20, 31)], threshold=0.1)
            assert_same(found, plain_instances(outputs, (20, 31), 0.1, 0.5, 0.0))
            (found,) = semantic_segmentation(broken, target_sizes=[(20, 31)])
            assert torch.equal(found, plain_semantic(outputs, (20, 31)))
            assert "class logits of 1 of 8 proposals" in log.io.getvalue()

    def test_certainty_is_a_number(self, log):
        outputs = proposals(0)
        outputs.class_queries_logits[0, 0, -1] = -math.inf  # the logarithm of no probability of no object
        outputs.masks_queries_logits[0, 0, :3], outputs.masks_queries_logits[0, 1, :3] = math.inf, -math.inf
        for task in (*TASKS.values(), semantic_segmentation):
            task(outputs, target_sizes=[(20, 31)])
        assert "not numbers" not in log.io.getvalue()

    @pytest.mark.parametrize("part", ["class_queries_logits", "masks_queries_logits"])
    @pytest.mark.parametrize("classes", [3, 1200])
    def test_everywhere(self, part, classes):
        outputs = proposals(0, classes=classes)
        getattr(outputs, part)[:] = math.nan
        for name, task in TASKS.items():
            (found,) = task(outputs, threshold=0.1)
            assert found["segments_info"] == []
            assert found["segmentation"].unique().tolist() == [0 if name.startswith("panoptic") else -1]
        assert semantic_segmentation(outputs)[0].unique().tolist() == [0]


@pytest.mark.parametrize("sizes", [[(20, 31)], [[20, 31]], torch.tensor([[20, 31]]), np.array([[20, 31]])])
def test_sizes_in_every_form(sizes):
    outputs = proposals(0)
    for task in TASKS.values():
        assert task(outputs, target_sizes=sizes)[0]["segmentation"].shape == (20, 31)
    assert semantic_segmentation(outputs, target_sizes=sizes)[0].shape == (20, 31)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"target_sizes": [(4, 4)]}, r"\[\(4, 4\)\].*2 images"),
        ({}, {"target_sizes": [(4, 4), (4, 0)]}, "at least 1"),
        ({}, {"target_sizes": [(4, 4, 3), (4, 4, 3)]}, "height, width"),
        ({}, {"target_sizes": (480, 640)}, r"\(480, 640\).*2 images"),
        ({}, {"target_sizes": [(4.5, 4), (4, 4)]}, "whole numbers"),
        ({}, {"target_sizes": torch.tensor([[4.0, 4.0], [4.0, 4.0]])}, "whole numbers"),
        ({}, {"threshold": 1.5}, "`threshold` is 1.5"),
        ({}, {"mask_threshold": -0.1}, "`mask_threshold` is -0.1"),
        ({}, {"overlap_mask_area_threshold": math.nan}, "`overlap_mask_area_threshold` is nan"),
        ({}, {"rule": "open"}, "'open'.*open_vocabulary"),
        ({"class_queries_logits": torch.zeros(12, 8)}, {}, r"\(12, 8\)"),
        ({"class_queries_logits": torch.zeros(2, 11, 8)}, {}, "same batch and proposals"),
        ({"class_queries_logits": torch.zeros(2, 12, 1)}, {}, "at least one class"),
        ({"class_is_thing": torch.ones(2, 6)}, {}, r"\(2, 6\).*\(2, 7\)"),
        ({"proposal_sizes": torch.tensor([[24, 32], [25, 32]])}, {}, "exceed"),
    ],
)
def test_bad_input_is_named(change, options, message):
    outputs = SimpleNamespace(**vars(proposals(0, batch=2)) | change)
    with pytest.raises(ValueError, match=message):
        panoptic_segmentation(outputs, **options)
