"""Random proposals that look like a model's, and transformers' own post-processing to compare with."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil


THEIRS = Mask2FormerImageProcessorPil()
THEIR_GRID = (384, 384)  # they resize all masks to this first


def proposals(seed, *, batch=1, queries=12, classes=7, grid=(24, 32), sharpness=1.0, blobs=5):
    """Outputs with smooth blobs for masks; several proposals may be after the same blob."""
    random = torch.Generator().manual_seed(seed)
    shapes = torch.randn(batch, queries, blobs, blobs + 1, generator=random)
    shapes[:, queries // 2 :] = shapes[:, : queries - queries // 2] + 0.3 * shapes[:, queries // 2 :]
    masks = 6 * F.interpolate(shapes, size=grid, mode="bicubic") - 2
    logits = sharpness * torch.randn(batch, queries, classes + 1, generator=random)
    return SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)
