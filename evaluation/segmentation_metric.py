"""The base of the metrics: an `evaluate.Metric` that reduces each image at once and is exact across processes."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import datasets
import evaluate


class SegmentationMetric(evaluate.Metric, ABC):
    """A metric over images that keeps a few numbers per image, not its maps.

    Unlike `evaluate`'s own metrics it writes nothing to disk and takes predictions of any size and type. All figures
    are in percent; a figure that could not be measured is `None`.

    Args:
        categories: dictionaries of `id`, `name` and `isthing`, in the order of the model's class indices. Those that
            share a name are told apart in the figures by their ids: `"screen (42)"`.
        unlabelled: what pixels with id 0 are, in every metric: void (`"ignored"`), on which no prediction is right or
            wrong, or pixels that show none of the categories (`"background"`, as in COCO's instance annotations), on
            which every prediction is wrong.
        options: passed to `evaluate.Metric`.
    """

    def __init__(
        self,
        categories: Sequence[Mapping[str, Any]],
        *,
        unlabelled: Literal["ignored", "background"] = "ignored",
        **options: Any,
    ):
        super().__init__(**options)
        names = Counter(category["name"] for category in categories)
        self.categories = [{**category, "name": _told_apart(category, names)} for category in categories]
        self.unlabelled = unlabelled
        self.reset()

    def _info(self) -> evaluate.MetricInfo:
        # `evaluate` requires features, but no prediction or reference is ever stored in its table.
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
        """All counts, to be sent to another process."""

    @abstractmethod
    def merge(self, states: Iterable[bytes]) -> None:
        """Replace the counts of this metric by those of several processes, each of which counted different images.

        The result is bit-identical to that of a single process, in any order of the states.
        """

    @abstractmethod
    def _computed(self) -> dict[str, Any]:
        """The figures."""

    def _refuse_unknown(self, category_ids: Iterable[int]) -> None:
        unknown = set(category_ids) - {category["id"] for category in self.categories}
        if unknown:
            raise ValueError(
                f"There are segments of the categories {sorted(unknown)}, which this metric does not have."
            )

    def add_batch(self, *, predictions: Iterable[Any], references: Iterable[Mapping[str, Any]]) -> None:
        """Count several images."""
        for prediction, reference in zip(predictions, references, strict=True):
            self.add(prediction=prediction, reference=reference)

    def compute(
        self, *, predictions: Iterable[Any] | None = None, references: Iterable[Mapping[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The figures of all images counted since the last call, ready for JSON."""
        if predictions is not None:
            self.add_batch(predictions=predictions, references=references)
        results = self._computed()
        self.reset()
        return results


def _told_apart(category: Mapping[str, Any], names: Counter[str]) -> str:
    name = category["name"]
    return name if names[name] == 1 else f"{name} ({category['id']})"


def as_reference(record: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a record of a data set into a metric's reference: `image_id`, `segmentation` and `segments_info`."""
    return {
        "image_id": record["image_id"],
        "segmentation": record["label"],
        "segments_info": record["segments_info"],
    }


def percent(share: float) -> float | None:
    """A share from 0 to 1 in percent; `None` for −1, hotcoco's value for a figure that could not be computed."""
    return None if share < 0 else 100 * share
