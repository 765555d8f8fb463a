"""Small data sets on disk, written as the originals are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from fisa.processing.coco_panoptic import panoptic_to_rgb


HEIGHT, WIDTH = 12, 16
CATEGORIES = [
    {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
    {"id": 3, "name": "car", "isthing": 1, "supercategory": "vehicle"},
    {"id": 184, "name": "tree-merged", "isthing": 0, "supercategory": "plant"},
    {"id": 187, "name": "sky-other-merged", "isthing": 0, "supercategory": "sky"},
]


def write_photo(path: Path, *, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_values(path: Path, values: np.ndarray, *, palette: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image.putpalette([(37 * index) % 256 for index in range(768)])
    image.save(path)
    return path


def quarters(*values: int, dtype: type = np.uint8) -> np.ndarray:
    """A map of four quarters: top left, top right, bottom left, bottom right."""
    return np.kron(np.array(values, dtype).reshape(2, 2), np.ones((HEIGHT // 2, WIDTH // 2), dtype)).astype(dtype)


def segment(id: int, category_id: int, *, iscrowd: int = 0) -> dict[str, Any]:
    return {"id": id, "category_id": category_id, "iscrowd": iscrowd, "area": 48, "bbox": [0, 0, 8, 6]}


def write_coco_panoptic(root: Path, *, name: str = "val2017", photos: int = 2, seed: int = 0) -> Path:
    """As COCO's release lies; ids beyond one byte, a crowd, and void in the last quarter. Returns the JSON's path."""
    annotations, images = [], []
    ids = (70_000, 5, 300, 0)
    for number in range(1, photos + 1):
        stem = f"{number:012d}"
        write_photo(root / name / f"{stem}.jpg", seed=seed + number)
        write_values(
            root / "annotations" / f"panoptic_{name}" / f"{stem}.png", panoptic_to_rgb(quarters(*ids, dtype=np.int32))
        )
        images.append({"id": number, "file_name": f"{stem}.jpg", "height": HEIGHT, "width": WIDTH})
        annotations.append(
            {
                "image_id": number,
                "file_name": f"{stem}.png",
                "segments_info": [segment(70_000, 1), segment(5, 184), segment(300, 1, iscrowd=1)],
            }
        )
    path = root / "annotations" / f"panoptic_{name}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": CATEGORIES}))
    return path


def rewrite_json(path: Path, change) -> None:
    """Load, change in place, save."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def write_ade20k(root: Path, values: np.ndarray) -> Path:
    """ADEChallengeData2016."""
    write_photo(root / "images" / "validation" / "ADE_val_00000001.jpg")
    write_values(root / "annotations" / "validation" / "ADE_val_00000001.png", values)
    return root


def write_ade20k_full(root: Path, values: np.ndarray) -> Path:
    """ADE20K_2021_17_01 as MaskFormer prepares it."""
    write_photo(root / "images_detectron2" / "validation" / "a.jpg")
    write_values(root / "annotations_detectron2" / "validation" / "a.tif", values)
    return root


def write_context(root: Path, values: np.ndarray) -> Path:
    """Pascal Context, of which a few classes are left; the two lists spell some differently."""
    write_photo(root / "JPEGImages" / "2008_000002.jpg")
    (root / "trainval").mkdir()
    savemat(root / "trainval" / "2008_000002.mat", {"LabelMap": values})
    (root / "pascalcontext_val.txt").write_text("2008_000002\n")
    names = ["accordion", "aeroplane", "table", "bedclothes", "sky", "zebra"]
    (root / "labels.txt").write_text("".join(f"{number}: {name}\n" for number, name in enumerate(names, start=1)))
    frequent = ["aeroplane", "diningtable", "bedcloth", "sky"]
    (root / "59_labels.txt").write_text(
        "".join(f"{number}: {name}\n" for number, name in enumerate(frequent, start=1))
    )
    return root


def write_voc(root: Path) -> Path:
    """VOCdevkit with two photos, of which one is in the validation list; void, background and two classes."""
    folder = root / "VOC2012"
    for number, name in enumerate(("2007_000033", "2007_000042")):
        write_photo(folder / "JPEGImages" / f"{name}.jpg", seed=number)
        write_values(folder / "SegmentationClass" / f"{name}.png", quarters(0, 1, 255, 20), palette=True)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("2007_000042\n")
    return root


def write_cityscapes(root: Path) -> Path:
    """Two cars (26), a group of cars, the ego vehicle (1, never evaluated), road (7) and sky (23) in a strip each."""
    write_photo(root / "leftImg8bit" / "val" / "ulm" / "ulm_000000_000019_leftImg8bit.png")
    strips = np.array([26000, 26001, 26, 1, 7, 23], np.uint16)
    values = np.repeat(strips, HEIGHT // 6)[:, None] * np.ones((1, WIDTH), np.uint16)
    write_values(root / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_instanceIds.png", values)
    return root
