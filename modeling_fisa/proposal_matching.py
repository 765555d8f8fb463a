"""Which ground-truth segment each proposal stands for in training. All rules are here:

- Proposals and ground truth are compared on the proposals' own grid, without its padding; the ground truth is averaged
  to it, so that a grid pixel may lie in a segment by a fraction.
- Masks with the label `IGNORED` (void, crowds) mark pixels of which nothing is known: they count neither for nor
  against any pair. A proposal of which more than half lies on such pixels is matched to nothing.
- Pixels in no mask at all are background: they count against a proposal that covers them.
- `"iou"`: a proposal stands for the segment with which its IoU is highest, if that reaches the threshold. Several may
  stand for one. Ties go to the earlier segment.
- `"hungarian"`: one to one, at the least sum of costs, Mask2Former's mask cost: 5 × binary cross-entropy of the mask
  logits + 5 × dice, on all pixels instead of random ones, so that the same input is matched the same way.
- A proposal that stands for nothing teaches nothing: it may show what no annotator named. Cross-entropy towards a
  learned "void" made unseen classes worse.
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
# Logits beyond this are certain to all the digits of a float32 sigmoid; infinite ones would make the cost NaN.
LARGEST_LOGIT = 80.0


def ground_truth_proposals(
    mask_labels: Sequence[torch.Tensor] | torch.Tensor, class_labels: Sequence[torch.Tensor] | torch.Tensor | None
) -> tuple[MaskProposals, torch.Tensor]:
    """The ground truth itself as proposals, and their classes.

    Args:
        mask_labels: for each photo its masks, `(num_masks, height, width)`, each spanning it.
        class_labels: for each photo the class of each mask, `(num_masks,)`.

    Returns:
        Proposals, as many for each photo as the one with most masks has, and `torch.LongTensor` of shape
        `(batch_size, num_proposals)`: their classes, `IGNORED` where they fill up.

    Raises:
        `ValueError`: masks and classes of different numbers of photos, or not one class per mask.
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
    masks_of_batch = torch.zeros(len(sizes), count, height, width, dtype=torch.bool, device=first.device)
    labels = torch.full((len(sizes), count), IGNORED, device=first.device)
    for index, (masks, classes) in enumerate(zip(mask_labels, class_labels)):
        masks_of_batch[index, : len(masks), : masks.shape[-2], : masks.shape[-1]] = masks > 0.5
        labels[index, : len(classes)] = classes
    proposals = ready_proposals(masks_of_batch, objectness=(labels != IGNORED).float())
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
    """Class of the segment that each proposal of a batch stands for, `IGNORED` where it stands for none.

    Args:
        proposals: of all photos.
        mask_labels, class_labels, matcher, iou_threshold: as [`match_proposals`] takes them, the first two photo by
            photo.

    Returns:
        `torch.LongTensor` of shape `(batch_size, num_proposals)`.

    Raises:
        `ValueError`: masks, classes and proposals of different numbers of photos, or not one class a mask.
    """
    if not len(mask_labels) == len(class_labels) == len(proposals.mask_logits):
        raise ValueError(
            f"Found `mask_labels` of {len(mask_labels)} photos, `class_labels` of {len(class_labels)} and "
            f"proposals of {len(proposals.mask_logits)}; there must be one of each a photo."
        )
    sizes = [None] * len(mask_labels) if proposals.sizes is None else map(tuple, proposals.sizes.tolist())
    labels = []
    for mask_logits, masks, classes, size in zip(proposals.mask_logits, mask_labels, class_labels, sizes):
        matched = match_proposals(mask_logits, masks, classes, size=size, matcher=matcher, iou_threshold=iou_threshold)
        none = classes.new_tensor([IGNORED])
        labels.append(torch.cat([classes, none])[torch.where(matched == UNMATCHED, len(classes), matched)])
    return torch.stack(labels)


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
    """Match the proposals of one photo, by the rules above.

    Args:
        mask_logits (`torch.Tensor` of shape `(num_proposals, height, width)`)
        mask_labels (`torch.Tensor` of shape `(num_masks, mask_height, mask_width)`):
            Ground-truth masks, boolean or 0 and 1, each spanning the photo.
        class_labels (`torch.Tensor` of shape `(num_masks,)`): their classes, or `IGNORED`.
        size (`tuple[int, int]`, *optional*):
            Height and width of the part of `mask_logits` that spans the photo, top left. `None`: all of it.
        matcher (`"iou"` or `"hungarian"`)
        iou_threshold (`float`): the least IoU of a match, read by `"iou"`.

    Returns:
        `torch.LongTensor` of shape `(num_proposals,)`: index of the ground-truth mask, or `UNMATCHED`.

    Raises:
        `ValueError`: not one class a mask.
    """
    _check_ground_truth(mask_labels, class_labels)
    height, width = size or mask_logits.shape[-2:]
    # float32 whatever autocast would choose: half precision cannot count the pixels of a mask.
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
