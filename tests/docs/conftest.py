"""What the examples of pages and docstrings use."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from fisa.pretrained.presets import PRESETS
from fisa.processing.coco_panoptic import CocoPanopticWriter
from tests.data.made_files import HEIGHT, WIDTH, quarters, write_ade20k, write_photo, write_values
from tests.tiny_sam import tiny_sam


ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def belongings(tmp_path_factory, photo, checkpoint, parts_folder):
    """The folder with everything that the pages name."""
    root = tmp_path_factory.mktemp("belongings")
    shutil.copytree(checkpoint, root / "my-fisa")
    for clip, mask_generator in PRESETS.values():
        shutil.copytree(parts_folder / "clip", root / clip)
        shutil.copytree(parts_folder / "mask_generator", root / mask_generator)
    for part in tiny_sam():
        part.save_pretrained(root / "facebook" / "sam-vit-base")
    photo.save(root / "photo.jpg")
    (root / "pretrained").symlink_to(ROOT / "pretrained")
    (root / "recipes").symlink_to(ROOT / "recipes")
    for number in range(3):
        write_photo(root / "my-photos" / "images" / f"{number}.jpg", seed=number)
        write_values(root / "my-photos" / "labels" / f"{number}.png", quarters(0, 1, 1, 255))
    (root / "my-photos" / "classes.txt").write_text("dog\ngrass [stuff]\n")
    write_ade20k(root / "ADEChallengeData2016", quarters(0, 1, 13, 150))
    write_photo(root / "dogs" / "train" / "1.jpg")
    np.save(root / "dogs" / "train" / "1.npy", np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 3)
    halves = np.ones(photo.size[::-1], int)
    halves[240:] = 2
    categories = [{"id": 1, "name": "dog", "isthing": True}, {"id": 2, "name": "grass", "isthing": False}]
    writer = CocoPanopticWriter(root / "results" / "panoptic.json", categories)
    segments = [{"id": number, "category_id": number} for number in (1, 2)]
    writer.add(1, file_name="photo.jpg", segmentation=halves, segments_info=segments)
    writer.close()
    return root
