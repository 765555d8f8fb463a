"""What the roads walk with."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from fisa import get_simo_model
from fisa.miniature import miniature
from fisa.pretrained.patchwork import CHECKPOINT, SCENES
from fisa.processing.lettering import FONTS


@pytest.fixture(scope="session")
def scene():
    """A scene that ships, RGB."""
    return Image.open(SCENES / "easy.jpg").convert("RGB")


@pytest.fixture(scope="session")
def shipped():
    """The folder of the checkpoint that ships, without its adapter."""
    return CHECKPOINT


def label_maps(folder: Path, *, value: int = 1, size: tuple[int, int] = (32, 32), classes: str = "dog\nsky\n") -> Path:
    """Two photos, each with a label map that has 0 and a value."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    labels = np.zeros(size[::-1], dtype=np.uint8)
    labels[4:] = value
    for number in range(2):
        Image.effect_noise((32, 32), 50 + number).convert("RGB").save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{number}.png")
    (folder / "classes.txt").write_text(classes)
    return folder


@pytest.fixture(scope="session")
def mistaken(tmp_path_factory, checkpoint, parts_folder, photo) -> Path:
    """Photos, models, words and data, good ones and bad ones."""
    place = tmp_path_factory.mktemp("mistakes")
    photo.resize((160, 120)).save(place / "photo.png")
    for folder in ("empty", "deep/er"):
        (place / folder).mkdir(parents=True)
    shutil.copy(place / "photo.png", place / "deep" / "er" / "photo.png")
    shutil.copytree(checkpoint, place / "model")
    shutil.copytree(parts_folder / "clip", place / "clip")
    shutil.copytree(parts_folder / "mask_generator", place / "generator")
    clip = CLIPModel.from_pretrained(place / "clip")
    CLIPVisionModelWithProjection(clip.config.vision_config).save_pretrained(place / "vision")
    CLIPTextModel(clip.config.text_config).save_pretrained(place / "text")
    narrow = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    SegformerForSemanticSegmentation(SegformerConfig(**narrow)).save_pretrained(place / "segformer")
    get_simo_model(miniature()[0]).save_pretrained(place / "trained")
    for part in miniature():
        part.save_pretrained(place / "bare")
    for name, content in (("words.csv", b"dog"), ("cut.json", b'{"dog":'), ("nothing.txt", b"")):
        (place / name).write_bytes(content)
    shutil.copy(FONTS / "DroidSansFallback.ttf", place / "any.ttf")
    (place / "utf16.txt").write_text("dog", encoding="utf-16")
    label_maps(place / "good")
    shutil.copytree(place / "good", place / "copies")
    label_maps(place / "stuff", classes="grass [stuff]\nsky [stuff]\n")
    label_maps(place / "small", size=(9, 9))
    label_maps(place / "unknown", value=7)
    label_maps(place / "twice", classes="dog\ndog\n")
    (label_maps(place / "nameless") / "classes.txt").unlink()
    (label_maps(place / "unlabelled") / "labels" / "1.png").unlink()
    Image.new("RGB", (32, 32)).save(label_maps(place / "colour") / "labels" / "1.png")
    return place
