"""Pre-trains the mask generator of Patchwork from nothing: a small Mask2Former that finds things and stuff, whatever
they are. It sees home scenes of seen words alone, coloured in many ways."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from fisa.studies.patchwork.clip_pretraining import IMAGE_SIZE, normalised
from fisa.studies.patchwork.scenes import Painter, Scene, SceneKind
from fisa.studies.patchwork.words import CATEGORIES, SEEN


LABELS = {0: "thing", 1: "stuff"}
CANVAS = 192
"""Scenes are enlarged to this many pixels per side. Masks have a quarter of it, and 24 x 24 loses small things."""

SCENE = SceneKind(side=IMAGE_SIZE, num_objects=(1, 6), object_size=(0.2, 0.5), num_patches=(1, 4), rotation=40.0)


def new_generator() -> Mask2FormerForUniversalSegmentation:
    """A small Mask2Former with random weights."""
    backbone = SwinConfig(
        image_size=IMAGE_SIZE,
        embed_dim=32,
        depths=[1, 2, 3, 1],
        num_heads=[1, 2, 4, 8],
        window_size=6,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=64,
            mask_feature_size=64,
            hidden_dim=64,
            encoder_feedforward_dim=128,
            encoder_layers=2,
            decoder_layers=3,
            num_attention_heads=4,
            dim_feedforward=256,
            num_queries=24,
            train_num_points=512,  # of masks of 48 x 48
            id2label=LABELS,
        )
    )


class MaskedPictures(Dataset):
    """Scenes with their masks; three of four are recoloured."""

    def __init__(self, painter: Painter, *, num_pictures: int):
        self.painter, self.num_pictures = painter, num_pictures

    def __len__(self) -> int:
        return self.num_pictures

    def __getitem__(self, index: int) -> Scene:
        return self.painter.paint(replace(SCENE, recoloured=index % 4 > 0), index)


@dataclass(frozen=True)
class MaskCollator:
    """Makes what Mask2Former is trained with: `pixel_values (B, 3, canvas, canvas)`, and of each picture `mask_labels
    (num_segments, 96, 96)` and `class_labels (num_segments,)`."""

    canvas: int = CANVAS

    def __call__(self, scenes: Sequence[Scene]) -> dict[str, Any]:
        return {
            "pixel_values": generator_pixels(np.stack([scene.image for scene in scenes]), canvas=self.canvas),
            "mask_labels": [torch.from_numpy(segment_masks(scene)).float() for scene in scenes],
            "class_labels": [
                torch.tensor([int(not CATEGORIES[info["category_id"] - 1].isthing) for info in scene.segments_info])
                for scene in scenes
            ],
        }


def generator_pixels(images: np.ndarray, *, canvas: int = CANVAS) -> torch.Tensor:
    """`(B, side, side, 3)` uint8 as Mask2Former wants it, `(B, 3, canvas, canvas)`."""
    pixels = normalised(images, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
    return torch.nn.functional.interpolate(pixels, size=(canvas, canvas), mode="bilinear")


def segment_masks(scene: Scene) -> np.ndarray:
    """`(num_segments, side, side)`, bool."""
    return np.stack([scene.label == info["id"] for info in scene.segments_info])


@torch.no_grad()
def recall(
    model: Mask2FormerForUniversalSegmentation,
    painter: Painter,
    *,
    num_pictures: int,
    canvas: int = CANVAS,
    iou: float = 0.5,
) -> dict[str, float]:
    """Share of the segments that some proposal fits, for seen and unseen things and stuff.

    Args:
        canvas: pixels per side that the model sees.
        iou: the intersection over union from which on a proposal fits.
    """
    model.eval()
    fits_by_kind: dict[str, list[bool]] = {}
    for start in range(0, num_pictures, 32):
        scenes = [painter.paint(SceneKind(), number) for number in range(start, min(start + 32, num_pictures))]
        pixels = generator_pixels(np.stack([scene.image for scene in scenes]), canvas=canvas)
        logits = model(pixel_values=pixels).masks_queries_logits
        logits = torch.nn.functional.interpolate(logits, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
        for scene, proposals in zip(scenes, (logits > 0).flatten(2).float()):
            truth = torch.from_numpy(segment_masks(scene)).flatten(1).float()
            shared = truth @ proposals.T
            union = truth.sum(dim=1)[:, None] + proposals.sum(dim=1) - shared
            fits = ((shared / union).amax(dim=1) >= iou).tolist()
            for info, fit in zip(scene.segments_info, fits):
                category = CATEGORIES[info["category_id"] - 1]
                kind = f"{'seen' if category.name in SEEN else 'unseen'} {'things' if category.isthing else 'stuff'}"
                fits_by_kind.setdefault(kind, []).append(fit)
    return {kind: sum(fits) / len(fits) for kind, fits in sorted(fits_by_kind.items())}
