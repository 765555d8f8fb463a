"""Public parts that go together, by one name, and the models that are made of them:

    model, processor = load("clip+mask2former")

A preset is a CLIP and a mask generator from the Hub. Each is downloaded once, into Hugging Face's cache, and put
together anew whenever it is loaded; nothing else is written. Untrained, that is CLIP with mask tokens.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import constants, try_to_load_from_cache

from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.processing.processing_fisa import FisaProcessor


logger = logging.getLogger(__name__)


class Preset(NamedTuple):
    """Names on the Hub, in the order of `from_clip_and_mask_generator`."""

    clip: str
    mask_generator: str


PRESETS = {
    "clip+mask2former": Preset("openai/clip-vit-base-patch16", "facebook/mask2former-swin-tiny-coco-panoptic"),
    "clip-large+mask2former-large": Preset(
        "openai/clip-vit-large-patch14-336", "facebook/mask2former-swin-large-coco-panoptic"
    ),
}
"""The first is for laptops, the second for GPUs."""

MEGABYTES = {
    "openai/clip-vit-base-patch16": 599,
    "openai/clip-vit-large-patch14-336": 1712,
    "facebook/mask2former-swin-tiny-coco-panoptic": 190,
    "facebook/mask2former-swin-large-coco-panoptic": 862,
}
"""The weights of each part, in float32."""

# Of each line one is enough. Some parts have only the second form of weights.
NEEDED = (
    ("config.json",),
    ("preprocessor_config.json", "processor_config.json"),
    ("model.safetensors", "pytorch_model.bin"),
)
NEEDED_OF_TEXTS = ("tokenizer.json", "vocab.json")


def preset_of(name: str | None) -> Preset | None:
    """The preset of a name; `None` for any other name, and where a folder has it."""
    return None if name is None or Path(name).exists() else PRESETS.get(name)


def missing_parts(preset: Preset) -> list[str]:
    """The parts that are neither in Hugging Face's cache nor a folder here, whole.

    Example:

    ```python
    >>> missing_parts(Preset("my-fisa", "nobody/nothing"))
    ['nobody/nothing']
    ```
    """
    needed = {preset.clip: (*NEEDED, NEEDED_OF_TEXTS), preset.mask_generator: NEEDED}
    return [
        part
        for part, files in needed.items()
        if not Path(part).is_dir() and not all(_any_is_cached(part, names) for names in files)
    ]


def _any_is_cached(part: str, names: Iterable[str]) -> bool:
    return any(isinstance(try_to_load_from_cache(part, name), str) for name in names)


def announce_download(name: str) -> None:
    """Say what of a preset is about to be downloaded, how large it is, and where it stays."""
    if parts := missing_parts(PRESETS[name]):
        sizes = " and ".join(f"{part} ({MEGABYTES[part] / 1000:.1f} GB)" for part in parts)
        logger.warning("%s: downloading %s, once, into %s", name, sizes, constants.HF_HUB_CACHE)


def load(name: str, *, dtype: torch.dtype | str = "auto") -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """The model of a preset, in evaluation mode, and its processor.

    Args:
        name: one of `PRESETS`.
        dtype: of the weights; "auto" leaves them as they are stored.

    Raises:
        ValueError: there is no such preset.
        OSError: a part is not in the cache, and the Hub cannot be reached.

    Example:

    ```python
    >>> from fisa.pretrained import presets

    >>> model, processor = presets.load("clip+mask2former")
    >>> model.mask_generator.config.model_type
    'mask2former'
    ```
    """
    if name not in PRESETS:
        raise ValueError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    announce_download(name)
    with torch.random.fork_rng(devices=[]):
        # Untrained SEVE starts at random and changes nothing, but results tell a model by its weights.
        torch.manual_seed(0)
        model = FisaForUniversalSegmentation.from_clip_and_mask_generator(*PRESETS[name])
    if isinstance(dtype, torch.dtype):
        model.to(dtype)  # type: ignore[arg-type]  # transformers wraps it without its types
    return model, FisaProcessor.from_clip_and_mask_generator(*PRESETS[name])
