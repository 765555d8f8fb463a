"""COCO's formats: panoptic (JSON and PNG) and instances (polygons and run lengths)."""

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
from PIL import Image

from fisa.data.categories import Category
from fisa.data.segmentation_datasets import Entry, LabelProblem, SegmentationDataset
from fisa.processing.coco_panoptic import rgb_to_panoptic


def coco_panoptic(root: Path, *, split: str) -> SegmentationDataset:
    """COCO panoptic, also the form into which many other data sets are converted.

    Args:
        root: COCO's own layout (`annotations/panoptic_val2017.json`, `annotations/panoptic_val2017/`, `val2017/`), or
            `annotations/panoptic.json`, `annotations/panoptic/` and `images/`.
        split: `"train"` or `"validation"`, or whatever stands in the files' names, such as `"val2017"`.
    """
    annotations, photos = _found(root, "panoptic", split)
    content = _read_json(annotations)
    categories = tuple(map(Category.of, content["categories"]))
    names = {image["id"]: image["file_name"] for image in content["images"]}
    entries = [
        Entry(
            image_id=str(annotation["image_id"]),
            image=photos / _named(names, annotation["image_id"], annotations),
            label=annotations.with_suffix("") / annotation["file_name"],
            segments=[_segment(info) for info in annotation["segments_info"]],
        )
        for annotation in content["annotations"]
    ]
    return SegmentationDataset(entries, categories, read_label=read_panoptic_png)


def coco_instances(root: Path, *, split: str) -> SegmentationDataset:
    """COCO instances: things alone, as polygons or run lengths, which may overlap.

    Args:
        root: COCO's own layout (`annotations/instances_val2017.json`, `val2017/`), or `annotations/instances.json`
            and `images/`.
        split: as for [`coco_panoptic`].
    """
    annotations, photos = _found(root, "instances", split)
    content = _read_json(annotations)
    categories = tuple(map(Category.of, content["categories"]))
    of_image = defaultdict(list)
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    sizes = {str(image["id"]): (image["height"], image["width"]) for image in content["images"]}
    polygons = {str(image["id"]): of_image[image["id"]] for image in content["images"]}
    entries = [
        Entry(image_id=str(image["id"]), image=photos / image["file_name"], label=None) for image in content["images"]
    ]
    reader = InstanceReader(polygons, sizes)
    return SegmentationDataset(entries, categories, read_label=reader, unlabelled="background")


def read_panoptic_png(entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Read COCO's panoptic PNG. Its ids must be those of the list of segments."""
    with Image.open(entry.label) as image:
        label = rgb_to_panoptic(image.convert("RGB"))
    listed, drawn = {segment["id"] for segment in entry.segments}, set(np.unique(label).tolist()) - {0}
    if listed != drawn:
        raise LabelProblem(
            f"it has {len(drawn - listed)} segments that the JSON does not list, {sorted(drawn - listed)[:5]}, "
            f"and {len(listed - drawn)} listed ones are not in it, {sorted(listed - drawn)[:5]}; "
            "JSON and PNG files must come from the same release."
        )
    return label, entry.segments


@dataclass(frozen=True)
class InstanceReader:
    """Draws instance annotations, the smaller on top.

    Args:
        annotations: of each image, COCO's own.
        sizes: height and width of each image.
    """

    annotations: Mapping[str, list[dict[str, Any]]]
    sizes: Mapping[str, tuple[int, int]]

    def __call__(self, entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
        height, width = self.sizes[entry.image_id]
        label = np.zeros((height, width), np.int32)
        drawn = []
        for number, annotation in enumerate(self.annotations[entry.image_id], start=1):
            rle = run_lengths(annotation["segmentation"], height=height, width=width)
            # Ids of annotations may be larger than a map can hold, or 0.
            info = {
                "id": number,
                "category_id": annotation["category_id"],
                "iscrowd": int(annotation.get("iscrowd", 0)),
            }
            drawn.append((int(hotcoco.mask.area(rle)), info | {"segmentation": rle}))
        for _, segment in sorted(drawn, key=lambda item: -item[0]):
            label[hotcoco.mask.decode(segment["segmentation"]).astype(bool)] = segment["id"]
        return label, [segment for area, segment in drawn if area]


def run_lengths(segmentation: Any, *, height: int, width: int) -> dict[str, Any]:
    """COCO's run lengths of any COCO segmentation: polygons, or run lengths compressed or not."""
    if isinstance(segmentation, Mapping):
        if list(segmentation["size"]) != [height, width]:
            raise LabelProblem(f"run lengths for {segmentation['size']}, but the image has {[height, width]}.")
        return hotcoco.mask.merge([hotcoco.mask.frPyObjects(dict(segmentation), height, width)])
    return hotcoco.mask.merge(hotcoco.mask.frPyObjects(segmentation, height, width))


def _segment(info: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": info["id"], "category_id": info["category_id"], "iscrowd": int(info.get("iscrowd", 0))}


def _found(root: Path, kind: str, split: str) -> tuple[Path, Path]:
    """The annotation file and the folder of photos."""
    name = {"validation": "val2017", "train": "train2017"}.get(split, split)
    layouts = [
        (root / "annotations" / f"{kind}_{name}.json", root / name),
        (root / "annotations" / f"{kind}.json", root / "images"),
    ]
    for annotations, photos in layouts:
        if annotations.exists() and photos.is_dir():
            return annotations, photos
    looked = " nor ".join(f"{annotations} with {photos}/" for annotations, photos in layouts)
    raise ValueError(f"No COCO {kind} data: found neither {looked}. Name the folder above, and the --…_split.")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error


def _named(names: Mapping[int, str], image_id: int, annotations: Path) -> str:
    if image_id not in names:
        raise ValueError(f"{annotations}: an annotation is for image {image_id}, which is not among its images.")
    return names[image_id]
