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


VOID = 0


class MaskAveragePrecision(SegmentationMetric):
    """COCO's average precision of instance masks, in percent, with the same results as pycocotools.

    The mean over categories and IoU thresholds from 0.5 to 0.95, with the 100 best instances of each image. Only
    things are instances. An unmatched instance does not count as false where void and crowds of its category cover at
    least the threshold's share of it, as in Cityscapes' evaluation and as COCO treats crowds.

    Args:
        categories, unlabelled, options: as for [`SegmentationMetric`].

    Raises:
        ValueError: none of the categories is a thing.

    Example:

        >>> import numpy as np
        >>> from fisa.evaluation.mask_average_precision import MaskAveragePrecision
        >>> metric = MaskAveragePrecision(categories=[{"id": 7, "name": "cat", "isthing": True}])
        >>> ids = np.array([[1, 1, 2, 2, 2, 2]])
        >>> infos = [{"id": 1, "category_id": 7, "iscrowd": 0}, {"id": 2, "category_id": 7, "iscrowd": 0}]
        >>> metric.add(
        ...     prediction={"masks": [ids == 1], "category_ids": [7], "scores": [0.9]},
        ...     reference={"image_id": "1", "segmentation": ids, "segments_info": infos},
        ... )
        >>> round(metric.compute()["ap"], 1)  # one of two instances: a recall of 0 to 0.5 of 101 steps
        50.5
    """

    def reset(self) -> None:
        things = [category for category in self.categories if category["isthing"]]
        if not things:
            raise ValueError("None of the categories is a thing; mask AP is over instances of things.")
        self._thing_ids = {category["id"] for category in things}
        thing_names = [{"id": category["id"], "name": category["name"]} for category in things]
        self._evaluator = StreamingEval(thing_names, iou_type="segm")
        self._counted: set[str] = set()

    def add(self, *, prediction: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
        """Count one image.

        Args:
            prediction: `masks`, an iterable of `(H, W)` bool arrays, with `category_ids` and `scores`, one per mask.
            reference: `image_id`, `segmentation` `(H, W)` segment ids, and `segments_info`. A segment whose
                entry has its whole mask under `segmentation`, as run lengths, counts with that mask.

        Raises:
            ValueError: a predicted mask of another size, an unknown predicted category, a segment that is nowhere, an
                `image_id` that was counted before.
        """
        if reference["image_id"] in self._counted:
            raise ValueError(
                f"There are two images {reference['image_id']!r}; their instances would count as those of one "
                "image. Give each image an `image_id` of its own."
            )
        image_id = _number_of(reference["image_id"])
        height, width = reference["segmentation"].shape
        self._refuse_unknown(prediction["category_ids"])
        detections = [
            {
                "image_id": image_id,
                "category_id": category_id,
                "score": float(score),
                "segmentation": _encoded(mask, (height, width)),
            }
            for mask, category_id, score in zip(
                prediction["masks"], prediction["category_ids"], prediction["scores"], strict=True
            )
            if category_id in self._thing_ids
        ]
        instances = self._instances(reference, predicted={detection["category_id"] for detection in detections})
        annotations = [
            instance
            | {
                "id": number,
                "image_id": image_id,
                "area": int(hotcoco.mask.area(instance["segmentation"])),
                "bbox": hotcoco.mask.to_bbox(instance["segmentation"]).tolist(),
            }
            for number, instance in enumerate(instances, start=1)
        ]
        self._counted.add(reference["image_id"])
        self._evaluator.update([{"id": image_id, "height": height, "width": width}], annotations, detections)

    def _instances(self, reference: Mapping[str, Any], *, predicted: set[int]) -> list[dict[str, Any]]:
        """The true instances of an image, and its void as one crowd of each predicted category."""
        height, width = reference["segmentation"].shape
        drawn = SegmentRuns.from_map(reference["segmentation"]).masks()
        absent = [
            info["id"] for info in reference["segments_info"] if not (info.get("segmentation") or info["id"] in drawn)
        ]
        if absent:
            raise ValueError(f"The segments {absent[:5]} are in the list and not in the map.")
        instances = [
            {
                "category_id": info["category_id"],
                "iscrowd": int(info.get("iscrowd", 0)),
                "segmentation": info.get("segmentation") or hotcoco.mask.frPyObjects(drawn[info["id"]], height, width),
            }
            for info in reference["segments_info"]
            if info["category_id"] in self._thing_ids
        ]
        if self.unlabelled == "background" or VOID not in drawn:
            return instances
        void = hotcoco.mask.frPyObjects(drawn[VOID], height, width)
        excused = {category_id: [void] for category_id in sorted(predicted)}
        for instance in instances:
            if instance["iscrowd"] and instance["category_id"] in excused:
                excused[instance["category_id"]].append(instance["segmentation"])
        return instances + [
            {"category_id": category_id, "iscrowd": 1, "segmentation": hotcoco.mask.merge(regions)}
            for category_id, regions in excused.items()
        ]

    def state(self) -> bytes:
        return self._evaluator.to_bytes()

    def merge(self, states: Iterable[bytes]) -> None:
        self._evaluator = StreamingEval.merge(map(StreamingEval.from_bytes, states))

    def _computed(self) -> dict[str, Any]:
        """`ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar` (average recall at 100 instances per image),
        and `"per_class"`: `ap` by class name."""
        evaluator = self._evaluator.finalize()
        evaluator.accumulate()
        evaluator.summary_lines()  # computes the report's figures; `summarize` would also print them
        report = evaluator.report()
        names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
        figures = {name: percent(report["metrics"][key]) for name, key in (names | {"ar": "AR100"}).items()}
        per_class = {
            category["name"]: {"ap": percent(report["per_class"].get(category["name"], {"AP": -1})["AP"])}
            for category in self.categories
            if category["isthing"]
        }
        return figures | {"per_class": per_class}


def _encoded(mask: np.ndarray, shape: tuple[int, int]) -> dict[str, Any]:
    if np.shape(mask) != shape:
        raise ValueError(f"A predicted mask has shape {np.shape(mask)} and the reference {shape}.")
    return hotcoco.mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def _number_of(image_id: str) -> int:
    """A number for an image, the same in every process. hotcoco identifies images by number and, like pycocotools,
    breaks ties between scores in the order of these numbers. COCO's numeric ids are therefore kept."""
    if re.fullmatch("0|[1-9][0-9]{,17}", image_id):
        return int(image_id)
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:7])
