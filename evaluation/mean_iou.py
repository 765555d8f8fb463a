"""Mean IoU and pixel accuracy as an `evaluate` metric, by mmsegmentation's rules."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from hotcoco import metrics

from fisa.evaluation.segment_overlaps import SegmentOverlaps
from fisa.evaluation.segmentation_metric import SegmentationMetric, percent


class MeanIoU(SegmentationMetric):
    """Mean IoU and accuracy of the pixels' classes, counted over all images together, in percent.

    Void pixels are left out; pixels of a crowd count as the crowd's class. A class that occurs neither in the truth
    nor in a prediction has no IoU; a class that occurs in predictions only has an IoU of 0.

    Where unlabelled pixels are background, it is one more class in the accuracy of all pixels and in `fwiou`; the
    means over classes leave it out.

    Args:
        categories, unlabelled, options: as for [`SegmentationMetric`].

    Example:

        >>> import numpy as np
        >>> from fisa.evaluation.mean_iou import MeanIoU
        >>> cat, sky = {"id": 7, "name": "cat", "isthing": True}, {"id": 9, "name": "sky", "isthing": False}
        >>> metric = MeanIoU(categories=[cat, sky])
        >>> infos = [{"id": 1, "category_id": 7}, {"id": 2, "category_id": 9}]
        >>> truth = {"segmentation": np.array([[1, 1, 2, 0]]), "segments_info": infos}  # cat, cat, sky, void
        >>> metric.add(prediction=np.array([[0, 1, 1, 0]]), reference=truth)  # cat, sky, sky, cat
        >>> metric.compute()["miou"]
        50.0
    """

    def reset(self) -> None:
        # Pixels by true class (row) and predicted class (column); the background, if there is one, is the last.
        size = len(self.categories) + (self.unlabelled == "background")
        self._confusion = np.zeros((size, size), np.int64)

    def add(self, *, prediction: np.ndarray, reference: Mapping[str, Any]) -> None:
        """Count one image.

        Args:
            prediction: `(H, W)` class indices in the order of the categories; −1, where there is background, for none.
            reference: `segmentation` `(H, W)` segment ids, 0 where there is none, and `segments_info`.

        Raises:
            ValueError: the maps have different sizes, or a class index or category is unknown.
        """
        if prediction.shape != reference["segmentation"].shape:
            raise ValueError(
                f"The prediction has shape {prediction.shape} and the reference {reference['segmentation'].shape}."
            )
        self._refuse_unknown(info["category_id"] for info in reference["segments_info"])
        overlaps = SegmentOverlaps.between(reference["segmentation"], np.asarray(prediction))
        least = -1 if self.unlabelled == "background" else 0
        if overlaps.second.size and not least <= overlaps.second[0] <= overlaps.second[-1] < len(self.categories):
            raise ValueError(
                f"The prediction holds class indices from {overlaps.second[0]} to {overlaps.second[-1]}; "
                f"this metric takes {least} to {len(self.categories) - 1}."
            )
        places = {category["id"]: place for place, category in enumerate(self.categories)}
        classes = {info["id"]: places[info["category_id"]] for info in reference["segments_info"]}
        if self.unlabelled == "background":
            classes[0] = -1
        for segment_id, shared in zip(overlaps.first.tolist(), overlaps.shared):
            if segment_id in classes:
                self._confusion[classes[segment_id], overlaps.second] += shared

    def state(self) -> bytes:
        return self._confusion.tobytes()

    def merge(self, states: Iterable[bytes]) -> None:
        shape = self._confusion.shape
        counts = (np.frombuffer(state, np.int64).reshape(shape) for state in states)
        self._confusion = sum(counts, start=np.zeros(shape, np.int64))

    def _computed(self) -> dict[str, Any]:
        """`miou`, `pixel_accuracy`, `mean_accuracy`, `fwiou` (weighted by frequency), and `"per_class"`: `iou` and
        `accuracy` by class name."""
        figures = metrics.mean_iou(self._confusion.astype(np.uint64))
        per_class = {
            category["name"]: {"iou": percent(iou), "accuracy": percent(accuracy)}
            for category, iou, accuracy in zip(self.categories, figures["IoU"], figures["Acc"])
        }
        names = {"miou": "mIoU", "pixel_accuracy": "aAcc", "mean_accuracy": "mAcc", "fwiou": "fwIoU"}
        results = {name: percent(figures[key]) for name, key in names.items()}
        if self.unlabelled == "background":
            means = {"miou": "iou", "mean_accuracy": "accuracy"}
            results |= {name: _mean(figures[key] for figures in per_class.values()) for name, key in means.items()}
        return results | {"per_class": per_class}


def _mean(figures: Iterable[float | None]) -> float | None:
    """The mean of those that could be measured."""
    measured = [figure for figure in figures if figure is not None]
    return sum(measured) / len(measured) if measured else None
