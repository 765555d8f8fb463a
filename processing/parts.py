"""Which checkpoints a model can be put together of: loading others would leave random weights in their place."""

import json
import os
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES


_CLIP = "clip"
_FISA = "fisa"


def refuse_other_parts(clip: Any, mask_generator: Any) -> None:
    """Refuse folders and Hub names of other kinds of models; what is loaded already is left alone.

    Raises:
        ValueError: the message says of what kind they are, and of what kind they must be.
    """
    kind = _kind(clip)
    if kind not in (None, _CLIP):
        raise ValueError(
            f"{clip} is a model of type {kind!r}. The CLIP must be a whole one of type 'clip', with both towers and "
            "their projections, as CLIPModel saves it: openai/clip-vit-base-patch16 for example."
        )
    kind = _kind(mask_generator)
    if kind not in (None, *MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES) or kind == _FISA:
        raise ValueError(
            f"{mask_generator} is a model of type {kind!r}. The mask generator must be one of "
            "AutoModelForUniversalSegmentation, of type 'mask2former', 'maskformer' or 'eomt': "
            "facebook/mask2former-swin-tiny-coco-panoptic for example."
        )


def refuse_other_model(folder: Any, **source: Any) -> None:
    """Refuse to load FISA from another kind of model than its own, where no config says what to make of it, and from
    an adapter that does not say what it adapts.

    Raises:
        ValueError: the message says of what kind it is, and what to do.
    """
    if _is_adapter_of_unknown(folder):
        raise ValueError(
            f"{folder} is an adapter, and its adapter_config.json does not say of which model: load that model, then "
            "the adapter by peft.PeftModel.from_pretrained(model, folder)."
        )
    kind = _kind(folder, **source)
    if kind not in (None, _FISA):
        raise ValueError(
            f"{folder} is a model of type {kind!r}, not of FISA: nearly all weights would be random. Put a CLIP and "
            "a mask generator together by FisaForUniversalSegmentation.from_clip_and_mask_generator."
        )


def _is_adapter_of_unknown(folder: Any) -> bool:
    if not isinstance(folder, str | os.PathLike):
        return False
    file = Path(folder, "adapter_config.json")
    if not file.is_file() or Path(folder, "config.json").is_file():
        return False
    return json.loads(file.read_text(encoding="utf-8")).get("base_model_name_or_path") is None


def _kind(name: Any, **source: Any) -> str | None:
    """The `model_type` of a folder or Hub name; `None` where there is no config that says it."""
    if not isinstance(name, str | os.PathLike):
        return None
    try:
        settings, _ = PreTrainedConfig.get_config_dict(name, **source)
    except OSError:  # who loads from there says so
        return None
    return settings.get("model_type")


__all__ = ["refuse_other_model", "refuse_other_parts"]
