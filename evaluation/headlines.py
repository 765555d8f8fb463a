"""The headline figures of an evaluation."""

from collections.abc import Mapping
from typing import Any


# The name of each figure, the task that measures it, and its path in the task's report.
HEADLINES = {
    "pq": ("panoptic", "all", "pq"),
    "sq": ("panoptic", "all", "sq"),
    "rq": ("panoptic", "all", "rq"),
    "pq_things": ("panoptic", "things", "pq"),
    "pq_stuff": ("panoptic", "stuff", "pq"),
    "ap": ("instance", "ap"),
    "miou": ("semantic", "miou"),
    "pixel_accuracy": ("semantic", "pixel_accuracy"),
}


def headlines(report: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures of an evaluation's report, in percent, without those that could not be measured.

    Args:
        report: the content of `metrics.json`: `panoptic`, `instance` and `semantic`, where measured.

    Example:

        >>> from fisa.evaluation.headlines import headlines
        >>> headlines({"semantic": {"miou": 42.0, "pixel_accuracy": 80.0}, "instance": {"ap": None}})
        {'miou': 42.0, 'pixel_accuracy': 80.0}
    """
    figures = {}
    for name, path in HEADLINES.items():
        value: Any = report
        for step in path:
            value = None if value is None else value.get(step)
        if value is not None:
            figures[name] = value
    return figures
