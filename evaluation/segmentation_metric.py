"""What the metrics share: an `evaluate.Metric` that reduces each image at once and is exact across processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets
import evaluate


class SegmentationMetric(evaluate.Metric, ABC):
    """A metric over images that keeps a few numbers per image, not its maps.

    Unlike `evaluate`'s own metrics it writes nothing to disk, so that predictions of any size and form can be added.
    All figures are in percent; `None` where there was nothing to measure.

    Args:
        categories: dictionaries of `id`, `name` and `isthing`, in the order of the model's class indices.
        options: those of `evaluate.Metric`.
    """

    def __init__(self, categories: Sequence[Mapping[str, Any]], **options: Any):
        super().__init__(**options)
        self.categories = [dict(category) for category in categories]
        self.reset()

    def _info(self) -> evaluate.MetricInfo:
        # Predictions and references are dictionaries and arrays that never enter a table.
        features = datasets.Features({"predictions": datasets.Value("null"), "references": datasets.Value("null")})
        return evaluate.MetricInfo(
            description=type(self).__doc__, citation="", inputs_description=type(self).add.__doc__, features=features
        )

    @abstractmethod
    def reset(self) -> None:
        """Forget all images."""

    @abstractmethod
    def add(self, *, prediction: Any, reference: Mapping[str, Any]) -> None:
        """Count one image."""

    @abstractmethod
    def state(self) -> bytes:
        """All that was counted, to be sent to another process."""

    @abstractmethod
    def merge(self, states: Iterable[bytes]) -> None:
        """Replace what this metric has counted by what several processes have, each image in one of them. The result
        is that of a single process to the last bit, in any order."""

    @abstractmethod
    def _computed(self) -> dict[str, Any]:
        """The figures."""

    def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Mapping[str, Any]]) -> None:
        """Count several images."""
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(
        self, *, predictions: Iterable[Any] | None = None, references: Iterable[Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The figures of all images counted since the last call, plain data for JSON."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        results = self._computed()
        self.reset()
        return results


def as_reference(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of a data set as the reference that metrics take: `image_id`, `segmentation` and `segments_info`."""
    return {
        "image_id": record["image_id"],
        "segmentation": record["label"],
        "segments_info": record["segments_info"],
    }


def percent(share: float) -> float | None:
    """A share from 0 to 1 in percent; `None` for −1, by which hotcoco says that there was nothing to compute."""
    return None if share < 0 else 100 * share
