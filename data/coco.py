"""COCO's formats: panoptic (JSON and PNG) and instances (polygons and run lengths)."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
from transformers.utils import logging

from fisa.data.annotation_files import Fields, is_number, read_annotations, read_segments
from fisa.data.categories import categories_of_coco
from fisa.data.label_images import opened_label
from fisa.data.segmentation_datasets import (
    BrokenEntry,
    Entry,
    FileDataset,
    LabelProblem,
    SegmentationDataset,
    refuse_unlisted,
    size_of_photo,
)
from fisa.processing.class_names import listed
from fisa.processing.coco_panoptic import rgb_to_panoptic


logger = logging.get_logger(__name__)

# How far a hand slips over the edge of a photo: in pixels, and in shares of the photo's side.
LEAST_SLIP, SLIP_SHARE = 2.0, 0.05


def coco_panoptic(root: Path, *, split: str) -> SegmentationDataset:
    """COCO panoptic, also the form into which many other data sets are converted.

    Args:
        root: COCO's own layout (`annotations/panoptic_val2017.json`, `annotations/panoptic_val2017/`, `val2017/`), or
            `annotations/panoptic.json`, `annotations/panoptic/` and `images/`.
        split: `"train"` or `"validation"`, or the part of the files' names that stands for it, such as `"val2017"`.

    Raises:
        ValueError: files that are not there, no lists in the JSON file, or a category that is not as COCO's are. An
            image or annotation that is not makes its record a broken one, as a missing photo does.
    """
    annotations, photos = _located(root, "panoptic", split)
    content = read_annotations(annotations)
    categories = categories_of_coco(content.objects("categories"))
    images = _by_image(content.objects("images"), "id")
    annotated = _by_image(content.objects("annotations"), "image_id")
    if alone := [image_id for image_id in images if image_id not in annotated]:
        logger.warning(f"{annotations}: {len(alone)} images have no annotation and are left out: {listed(alone)}.")
    entries = [
        _panoptic_entry(image_id, images[image_id], found, photos=photos, labels=annotations.with_suffix(""))
        for image_id, found in annotated.items()
    ]
    return FileDataset(_nonempty(entries, annotations), categories, read_label=read_panoptic_png)


def coco_instances(root: Path, *, split: str) -> SegmentationDataset:
    """COCO instances: things alone, as polygons or run lengths, which may overlap.

    Args:
        root: COCO's own layout (`annotations/instances_val2017.json`, `val2017/`), or `annotations/instances.json`
            and `images/`.
        split: as for [`coco_panoptic`].

    Raises:
        ValueError: as for [`coco_panoptic`].
    """
    annotations, photos = _located(root, "instances", split)
    content = read_annotations(annotations)
    categories = categories_of_coco(content.objects("categories"))
    images = _by_image(content.objects("images"), "id")
    instances = _by_image(content.objects("annotations"), "image_id")
    entries = [
        _instances_entry(image_id, images[image_id], instances[image_id], photos=photos)
        for image_id in dict.fromkeys([*images, *instances])
    ]
    return FileDataset(_nonempty(entries, annotations), categories, read_label=draw_instances, unlabelled="background")


def _panoptic_entry(
    image_id: str, images: list[Fields], annotations: list[Fields], *, photos: Path, labels: Path
) -> Entry | BrokenEntry:
    try:
        image, annotation = _image_of(annotations, images), _only(annotations, "image_id")
        return Entry(
            image_id,
            image=image.path("file_name", folder=photos),
            label=annotation.path("file_name", folder=labels),
            segments=read_segments(annotation.objects("segments_info")),
        )
    except ValueError as error:
        return BrokenEntry(image_id, str(error))


def _instances_entry(
    image_id: str, images: list[Fields], annotations: list[Fields], *, photos: Path
) -> Entry | BrokenEntry:
    try:
        image = _image_of(annotations, images)
        return Entry(
            image_id,
            image=image.path("file_name", folder=photos),
            label=None,
            instances=[*map(_instance, annotations)],
            size=(image.integer("height", least=1), image.integer("width", least=1)),
        )
    except ValueError as error:
        return BrokenEntry(image_id, str(error))


def _nonempty(entries: list[Entry | BrokenEntry], annotations: Path) -> list[Entry | BrokenEntry]:
    if not entries:
        raise ValueError(
            f"{annotations}: no annotated image is listed. Name another split with --train_split or --eval_split."
        )
    return entries


def read_panoptic_png(entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read COCO's panoptic PNG. Its ids must be those of the list of segments."""
    with opened_label(entry.label) as image:
        label = rgb_to_panoptic(image.convert("RGB"))
    refuse_unlisted(label, entry.segments)
    return label, entry.segments


