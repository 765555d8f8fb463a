"""The masks that a training photo teaches with, from one of three sources: the ground truth itself, the generator's
proposals, or the proposal cache. Each gives what the model's forward takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import hotcoco.mask
import numpy as np
import torch

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.data.augmentation import PhotoChange
from fisa.data.proposal_cache import ProposalCache
from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.modeling_fisa.mask_attention import attended_patches, patch_coverage, segments_of_patches


SOURCES = ("ground_truth", "generator", "cache")
NO_SEGMENT = -1


@dataclass(frozen=True)
class GroundTruthMasks:
    """Ground truth of one photo.

    Attributes:
        masks: `(G, H, W)` bool.
        labels: `(G,)` int64, the class index of each mask; `IGNORED` where its pixels teach nothing (void, crowds).
        segment_ids: `(G,)` int64, the segment that each mask is; `NO_SEGMENT` for void.
    """

    masks: np.ndarray
    labels: np.ndarray
    segment_ids: np.ndarray

    @classmethod
    def from_record(
        cls,
        record: Mapping[str, Any],
        class_indices: Mapping[int, int],
        *,
        unlabelled: Literal["ignored", "background"],
    ) -> "GroundTruthMasks":
        """The masks of a record.

        Args:
            record: of the one schema (see [`SegmentationDataset`]).
            class_indices: class index of each category id.
            unlabelled: whether pixels without a segment are ignored or known to have no class.
        """
        label, segments = record["label"], record["segments_info"]
        masks = [segment_mask(segment, label) for segment in segments]
        labels = [IGNORED if segment["iscrowd"] else class_indices[segment["category_id"]] for segment in segments]
        segment_ids = [segment["id"] for segment in segments]
        if unlabelled == "ignored":
            masks, labels, segment_ids = [*masks, label == 0], [*labels, IGNORED], [*segment_ids, NO_SEGMENT]
        stacked = np.stack(masks) if masks else np.zeros((0, *label.shape), bool)
        return cls(stacked, np.array(labels, np.int64), np.array(segment_ids, np.int64))

    def changed(self, change: PhotoChange) -> "GroundTruthMasks":
        """As the changed photo shows it: masks that were cropped away are gone."""
        return self._only(change.masks(self.masks), where=lambda masks: masks.any((1, 2)))

    def teaching(self) -> "GroundTruthMasks":
        """The masks that have a class."""
        return self._only(self.masks, where=lambda _: self.labels != IGNORED)

    def _only(self, masks: np.ndarray, *, where) -> "GroundTruthMasks":
        kept = where(masks)
        return GroundTruthMasks(masks[kept], self.labels[kept], self.segment_ids[kept])


def segment_mask(segment: Mapping[str, Any], label: np.ndarray) -> np.ndarray:
    """Mask of a segment, `(H, W)` bool: from its own run lengths if it has some, else its pixels in the map."""
    if segment.get("segmentation") is not None:
        return hotcoco.mask.decode(dict(segment["segmentation"])).astype(bool)
    return label == segment["id"]


class MaskSource(Protocol):
    """Gives the training masks of one photo.

    `needs_label` says whether the record's label map is read, `wants_generator_view` whether the photo is also
    prepared for the mask generator.
    """

    needs_label: bool
    wants_generator_view: bool

    def __call__(self, record: Mapping[str, Any], change: PhotoChange, *, index: int) -> dict[str, torch.Tensor]:
        """`class_labels (N,)`, class indices or `IGNORED`, with `mask_proposals (N, rows, columns)`, bool, the patches
        that each mask token sees, or with `mask_labels (N, H, W)`, bool, for proposals to be matched to. Beside the
        former, where image tokens attend less to other segments, `patch_segments (rows * columns,)`, int64."""


@dataclass(frozen=True)
class GroundTruthSource:
    """The ground-truth masks themselves are the proposals (MaskCLIP++, arXiv 2412.11464): no generator runs, nothing
    is matched, and the photo may be changed at will. They also divide the photo into segments; void and crowds belong
    to none."""

    config: FisaConfig
    class_indices: Mapping[int, int]
    image_size: tuple[int, int]
    unlabelled: Literal["ignored", "background"]

    needs_label = True
    wants_generator_view = False

    def __call__(self, record: Mapping[str, Any], change: PhotoChange, *, index: int) -> dict[str, torch.Tensor]:
        truth = (
            GroundTruthMasks.from_record(record, self.class_indices, unlabelled=self.unlabelled)
            .changed(change)
            .teaching()
        )
        seen = seen_patches(truth.masks, self.config, image_size=self.image_size)
        example = {"mask_proposals": seen, "class_labels": torch.from_numpy(truth.labels)}
        if self.config.segment_attention_penalty:
            example["patch_segments"] = patch_segments(truth.masks, self.config, image_size=self.image_size)
        return example


@dataclass(frozen=True)
class GeneratorSource:
    """The generator runs at every step, and its proposals are matched to the ground truth by the model."""

    class_indices: Mapping[int, int]
    unlabelled: Literal["ignored", "background"]

    needs_label = True
    wants_generator_view = True

    def __call__(self, record: Mapping[str, Any], change: PhotoChange, *, index: int) -> dict[str, torch.Tensor]:
        truth = GroundTruthMasks.from_record(record, self.class_indices, unlabelled=self.unlabelled).changed(change)
        masks = torch.from_numpy(np.ascontiguousarray(truth.masks))
        return {"mask_labels": masks, "class_labels": torch.from_numpy(truth.labels)}


@dataclass(frozen=True)
class CacheSource:
    """The generator's matched proposals from the cache, without reading a label map."""

    cache: ProposalCache
    class_indices: Mapping[int, int]

    needs_label = False
    wants_generator_view = False

    def __call__(self, record: Mapping[str, Any], change: PhotoChange, *, index: int) -> dict[str, torch.Tensor]:
        seen, segment_ids = self.cache.proposals(index, flipped=change.flipped)
        category_ids = {segment["id"]: segment["category_id"] for segment in record["segments_info"]}
        labels = [self.class_indices[category_ids[segment_id]] for segment_id in segment_ids.tolist()]
        example = {"mask_proposals": seen, "class_labels": torch.tensor(labels, dtype=torch.long)}
        if self.cache.has_patch_segments:
            example["patch_segments"] = self.cache.patch_segments(index, flipped=change.flipped)
        return example


