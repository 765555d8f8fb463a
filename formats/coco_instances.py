"""COCO's instance annotations: one JSON file, a mask in run lengths or polygons for each segment, stuff included."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fisa.formats.polygons import outlines
from fisa.formats.results import LabelledPhoto, Results
from fisa.processing.coco_panoptic import write_annotations
from fisa.processing.files import name_fields


def write_coco_instances(results: Results, path: Path, *, polygons: bool = False) -> None:
    """Write COCO's instance annotations.

    Args:
        results ([`Results`])
        path (`Path`): of the JSON file.
        polygons (`bool`, defaults to `False`):
            Outlines instead of run lengths, for tools that know no other; they miss pixels along the edge.
    """

    def images() -> Iterator[dict[str, Any]]:
        for photo in results:
            width, height = photo.segmentation.size
            yield {"id": photo.id} | name_fields("file_name", photo.source) | {"width": width, "height": height}

    def annotations() -> Iterator[dict[str, Any]]:
        number = 0
        for photo in results:
            for annotation in annotations_of(photo, category_ids, polygons=polygons):
                number += 1
                yield annotation | {"id": number}

    category_ids = [category["id"] for category in results.categories]
    write_annotations(path, images=images(), annotations=annotations(), categories=results.categories)


def annotations_of(photo: LabelledPhoto, category_ids: list[int], *, polygons: bool) -> Iterator[dict[str, Any]]:
    """The annotations of one photo, their ids counted from 1."""
    for annotation in photo.segmentation.to_coco(category_ids, image_id=photo.id):
        if polygons:
            mask = photo.segmentation.mask(photo.segmentation[annotation["id"] - 1])
            annotation["segmentation"] = [outline.flatten().tolist() for outline in outlines(mask)]
        yield annotation
