"""Outlines of masks, for formats without run lengths."""

import numpy as np

from fisa.processing.extras import library


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """The outlines of a mask's parts, through the middles of their outermost pixels.

    Args:
        mask: (H, W) bool.

    Returns:
        For each part a polygon, (N, 2) pixels (x, y); a seam joins each hole to the outline around it. Parts of one or
        two pixels have none.
    """
    utils = library("supervision.dataset.utils", extra="formats", purpose="Drawing outlines")
    return utils.approximate_mask_with_polygons(mask, bridge_holes=True)
