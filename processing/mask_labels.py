"""Ground truth for training, as transformers' Mask2Former takes it: maps of ids become masks and their classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from transformers.image_utils import ImageInput, SizeDict, make_flat_list_of_images
from transformers.models.mask2former.image_processing_pil_mask2former import convert_segmentation_map_to_binary_masks

from fisa.processing.photos import UPRIGHT


# Beyond what any map holds: no id is lost to it.
BACKGROUND = -1

InstanceClasses = Mapping[int, int] | Sequence[Mapping[int, int]]


def masks_and_classes(
    segmentation_maps: ImageInput,
    *,
    photo_sizes: Sequence[tuple[int, int]],
    orientations: Sequence[int],
    size: SizeDict,
    instance_id_to_semantic_id: InstanceClasses | None = None,
    ignore_index: int | None = None,
    do_reduce_labels: bool = False,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The masks of each photo at the size of CLIP's view, and the class of each mask.

    Args:
        segmentation_maps: for each photo the id of each pixel, (H, W): PIL images, arrays or tensors.
        photo_sizes: height and width of each photo, upright.
        orientations: the EXIF orientation of each photo's pixels, and of its map, as the caller holds them.
        size: of CLIP's view, to which the maps are resized without new ids.
        instance_id_to_semantic_id: the class of each id, for all photos or photo by photo. `None`: ids are classes.
        ignore_index: the id that has no mask.
        do_reduce_labels: id 0 is background and has no mask; all classes count one less.

    Returns:
        For each photo (N, height, width) float32 of 0 and 1, and (N,) int64.

    Raises:
        ValueError: not one map per photo, a map of another size than its photo, or an id without a class.
    """
    maps = make_flat_list_of_images(segmentation_maps, expected_ndims=2)
    assert isinstance(maps, list)  # though its hint says more
    if len(maps) != len(photo_sizes):
        raise ValueError(f"There are {len(photo_sizes)} images and {len(maps)} segmentation maps; pass one per image.")
    if do_reduce_labels and ignore_index is None:
        ignore_index = BACKGROUND
    masks, classes = [], []
    for index, ids in enumerate(maps):
        given = instance_id_to_semantic_id
        one = given if given is None or isinstance(given, Mapping) else given[index]
        instance_classes = None if one is None else dict(one)
        try:
            resized = _resized(ids, photo_sizes[index], orientations[index], size)
            _check_ids(resized, instance_classes, maskless=0 if do_reduce_labels else ignore_index)
            photo_masks, photo_classes = convert_segmentation_map_to_binary_masks(
                resized, instance_classes, ignore_index=ignore_index, do_reduce_labels=do_reduce_labels
            )
        except ValueError as error:
            raise ValueError(f"Segmentation map {index}: {error}") from error
        masks.append(photo_masks)
        classes.append(photo_classes)
    return masks, classes


def _resized(ids: Any, photo_size: tuple[int, int], orientation: int, size: SizeDict) -> np.ndarray:
    ids = np.asarray(ids)
    if ids.ndim != 2 or not (np.issubdtype(ids.dtype, np.integer) or ids.dtype == bool):
        raise ValueError(
            f"it is {ids.dtype} of shape {ids.shape}; it must hold the id of each pixel, integers (H, W)."
        )
    image = Image.fromarray(ids.astype(np.int32))
    if orientation != 1:
        image = image.transpose(UPRIGHT[orientation])
    if image.size[::-1] != tuple(photo_size):
        held = photo_size[::-1] if orientation >= 5 else photo_size
        raise ValueError(f"it has {ids.shape[0]} x {ids.shape[1]} pixels and its image {held[0]} x {held[1]}.")
    return np.asarray(image.resize((size["width"], size["height"]), Image.Resampling.NEAREST))


def _check_ids(ids: np.ndarray, instance_classes: Mapping[int, int] | None, *, maskless: int | None) -> None:
    if instance_classes is None:
        return
    missing = sorted(set(np.unique(ids).tolist()) - {maskless, *map(int, instance_classes)})
    if missing:
        raise ValueError(
            f"`instance_id_to_semantic_id` names no class for the ids {', '.join(map(str, missing[:5]))}, which occur."
        )


__all__ = ["masks_and_classes"]
