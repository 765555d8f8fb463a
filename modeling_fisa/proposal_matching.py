"""Match proposals to ground-truth segments for training. The rules:

- Proposals and ground truth are compared on the proposals' own grid, without padding. The ground truth is averaged to
  that grid, so that a grid pixel may lie in a segment by a fraction.
- Ground-truth masks with the label `IGNORED` (void, crowds) mark pixels whose class is unknown. These pixels count
  neither for nor against any match. A proposal that has more than half of its area on them is left unmatched.
- Pixels outside all masks are background: they count against a proposal that covers them.
- `"iou"` matches each proposal to the segment with the highest IoU, if that reaches the threshold. Several proposals
  may match one segment. Ties go to the earlier segment.
- `"hungarian"` matches one to one with the lowest total of Mask2Former's mask cost: 5 × binary cross-entropy of the
  mask logits + 5 × dice. All pixels count, not a random sample, so that the same input always has the same matches.
- A proposal below `objectness_floor` is not matched, not even where it is kept for the sake of another photo.
- An unmatched proposal is left out of the loss: it may show what no annotator named. Cross-entropy towards a learned
  "void" made unseen classes worse.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import nn
from transformers.utils.generic import maybe_autocast

from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.modeling_fisa.mask_generation import MaskProposals, ready_proposals


Matcher = Literal["iou", "hungarian"]

UNMATCHED = -1
# Beyond this a float32 sigmoid no longer changes; infinite logits would make the cost NaN.
LARGEST_LOGIT = 80.0


def ground_truth_proposals(
    mask_labels: Sequence[torch.Tensor] | torch.Tensor, class_labels: Sequence[torch.Tensor] | torch.Tensor | None
) -> tuple[MaskProposals, torch.Tensor]:
    """Turn the ground truth into proposals with classes.

    Args:
        mask_labels: the masks of each photo, `(num_masks, height, width)`, each spanning the photo.
        class_labels: the classes of each photo's masks, `(num_masks,)`.

    Returns:
        The proposals, padded with empty masks to the largest number in the batch, and their classes, a
        `torch.LongTensor` of shape `(batch_size, num_proposals)`, `IGNORED` for the padding.

    Raises:
        `ValueError`: masks and classes are for different numbers of photos, or a photo has not one class per mask.
    """
    if class_labels is None or len(mask_labels) != len(class_labels):
        given = "none" if class_labels is None else f"those of {len(class_labels)}"
        raise ValueError(f"Found `mask_labels` of {len(mask_labels)} photos and {given} as `class_labels`.")
    for masks, classes in zip(mask_labels, class_labels):
        _check_ground_truth(masks, classes)
    sizes = [tuple(masks.shape[-2:]) for masks in mask_labels]
    count = max(1, *(len(masks) for masks in mask_labels))
    height, width = (max(sides) for sides in zip(*sizes))
    first = mask_labels[0]
    batch_masks = torch.zeros(len(sizes), count, height, width, dtype=torch.bool, device=first.device)
    labels = torch.full((len(sizes), count), IGNORED, device=first.device)
    for index, (masks, classes) in enumerate(zip(mask_labels, class_labels)):
        batch_masks[index, : len(masks), : masks.shape[-2], : masks.shape[-1]] = masks > 0.5
        labels[index, : len(classes)] = classes
    proposals = ready_proposals(batch_masks, objectness=(labels != IGNORED).float())
    proposals.sizes = None if len(set(sizes)) == 1 else torch.tensor(sizes, device=first.device)
    return proposals, labels


def labels_of_proposals(
    proposals: MaskProposals,
    mask_labels: Sequence[torch.Tensor] | torch.Tensor,
    class_labels: Sequence[torch.Tensor] | torch.Tensor,
    *,
    matcher: Matcher,
    iou_threshold: float,
) -> torch.Tensor:
    """The class of the segment that each proposal of a batch matches, `IGNORED` if it matches none.

    Args:
        proposals: the proposals of all photos.
        mask_labels, class_labels: one entry per photo, each as for [`match_proposals`].
        matcher, iou_threshold: as for [`match_proposals`].

    Returns:
        `torch.LongTensor` of shape `(batch_size, num_proposals)`.

    Raises:
        `ValueError`: masks, classes and proposals are for different numbers of photos, or a photo has not one class
            per mask.
    """
    if not len(mask_labels) == len(class_labels) == len(proposals.mask_logits):
        raise ValueError(
            f"Found `mask_labels` of {len(mask_labels)} photos, `class_labels` of {len(class_labels)} and "
            f"proposals of {len(proposals.mask_logits)}; there must be one of each per photo."
        )
    sizes = [None] * len(mask_labels) if proposals.sizes is None else map(tuple, proposals.sizes.tolist())
    spare = proposals.is_spare
    is_likely = torch.ones_like(proposals.objectness, dtype=torch.bool) if spare is None else ~spare
    labels = torch.full(is_likely.shape, IGNORED, device=is_likely.device)
    for index, (masks, classes, size) in enumerate(zip(mask_labels, class_labels, sizes)):
        likely = is_likely[index].nonzero().flatten()
        matched = match_proposals(
            proposals.mask_logits[index, likely],
            masks,
            classes,
            size=size,
            matcher=matcher,
            iou_threshold=iou_threshold,
        )
        is_matched = matched != UNMATCHED
        labels[index, likely[is_matched]] = classes[matched[is_matched]].to(labels)
    return labels


@torch.no_grad()
def match_proposals(
    mask_logits: torch.Tensor,
    mask_labels: torch.Tensor,
    class_labels: torch.Tensor,
    *,
    size: tuple[int, int] | None,
    matcher: Matcher,
    iou_threshold: float,
) -> torch.Tensor:
    """Match the proposals of one photo by the rules of this module.

    Args:
        mask_logits (`torch.Tensor` of shape `(num_proposals, height, width)`)
        mask_labels (`torch.Tensor` of shape `(num_masks, mask_height, mask_width)`):
            Ground-truth masks, boolean or of 0 and 1, each spanning the photo.
        class_labels (`torch.Tensor` of shape `(num_masks,)`): their classes, or `IGNORED`.
        size (`tuple[int, int]`, *optional*):
            Height and width of the top left part of `mask_logits` that spans the photo. `None` if all of it does.
        matcher (`"iou"` or `"hungarian"`)
        iou_threshold (`float`): the lowest IoU that matches, used by `"iou"` only.

    Returns:
        `torch.LongTensor` of shape `(num_proposals,)`: the index of each proposal's ground-truth mask, or `UNMATCHED`.

    Raises:
        `ValueError`: there is not one class per mask.
    """
    _check_ground_truth(mask_labels, class_labels)
    height, width = size or mask_logits.shape[-2:]
    # Always float32: the half precision of autocast cannot count the pixels of a mask.
    with maybe_autocast(mask_logits.device.type, enabled=False):
        logits = mask_logits[:, :height, :width].float().nan_to_num().clamp(-LARGEST_LOGIT, LARGEST_LOGIT).flatten(1)
        truth = nn.functional.interpolate(mask_labels[:, None].float(), size=(height, width), mode="area").flatten(1)
        teaches = class_labels != IGNORED
        known = (1 - truth[~teaches].sum(dim=0)).clamp(min=0)
        candidates = teaches.nonzero().flatten()
        matched = class_labels.new_full((len(logits),), UNMATCHED, dtype=torch.long)
        if not len(candidates) or not len(logits):
            return matched
        truth = truth[candidates] * known
        if matcher == "iou":
            proposals, segments = _best_overlaps(logits, truth, known, threshold=iou_threshold)
        else:
            proposals, segments = _cheapest_pairs(logits, truth, known)
        matched[proposals] = candidates[segments]
        inside = (logits > 0).float()
        mostly_ignored = inside @ known < 0.5 * inside.sum(dim=1)
        return matched.masked_fill(mostly_ignored, UNMATCHED)


def _check_ground_truth(mask_labels: torch.Tensor, class_labels: torch.Tensor) -> None:
    if mask_labels.ndim != 3 or class_labels.shape != mask_labels.shape[:1]:
        raise ValueError(
            f"Ground truth of one photo has masks of shape {tuple(mask_labels.shape)} and classes of shape "
            f"{tuple(class_labels.shape)}; they must be (num_masks, height, width) and (num_masks,)."
        )


def _best_overlaps(
    logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor, *, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    inside = (logits > 0).float() * known
    overlap = inside @ truth.T
    union = inside.sum(dim=1, keepdim=True) + truth.sum(dim=1) - overlap
    best, segments = (overlap / union.clamp(min=1e-6)).max(dim=1)
    proposals = ((best >= threshold) & (best > 0)).nonzero().flatten()
    return proposals, segments[proposals]


def _cheapest_pairs(
    logits: torch.Tensor, truth: torch.Tensor, known: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    softplus, probs = nn.functional.softplus(logits), logits.sigmoid() * known
    # −log p where the truth is 1 and −log(1 − p) where it is 0; softplus(−x) = softplus(x) − x.
    cross_entropy = ((softplus * known).sum(dim=1, keepdim=True) - logits @ truth.T) / known.sum().clamp(min=1)
    dice = 1 - (2 * probs @ truth.T + 1) / (probs.sum(dim=1, keepdim=True) + truth.sum(dim=1) + 1)
    pairs = linear_sum_assignment((5 * cross_entropy + 5 * dice).cpu())
    proposals, segments = (torch.as_tensor(ids, device=logits.device) for ids in pairs)
    return proposals, segments
