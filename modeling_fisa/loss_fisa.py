"""The training loss: which class each mask is of, cross-entropy over the photo's vocabulary."""

import torch
from torch import nn


IGNORED = -100
"""The label of a mask that teaches nothing, and of ground-truth masks whose pixels are left out of matching."""


def mask_classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the masks that have a label: the mean over those of a photo, then over all photos.

    A photo without any label counts as zero rather than not at all. So a batch in pieces, by gradient accumulation or
    on several processes, has exactly the loss and the gradients of the whole, and a batch without labels has a loss of
    zero and gradients of zero.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): before any softmax.
        labels (`torch.Tensor` of shape `(batch_size, num_proposals)`): class indices, or `IGNORED`.

    Returns:
        `torch.Tensor` of shape `()`, of the logits' type.

    Raises:
        `ValueError`: labels of another shape, or that are no class.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"`class_labels` has shape {tuple(labels.shape)}; there must be one label a mask, "
            f"{tuple(logits.shape[:2])}."
        )
    labelled = labels != IGNORED
    wrong = labelled & ((labels < 0) | (labels >= logits.shape[-1]))
    if wrong.any():
        raise ValueError(
            f"`class_labels` holds {labels[wrong][0].item()}; classes go from 0 to {logits.shape[-1] - 1}, and "
            f"{IGNORED} stands for none."
        )
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    per_photo = losses.view_as(labels).sum(dim=1) / labelled.sum(dim=1).clamp(min=1)
    return per_photo.sum() / max(len(labels), 1)
