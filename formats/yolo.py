"""YOLO's segmentation data sets, as Ultralytics trains on them: `images/`, `labels/` and `data.yaml`."""

from pathlib import Path

import yaml

from fisa.formats.places import photo_copies, replaced_folder
from fisa.formats.results import Results
from fisa.processing.extras import library


def write_yolo(results: Results, folder: Path) -> None:
    """Write a data set with a copy of each photo and, beside it, a text file with an outline per line.

    A segment in several parts has as many lines, since the format knows no others; scores have no place in it.

    Args:
        results ([`Results`])
        folder (`Path`): replaced as a whole where an earlier call wrote it.

    Raises:
        ImportError: supervision is not installed.
        ValueError: the folder holds other files; or a photo cannot be read.
    """
    formats = library("supervision.dataset.formats.yolo", extra="formats", purpose="Writing YOLO's format")
    with replaced_folder(folder) as aside:
        for part in ("images", "labels"):
            (aside / part).mkdir()
        for photo, name, content in photo_copies(results):
            (aside / "images" / name).write_bytes(content)
            lines = formats.detections_to_yolo_annotations(
                photo.segmentation.to_supervision(),
                image_shape=photo.segmentation.size[::-1],
                approximation_percentage=0.0,
            )
            (aside / "labels" / f"{photo.name}.txt").write_text("".join(f"{line}\n" for line in lines))
        names = dict(enumerate(category["name"] for category in results.categories))
        described = {"train": "images", "val": "images", "names": names}
        (aside / "data.yaml").write_text(
            yaml.safe_dump(described, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )
