"""Photos and labels that several roads train on."""

from pathlib import Path

import numpy as np
from PIL import Image


SIDE = 96


def write_label_maps(root: Path, *, values: tuple[int, int] = (0, 1), classes: str = "sky\ncar\n") -> Path:
    """Four photos and label maps, uncompressed, so that their size in bytes does not depend on their content."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    (root / "classes.txt").write_text(classes)
    for number in range(4):
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(root / "images" / f"{number}.jpg")
        label = np.full((SIDE, SIDE), values[0], np.uint8)
        label[20:70, 10 : 40 + number] = values[1]
        Image.fromarray(label).save(root / "labels" / f"{number}.tif")
    return root
