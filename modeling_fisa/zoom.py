"""Zoom: proposals on a small part of their photo are read a second time, each in a window around it.

CLIP sees the whole photo at one size, where a small thing is a few patches among neighbours that colour them. So the
likeliest proposals are read again, by the same mask tokens, in windows that are cut from the original photo, and the
log-probabilities of both readings are averaged.

A window is the box of a proposal's mask, `MARGIN` times as large and square, moved and cut where it would leave the
photo. What it shows around the proposal stays. Where it holds `LARGEST_SHARE` of the photo or more there is little to
gain, and the proposal is read once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary
from fisa.modeling_fisa.mask_attention import attended_patches, patch_coverage
from fisa.modeling_fisa.mask_generation import MaskProposals, ready_proposals
from fisa.processing.original_photos import OriginalPhoto, Window


MARGIN = 1.2
LARGEST_SHARE = 0.5
WINDOWS_AT_A_TIME = 16


@dataclass(frozen=True)
class Closeups:
    """The proposals of a batch that are read again, N in all, each in a window of its own.

    Attributes:
        photo_ids, proposal_ids (`torch.LongTensor` of shape `(N,)`): whose proposals, and which of theirs.
        windows (`torch.LongTensor` of shape `(N, 3, 2)`):
            Top and left border, height and width, and the height and width of the photo, in pixels of the photo.
    """

    photo_ids: torch.Tensor
    proposal_ids: torch.Tensor
    windows: torch.Tensor

    def __len__(self) -> int:
        return len(self.photo_ids)

    def split(self, size: int) -> Iterable["Closeups"]:
        """Parts of at most `size` proposals."""
        parts = (tensor.split(size) for tensor in (self.photo_ids, self.proposal_ids, self.windows))
        return (Closeups(*part) for part in zip(*parts)) if len(self) else ()

    def pixel_values(self, photos: Sequence[OriginalPhoto]) -> torch.Tensor:
        """The windows as CLIP reads them: `(N, 3, height, width)`, float32."""
        borders = self.windows[:, :2].flatten(1).tolist()
        views = (
            photos[photo].pixel_values(Window(*window)) for photo, window in zip(self.photo_ids.tolist(), borders)
        )
        return torch.stack(list(views))

    def proposals_alone(
        self, proposals: MaskProposals, *, image_size: tuple[int, int], patch_size: int, threshold: float
    ) -> MaskProposals:
        """The proposals as they lie in their windows, one per window: the patches that their mask tokens attend to.

        Args:
            proposals ([`MaskProposals`]): those of the whole photos.
            image_size (`tuple[int, int]`): height and width of the windows as CLIP reads them.
            patch_size (`int`), threshold (`float`): as for [`~fisa.modeling_fisa.mask_attention.patch_coverage`].

        Raises:
            `ValueError`: patches that do not fill the windows.
        """
        rows, columns = (side // patch_size for side in image_size)
        if (rows * patch_size, columns * patch_size) != image_size:
            raise ValueError(
                f"`zoom_size` is {image_size[0]} x {image_size[1]} pixels (height x width); its sides must be "
                f"multiples of {patch_size}, the side of CLIP's patches."
            )
        coverage = patch_coverage(
            proposals.mask_logits[self.photo_ids, self.proposal_ids].unsqueeze(1),
            image_size=image_size,
            patch_size=patch_size,
            proposal_sizes=None if proposals.sizes is None else proposals.sizes[self.photo_ids],
            windows=self.windows,
        )
        masks = attended_patches(coverage, threshold=threshold).unflatten(-1, (rows, columns))
        # Alone in its window, a proposal of objectness 0 claims no segment: its surroundings are read along with it.
        return ready_proposals(masks, objectness=torch.zeros(masks.shape[:2], device=masks.device))

    def vocabularies(self, vocabulary: EncodedVocabulary) -> EncodedVocabulary:
        """What each window is read with: the vocabulary of its photo, where each photo has its own."""
        if vocabulary.class_embeds.ndim == 2:
            return vocabulary
        return replace(vocabulary, class_embeds=vocabulary.class_embeds[self.photo_ids])

    def average(self, logits: torch.Tensor, again: Sequence[torch.Tensor]) -> torch.Tensor:
        """The mean of the log-probabilities of both readings where there are two, else the logits.

        Args:
            logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): of the first reading.
            again: of the second, `(N, num_classes)` in parts, as [`split`] makes them.

        Returns:
            `torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`.
        """
        if not len(self):
            return logits
        places = self.photo_ids, self.proposal_ids
        both = logits[places].log_softmax(dim=-1) + torch.cat(list(again)).log_softmax(dim=-1)
        return logits.index_put(places, both / 2)


def choose_closeups(
    proposals: MaskProposals, *, photo_sizes: Sequence[tuple[int, int]], zoom: torch.Tensor, floor: float
) -> Closeups:
    """The likeliest proposals of each photo that a window can show larger than the whole photo does.

    Args:
        proposals ([`MaskProposals`])
        photo_sizes (`Sequence[tuple[int, int]]`): height and width of each photo, in pixels.
        zoom (`torch.LongTensor` of shape `(batch_size,)`): how many proposals of each photo, at most.
        floor (`float`): the least objectness.
    """
    device = proposals.objectness.device
    objectness, sizes = proposals.objectness.cpu(), torch.tensor(photo_sizes)
    windows, has_pixels = _windows(proposals, sizes)
    shares = windows[:, :, 1].prod(dim=-1).float() / sizes.prod(dim=-1, keepdim=True)
    gains = has_pixels & (shares < LARGEST_SHARE) & (objectness >= floor)
    ranks = objectness.masked_fill(~gains, -1).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    photo_ids, proposal_ids = (gains & (ranks < zoom.cpu().view(-1, 1))).nonzero(as_tuple=True)
    return Closeups(*(tensor.to(device) for tensor in (photo_ids, proposal_ids, windows[photo_ids, proposal_ids])))


def _windows(proposals: MaskProposals, photo_sizes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The window around each proposal, as `Closeups` has them, `(batch_size, num_proposals, 3, 2)`, and whether the
    proposal has pixels at all, `(batch_size, num_proposals)`; on the CPU, since not every device has float64."""
    inside, sizes = proposals.mask_logits > 0, proposals.sizes
    grid = torch.tensor(inside.shape[-2:])
    mask_sizes = grid.expand(len(inside), 2) if sizes is None else sizes.cpu()
    if sizes is not None:  # what lies beyond the photo is not part of a mask
        for axis, side in ((-2, sizes[:, 0]), (-1, sizes[:, 1])):
            on_photo = torch.arange(inside.shape[axis], device=inside.device) < side[:, None]
            inside = inside & (on_photo[:, None, :, None] if axis == -2 else on_photo[:, None, None])
    lines = [inside.any(dim=dim).cpu().long() for dim in (-1, -2)]  # rows and columns that a mask touches
    first = torch.stack([line.argmax(dim=-1) for line in lines], dim=-1)
    last = torch.stack([line.shape[-1] - line.flip(-1).argmax(dim=-1) for line in lines], dim=-1)
    photo = photo_sizes[:, None]
    scale = (photo_sizes.double() / mask_sizes)[:, None]
    near, far = first * scale, last * scale
    side = ((far - near).amax(dim=-1, keepdim=True) * MARGIN).round().clamp(min=1).long()
    span = torch.minimum(side, photo)
    start = torch.minimum(((near + far - span) / 2).round().long().clamp(min=0), photo - span)
    return torch.stack([start, span, photo.expand_as(span)], dim=2), lines[0].any(dim=-1)


def flat_photos(photos: Sequence[Any] | None, *, count: int) -> list[OriginalPhoto]:
    """The photos of a batch, in a list; a pipeline puts the lists of several calls into one list.

    Args:
        photos: as `forward` was given them.
        count (`int`): how many photos the batch has.

    Raises:
        `ValueError`: there are none, or not as many.
    """
    if photos is None:
        raise ValueError(
            "`zoom` reads proposals again in the photos themselves, and there are none: call the processor with "
            "`zoom=`, which hands over `photos` as well."
        )
    flat = [photo for entry in photos for photo in (entry if isinstance(entry, list) else [entry])]
    if len(flat) != count:
        raise ValueError(f"`photos` has {len(flat)} photos and `pixel_values` {count}; they must agree.")
    return flat
