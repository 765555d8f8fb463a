"""A map of segment ids as runs of equal ids, made in one pass for any number of segments."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class SegmentRuns:
    """The runs of a map, column by column, in COCO's order.

    Attributes:
        size: height and width of the map.
        values: `(R,)`, the segment id of each run.
        lengths: `(R,)`, in pixels.
    """

    size: tuple[int, int]
    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def from_map(cls, ids: np.ndarray) -> "SegmentRuns":
        """The runs of a map of `(H, W)` integers."""
        flat = np.asarray(ids).T.ravel()
        starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]])) if flat.size else np.zeros(0, int)
        return cls(tuple(ids.shape), flat[starts], np.diff(starts, append=flat.size))

    def masks(self) -> dict[int, dict[str, Any]]:
        """The mask of each id, as COCO's uncompressed run lengths."""
        ends = np.cumsum(self.lengths)
        starts = ends - self.lengths
        order = np.argsort(self.values, kind="stable")
        ids, firsts = np.unique(self.values[order], return_index=True)
        masks = {}
        for segment_id, runs in zip(ids.tolist(), np.split(order, firsts[1:])):
            edges = np.zeros(2 * len(runs) + 1, np.int64)
            edges[1::2], edges[2::2] = starts[runs], ends[runs]
            counts = np.diff(edges, append=ends[-1]).tolist()
            masks[segment_id] = {"size": list(self.size), "counts": counts if counts[-1] else counts[:-1]}
        return masks
