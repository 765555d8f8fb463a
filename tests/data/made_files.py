"""Small data sets on disk, written as the originals are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

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


def write_coco_panoptic(root: Path, *, name: str = "val2017", photos: int = 2) -> Path:
    """As COCO's release lies; ids beyond one byte, a crowd, and void in the last quarter. Returns the JSON's path."""
    annotations, images = [], []
    ids = (70_000, 5, 300, 0)
    for number in range(1, photos + 1):
        stem = f"{number:012d}"
        write_photo(root / name / f"{stem}.jpg", seed=number)
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
