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
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    # Within the box alone: what is around it would only be searched.
    found = utils.approximate_mask_with_polygons(mask[top:bottom, left:right], bridge_holes=True)
    box = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return [polygon + (left, top) for polygon in found] or [box]
