"""Post-processing against transformers' own Mask2Former image processor, and against plain loops written here."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation, semantic_segmentation
from tests.processing.proposals import THEIR_GRID, THEIRS, proposals


SIZES = [(60, 83), (150, 97), (33, 410)]


@pytest.fixture
def log():
    with CaptureLogger(logging.get_logger("fisa.processing.post_processing")) as captured:
        yield captured


def part(outputs, index):
    return SimpleNamespace(**{name: value[index : index + 1] for name, value in vars(outputs).items()})


def assert_same(found, expected):
    """Equal maps and segments, scores up to the last of the six digits."""
    assert found["segmentation"].dtype == torch.int32
    assert torch.equal(found["segmentation"], expected["segmentation"].int())
    assert len(found["segments_info"]) == len(expected["segments_info"])
    for segment, reference in zip(found["segments_info"], expected["segments_info"]):
        assert segment == reference | {"score": pytest.approx(reference["score"], abs=2e-6)}


class TestClosedVocabularyIsTransformersRule:
    @pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
    @pytest.mark.parametrize("seed", range(4))
    def test_panoptic(self, seed, sharpness):
        outputs = proposals(seed, batch=3, grid=THEIR_GRID, sharpness=sharpness)
        for threshold, options in [(0.0, {}), (0.4, {}), (0.1, {"mask_threshold": 0.2})]:
            options |= {"threshold": threshold, "overlap_mask_area_threshold": 0.6, "label_ids_to_fuse": set()}
            theirs = THEIRS.post_process_panoptic_segmentation(outputs, target_sizes=SIZES, **options)
            ours = panoptic_segmentation(outputs, target_sizes=SIZES, rule="closed_vocabulary", **options)
            for found, expected in zip(ours, theirs):
                if not expected["segments_info"]:
                    expected["segmentation"].zero_()  # theirs is -1 there
                assert_same(found, expected)

    def test_panoptic_at_the_size_of_the_masks(self):
        outputs = proposals(0, grid=THEIR_GRID, sharpness=5.0)
        theirs = THEIRS.post_process_panoptic_segmentation(outputs, label_ids_to_fuse=set())
        assert theirs[0]["segments_info"]
        assert_same(panoptic_segmentation(outputs, label_ids_to_fuse=set(), rule="closed_vocabulary")[0], theirs[0])

    def test_panoptic_with_fusing(self):
        options = {"threshold": 0.2, "overlap_mask_area_threshold": 0.3, "target_sizes": [(90, 120)]}
        comparable = fused = 0
        for seed in range(25):
            outputs = proposals(seed, classes=4, grid=THEIR_GRID, sharpness=5.0)
            (theirs,) = THEIRS.post_process_panoptic_segmentation(outputs, label_ids_to_fuse={0, 1, 2}, **options)
            (ours,) = panoptic_segmentation(outputs, label_ids_to_fuse={0, 1, 2}, rule="closed_vocabulary", **options)
            (single,) = panoptic_segmentation(outputs, label_ids_to_fuse=set(), rule="closed_vocabulary", **options)
            assert_same(ours, fused_by_hand(single, {0, 1, 2}))
            ids = [segment["id"] for segment in theirs["segments_info"]]
            if ids == sorted(ids):  # else their running id has jumped back and may have been given twice
                assert_same(ours, fused_by_hand(theirs, {0, 1, 2}))
                comparable += 1
                fused += len(ids) > len(set(ids))
        assert comparable > 5 and fused > 3

    def test_a_mask_that_reaches_the_threshold_between_pixels_alone_is_no_segment(self):
        masks = torch.full((1, 1, *THEIR_GRID), -9.0)
        masks[..., 200, 200] = 0.2
        outputs = SimpleNamespace(class_queries_logits=torch.tensor([[[9.0, 0.0, -9.0]]]), masks_queries_logits=masks)
        options = {"target_sizes": [(768, 768)], "overlap_mask_area_threshold": 0.0, "label_ids_to_fuse": set()}
        (theirs,) = THEIRS.post_process_panoptic_segmentation(outputs, **options)
        (ours,) = panoptic_segmentation(outputs, rule="closed_vocabulary", **options)
        assert_same(ours, theirs)
        assert ours["segments_info"] == []

    @pytest.mark.parametrize("sharpness", [0.5, 2.0, 6.0])
    @pytest.mark.parametrize("seed", range(2))
    def test_instances(self, seed, sharpness):
        outputs = proposals(seed, batch=3, grid=THEIR_GRID, sharpness=sharpness)
        for threshold in (0.0, 0.1, 0.5):
            theirs = THEIRS.post_process_instance_segmentation(outputs, threshold=threshold, target_sizes=SIZES)
            ours = instance_segmentation(outputs, threshold=threshold, target_sizes=SIZES, rule="closed_vocabulary")
            for found, expected in zip(ours, theirs):
                assert_same(found, expected)

    @pytest.mark.parametrize("form", ["return_binary_maps", "return_coco_annotation"])
    @pytest.mark.parametrize("threshold", [0.0, 0.1, 1.0])
    def test_instances_in_their_other_forms(self, form, threshold):
        outputs = proposals(1, batch=3, grid=THEIR_GRID, sharpness=2.0)
        options = {"threshold": threshold, "target_sizes": SIZES, form: True}
        theirs = THEIRS.post_process_instance_segmentation(outputs, **options)
        ours = FisaImageProcessor(post_processing_rule="closed_vocabulary").post_process_instance_segmentation(
            outputs, **options
        )
        for found, expected in zip(ours, theirs, strict=True):
            assert len(found["segments_info"]) == len(expected["segments_info"])
            if form == "return_coco_annotation":
                assert found["segmentation"] == expected["segmentation"]
            else:
                assert torch.equal(found["segmentation"].float(), expected["segmentation"])
        assert any(found["segments_info"] for found in ours) == (threshold < 1)

    def test_semantic_with_scores(self):
        outputs = proposals(3, batch=3, grid=THEIR_GRID, sharpness=2.0)
        options = {"target_sizes": SIZES, "return_segmentation_scores": True}
        theirs = THEIRS.post_process_semantic_segmentation(outputs, **options)
        for found, expected in zip(
            FisaImageProcessor().post_process_semantic_segmentation(outputs, **options), theirs, strict=True
        ):
            torch.testing.assert_close(found.segmentation_scores, expected.segmentation_scores)
            assert (found.segmentation == expected.segmentation).float().mean() >= 0.999

    def test_low_scores_make_segments_by_the_open_rule_alone(self):
        # One object, whose mask nobody contests, between 300 equally likely classes.
        logits = torch.zeros(1, 1, 301)
        logits[..., -1] = -5
        masks = torch.full((1, 1, 16, 16), -9.0)
        masks[..., 4:12, 4:12] = 9
        outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
        (closed,) = panoptic_segmentation(outputs, threshold=0.0, rule="closed_vocabulary")
        (open_,) = panoptic_segmentation(outputs, threshold=0.9, rule="open_vocabulary")
        assert closed["segments_info"] == []
        assert [segment["score"] for segment in open_["segments_info"]] == [pytest.approx(1 / 300, abs=1e-6)]
        assert torch.equal(open_["segmentation"] == 1, masks[0, 0] > 0)


def fused_by_hand(result, label_ids):
    """One segment and one entry for each class of `label_ids`, ids counted anew."""
    segments, old_to_new = [], {}
    for segment in result["segments_info"]:
        was_fused = segment["label_id"] in label_ids
        twin = next((s for s in segments if was_fused and s["label_id"] == segment["label_id"]), None)
        if twin is None:
            twin = segment | {"id": len(segments) + 1, "was_fused": was_fused}
            segments.append(twin)
        twin["score"] = max(twin["score"], segment["score"])
        old_to_new[segment["id"]] = twin["id"]
    segmentation = torch.zeros_like(result["segmentation"])
    for old, new in old_to_new.items():
        segmentation[result["segmentation"] == old] = new
    return {"segmentation": segmentation, "segments_info": segments}


class TestOpenVocabularyIsThePlainLoops:
    OPTIONS = [(0.0, 0.5, 0.8), (0.6, 0.5, 0.5), (0.9, 0.3, 0.0), (0.95, 0.8, 0.9)]

    @pytest.mark.parametrize(("threshold", "mask_threshold", "overlap"), OPTIONS)
    def test_panoptic(self, threshold, mask_threshold, overlap):
        found_any = False
        for seed in range(8):
            outputs = proposals(seed, queries=8, grid=(9, 12))
            outputs.class_is_thing = torch.rand(1, 7, generator=torch.Generator().manual_seed(seed)) > 0.5
            (found,) = panoptic_segmentation(
                outputs,
                target_sizes=[(20, 31)],
                threshold=threshold,
                mask_threshold=mask_threshold,
                overlap_mask_area_threshold=overlap,
            )
            assert_same(found, plain_panoptic(outputs, (20, 31), threshold, mask_threshold, overlap))
            found_any |= bool(found["segments_info"])
        assert found_any

    @pytest.mark.parametrize(("threshold", "mask_threshold", "overlap"), OPTIONS)
    @pytest.mark.parametrize("told_apart", [False, True])
    def test_instances(self, threshold, mask_threshold, overlap, told_apart):
        for seed in range(8):
            outputs = proposals(seed, queries=8, grid=(9, 12))
            outputs.class_is_thing = torch.tensor([[not told_apart, *[True] * 6]])
            (found,) = instance_segmentation(
                outputs if told_apart else SimpleNamespace(**vars(outputs) | {"class_is_thing": None}),
                target_sizes=[(20, 31)],
                threshold=threshold,
                mask_threshold=mask_threshold,
                overlap_mask_area_threshold=overlap,
            )
            assert_same(found, plain_instances(outputs, (20, 31), threshold, mask_threshold, overlap))

    def test_a_winner_of_faint_pixels_alone_is_no_segment(self):
        masks = torch.full((1, 2, 4, 4), 0.01)
        masks[0, 0] = 0.45
        masks[0, 0, 0, 0], masks[0, 1, 0, 0] = 0.6, 0.99
        logits = torch.tensor([[[9.0, 0.0, 0.0], [0.0, 8.0, 0.0]]])
        outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks.logit())
        (found,) = panoptic_segmentation(outputs)
        assert [segment["label_id"] for segment in found["segments_info"]] == [1]
        assert found["segmentation"].sum() == found["segmentation"][0, 0] == 1

    def test_stuff_is_no_instance(self):
        # A proposal that is surely the sky, and one that is a kite; the sky's likeliest thing is a kite as well.
        logits = torch.tensor([[[9.0, 2.0, -9.0], [0.0, 9.0, -9.0]]])
        masks = torch.full((1, 2, 8, 8), 9.0)
        masks[0, 1, 2:] = -9
        outputs = SimpleNamespace(
            class_queries_logits=logits, masks_queries_logits=masks, class_is_thing=torch.tensor([[False, True]])
        )
        (found,) = instance_segmentation(outputs)
        assert [segment["label_id"] for segment in found["segments_info"]] == [1]
        assert torch.equal(found["segmentation"] == 0, masks[0, 1] > 0)


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


def plain_panoptic(outputs, size, threshold, mask_threshold, overlap):
    probs = outputs.class_queries_logits[0].softmax(-1).tolist()
    masks = [plain_resize(mask, size) for mask in outputs.masks_queries_logits[0].sigmoid().tolist()]
    is_thing = outputs.class_is_thing[0].tolist()
    kept = [q for q in range(len(probs)) if 1 - probs[q][-1] > threshold]
    kept.sort(key=lambda q: -max(probs[q][:-1]))
    pixels = [(y, x) for y in range(size[0]) for x in range(size[1])]
    winner = {(y, x): max(kept, key=lambda q: max(probs[q][:-1]) * masks[q][y][x], default=None) for y, x in pixels}
    segmentation, segments = torch.zeros(size), []
    for q in kept:
        area = sum(masks[q][y][x] >= mask_threshold for y, x in pixels)
        won = [pixel for pixel in pixels if winner[pixel] == q]
        visible = [(y, x) for y, x in won if masks[q][y][x] >= mask_threshold]
        if not visible or len(won) / area <= overlap:
            continue
        score = max(probs[q][:-1])
        label = probs[q].index(score)
        segment = next((s for s in segments if s["label_id"] == label and not is_thing[label]), None)
        if segment is None:
            segment = {"id": len(segments) + 1, "label_id": label, "was_fused": not is_thing[label], "score": score}
            segments.append(segment)
        for y, x in visible:
            segmentation[y, x] = segment["id"]
    return {"segmentation": segmentation, "segments_info": segments}


def plain_instances(outputs, size, threshold, mask_threshold, overlap):
    things = outputs.class_is_thing[0].nonzero().flatten().tolist()
    found = []
    for probs, mask in zip(outputs.class_queries_logits[0].softmax(-1).tolist(), outputs.masks_queries_logits[0]):
        if sum(probs[c] for c in things) <= threshold:
            continue
        label = max(things, key=lambda c: probs[c])
        inside = [p for row in mask.sigmoid().tolist() for p in row if p >= mask_threshold]
        score = probs[label] * sum(inside) / len(inside) if inside else 0.0
        found.append((score, label, plain_resize(mask.sigmoid().tolist(), size)))
    segmentation, segments = torch.full(size, -1), []
    for score, label, probs in sorted(found, key=lambda item: -item[0]):
        mask = torch.tensor(probs) >= mask_threshold
        visible = mask & (segmentation == -1)
        if visible.sum() > overlap * mask.sum():
            segmentation[visible] = len(segments)
            segments.append({"id": len(segments), "label_id": label, "was_fused": False, "score": score})
    return {"segmentation": segmentation, "segments_info": segments}


def plain_resize(rows, size):
    """Bilinear interpolation between the centres of pixels."""

    def sources(length, target):
        for i in range(target):
            position = max((i + 0.5) * length / target - 0.5, 0)
            first = math.floor(position)
            yield first, min(first + 1, length - 1), position - first

    return [
        [
            (1 - v) * ((1 - u) * rows[y0][x0] + u * rows[y0][x1]) + v * ((1 - u) * rows[y1][x0] + u * rows[y1][x1])
            for x0, x1, u in sources(len(rows[0]), size[1])
        ]
        for y0, y1, v in sources(len(rows), size[0])
    ]


TASKS = {
    "panoptic": panoptic_segmentation,
    "panoptic closed": lambda *args, **options: panoptic_segmentation(*args, rule="closed_vocabulary", **options),
    "instance": instance_segmentation,
    "instance closed": lambda *args, **options: instance_segmentation(*args, rule="closed_vocabulary", **options),
}


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


def plain_semantic(outputs, size):
    probs = outputs.class_queries_logits[0].softmax(-1)[:, :-1].tolist()
    masks = [plain_resize(mask, size) for mask in outputs.masks_queries_logits[0].sigmoid().tolist()]
    return torch.tensor(
        [
            [
                max(range(len(probs[0])), key=lambda c: sum(p[c] * m[y][x] for p, m in zip(probs, masks)))
                for x in range(size[1])
            ]
            for y in range(size[0])
        ]
    )


@pytest.mark.parametrize("sizes", [[(20, 31)], [[20, 31]], torch.tensor([[20, 31]]), np.array([[20, 31]])])
def test_sizes_in_every_form(sizes):
    outputs = proposals(0)
    for task in TASKS.values():
        assert task(outputs, target_sizes=sizes)[0]["segmentation"].shape == (20, 31)
    assert semantic_segmentation(outputs, target_sizes=sizes)[0].shape == (20, 31)


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


@pytest.mark.parametrize("name", ["threshold", "mask_threshold", "overlap_mask_area_threshold"])
@pytest.mark.parametrize("value", ["0.5", None, True, float("nan"), 1j, -0.1])
def test_a_threshold_that_is_no_number_is_refused(name, value):
    outputs = FisaOutput(class_queries_logits=torch.zeros(1, 2, 3), masks_queries_logits=torch.zeros(1, 2, 4, 4))
    for rule in ("open_vocabulary", "closed_vocabulary"):
        with pytest.raises(ValueError, match=f"`{name}` is .* must be a number in"):
            panoptic_segmentation(outputs, rule=rule, **{name: value})
