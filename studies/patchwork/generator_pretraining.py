"""Pre-trains the mask generator of Patchwork from nothing: a small Mask2Former that finds things and stuff, whatever
they are. It sees home scenes of seen words alone, coloured in many ways."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import nn
from torch.utils.data import Dataset
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from fisa.studies.patchwork.clip_pretraining import IMAGE_SIZE, normalised
from fisa.studies.patchwork.scenes import Painter, Scene, SceneKind
from fisa.studies.patchwork.words import CATEGORIES, SEEN


LABELS = {0: "thing", 1: "stuff"}
CANVAS = 256
"""The model sees scenes resized to this many pixels per side, larger than they are painted: masks have a quarter of
it, 24 x 24 loses small things, and 64 x 64 is tighter than 48 x 48."""

SCENE = SceneKind(num_objects=(1, 6), object_size=(0.17, 0.5), num_patches=(1, 4), rotation=40.0)


NO_OBJECT_WEIGHT = 1.0
"""A proposal that fits nothing counts as much as one that fits, not a tenth of it as is usual: so objectness is how
probable it is that the proposal fits, and spare ones are told from good ones."""


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
            train_num_points=512,  # of masks of 64 x 64
            no_object_weight=NO_OBJECT_WEIGHT,
            id2label=LABELS,
        )
    )


class MaskedPictures(Dataset):
    """Scenes with their masks; three of four are recoloured and restyled."""

    def __init__(self, painter: Painter, *, num_pictures: int):
        self.painter, self.num_pictures = painter, num_pictures

    def __len__(self) -> int:
        return self.num_pictures

    def __getitem__(self, index: int) -> Scene:
        changed = index % 4 > 0
        return self.painter.paint(replace(SCENE, recoloured=changed, restyled=changed), index)


def masks_and_kinds(scenes: Sequence[Scene], *, canvas: int = CANVAS) -> dict[str, Any]:
    """What Mask2Former is trained with: `pixel_values (B, 3, canvas, canvas)`, and of each picture `mask_labels
    (num_segments, side, side)`, as sharp as it is painted, and `class_labels (num_segments,)`."""
    return {
        "pixel_values": generator_pixels(scenes, canvas=canvas),
        "mask_labels": [torch.from_numpy(segment_masks(scene)).float() for scene in scenes],
        "class_labels": [
            torch.tensor([int(not CATEGORIES[info["category_id"] - 1].isthing) for info in scene.segments_info])
            for scene in scenes
        ],
    }


def generator_pixels(scenes: Sequence[Scene], *, canvas: int = CANVAS) -> torch.Tensor:
    """Scenes as Mask2Former wants them, `(B, 3, canvas, canvas)`."""
    images = np.stack([scene.image for scene in scenes])
    pixels = normalised(images, mean=IMAGENET_DEFAULT_MEAN, std=IMAGENET_DEFAULT_STD)
    return nn.functional.interpolate(pixels, size=(canvas, canvas), mode="bilinear", antialias=True)


def segment_masks(scene: Scene) -> np.ndarray:
    """`(num_segments, side, side)`, bool."""
    return np.stack([scene.label == info["id"] for info in scene.segments_info])


@torch.no_grad()
def calibrate_objectness(
    model: Mask2FormerForUniversalSegmentation, pictures: Sequence[Scene] | Dataset, *, canvas: int = CANVAS
) -> tuple[float, float]:
    """Change the model's class head so that objectness is the share of proposals that fit a segment at an IoU of 0.5,
    each segment fitted once, by the likeliest (Platt scaling). Kinds and the proposals' order stay.

    Args:
        model: in evaluation mode; changed in place.
        pictures: scenes, as [`MaskedPictures`] paints them; none that the model was trained on.
        canvas: pixels per side that the model sees.

    Returns:
        slope and addend, in logits.
    """
    logits, fits = (part.double().numpy() for part in _objectness_and_fits(model, pictures, canvas=canvas))
    signs = 2 * fits - 1

    def loss(line: np.ndarray) -> float:
        return np.logaddexp(0, -signs * (line[0] * logits + line[1])).mean()

    slope, addend = minimize(loss, (1.0, 0.0), method="Nelder-Mead").x.tolist()
    head = model.class_predictor
    head.weight.mul_(slope)
    head.bias.mul_(slope)
    head.bias[-1] -= addend
    return slope, addend


def reliability(
    model: Mask2FormerForUniversalSegmentation, painter: Painter, *, num_pictures: int, canvas: int = CANVAS
) -> list[dict[str, float]]:
    """How often proposals fit, beside what the model says: of calibrated objectness they are the same.

    Args:
        model: in evaluation mode.
        canvas: pixels per side that the model sees.

    Returns:
        Of each tenth of objectness that has proposals: `proposals` (how many), their mean `objectness`, and the share
        that `fits` a segment, as [`calibrate_objectness`] counts it.
    """
    scenes = [painter.paint(SceneKind(), number) for number in range(num_pictures)]
    logits, fits = _objectness_and_fits(model, scenes, canvas=canvas)
    objectness = logits.sigmoid()
    tenths = (objectness * 10).long().clamp(max=9)
    return [
        {
            "proposals": int(inside.sum()),
            "objectness": objectness[inside].mean().item(),
            "fits": fits[inside].mean().item(),
        }
        for inside in (tenths == tenth for tenth in range(10))
        if inside.any()
    ]


@torch.no_grad()
def _objectness_and_fits(
    model: Mask2FormerForUniversalSegmentation, pictures: Sequence[Scene] | Dataset, *, canvas: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all proposals of all pictures the logit of objectness, and 1 where the proposal fits a segment that no
    likelier one fits; `(num_pictures * num_proposals,)` each."""
    logits, fits = [], []
    for start in range(0, len(pictures), 24):
        scenes = [pictures[index] for index in range(start, min(start + 24, len(pictures)))]
        outputs = model(pixel_values=generator_pixels(scenes, canvas=canvas))
        objects, nothing = outputs.class_queries_logits.split([len(LABELS), 1], dim=-1)
        likely = objects.logsumexp(dim=-1) - nothing[..., 0]
        for overlap, order in zip(_overlaps(scenes, outputs), likely.argsort(dim=-1, descending=True)):
            fitted, taken = torch.zeros(len(order)), set()
            for proposal in order.tolist():
                segment = int(overlap[:, proposal].argmax())
                if overlap[segment, proposal] >= 0.5 and segment not in taken:
                    taken.add(segment)
                    fitted[proposal] = 1
            fits.append(fitted)
        logits.append(likely)
    return torch.cat(logits).flatten(), torch.cat(fits)


