"""JSON lines: a photo per line, for programs that read one after the other."""

import json
from pathlib import Path
from typing import Any

from fisa.formats.results import Results
from fisa.processing.files import name_fields, written_whole
from fisa.processing.segmentation import Segmentation


def write_json_lines(results: Results, path: Path) -> None:
    """Write a file with a line for each photo; see [`json_line`].

    Args:
        results ([`Results`])
        path (`Path`): of the file.
    """
    with written_whole(path) as aside, open(aside, "w", encoding="ascii") as file:
        for photo in results:
            file.write(json_line(photo.source, photo.segmentation) + "\n")


def json_line(source: str, segmentation: Segmentation) -> str:
    """A photo in one line of JSON: `photo` (see [`name_fields`]), `width`, `height` and `segments`, each of them with
    `label`, `is_thing`, `score`, `area`, `bbox` and `segmentation` in COCO's run lengths."""
    width, height = segmentation.size
    segments: list[dict[str, Any]] = []
    for annotation in segmentation.to_coco():
        segment = segmentation[annotation["id"] - 1]
        kept = {name: annotation[name] for name in ("area", "bbox", "segmentation")}
        segments.append({"label": segment.label, "is_thing": segment.is_thing, "score": segment.score} | kept)
    row = {"width": width, "height": height, "segments": segments}
    return json.dumps(name_fields("photo", source) | row)
