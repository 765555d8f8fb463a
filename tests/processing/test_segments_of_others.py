"""Others in post-processing: the result is that of all words together, less what others win, by a plain loop."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers.testing_utils import CaptureLogger
from transformers.utils import logging

from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.photo_outputs import log_no_object
from fisa.processing.post_processing import (
    instance_segmentation,
    panoptic_segmentation,
    segmentations,
    semantic_segmentation,
)
from tests.processing.proposals import proposals


NAMES = dict(enumerate("abcdefg"))
THINGS = torch.tensor([[True, False, True, True, False, True, True]])
SIZE = {"target_sizes": [(60, 80)]}


@pytest.fixture
def log():
    with CaptureLogger(logging.get_logger("fisa.processing.post_processing")) as captured:
        yield captured


def together_and_apart(seed, *, num_asked=3):
    """The outputs for seven words, and the same where the first of them were asked for and the rest are others."""
    outputs = proposals(seed, sharpness=3.0)
    log_probs = outputs.class_queries_logits[..., :-1].log_softmax(-1)
    objectness = torch.rand(log_probs.shape[:2], generator=torch.Generator().manual_seed(seed))
    classes, nothing = log_probs + objectness.log().unsqueeze(-1), log_no_object(objectness)
    together = SimpleNamespace(
        class_queries_logits=torch.cat([classes, nothing], -1),
        masks_queries_logits=outputs.masks_queries_logits,
        class_is_thing=THINGS,
    )
    asked, others = classes.split([num_asked, 7 - num_asked], -1)
    none_asked = torch.cat([others, nothing], -1).logsumexp(-1, keepdim=True)
    apart = SimpleNamespace(
        class_queries_logits=torch.cat([asked, none_asked], -1),
        others_queries_logits=others,
        objectness=objectness,
        masks_queries_logits=outputs.masks_queries_logits,
        class_is_thing=THINGS[:, :num_asked],
        other_is_thing=THINGS[:, num_asked:],
    )
    return together, apart


def as_plain(segmentation, *, is_kept):
    """Label, score and pixels of the segments that are kept, one by one."""
    ids = segmentation.ids.numpy()
    return [
        (segment.label, segment.score, segment.was_fused, segment.is_thing, np.argwhere(ids == segment.id).tolist())
        for segment in segmentation
        if is_kept(segment)
    ]


@pytest.mark.parametrize("rule", ["open_vocabulary", "closed_vocabulary"])
@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
@pytest.mark.parametrize("seed", range(4))
def test_segments_are_those_of_all_words_less_those_of_others(subtask, rule, seed):
    together, apart = together_and_apart(seed)
    options = {"threshold": 0.2, "mask_threshold": 0.3, "overlap_mask_area_threshold": 0.1}
    options |= {"rule": rule, "id2label": NAMES, **SIZE}
    (whole,) = segmentations(together, subtask, **options)
    (found,) = segmentations(apart, subtask, **options)
    (with_others,) = segmentations(apart, subtask, include_others=True, **options)
    assert as_plain(found, is_kept=bool) == as_plain(whole, is_kept=lambda segment: segment.class_id < 3)
    assert as_plain(with_others, is_kept=bool) == as_plain(whole, is_kept=bool)
    assert torch.equal(with_others.ids, whole.ids)
    assert [segment.is_other for segment in with_others] == [segment.class_id >= 3 for segment in whole]
    assert len(found) < len(whole), "the case tests nothing"
    assert found.ids.unique().tolist() == [0, *range(1, len(found) + 1)]
    seen = {segment.label for segment in whole}
    expected = "ac" if subtask == "instance" else "abc"
    assert found.not_found == with_others.not_found == tuple(name for name in expected if name not in seen)


@pytest.mark.parametrize("seed", range(4))
def test_maps_of_classes_are_void_where_others_win(seed):
    together, apart = together_and_apart(seed)
    (whole,) = semantic_segmentation(together, **SIZE)
    (found,) = semantic_segmentation(apart, **SIZE)
    assert torch.equal(found, torch.where(whole < 3, whole, -1)) and (found == -1).any()
    assert torch.equal(semantic_segmentation(apart, include_others=True, **SIZE)[0], whole)
    (all_scores,) = semantic_segmentation(together, return_segmentation_scores=True, **SIZE)
    (scores,) = semantic_segmentation(apart, return_segmentation_scores=True, **SIZE)
    assert torch.equal(scores.segmentation_scores, all_scores.segmentation_scores[:3])
    assert torch.equal(scores.segmentation, torch.where(all_scores.segmentation < 3, all_scores.segmentation, -1))


@pytest.mark.parametrize("seed", range(4))
def test_maps_beside_many_others(seed):
    outputs = proposals(seed, queries=30, classes=1200, grid=(48, 64), sharpness=3.0)
    logits = outputs.class_queries_logits[..., :-1]
    logits[0, :4, seed] = logits[0, :4].amax(-1) + 1
    log_probs = logits.log_softmax(-1)
    apart = SimpleNamespace(
        class_queries_logits=F.pad(log_probs[..., :5], (0, 1)),
        others_queries_logits=log_probs[..., 5:],
        objectness=torch.full((1, 30), 0.5),
        masks_queries_logits=outputs.masks_queries_logits,
    )
    scores = torch.einsum("qc,qhw->chw", log_probs[0].exp(), outputs.masks_queries_logits[0].sigmoid())
    expected = F.interpolate(scores[None], size=(190, 250), mode="bilinear")[0].argmax(0)
    (whole,) = semantic_segmentation(apart, target_sizes=[(190, 250)], include_others=True)
    (found,) = semantic_segmentation(apart, target_sizes=[(190, 250)])
    assert (whole == expected).float().mean() >= 0.999
    assert torch.equal(found, torch.where(whole < 5, whole, -1)) and (found == -1).any() and (found == seed).any()
    (segments,) = segmentations(apart, "semantic", target_sizes=[(190, 250)])
    assert torch.equal(segments.ids > 0, found >= 0)


def test_whole_masks_of_instances_are_those_of_the_asked():
    together, apart = together_and_apart(1)
    options = {"threshold": 0.2, "return_binary_maps": True, **SIZE}
    (whole,), (found,) = (instance_segmentation(outputs, **options) for outputs in (together, apart))
    kept = [place for place, info in enumerate(whole["segments_info"]) if info["label_id"] < 3]
    assert torch.equal(found["segmentation"], whole["segmentation"][kept]) and len(kept) < len(whole["segmentation"])


@pytest.mark.parametrize(
    ("segment", "switch"),
    [
        (segmentations, "include_others"),
        (panoptic_segmentation, "include_others"),
        (instance_segmentation, "include_others"),
        (instance_segmentation, "return_binary_maps"),
        (instance_segmentation, "return_coco_annotation"),
        (semantic_segmentation, "include_others"),
        (semantic_segmentation, "return_segmentation_scores"),
    ],
)
def test_switches_are_on_or_off(segment, switch):
    _, apart = together_and_apart(1)
    with pytest.raises(ValueError, match=f"`{switch}` is 'no'; it must be True or False"):
        segment(apart, **{switch: "no"})


@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
@pytest.mark.parametrize("rule", ["open_vocabulary", "closed_vocabulary"])
def test_segments_below_the_least_score_are_void(subtask, rule):
    together, _ = together_and_apart(2)
    options = {"threshold": 0.1, "overlap_mask_area_threshold": 0.0, "rule": rule, "id2label": NAMES, **SIZE}
    (whole,) = segmentations(together, subtask, **options)
    scores = sorted(segment.score for segment in whole)
    assert len(scores) > 2
    for min_score in (0.0, scores[0], scores[len(scores) // 2], scores[-1]):
        (found,) = segmentations(together, subtask, min_score=min_score, **options)
        expected = [segment for segment in as_plain(whole, is_kept=bool) if segment[1] >= min_score]
        assert as_plain(found, is_kept=bool) == expected and expected


def test_the_least_score_is_a_setting():
    together, apart = together_and_apart(2)
    processor = FisaImageProcessor(threshold=0.1, overlap_mask_area_threshold=0.0, min_score=0.3)
    assert FisaImageProcessor.from_dict(processor.to_dict()).min_score == 0.3
    for task in ("panoptic", "instance"):
        function = {"panoptic": panoptic_segmentation, "instance": instance_segmentation}[task]
        method = getattr(processor, f"post_process_{task}_segmentation")
        for value in (None, 0.0, 0.6):
            (expected,) = function(
                apart,
                threshold=0.1,
                overlap_mask_area_threshold=0.0,
                min_score=0.3 if value is None else value,
                **SIZE,
            )
            (found,) = method(apart, min_score=value, **SIZE)
            assert found["segments_info"] == expected["segments_info"]
    for value in (-0.1, 1.5):
        with pytest.raises(ValueError, match=f"`min_score` is {value}"):
            processor.post_process_segmentation(together, min_score=value)


class TestNothingFound:
    def test_because_all_belong_to_others(self, log):
        _, apart = together_and_apart(0, num_asked=1)
        apart.class_queries_logits[..., 0] = -80
        (found,) = segmentations(apart, threshold=0.2, id2label=NAMES, **SIZE)
        assert not found.ids.any() and found.not_found == ("a",)
        assert 'all segments belong to others: "e"' in log.io.getvalue()
        assert (semantic_segmentation(apart, **SIZE)[0] == -1).all()

    def test_because_none_of_the_asked_is_a_thing(self, log):
        _, apart = together_and_apart(0, num_asked=1)
        apart.class_is_thing = torch.zeros_like(apart.class_is_thing)
        (found,) = segmentations(apart, "instance", threshold=0.2, id2label=NAMES, **SIZE)
        assert not found.ids.any() and found.not_found == ()
        assert "none of the classes is a thing" in log.io.getvalue()
        (others,) = segmentations(apart, "instance", threshold=0.2, id2label=NAMES, include_others=True, **SIZE)
        assert len(others) and all(segment.is_other for segment in others)

    def test_because_scores_are_low(self, log):
        together, _ = together_and_apart(0)
        (found,) = segmentations(together, threshold=0.1, min_score=1.0, **SIZE)
        (whole,) = segmentations(together, threshold=0.1, **SIZE)
        highest = max(segment.score for segment in whole)
        assert not found.ids.any() and f"is {highest:.3f}, and `min_score` is 1.0" in log.io.getvalue()


def test_others_without_objectness_or_of_another_shape_are_refused():
    _, apart = together_and_apart(0)
    apart.other_is_thing = apart.other_is_thing[:, 1:]
    with pytest.raises(ValueError, match=r"`other_is_thing` is \(1, 3\); .* must be \(1, 4\)"):
        segmentations(apart)
    apart.objectness = None
    with pytest.raises(ValueError, match="`objectness` is missing"):
        segmentations(apart)
