"""What holds for segmentations of every kind, whatever the rule: ids, fusing, precision, shapes, and what is said
where nothing is found."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation, semantic_segmentation
from tests.processing.plain_segments import TASKS, assert_same
from tests.processing.proposals import proposals


@pytest.fixture
def log():
    with CaptureLogger(logging.get_logger("fisa.processing.post_processing")) as captured:
        yield captured


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("seed", range(5))
def test_ids_are_contiguous_and_name_what_is_in_the_map(task, seed):
    (found,) = TASKS[task](proposals(seed, sharpness=4.0), target_sizes=[(50, 40)], threshold=0.0)
    ids = [segment["id"] for segment in found["segments_info"]]
    first = 1 if task.startswith("panoptic") else 0
    assert ids == list(range(first, first + len(ids)))
    painted = set(found["segmentation"].unique().tolist()) - {first - 1}
    assert painted <= set(ids) if task == "instance closed" else painted == set(ids)
    assert found["segmentation"].shape == (50, 40) and found["segmentation"].dtype == torch.int32


@pytest.mark.parametrize("task", TASKS)
def test_order_of_proposals_changes_no_segment(task):
    if task == "instance closed":
        pytest.skip("transformers paints in the order of torch.topk, which is anyone's guess")
    outputs = proposals(2, sharpness=4.0)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = SimpleNamespace(**{name: value[:, order] for name, value in vars(outputs).items()})

    def segments(found):
        return {
            (segment["label_id"], segment["score"], tuple((found["segmentation"] == segment["id"]).flatten().tolist()))
            for segment in found["segments_info"]
        }

    options = {"target_sizes": [(50, 40)], "threshold": 0.0, "overlap_mask_area_threshold": 0.2}
    (one,), (two,) = (TASKS[task](each, **options) for each in (outputs, shuffled))
    assert segments(one) == segments(two) and len(one["segments_info"]) > 1


def test_stuff_is_fused_by_image_and_a_given_set_comes_first():
    masks = torch.full((2, 2, 8, 8), -9.0)
    masks[:, 0, :3] = masks[:, 1, 5:] = 9
    logits = torch.tensor([[9.0, 0.0, 0.0], [8.0, 0.0, 0.0]]).expand(2, 2, 3)
    outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
    assert [len(found["segments_info"]) for found in panoptic_segmentation(outputs)] == [2, 2]
    outputs.class_is_thing = torch.tensor([[False, True], [True, True]])
    sky, things = panoptic_segmentation(outputs)
    (segment,) = sky["segments_info"]
    assert segment["was_fused"] and segment["score"] == pytest.approx(logits[0, 0].softmax(-1)[0].item(), abs=1e-6)
    assert (sky["segmentation"] == 1).sum() == 6 * 8
    assert [segment["was_fused"] for segment in things["segments_info"]] == [False, False]
    assert [len(f["segments_info"]) for f in panoptic_segmentation(outputs, label_ids_to_fuse=[1])] == [2, 2]


@pytest.mark.parametrize("unknown", [99, -1, 2, "sky"])
def test_a_class_to_fuse_that_there_is_not_is_refused(unknown):
    outputs = SimpleNamespace(class_queries_logits=torch.zeros(1, 3, 3), masks_queries_logits=torch.zeros(1, 3, 8, 8))
    panoptic_segmentation(outputs, label_ids_to_fuse=np.array([0, 1]))
    with pytest.raises(ValueError, match=f"`label_ids_to_fuse` has {unknown!r}; the classes have the ids 0 to 1."):
        panoptic_segmentation(outputs, label_ids_to_fuse=[0, unknown])


def test_binary_maps_of_the_open_rule_are_the_whole_masks():
    for overlap in (0.0, 0.3):
        options = {"threshold": 0.2, "overlap_mask_area_threshold": overlap, "target_sizes": [(50, 40)]}
        outputs = proposals(2, sharpness=4.0)
        (maps,) = instance_segmentation(outputs, return_binary_maps=True, **options)
        (single,) = instance_segmentation(outputs, **options)
        assert maps["segments_info"] == single["segments_info"] and len(maps["segmentation"]) > 1
        probs = F.interpolate(outputs.masks_queries_logits.sigmoid(), size=(50, 40), mode="bilinear")[0]
        on_top = torch.full((50, 40), -1)
        for number, mask in reversed(list(enumerate(maps["segmentation"]))):
            assert any(torch.equal(mask > 0, own >= 0.5) for own in probs)
            on_top[mask > 0] = number
        assert torch.equal(on_top, single["segmentation"].long())


def test_two_forms_at_once_are_refused():
    with pytest.raises(ValueError, match="choose one"):
        instance_segmentation(proposals(0), return_binary_maps=True, return_coco_annotation=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    outputs = proposals(0, sharpness=3.0)
    half = SimpleNamespace(**{name: value.to(dtype) for name, value in vars(outputs).items()})
    single = SimpleNamespace(**{name: value.float() for name, value in vars(half).items()})
    for task in TASKS.values():
        assert_same(task(half, threshold=0.2)[0], task(single, threshold=0.2)[0])
    assert torch.equal(*(semantic_segmentation(each, target_sizes=[(50, 60)])[0] for each in (half, single)))


@pytest.mark.parametrize("classes", [7, 300, 1200])
def test_autocast_changes_nothing(classes):
    outputs = proposals(0, classes=classes, sharpness=3.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [task(outputs, threshold=0.2, target_sizes=[(50, 60)])[0] for task in TASKS.values()]
        scored = [
            semantic_segmentation(outputs, target_sizes=[(50, 60)], return_segmentation_scores=scores)[0]
            for scores in (False, True)
        ]
    for found, task in zip(inside, TASKS.values()):
        assert_same(found, task(outputs, threshold=0.2, target_sizes=[(50, 60)])[0])
    assert torch.equal(scored[0], semantic_segmentation(outputs, target_sizes=[(50, 60)])[0])
    assert scored[1].segmentation_scores.dtype == torch.float32
    assert (scored[0] == scored[1].segmentation).float().mean() >= 0.999


def test_outputs_are_left_as_they_are_and_need_no_no_grad():
    outputs = proposals(0, queries=1)
    copies = [value.clone() for value in vars(outputs).values()]
    for value in vars(outputs).values():
        value.requires_grad_()
    for task in (*TASKS.values(), semantic_segmentation):
        task(outputs, target_sizes=[(30, 30)])
    assert all(torch.equal(value, copy) for value, copy in zip(vars(outputs).values(), copies))


@pytest.mark.parametrize("queries", [0, 1, 3])
@pytest.mark.parametrize("classes", [1, 5000])
@pytest.mark.parametrize("size", [None, [(1, 1)], [(1, 90)]])
def test_extreme_shapes(queries, classes, size):
    outputs = proposals(0, queries=max(queries, 2), classes=classes, grid=(4, 6), blobs=2)
    outputs = SimpleNamespace(**{name: value[:, :queries] for name, value in vars(outputs).items()})
    shape = size[0] if size else (4, 6)
    for task in TASKS.values():
        (found,) = task(outputs, target_sizes=size, threshold=0.0)
        assert found["segmentation"].shape == shape and (queries or not found["segments_info"])
    (labels,) = semantic_segmentation(outputs, target_sizes=size)
    assert labels.shape == shape and labels.max() < classes


class TestNothingFound:
    def test_is_valid_and_says_why_once_a_batch(self, log):
        outputs = proposals(0, batch=3)
        for task in ("panoptic", "panoptic closed", "instance"):
            for found in TASKS[task](outputs, threshold=1.0):
                assert found["segments_info"] == []
                assert found["segmentation"].unique().tolist() == ([-1] if task == "instance" else [0])
            (warning,) = log.io.getvalue().splitlines()
            assert "3 of 3 images" in warning and "`threshold` is 1.0" in warning
            log.io.truncate(log.io.seek(0))

    def test_names_the_objectness_that_would_do(self, log):
        outputs = proposals(0)
        highest = (1 - outputs.class_queries_logits.softmax(-1)[..., -1]).max().item()
        panoptic_segmentation(outputs, threshold=1.0)
        assert f"{highest:.3f}" in log.io.getvalue()

    def test_because_all_overlap(self, log):
        outputs = proposals(0)
        outputs.masks_queries_logits = torch.full_like(outputs.masks_queries_logits, 3.0)
        outputs.class_queries_logits[:] = 0
        outputs.masks_queries_logits[:, 1:, :, 16:] = 3.1
        (found,) = panoptic_segmentation(outputs, threshold=0.1)
        assert found["segments_info"] == [] and not found["segmentation"].any()
        assert "0.500 of its own area" in log.io.getvalue()

    @pytest.mark.parametrize("task", TASKS)
    def test_because_masks_are_empty(self, task, log):
        outputs = proposals(0)
        outputs.masks_queries_logits[:] = -200
        (found,) = TASKS[task](outputs, threshold=0.0)
        assert found["segments_info"] == [] and log.io.getvalue()
        assert semantic_segmentation(outputs)[0].shape == (24, 32)

    def test_because_nothing_is_a_thing_or_there_are_no_proposals(self, log):
        outputs = proposals(0)
        outputs.class_is_thing = torch.zeros(1, 7, dtype=torch.bool)
        assert instance_segmentation(outputs)[0]["segments_info"] == []
        assert "none of the classes is a thing" in log.io.getvalue()
        none = SimpleNamespace(**{name: getattr(outputs, name)[:, :0] for name in list(vars(outputs))[:2]})
        panoptic_segmentation(none)
        assert "there are no proposals" in log.io.getvalue()

    def test_is_not_said_where_something_is_found(self, log):
        panoptic_segmentation(proposals(0), threshold=0.0, overlap_mask_area_threshold=0.0)
        assert log.io.getvalue() == ""


@pytest.mark.parametrize("name", ["threshold", "mask_threshold", "overlap_mask_area_threshold"])
@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), 1j, -0.1])
def test_a_threshold_that_is_no_number_is_refused(name, value):
    outputs = FisaOutput(class_queries_logits=torch.zeros(1, 2, 3), masks_queries_logits=torch.zeros(1, 2, 4, 4))
    for rule in ("open_vocabulary", "closed_vocabulary"):
        with pytest.raises(ValueError, match=f"`{name}` is .* must be a number in"):
            panoptic_segmentation(outputs, rule=rule, **{name: value})
