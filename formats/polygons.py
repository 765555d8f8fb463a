"""Outlines of masks, for formats without run lengths."""

import numpy as np

from fisa.processing.extras import library


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask's parts, through the middles of their outermost pixels.

    Args:
        mask: (H, W) bool, with a pixel at least.

    Returns:
        For each part a polygon, (N, 2) pixels (x, y); a seam joins each hole to the outline around it. Parts of one or
        two pixels or in a straight line have none; where no part has one, there is the box around them, with the
        outer edges of its pixels.
    """
    utils = library("supervision.dataset.utils", extra="formats", purpose="Drawing outlines")
    return utils.approximate_mask_with_polygons(mask, bridge_holes=True) or [_box(mask)]


def _box(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