def seen_patches(masks: np.ndarray, config: FisaConfig, *, image_size: tuple[int, int]) -> torch.Tensor:
    """The patches that the mask token of each mask attends to.

    Args:
        masks: `(N, H, W)` bool, each spanning its photo.
        config: tells the patch size and τ.
        image_size: height and width of the photo as CLIP sees it, in pixels.

    Returns:
        `torch.Tensor` of shape `(N, rows, columns)`, bool.
    """
    rows, columns = patch_grid(config, image_size=image_size)
    if not len(masks):
        return torch.zeros(0, rows, columns, dtype=torch.bool)
    masks = torch.from_numpy(np.ascontiguousarray(masks)).float()
    coverage = patch_coverage(masks[None], image_size=image_size, patch_size=config.image_tower.patch_size)
    return attended_patches(coverage, threshold=config.mask_coverage_threshold)[0].view(-1, rows, columns)


def patch_segments(masks: np.ndarray, config: FisaConfig, *, image_size: tuple[int, int]) -> torch.Tensor:
    """The mask that each patch belongs to.

    Args:
        masks, config, image_size: as for [`seen_patches`].

    Returns:
        `torch.Tensor` of shape `(rows * columns,)`, int64: indices of masks, or `NO_SEGMENT`.
    """
    rows, columns = patch_grid(config, image_size=image_size)
    if not len(masks):
        return torch.full((rows * columns,), NO_SEGMENT)
    whole = torch.from_numpy(np.ascontiguousarray(masks))[None]
    patch_size = config.image_tower.patch_size
    return segments_of_patches(whole, torch.ones(1, len(masks)), image_size=image_size, patch_size=patch_size)[0]


def patch_grid(config: FisaConfig, *, image_size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ValueError: patches that do not fill the photo, which a grid of seen patches could not describe.
    """
    patch_size = config.image_tower.patch_size
    if any(side % patch_size for side in image_size):
        raise ValueError(
            f"Photos of {image_size[0]} x {image_size[1]} pixels are not whole patches of {patch_size}: set the image "
            f"processor's `size` to multiples of {patch_size}, or train with --mask_source generator."
        )
    return image_size[0] // patch_size, image_size[1] // patch_size
