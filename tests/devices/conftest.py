"""The devices that the tests here run on, each named where it is not there: `make test-gpu`."""

import pytest
import torch
from PIL import Image
from transformers import pipeline

import fisa
from fisa.pretrained import patchwork


@pytest.fixture(scope="session")
def cuda():
    """CUDA, or the word that there is none."""
    if not torch.cuda.is_available():
        pytest.skip(f"this PyTorch, {torch.__version__}, finds no CUDA here")
    return torch.device("cuda")


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def device(request):
    """One device after the other."""
    return request.getfixturevalue("cuda") if request.param == "cuda" else torch.device("cpu")


@pytest.fixture(scope="session")
def scenes():
    """The scenes that ship, by name."""
    return {path.stem: Image.open(path).convert("RGB") for path in sorted(patchwork.SCENES.glob("*.jpg"))}


@pytest.fixture(scope="session")
def on_the_cpu(saved):
    """A pipeline on the CPU: what others are compared with."""
    return _segmenter(saved, torch.device("cpu"))


@pytest.fixture(scope="session")
def segmenter(saved, device):
    """A pipeline on the device."""
    return _segmenter(saved, device)


def _segmenter(folder, device):
    return pipeline("image-segmentation", model=str(folder), pipeline_class=fisa.FisaPipeline, device=device)
