"""How many pixels each value of one map shares with each value of another, for any number of values in one pass."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SegmentOverlaps:
    """A table of shared pixels.

    Attributes:
        first: `(N,)`, the distinct values of the first map, in ascending order.
        second: `(M,)`, those of the second map.
        shared: `(N, M)` int64, shared pixels; rows and columns sum to the areas of the values.
    """

    first: np.ndarray
    second: np.ndarray
    shared: np.ndarray

    @classmethod
    def between(cls, first: np.ndarray, second: np.ndarray) -> "SegmentOverlaps":
        """The overlaps of two maps of the same shape, `(H, W)` integers."""
        first, second = np.ravel(first), np.ravel(second)
        if not first.size:
            return cls(first, second, np.zeros((0, 0), np.int64))
        # Counting runs of equal pairs is faster: there are about a hundred times fewer runs than pixels.
        ends = np.flatnonzero((first[1:] != first[:-1]) | (second[1:] != second[:-1]))
        ends = np.append(ends, first.size - 1)
        rows, columns = np.unique(first[ends]), np.unique(second[ends])
        # `searchsorted` is faster than the inverse that `unique` can return.
        cell_of_run = np.searchsorted(rows, first[ends]) * len(columns) + np.searchsorted(columns, second[ends])
        shared = np.bincount(cell_of_run, weights=np.diff(ends, prepend=-1), minlength=len(rows) * len(columns))
        return cls(rows, columns, shared.astype(np.int64).reshape(len(rows), len(columns)))
