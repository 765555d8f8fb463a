"""Fixtures that several rooms share: a small model on disk, and photos."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings
from PIL import Image
from transformers import CLIPImageProcessor, CLIPProcessor, Mask2FormerImageProcessor

from fisa.miniature import (
    IMAGE_SIZE,
    character_clip_tokenizer,
    miniature,
    miniature_clip,
    miniature_mask_generator,
)
from fisa.pretrained import patchwork
from tests.drawn_picture import draw_picture


# The models here are so small that sharing their work out costs more than doing it.
torch.set_num_threads(1)

# `make fuzz` asks for the second one. No case may take more than ten seconds.
_FUZZING = settings(max_examples=200, deadline=10_000, derandomize=True, database=None)
settings.register_profile("ci", _FUZZING)
settings.register_profile("fuzz", _FUZZING, max_examples=10_000, derandomize=False, print_blob=True)
settings.load_profile("ci")

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "data" / "coco_panoptic_sample"


@pytest.fixture(scope="session", autouse=True)
def texts_of_others_folder(tmp_path_factory) -> Iterator[Path]:
    """Where the texts of others are kept: not among the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        yield Path(constants.HF_HOME, "fisa", "others")


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
def saved(tmp_path_factory):
    """A folder that `save_pretrained` wrote: the shipped model with its adapter merged in, and its processor."""
    folder = tmp_path_factory.mktemp("saved")
    for part in patchwork.load():
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def parts_folder(tmp_path_factory):
    """Folders `clip` and `mask_generator`: the parts of a miniature as they would lie on the Hub."""
    root = tmp_path_factory.mktemp("parts")
    tokenizer, side = character_clip_tokenizer(), {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    miniature_clip(tokenizer).save_pretrained(root / "clip")
    CLIPProcessor(CLIPImageProcessor(size=side, do_center_crop=False), tokenizer).save_pretrained(root / "clip")
    miniature_mask_generator().save_pretrained(root / "mask_generator")
    Mask2FormerImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(root / "mask_generator")
    return root


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
