"""The training loss: cross-entropy of each mask's class over the vocabulary."""

import torch
from torch import nn


IGNORED = -100
"""The label of masks that the loss ignores, and of ground-truth masks whose pixels matching leaves out."""


def mask_classification_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the labelled masks: the mean over the masks of each photo, then over all photos.

    A photo without labels counts as zero and is not skipped. A batch that is split, by gradient accumulation or over
    several processes, therefore has exactly the loss and the gradients of the whole batch. A batch without labels has
    a loss of zero and gradients of zero.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): before any softmax.
        labels (`torch.Tensor` of shape `(batch_size, num_proposals)`): class indices, or `IGNORED`.

    Returns:
        `torch.Tensor` of shape `()`, in the logits' dtype.

    Raises:
        `ValueError`: the labels have another shape, or one of them is not a class index.
    """
    if labels.shape != logits.shape[:2]:
        raise ValueError(
            f"`class_labels` has shape {tuple(labels.shape)}; there must be one label per mask, "
            f"{tuple(logits.shape[:2])}."
        )
    labelled = labels != IGNORED
    wrong = labelled & ((labels < 0) | (labels >= logits.shape[-1]))
    if wrong.any():
        raise ValueError(
            f"`class_labels` holds {labels[wrong][0].item()}; classes go from 0 to {logits.shape[-1] - 1}, and "
            f"{IGNORED} marks a mask without a class."
        )
    losses = nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    per_photo = losses.view_as(labels).sum(dim=1) / labelled.sum(dim=1).clamp(min=1)
    return per_photo.sum() / max(len(labels), 1)
