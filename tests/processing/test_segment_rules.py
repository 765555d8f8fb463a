"""Both rules of segments: the closed one against transformers' own Mask2Former, the open one against plain loops."""

from types import SimpleNamespace

import pytest
import torch

from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation
from tests.processing.plain_segments import assert_same, plain_instances, plain_panoptic
from tests.processing.proposals import THEIR_GRID, THEIRS, proposals


SIZES = [(60, 83), (150, 97), (33, 410)]


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
