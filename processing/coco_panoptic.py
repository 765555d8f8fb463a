"""COCO's panoptic format: a PNG whose colours are segment ids, and an entry of JSON for each segment."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage


LARGEST_ID = 256**3 - 1


def panoptic_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Write segment ids as colours, id = R + 256 G + 256² B.

    Args:
        ids: (H, W) integers from 0 (void) to 256³ − 1; CPU tensors will do.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: for ids that three bytes cannot hold, such as the −1 of an instance map's background.
    """
    ids = np.asarray(ids)
    if ids.size and not 0 <= ids.min() <= ids.max() <= LARGEST_ID:
        raise ValueError(f"ids go from {ids.min()} to {ids.max()}; COCO's PNG holds 0 to {LARGEST_ID}.")
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)


def rgb_to_panoptic(rgb: np.ndarray) -> np.ndarray:
    """Read segment ids back from colours: the inverse of `panoptic_to_rgb`.

    Args:
        rgb: (H, W, 3) uint8; a PIL image of mode RGB will do.

    Returns:
        (H, W) int32.
    """
    return np.asarray(rgb).astype(np.int32) @ np.array([1, 256, 256**2], dtype=np.int32)


def segments_info(ids: np.ndarray, category_ids: Mapping[int, int] | Sequence[int]) -> list[dict[str, Any]]:
    """Describe the segments of a map as COCO's panoptic JSON does.

    Args:
        ids: (H, W) integers, 0 for void.
        category_ids: the category of each segment id; a sequence holds those of 1, 2, 3, ….

    Returns:
        For each id in the map, in ascending order, `{"id", "category_id", "area", "bbox", "iscrowd"}`, the area in
        pixels and the box as [left, top, width, height].

    Raises:
        ValueError: if an id of the map has no category.
    """
    if not isinstance(category_ids, Mapping):
        category_ids = dict(enumerate(category_ids, start=1))
    ids = np.asarray(ids)
    found, ranks = np.unique(ids, return_inverse=True)
    ranks = ranks.reshape(ids.shape) + 1
    areas = np.bincount(ranks.flatten())[1:]
    segments = []
    for segment_id, area, (rows, columns) in zip(found.tolist(), areas.tolist(), ndimage.find_objects(ranks)):
        if segment_id == 0:
            continue
        if segment_id not in category_ids:
            raise ValueError(f"The map holds segment {segment_id}, but categories are given for {list(category_ids)}.")
        box = [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start]
        segments.append(
            {"id": segment_id, "category_id": category_ids[segment_id], "area": area, "bbox": box, "iscrowd": 0}
        )
    return segments
