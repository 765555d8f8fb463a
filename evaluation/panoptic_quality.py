"""Panoptic quality as an `evaluate` metric, by panopticapi's rules."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hotcoco import metrics

from fisa.evaluation.segment_overlaps import SegmentOverlaps
from fisa.evaluation.segmentation_metric import SegmentationMetric, percent


class PanopticQuality(SegmentationMetric):
    """PQ, SQ and RQ (Kirillov et al., arXiv 1801.00868), in percent.

    A predicted and a true segment of one category match if their IoU exceeds 0.5; pixels that are void in the truth
    do not count. An unmatched prediction is not a false positive if more than half of it is void or a crowd of its
    category. An unmatched crowd is never a false negative.

    Args:
        categories, unlabelled, options: as for [`SegmentationMetric`].

    Example:

        >>> import numpy as np
        >>> from fisa.evaluation.panoptic_quality import PanopticQuality
        >>> metric = PanopticQuality(categories=[{"id": 7, "name": "cat", "isthing": True}])
        >>> truth = {"segmentation": np.array([[1, 1, 1, 0]]), "segments_info": [{"id": 1, "category_id": 7}]}
        >>> prediction = {"segmentation": np.array([[5, 5, 0, 5]]), "segments_info": [{"id": 5, "category_id": 7}]}
        >>> metric.add(prediction=prediction, reference=truth)
        >>> round(metric.compute()["all"]["pq"], 1)  # two pixels of three: the fourth is void
        66.7
    """

    def reset(self) -> None:
        # For each image and category: summed IoU, matches, false positives, false negatives.
        self._counts: list[tuple[int, float, int, int, int]] = []

    def add(self, *, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Count one image.

        Args:
            prediction: `segmentation` `(H, W)` segment ids, 0 and below for void, and `segments_info`, a list of
                dictionaries of `id` and `category_id`.
            reference: the same, with `iscrowd` in each dictionary.

        Raises:
            ValueError: the maps have different sizes, or a list does not have the segments of its map.
        """
        predicted, true = prediction["segmentation"], reference["segmentation"]
        if predicted.shape != true.shape:
            raise ValueError(f"The prediction has shape {predicted.shape} and the reference {true.shape}.")
        infos = [*prediction["segments_info"], *reference["segments_info"]]
        self._refuse_unknown(info["category_id"] for info in infos)
        self._counts += _counts(
            SegmentOverlaps.between(true, predicted),
            reference["segments_info"],
            prediction["segments_info"],
            has_void=self.unlabelled == "ignored",
        )

    def state(self) -> bytes:
        return json.dumps(self._counts).encode()

    def merge(self, states: Iterable[bytes]) -> None:
        self._counts = [tuple(counts) for state in states for counts in json.loads(state)]

    def _computed(self) -> dict[str, Any]:
        """`"all"`, `"things"` and `"stuff"`: each `pq`, `sq`, `rq` and the number `n` of categories that occurred;
        and `"per_class"`: the figures with `tp`, `fp` and `fn` by class name."""
        by_category = defaultdict(list)
        for category_id, *counts in self._counts:
            by_category[category_id].append(counts)
        per_class = {
            category["name"]: _quality(by_category[category["id"]]) | {"isthing": bool(category["isthing"])}
            for category in self.categories
        }
        groups = {
            "all": list(per_class.values()),
            "things": [figures for figures in per_class.values() if figures["isthing"]],
            "stuff": [figures for figures in per_class.values() if not figures["isthing"]],
        }
        return {name: _mean(figures) for name, figures in groups.items()} | {"per_class": per_class}


def _counts(
    overlaps: SegmentOverlaps,
    true_infos: list[Mapping[str, Any]],
    predicted_infos: list[Mapping[str, Any]],
    *,
    has_void: bool,
) -> list[tuple[int, float, int, int, int]]:
    """The counts of one image, per category: summed IoU, matches, false positives and false negatives."""
    true_segments, predicted_segments = overlaps.first > 0, overlaps.second > 0
    # If a category has several crowds, only the last in the list excuses predictions, as in panopticapi.
    crowds = {info["category_id"]: info["id"] for info in true_infos if info.get("iscrowd")}
    true_infos = _in_order(true_infos, overlaps.first[true_segments])
    predicted_infos = _in_order(predicted_infos, overlaps.second[predicted_segments])
    true_categories, predicted_categories = (
        np.array([info["category_id"] for info in infos], np.int64) for infos in (true_infos, predicted_infos)
    )
    crowd = np.array([bool(info.get("iscrowd")) for info in true_infos], bool)
    excuses = np.array([crowds.get(info["category_id"]) == info["id"] for info in true_infos], bool)
    shared = overlaps.shared[true_segments][:, predicted_segments]
    true_areas = overlaps.shared[true_segments].sum(1)
    predicted_areas = overlaps.shared[:, predicted_segments].sum(0)
    void = overlaps.shared[~true_segments][:, predicted_segments].sum(0) * has_void

    iou = shared / (true_areas[:, None] + predicted_areas - shared - void)
    same = true_categories[:, None] == predicted_categories
    matched = (iou > 0.5) & same & ~crowd[:, None]
    excused = void + (shared * (same & excuses[:, None])).sum(0)
    wrong = ~matched.any(0) & (excused <= 0.5 * predicted_areas)
    missed = ~matched.any(1) & ~crowd
    counts = []
    for category_id in {*true_categories.tolist(), *predicted_categories.tolist()}:
        rows, columns = true_categories == category_id, predicted_categories == category_id
        matches = matched & rows[:, None]
        counts.append(
            (
                category_id,
                math.fsum(iou[matches].tolist()),
                int(matches.sum()),
                int((wrong & columns).sum()),
                int((missed & rows).sum()),
            )
        )
    return [image for image in counts if any(image[1:])]


def _in_order(infos: list[Mapping[str, Any]], drawn: np.ndarray) -> list[Mapping[str, Any]]:
    """The entries of the segments in the order of the ids in the map."""
    listed, drawn = {info["id"]: info for info in infos}, drawn.tolist()
    if listed.keys() != set(drawn):
        raise ValueError(
            f"The map and the list of segments differ: {sorted(set(drawn) - listed.keys())[:5]} are only in the map, "
            f"{sorted(listed.keys() - set(drawn))[:5]} only in the list."
        )
    return [listed[segment_id] for segment_id in drawn]


def _quality(counts: list[list[float]]) -> dict[str, Any]:
    # fsum rounds once: the sum does not depend on the order of the images.
    iou = math.fsum(image[0] for image in counts)
    matched, wrong, missed = (sum(image[place] for image in counts) for place in (1, 2, 3))
    quality = metrics.panoptic_quality(iou, matched, wrong, missed)
    return dict(zip(("pq", "sq", "rq"), map(percent, quality))) | {"tp": matched, "fp": wrong, "fn": missed}


def _mean(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the categories that occur in the truth or in a prediction."""
    present = [figure for figure in figures if figure["pq"] is not None]
    means = {
        name: math.fsum(figure[name] for figure in present) / len(present) if present else None
        for name in ("pq", "sq", "rq")
    }
    return means | {"n": len(present)}
