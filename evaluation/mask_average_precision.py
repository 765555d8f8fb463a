"""Mask AP as an `evaluate` metric, by COCO's rules."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import hotcoco.mask
import numpy as np
from hotcoco import StreamingEval

from fisa.evaluation.segment_runs import SegmentRuns
from fisa.evaluation.segmentation_metric import SegmentationMetric, percent


class MaskAveragePrecision(SegmentationMetric):
    """COCO's average precision of instance masks, in percent: over IoU thresholds from 0.5 to 0.95, categories, and
    the 100 best instances of an image. Things alone are instances."""

    def reset(self) -> None:
        things = [category for category in self.categories if category["isthing"]]
        if not things:
            raise ValueError("None of the categories is a thing; mask AP is over instances of things.")
        self._thing_ids = {category["id"] for category in things}
        self._evaluator = StreamingEval([{"id": c["id"], "name": c["name"]} for c in things], iou_type="segm")

    def add(self, *, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Count one image.

        Args:
            prediction: `masks`, an iterable of `(H, W)` bool arrays, with `category_ids` and `scores`, one a mask.
            reference: `image_id`, `segmentation` `(H, W)` segment ids, and `segments_info`; a segment that brings its
                whole mask as run lengths under `segmentation` counts with that.
        """
        image_id = _number_of(reference["image_id"])
        height, width = reference["segmentation"].shape
        instances = [info for info in reference["segments_info"] if info["category_id"] in self._thing_ids]
        drawn = SegmentRuns.of(reference["segmentation"]).masks()
        true = []
        for number, info in enumerate(instances, start=1):
            mask = info.get("segmentation") or hotcoco.mask.frPyObjects(drawn[info["id"]], height, width)
            true.append(
                {
                    "id": number,
                    "image_id": image_id,
                    "category_id": info["category_id"],
                    "iscrowd": int(info.get("iscrowd", 0)),
                    "segmentation": mask,
                    "area": int(hotcoco.mask.area(mask)),
                    "bbox": hotcoco.mask.to_bbox(mask).tolist(),
                }
            )
        found = [
            {
                "image_id": image_id,
                "category_id": category_id,
                "score": float(score),
                "segmentation": hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8)),
            }
            for mask, category_id, score in zip(
                prediction["masks"], prediction["category_ids"], prediction["scores"], strict=True
            )
            if category_id in self._thing_ids
        ]
        self._evaluator.update([{"id": image_id, "height": height, "width": width}], true, found)

    def state(self) -> bytes:
        return self._evaluator.to_bytes()

    def merge(self, states: Iterable[bytes]) -> None:
        self._evaluator = StreamingEval.merge(map(StreamingEval.from_bytes, states))

    def _computed(self) -> dict[str, Any]:
        """`ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar` (average recall at 100 instances an image),
        and `"per_class"`, by name, `ap`."""
        evaluator = self._evaluator.finalize()
        evaluator.accumulate()
        evaluator.summary_lines()  # computes what a report holds; `summarize` would print it too
        report = evaluator.report()
        names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
        figures = {name: percent(report["metrics"][theirs]) for name, theirs in (names | {"ar": "AR100"}).items()}
        per_class = {name: {"ap": percent(values["AP"])} for name, values in report["per_class"].items()}
        return figures | {"per_class": per_class}


def _number_of(image_id: str) -> int:
    """A number for an image, the same in every process. hotcoco knows images by numbers, and like pycocotools breaks
    ties between scores in their order: COCO's own numbers stay what they are."""
    if re.fullmatch("0|[1-9][0-9]{,17}", image_id):
        return int(image_id)
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:7])
