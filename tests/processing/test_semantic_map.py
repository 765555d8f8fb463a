"""Semantic maps against transformers' and against all scores at once, and the memory that post-processing takes."""

import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fisa.processing.post_processing import semantic_segmentation
from tests.processing.proposals import THEIR_GRID, THEIRS, proposals


@pytest.mark.parametrize("size", [(384, 384), (70, 500), (500, 700), (1, 1)])
@pytest.mark.parametrize("sharpness", [0.3, 2.0, 8.0])
def test_as_transformers(size, sharpness):
    outputs = proposals(3, batch=2, queries=20, classes=30, grid=THEIR_GRID, sharpness=sharpness, blobs=8)
    theirs = THEIRS.post_process_semantic_segmentation(outputs, target_sizes=[size, (90, 90)])
    for found, expected in zip(semantic_segmentation(outputs, target_sizes=[size, (90, 90)]), theirs):
        assert found.dtype == torch.int64 and found.shape == expected.shape
        assert (found == expected).float().mean() >= 0.999


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (5, 1), (13, 17)])
def test_noise_has_no_pixel_to_spare(grid):
    # Nothing agrees with its neighbour here: every short cut must notice.
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 9, 12, generator=random)
    masks = torch.randn(1, 9, *grid, generator=random)
    outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
    scores = torch.einsum("qc,qhw->chw", logits[0].softmax(-1)[:, :-1], masks[0].sigmoid())
    for size in [(40, 52), (6, 4)]:
        resized = F.interpolate(scores[None], size=size, mode="bilinear")[0]
        (found,) = semantic_segmentation(outputs, target_sizes=[size])
        assert (found == resized.argmax(0)).float().mean() >= 0.999
    assert torch.equal(semantic_segmentation(outputs)[0], scores.argmax(0))


def test_a_class_may_win_between_points_that_other_classes_win():
    # Left: class 0 before 2; right: class 1 before 2; half way, 2 is before both.
    logits = torch.tensor([[[0.6, 0.0, 0.39, 0.01], [0.0, 0.6, 0.39, 0.01]]]).log()
    masks = torch.tensor([[[[30.0, -30.0]], [[-30.0, 30.0]]]])
    outputs = SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
    (found,) = semantic_segmentation(outputs, target_sizes=[(1, 12)])
    assert found.tolist() == [[0] * 5 + [2] * 2 + [1] * 5]


def test_more_classes_than_can_win():
    outputs = proposals(1, queries=6, classes=5000, sharpness=4.0)
    (found,) = semantic_segmentation(outputs, target_sizes=[(48, 64)])
    class_probs = outputs.class_queries_logits[0].softmax(-1)[:, :-1]
    scores = torch.einsum("qc,qhw->chw", class_probs, outputs.masks_queries_logits[0].sigmoid())
    expected = F.interpolate(scores[None], size=(48, 64), mode="bilinear")[0].argmax(0)
    assert (found == expected).float().mean() >= 0.999


def test_memory_does_not_grow_with_classes_or_proposals():
    """100 proposals and 847 classes at 1080 × 1920: all scores at once would be 7 GB, all masks at once 0.8 GB."""
    code = """
        import resource, sys
        from types import SimpleNamespace
        import torch
        from fisa.processing.post_processing import panoptic_segmentation, semantic_segmentation

        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)

        torch.manual_seed(0)
        masks = torch.nn.functional.interpolate(8 * torch.randn(1, 100, 6, 6) - 6, size=(384, 384), mode="bicubic")
        outputs = SimpleNamespace(class_queries_logits=3 * torch.randn(1, 100, 848), masks_queries_logits=masks)
        before = peak()
        panoptic_segmentation(outputs, target_sizes=[(1080, 1920)], threshold=0.0)
        after_panoptic = peak()
        semantic_segmentation(outputs, target_sizes=[(1080, 1920)])
        print(after_panoptic - before, peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    panoptic, semantic = map(float, done.stdout.split())
    assert panoptic < 0.2 and semantic < 0.6
