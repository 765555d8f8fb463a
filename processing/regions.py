"""Areas and boxes of the segments of a map, from its runs of equal pixels: of these there are far fewer."""

from typing import NamedTuple

import numpy as np


class Runs(NamedTuple):
    """The runs of equal pixels of a map in reading order; one may go over the ends of rows."""

    values: np.ndarray
    """(R,) the id of its pixels."""
    starts: np.ndarray
    """(R,) int64, the number of its first pixel."""
    lengths: np.ndarray
    """(R,) int64."""

    @classmethod
    def of(cls, ids: np.ndarray) -> "Runs":
        """The runs of a map (H, W)."""
        flat = ids.ravel()
        begins = np.ones(flat.size, dtype=bool)
        np.not_equal(flat[1:], flat[:-1], out=begins[1:])
        starts = np.flatnonzero(begins)
        return cls(flat[starts], starts, np.diff(starts, append=flat.size))


def areas_and_boxes(runs: Runs, places: np.ndarray, *, count: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Measure segments.

    Args:
        runs: of the map.
        places: (R,) integers, which segment each run belongs to, from 0.
        count: of the segments.
        width: of the map, in pixels.

    Returns:
        Areas (count,) in pixels, and boxes (count, 4) as left, top, width and height, both int64; all 0 for a segment
        without a pixel.

    Example:

    ```python
    >>> ids = np.array([[0, 1, 1], [1, 0, 0]])
    >>> runs = Runs.of(ids)
    >>> areas, boxes = areas_and_boxes(runs, runs.values, count=2, width=3)
    >>> areas.tolist(), boxes[1].tolist()
    ([3, 3], [0, 0, 3, 2])
    ```
    """
    areas, boxes = np.zeros(count, dtype=np.int64), np.zeros((count, 4), dtype=np.int64)
    if not len(runs.starts):
        return areas, boxes
    np.add.at(areas, places, runs.lengths)
    tops, lefts = np.divmod(runs.starts, width)
    bottoms, rights = np.divmod(runs.starts + runs.lengths - 1, width)
    goes_on = bottoms > tops  # over the end of a row, so that it has pixels in the first column and in the last
    lefts[goes_on], rights[goes_on] = 0, width - 1
    for column, edges in enumerate((lefts, tops)):
        first = np.full(count, np.iinfo(np.int64).max)
        np.minimum.at(first, places, edges)
        boxes[:, column] = first
    for column, edges in enumerate((rights, bottoms)):
        last = np.zeros(count, dtype=np.int64)
        np.maximum.at(last, places, edges)
        boxes[:, 2 + column] = last + 1 - boxes[:, column]
    boxes[areas == 0] = 0
    return areas, boxes
