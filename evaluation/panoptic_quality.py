"""Panoptic quality as an `evaluate` metric, by panopticapi's rules."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from hotcoco import metrics
from hotcoco.panoptic import PanopticEval

from fisa.evaluation.segment_runs import SegmentRuns
from fisa.evaluation.segmentation_metric import SegmentationMetric, percent


class PanopticQuality(SegmentationMetric):
    """PQ, SQ and RQ (Kirillov et al., arXiv 1801.00868), in percent.

    A predicted and a true segment of one category match where their IoU exceeds 0.5, pixels that are void in the truth
    counting for neither. Unmatched predictions are not held against the model where more than half of them is void or
    crowd of their category; unmatched crowds never are.
    """

    def reset(self) -> None:
        # For each image and category: summed IoU, matches, false positives, false negatives.
        self._counts: list[tuple[int, float, int, int, int]] = []

    def add(self, *, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Count one image.

        Args:
            prediction: `segmentation` `(H, W)` integers, 0 and below for void, and `segments_info`, a list of `id` and
                `category_id`.
            reference: the same, with `iscrowd` in the list.

        Raises:
            ValueError: maps of different sizes, or a list that does not fit its map.
        """
        found, true = prediction["segmentation"], reference["segmentation"]
        if found.shape != true.shape:
            raise ValueError(f"The prediction has shape {found.shape} and the reference {true.shape}.")
        ids = {info["category_id"] for info in [*prediction["segments_info"], *reference["segments_info"]]}
        categories = [category for category in self.categories if category["id"] in ids]
        if len(categories) < len(ids):
            unknown = ids - {category["id"] for category in categories}
            raise ValueError(
                f"Segments of the categories {sorted(unknown)}, which are not among those of this metric."
            )
        if not categories:
            return
        evaluator = PanopticEval(_dataset(reference, categories), _dataset(prediction, categories))
        evaluator.evaluate()
        for category_id, figures in evaluator.results()["per_class"].items():
            counts = (figures["iou"], figures["tp"], figures["fp"], figures["fn"])
            if any(counts):
                self._counts.append((category_id, *counts))

    def state(self) -> bytes:
        return json.dumps(self._counts).encode()

    def merge(self, states: Iterable[bytes]) -> None:
        self._counts = [tuple(counts) for state in states for counts in json.loads(state)]

    def _computed(self) -> dict[str, Any]:
        """`"all"`, `"things"` and `"stuff"`, each `pq`, `sq`, `rq` and the number `n` of categories that were there,
        and `"per_class"`, by name, the figures with `tp`, `fp` and `fn`."""
        of_category = defaultdict(list)
        for category_id, *counts in self._counts:
            of_category[category_id].append(counts)
        per_class = {
            category["name"]: _quality(of_category[category["id"]]) | {"isthing": bool(category["isthing"])}
            for category in self.categories
        }
        groups = {
            "all": list(per_class.values()),
            "things": [figures for figures in per_class.values() if figures["isthing"]],
            "stuff": [figures for figures in per_class.values() if not figures["isthing"]],
        }
        return {name: _mean(figures) for name, figures in groups.items()} | {"per_class": per_class}


def _dataset(segmentation: Mapping[str, Any], categories: list[dict[str, Any]]) -> dict[str, Any]:
    """One image as hotcoco takes it: an annotation a segment."""
    runs = SegmentRuns.of(segmentation["segmentation"])
    masks = runs.masks()
    listed = {info["id"]: info for info in segmentation["segments_info"]}
    drawn = {segment_id for segment_id in masks if segment_id > 0}
    if listed.keys() != drawn:
        raise ValueError(
            f"The map and the list of segments do not fit: {sorted(drawn - listed.keys())[:5]} are in the map alone, "
            f"{sorted(listed.keys() - drawn)[:5]} in the list alone."
        )
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": info["category_id"],
            "iscrowd": int(info.get("iscrowd", 0)),
            "segmentation": masks[segment_id],
        }
        for number, (segment_id, info) in enumerate(listed.items(), start=1)
    ]
    height, width = runs.size
    images = [{"id": 1, "height": height, "width": width}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _quality(counts: list[list[float]]) -> dict[str, Any]:
    # fsum rounds once, so that the sum does not depend on the order of the images.
    iou = math.fsum(image[0] for image in counts)
    matched, wrong, missed = (sum(image[place] for image in counts) for place in (1, 2, 3))
    quality = metrics.panoptic_quality(iou, matched, wrong, missed)
    return dict(zip(("pq", "sq", "rq"), map(percent, quality))) | {"tp": matched, "fp": wrong, "fn": missed}


def _mean(figures: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the categories that were there, in the truth or in a prediction."""
    there = [figure for figure in figures if figure["pq"] is not None]
    means = {name: math.fsum(f[name] for f in there) / len(there) if there else None for name in ("pq", "sq", "rq")}
    return means | {"n": len(there)}
