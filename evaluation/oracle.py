"""Ground truth in place of one half of a model: perfect classes for given masks, or perfect masks to be classified.
Figure 2 of the paper shows with these that classification limits open-vocabulary segmentation, not the masks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn


# The log-probability that stands for a probability of 0, whose logarithm would be infinite.
IMPOSSIBLE = -100.0


def perfect_masks(reference: Mapping[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The ground-truth segments of an image, without crowds.

    Args:
        reference: `segmentation` `(H, W)` segment ids, and `segments_info`.

    Returns:
        The masks, `(G, H, W)` bool, and the matching entries of `segments_info`, in its order.
    """
    segments = [info for info in reference["segments_info"] if not info.get("iscrowd")]
    label = reference["segmentation"]
    masks = np.zeros((len(segments), *label.shape), bool)
    for mask, segment in zip(masks, segments):
        np.equal(label, segment["id"], out=mask)
    return masks, segments


def perfect_classes(
    mask_logits: torch.Tensor,
    size: tuple[int, int] | None,
    reference: Mapping[str, Any],
    categories: Sequence[Mapping[str, Any]],
) -> torch.Tensor:
    """The classes that a perfect classifier would give to masks.

    Masks and ground-truth segments other than crowds are paired one to one so that the sum of their IoUs is highest.
    IoUs are computed at the image's size, without pixels that are void or crowd in the truth. A mask that is not
    paired, or does not overlap its segment, is "no object".

    Args:
        mask_logits: `(Q, h, w)`.
        size: height and width of the top left part of the masks that spans the image; `None` if all of it does.
        reference: as for [`perfect_masks`].
        categories: dictionaries with an `id`, in the order of the class indices.

    Returns:
        `torch.Tensor` of shape `(Q, C + 1)`, float32: log-probabilities, "no object" last.
    """
    truth, segments = perfect_masks(reference)
    class_of = {category["id"]: index for index, category in enumerate(categories)}
    logits = torch.full((len(mask_logits), len(categories) + 1), IMPOSSIBLE)
    logits[:, -1] = 0.0
    if not segments or not len(mask_logits):
        return logits
    height, width = size or mask_logits.shape[-2:]
    known = torch.from_numpy(truth.any(axis=0)).flatten()
    shape = reference["segmentation"].shape
    true = torch.from_numpy(truth).flatten(1)[:, known].float()
    inside = torch.stack(
        [
            nn.functional.interpolate(mask[None, None, :height, :width].float(), size=shape, mode="bilinear").flatten()
            > 0
            for mask in mask_logits
        ]
    )[:, known].float()
    overlap = inside @ true.T
    union = inside.sum(dim=1, keepdim=True) + true.sum(dim=1) - overlap
    iou = overlap / union.clamp(min=1)
    for mask, segment in zip(*linear_sum_assignment(iou, maximize=True)):
        if iou[mask, segment] > 0:
            logits[mask, class_of[segments[segment]["category_id"]]] = 0.0
            logits[mask, -1] = IMPOSSIBLE
    return logits