def draw_instances(entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Draw instance annotations, the smaller on top."""
    height, width = entry.size
    if size_of_photo(entry.image) != (width, height):  # before memory is taken for what the file says
        actual = " x ".join(map(str, size_of_photo(entry.image)))
        raise LabelProblem(f"is {width} x {height} pixels by the annotations, but {entry.image} is {actual}.")
    label = np.zeros((height, width), np.int32)
    drawn = []
    for number, annotation in enumerate(entry.instances, start=1):
        try:
            rle = run_lengths(annotation["segmentation"], height=height, width=width)
        except ValueError as error:
            raise LabelProblem(f"annotation {annotation['id']}: {error}") from error
        # Ids of annotations may be larger than a map can hold, or 0.
        info = {"id": number, "category_id": annotation["category_id"], "iscrowd": annotation["iscrowd"]}
        drawn.append((int(hotcoco.mask.area(rle)), info | {"segmentation": rle}))
    for _, segment in sorted(drawn, key=lambda item: -item[0]):
        label[hotcoco.mask.decode(segment["segmentation"]).astype(bool)] = segment["id"]
    return label, [segment for area, segment in drawn if area]


def run_lengths(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """COCO's run lengths of any COCO segmentation: polygons, or run lengths compressed or not.

    Raises:
        ValueError: run lengths of another size or that do not fill it; no polygons, or some of fewer than three
            points, with coordinates that are not numbers, or beyond the image by more than a hand slips.
    """
    if isinstance(segmentation, Mapping):
        return _checked_run_lengths(segmentation, height=height, width=width)
    if not isinstance(segmentation, list) or not segmentation or not all(map(_is_polygon, segmentation)):
        raise LabelProblem(
            "a segmentation is a list of polygons [x, y, x, y, x, y, …] of finite numbers, or run lengths, found "
            f"{str(segmentation)[:60]}."
        )
    for polygon in segmentation:
        _refuse_outside(polygon, height=height, width=width)
    if max(map(max, segmentation)) <= 1 < min(height, width):
        raise LabelProblem("its polygons lie in the photo's first pixel; coordinates count pixels, not shares of it.")
    return hotcoco.mask.merge(hotcoco.mask.frPyObjects(segmentation, height, width))


def _refuse_outside(polygon: list[float], *, height: int, width: int) -> None:
    """Refuse a polygon that reaches further beyond the photo than a hand slips, or of which the photo holds less than
    half. Any other is cut off at the edge."""
    (left, right), (top, bottom) = ((min(values), max(values)) for values in (polygon[0::2], polygon[1::2]))
    for first, last, side in ((left, right, width), (top, bottom, height)):
        slip = max(LEAST_SLIP, SLIP_SHARE * side)
        if first < -slip or last > side + slip or not 0 <= first + last <= 2 * side:
            raise LabelProblem(
                f"a polygon from ({left:g}, {top:g}) to ({right:g}, {bottom:g}) lies outside of the photo of {width} "
                f"x {height} pixels, or in part. Was it drawn on one of another size? If not, cut it off at the edge."
            )


def _is_polygon(points: Any) -> bool:
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0 and all(map(is_number, points))


def _checked_run_lengths(segmentation: Mapping[str, Any], *, height: int, width: int) -> dict[str, Any]:
    fields = Fields(segmentation, "run lengths")
    if fields.get("size") != [height, width]:
        raise LabelProblem(f"run lengths for {fields.get('size')}, but the image has {[height, width]}.")
    counts = fields.get("counts")
    if not isinstance(counts, str) and not (
        isinstance(counts, list) and all(is_number(count) and 0 <= count == int(count) < 2**32 for count in counts)
    ):
        raise fields.error("counts", "must be compressed run lengths or a list of whole numbers")
    pixels = height * width
    counts = counts if isinstance(counts, str) else [int(count) for count in counts]
    rle = hotcoco.mask.merge([hotcoco.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)])
    if _fit(counts, pixels - 1):
        raise LabelProblem(f"run lengths of fewer pixels than the {pixels} of the image; were they cut short?")
    return rle


def _fit(counts: str | list[int], pixels: int) -> bool:
    """Whether run lengths end within this number of pixels: the library refuses those that go beyond."""
    try:
        hotcoco.mask.merge([hotcoco.mask.frPyObjects({"size": [1, pixels], "counts": counts}, 1, pixels)])
    except ValueError:
        return False
    return True


def _by_image(objects: Iterable[Fields], name: str) -> defaultdict[str, list[Fields]]:
    """The objects of each image by its id; one that names none stands alone, by its place."""
    by_image: defaultdict[str, list[Fields]] = defaultdict(list)
    for fields in objects:
        try:
            by_image[fields.name_or_number(name)].append(fields)
        except ValueError:
            by_image[fields.where].append(fields)
    return by_image


def _image_of(annotations: list[Fields], images: list[Fields]) -> Fields:
    if not images:
        [annotation, *_] = annotations
        image_id = annotation.name_or_number("image_id")
        raise ValueError(f"{annotation.where}: is for image {image_id}, which is not among its images.")
    return _only(images, "id")


def _only(objects: list[Fields], name: str) -> Fields:
    """The one object of an image. It must have been found by its id: one without is refused here."""
    first, *others = objects
    first.name_or_number(name)
    if others:
        raise others[0].error(name, f"must be unique, but is that of {first.where} too")
    return first


def _instance(annotation: Fields) -> dict[str, Any]:
    return {
        "id": annotation.get("id", None),
        "category_id": annotation.integer("category_id"),
        "iscrowd": int(annotation.flag("iscrowd", default=False)),
        "segmentation": annotation.get("segmentation"),
    }


def _located(root: Path, kind: str, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of photos."""
    name = {"validation": "val2017", "train": "train2017"}.get(split, split)
    layouts = [
        (root / "annotations" / f"{kind}_{name}.json", root / name),
        (root / "annotations" / f"{kind}.json", root / "images"),
    ]
    for annotations, photos in layouts:
        if annotations.exists() and photos.is_dir():
            return annotations, photos
    expected = " nor ".join(f"{annotations} with {photos}/" for annotations, photos in layouts)
    raise ValueError(
        f"No COCO {kind} data: found neither {expected}. Name the folder above, and the split with --train_split or "
        "--eval_split."
    )
