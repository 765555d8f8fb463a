"""YOLO's segmentation data sets, as Ultralytics trains on them: `images/`, `labels/` and `data.yaml`."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from fisa.formats.places import photo_copies, replaced_folder
from fisa.formats.polygons import outlines
from fisa.formats.results import Results
from fisa.processing.segmentation import Segmentation


def write_yolo(results: Results, folder: Path) -> None:
    """Write a data set with a copy of each photo and, beside it, a text file with an outline per line.

    A segment in several parts has as many lines, since the format knows no others; scores have no place in it. No
    line is a box: among outlines one is read as two points, and a photo of boxes alone makes trainers drop all.

    Args:
        results ([`Results`])
        folder (`Path`): replaced as a whole where an earlier call wrote it.

    Raises:
        ImportError: supervision is not installed.
        ValueError: the folder holds other files; or a photo cannot be read.
    """
    with replaced_folder(folder) as aside:
        for part in ("images", "labels"):
            (aside / part).mkdir()
        for photo, name, content in photo_copies(results):
            (aside / "images" / name).write_bytes(content)
            lines = "".join(f"{line}\n" for line in _lines(photo.segmentation))
            (aside / "labels" / f"{photo.name}.txt").write_text(lines)
        names = dict(enumerate(category["name"] for category in results.categories))
        described = {"train": "images", "val": "images", "names": names}
        (aside / "data.yaml").write_text(
            yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )


def _lines(segmentation: Segmentation) -> Iterator[str]:
    """The class of a segment and an outline of it, in shares of width and height."""
    for segment in segmentation:
        if segment.area:
            for outline in outlines(segmentation.mask(segment)):
                shares = (outline / segmentation.size).flatten().tolist()
                yield " ".join([str(segment.class_id), *(f"{share:.5f}" for share in shares)])
