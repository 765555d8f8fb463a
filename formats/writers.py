"""One way to write any of the formats."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fisa.formats.coco_instances import write_coco_instances
from fisa.formats.cvat import write_cvat
from fisa.formats.json_lines import write_json_lines
from fisa.formats.label_studio import write_label_studio
from fisa.formats.parquet import write_parquet
from fisa.formats.results import Results
from fisa.formats.yolo import write_yolo
from fisa.processing.extras import library


class Format(NamedTuple):
    """How a format is written, what its file or folder is called, and which libraries that takes."""

    write: Callable[[Results, Path], None]
    place: str
    libraries: tuple[str, ...]


FORMATS = {
    "coco": Format(write_coco_instances, "instances.json", ("hotcoco",)),
    "coco-polygons": Format(
        partial(write_coco_instances, polygons=True), "instances_polygons.json", ("hotcoco", "supervision")
    ),
    "yolo": Format(write_yolo, "yolo", ("supervision",)),
    "jsonl": Format(write_json_lines, "segments.jsonl", ("hotcoco",)),
    "parquet": Format(write_parquet, "parquet", ("datasets",)),
    "label-studio": Format(write_label_studio, "label_studio", ("supervision",)),
    "cvat": Format(write_cvat, "cvat.zip", ("supervision",)),
}


def require(format: str) -> None:
    """Make sure that a format can be written here, before work is done for it.

    Raises:
        ValueError: there is no such format.
        ImportError: a library is missing; the message says which.
    """
    if format not in FORMATS:
        raise ValueError(f"There is no format {format!r}; choose from {', '.join(FORMATS)}.")
    for name in FORMATS[format].libraries:
        library(name, extra="formats", purpose=f"Writing the format {format}")


def write(results: Results, format: str, folder: Path) -> Path:
    """Write results in a format, complete or not at all; what an earlier call wrote is replaced.

    Args:
        results ([`Results`])
        format (`str`): one of `FORMATS`.
        folder (`Path`): in which the format's file or folder comes to lie; made if it is not there.

    Returns:
        The path of that file or folder.

    Raises:
        ValueError: there is no such format, or a photo cannot be read.
        ImportError: a library is missing; the message says which.

    Example:

    ```python
    >>> write(Results(Path("results/panoptic.json")), "coco", Path("results")).name
    'instances.json'
    ```
    """
    require(format)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FORMATS[format].place
    FORMATS[format].write(results, path)
    return path
