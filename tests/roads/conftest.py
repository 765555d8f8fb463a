import pytest
from PIL import Image

from fisa.pretrained.patchwork import CHECKPOINT, SCENES, load


@pytest.fixture(scope="session")
def scene():
    """A scene that ships, RGB."""
    return Image.open(SCENES / "easy.jpg").convert("RGB")


@pytest.fixture(scope="session")
def shipped():
    """The folder of the checkpoint that ships, without its adapter."""
    return CHECKPOINT


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """A folder that `save_pretrained` wrote: the shipped model with its adapter merged in, and its processor."""
    folder = tmp_path_factory.mktemp("saved")
    for part in load():
        part.save_pretrained(folder)
    return folder
