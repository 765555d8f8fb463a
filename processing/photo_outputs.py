"""One photo's share of a model's outputs, checked: probabilities, masks without padding, and the size to fill."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from transformers.utils import logging


logger = logging.get_logger(__name__)

Sizes = Sequence[tuple[int, int]] | torch.Tensor
"""Height and width of each photo, in pixels."""


class PhotoOutputs(NamedTuple):
    """One photo's share of a model's outputs, without the padding of the batch."""

    class_probs: torch.Tensor  # (Q, C + N + 1) float32: those of the C classes, of the N others, of "no object"
    mask_logits: torch.Tensor  # (Q, h, w)
    size: tuple[int, int]  # height and width of the map to make, upright
    is_thing: torch.Tensor | None  # (C + N,) bool
    orientation: int  # EXIF's, of the pixels that the caller holds
    num_classes: int  # C, the classes that were asked for; from C on class ids are those of the others

    def as_held(self, upright: torch.Tensor) -> torch.Tensor:
        """Upright maps (..., H, W) turned to how the caller holds the photo: as a camera stores it that names this
        EXIF orientation."""
        stored = upright.mT if self.orientation >= 5 else upright
        flipped = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-2], 7: [-2, -1], 8: [-1]}.get(self.orientation, [])
        return stored.flip(flipped) if flipped else stored.contiguous()


def in_float32(outputs: Any) -> torch.autocast:
    """Inside autocast, matrix products in bfloat16 would mix up classes."""
    return torch.autocast(outputs.masks_queries_logits.device.type, enabled=False)


def photos_of(outputs: Any, target_sizes: Sizes | None) -> Iterator[PhotoOutputs]:
    """Each photo's share of a model's outputs, in turn.

    Args:
        outputs, target_sizes: as for [`~fisa.processing.post_processing.segmentations`].

    Yields:
        [`PhotoOutputs`], their class probabilities in float32 and their mask logits without NaN.

    Raises:
        ValueError: shapes or sizes that do not go together.
    """
    class_logits, mask_logits = outputs.class_queries_logits, outputs.masks_queries_logits
    if class_logits.ndim != 3 or mask_logits.ndim != 4 or class_logits.shape[:2] != mask_logits.shape[:2]:
        raise ValueError(
            f"`class_queries_logits` is {tuple(class_logits.shape)} and `masks_queries_logits` "
            f"{tuple(mask_logits.shape)}; they must be (batch, proposals, classes + 1) and (batch, proposals, height, "
            "width) with the same batch and proposals."
        )
    batch_size, num_classes, grid = len(class_logits), class_logits.shape[-1] - 1, tuple(mask_logits.shape[-2:])
    if num_classes < 1:
        raise ValueError("`class_queries_logits` has no column beside the one for no object; name at least one class.")
    is_thing = _kinds(outputs, "class_is_thing", (batch_size, num_classes))
    others_logits = getattr(outputs, "others_queries_logits", None)
    if others_logits is not None:
        class_logits = _all_columns(class_logits, others_logits, getattr(outputs, "objectness", None))
        are_things = _kinds(outputs, "other_is_thing", (batch_size, others_logits.shape[-1]))
        if is_thing is not None and are_things is not None:
            is_thing = torch.cat([is_thing, are_things], dim=-1)
        else:
            is_thing = None
    sizes = getattr(outputs, "proposal_sizes", None)
    sizes = [grid] * batch_size if sizes is None else _as_pairs("proposal_sizes", sizes, batch_size)
    if any(height > grid[0] or width > grid[1] for height, width in sizes):
        raise ValueError(f"`proposal_sizes` {sizes} exceed the height and width of the mask logits, {grid}.")
    given = None if target_sizes is None else _as_pairs("target_sizes", target_sizes, batch_size)
    orientations = getattr(outputs, "photo_orientation", None)
    orientations = [1] * batch_size if orientations is None else orientations.tolist()
    for index, (height, width) in enumerate(sizes):
        size, orientation = sizes[index] if given is None else given[index], orientations[index]
        if given is not None and orientation >= 5:
            size = size[1], size[0]
        yield PhotoOutputs(
            class_probs=_class_probs(class_logits[index], index),
            mask_logits=_without_nan(mask_logits[index, :, :height, :width], index),
            size=size,
            is_thing=None if is_thing is None else is_thing[index].bool(),
            orientation=orientation,
            num_classes=num_classes,
        )


def _kinds(outputs: Any, name: str, shape: tuple[int, int]) -> torch.Tensor | None:
    """Which classes or others are things, `(B, C)` or `(B, N)`, if the outputs say so."""
    is_thing = getattr(outputs, name, None)
    if is_thing is not None and is_thing.shape != shape:
        raise ValueError(f"`{name}` is {tuple(is_thing.shape)}; with these class logits it must be {shape}.")
    return is_thing


def _all_columns(
    class_logits: torch.Tensor, others_logits: torch.Tensor, objectness: torch.Tensor | None
) -> torch.Tensor:
    """Log-probabilities of the classes, the others and "no object" (B, Q, C + N + 1), as of all words together. The
    last column of `class_logits` holds the others too, and what is left without them would lose digits."""
    if objectness is None or others_logits.shape[:2] != class_logits.shape[:2]:
        found = "is missing" if objectness is None else f"is {tuple(objectness.shape)}"
        raise ValueError(
            f"`others_queries_logits` is {tuple(others_logits.shape)} and `objectness` {found}; both must be there, "
            f"for the batch and proposals of `class_queries_logits`, {tuple(class_logits.shape[:2])}."
        )
    return torch.cat([class_logits[..., :-1], others_logits, log_no_object(objectness)], dim=-1)


def log_no_object(objectness: torch.Tensor) -> torch.Tensor:
    """log(1 − objectness), (..., 1) and finite: the smallest normal number stands for 0."""
    return (1 - objectness).unsqueeze(-1).clamp(min=torch.finfo(objectness.dtype).tiny).log()


def _class_probs(logits: torch.Tensor, index: int) -> torch.Tensor:
    """Probabilities of the columns, (Q, C + N + 1) float32; a proposal that has none is not an object."""
    probs = logits.float().softmax(-1)
    broken = probs.isnan().any(-1)
    if broken.any():
        _warn_of_nan("class", broken, index)
        nothing = F.one_hot(torch.tensor(probs.shape[1] - 1, device=probs.device), probs.shape[1]).float()
        probs = torch.where(broken[:, None], nothing, probs)
    return probs


def _without_nan(mask_logits: torch.Tensor, index: int) -> torch.Tensor:
    """Mask logits (Q, h, w) in which no number stands for outside."""
    missing = mask_logits.isnan()
    if missing.any():
        _warn_of_nan("mask", missing.flatten(1).any(1), index)
        mask_logits = mask_logits.masked_fill(missing, -torch.inf)
    return mask_logits


def _warn_of_nan(name: str, broken: torch.Tensor, index: int) -> None:
    effect = {"class": "these proposals count as no object", "mask": "such points count as outside the mask"}[name]
    logger.warning(
        f"The {name} logits of {broken.sum().item()} of {len(broken)} proposals in image {index} are not numbers; "
        f"{effect}. Common causes are NaN in the pixels, and half precision that overflows."
    )


def _as_pairs(name: str, sizes: Sizes, batch_size: int) -> list[tuple[int, int]]:
    try:
        pairs = [tuple(operator.index(side) for side in size) for size in sizes]
    except TypeError:
        pairs = None
    if pairs is None or len(pairs) != batch_size or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ValueError(
            f"`{name}` is {sizes if pairs is None else pairs}; it must hold one (height, width), in pixels, whole "
            f"numbers of at least 1, for each of the {batch_size} images."
        )
    return [(height, width) for height, width in pairs]
