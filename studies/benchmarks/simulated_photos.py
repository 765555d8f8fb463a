"""Photos of COCO's size, number of segments and categories, with segments and predictions of them, where no data set
can be fetched. What they show means nothing; how much there is to read, count and classify is as in COCO."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from fisa.data.categories import Category
from fisa.data.coco import read_panoptic_png
from fisa.data.segmentation_datasets import Entry, FileDataset
from fisa.processing.coco_panoptic import panoptic_to_rgb, segments_info


HEIGHT, WIDTH = 480, 640
SEGMENTS = 12  # COCO's val2017 has 11 per photo
CATEGORIES = tuple(
    Category(number, f"{'thing' if number <= 80 else 'stuff'} {number}", number <= 80) for number in range(1, 134)
)


def simulated_segmentation(random: np.random.Generator) -> dict[str, Any]:
    """A ground truth: cells with wavy borders, one of them void, each of a category of its own."""
    centres = random.random((SEGMENTS + 1, 2, 1, 1), np.float32) * np.array([[[HEIGHT]], [[WIDTH]]], np.float32)
    waves = ndimage.zoom(random.normal(0, 12, (2, HEIGHT // 20, WIDTH // 20)).astype(np.float32), (1, 20, 20), order=1)
    places = np.mgrid[:HEIGHT, :WIDTH] + waves
    ids = np.stack([((places - centre) ** 2).sum(0) for centre in centres]).argmin(0).astype(np.int32)
    categories = random.choice(len(CATEGORIES), SEGMENTS, replace=False) + 1
    return {"segmentation": ids, "segments_info": segments_info(ids, categories.tolist())}


def simulated_prediction(truth: dict[str, Any], random: np.random.Generator) -> dict[str, Any]:
    """Its segments a few pixels off, one of them missed, one taken for another category."""
    ids = np.roll(truth["segmentation"], random.integers(-6, 7, 2).tolist(), (0, 1))
    missed, mistaken = random.choice([info["id"] for info in truth["segments_info"]], 2, replace=False).tolist()
    ids[ids == missed] = 0
    infos = [
        {"id": info["id"], "category_id": 1 if info["id"] == mistaken else info["category_id"]}
        for info in truth["segments_info"]
        if info["id"] != missed
    ]
    return {"segmentation": ids, "segments_info": infos}


def simulated_photo(truth: dict[str, Any], random: np.random.Generator) -> Image.Image:
    """One colour per segment, and grain, so that reading it as a JPEG takes its time."""
    colours = random.integers(30, 226, (SEGMENTS + 1, 3))[truth["segmentation"]]
    return Image.fromarray((colours + random.normal(0, 10, colours.shape)).clip(0, 255).astype(np.uint8))


def write_simulated_photos(folder: Path, *, count: int) -> FileDataset:
    """Write JPEGs and panoptic PNGs."""
    random, entries = np.random.default_rng(0), []
    for number in range(1, count + 1):
        truth = simulated_segmentation(random)
        photo, label = folder / f"{number}.jpg", folder / f"{number}.png"
        simulated_photo(truth, random).save(photo, quality=90)
        Image.fromarray(panoptic_to_rgb(truth["segmentation"])).save(label)
        entries.append(Entry(str(number), photo, label, truth["segments_info"]))
    return FileDataset(entries, CATEGORIES, read_label=read_panoptic_png)