def _overlaps(scenes: Sequence[Scene], outputs: Any) -> list[torch.Tensor]:
    """Intersection over union of each scene's segments with the proposals, `(num_segments, num_proposals)`."""
    side = len(scenes[0].label)
    logits = nn.functional.interpolate(outputs.masks_queries_logits, size=(side, side), mode="bilinear")
    overlaps = []
    for scene, proposals in zip(scenes, (logits > 0).flatten(2).float()):
        truth = torch.from_numpy(segment_masks(scene)).flatten(1).float()
        shared = truth @ proposals.T
        overlaps.append(shared / (truth.sum(dim=1)[:, None] + proposals.sum(dim=1) - shared))
    return overlaps


@torch.no_grad()
def proposal_quality(
    model: Mask2FormerForUniversalSegmentation,
    painter: Painter,
    *,
    num_pictures: int,
    canvas: int = CANVAS,
    iou: float = 0.5,
    threshold: float = 0.5,
) -> dict[str, float]:
    """How well proposals fit.

    Args:
        canvas: pixels per side that the model sees.
        iou: the intersection over union from which on a proposal fits.
        threshold: the objectness from which on a proposal that fits no segment, or fits one less well than another
            proposal, is spare.

    Returns:
        Under `seen things`, `unseen things`, `seen stuff` and `unseen stuff` the share of segments that some proposal
        fits; under `spare` how many spare proposals a scene has.
    """
    model.eval()
    fits_by_kind: dict[str, list[bool]] = {}
    spare = 0
    for start in range(0, num_pictures, 32):
        numbers = range(start, min(start + 32, num_pictures))
        scenes = [painter.paint(SceneKind(), number) for number in numbers]
        outputs = model(pixel_values=generator_pixels(scenes, canvas=canvas))
        likely = 1 - outputs.class_queries_logits.softmax(dim=-1)[..., -1] >= threshold
        for scene, overlap, counted in zip(scenes, _overlaps(scenes, outputs), likely):
            fits = (overlap.amax(dim=1) >= iou).tolist()
            for info, fit in zip(scene.segments_info, fits):
                category = CATEGORIES[info["category_id"] - 1]
                kind = f"{'seen' if category.name in SEEN else 'unseen'} {'things' if category.isthing else 'stuff'}"
                fits_by_kind.setdefault(kind, []).append(fit)
            found = (overlap * counted >= iou).any(dim=1).sum()
            spare += int(counted.sum() - found)
    return {kind: sum(fits) / len(fits) for kind, fits in sorted(fits_by_kind.items())} | {
        "spare": spare / num_pictures
    }
