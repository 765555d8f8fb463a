"""Fixtures that several rooms share: a small model on disk, and photos."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from fisa.miniature import miniature
from tests.drawn_picture import draw_picture


# The models here are so small that sharing their work out costs more than doing it.
torch.set_num_threads(1)

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco_panoptic_sample"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A saved miniature that stores the vocabulary dog, sky (stuff), car with a synonym."""
    folder = tmp_path_factory.mktemp("checkpoint")
    model, processor = miniature()
    model.set_vocabulary(processor, {"dog": [], "sky": [], "car": ["automobile"]})
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A drawn picture, 640 × 480."""
    return draw_picture()


@pytest.fixture
def coco_sample() -> Path:
    """Two real COCO photos with panoptic ground truth, which lie beside the repository in CI alone."""
    if not SAMPLE.exists():
        pytest.skip("the COCO sample is not beside the repository")
    return SAMPLE
