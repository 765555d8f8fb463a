"""The stored vocabulary in an adapter's file: two more tensors, which every way of loading hands to
the model."""

import json
from collections.abc import MutableMapping
from typing import Any

import torch


CLASSES = "adapter_vocabulary.classes"
CLASS_EMBEDS = "adapter_vocabulary.class_embeds"
# Of the names in an adapter's file, where PEFT puts it: before the names within `FisaModel`.
ADAPTER_PREFIX = "base_model.model.fisa."


def vocabulary_tensors(
    classes: list[dict[str, Any]], class_embeds: torch.Tensor, prefix: str = ""
) -> dict[str, torch.Tensor]:
    """A stored vocabulary as tensors, the only kind of value in an adapter's file.

    Args:
        classes: as [`FisaConfig.vocabulary`] has them.
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`)
        prefix: of their names.

    Returns:
        The names and kinds as the bytes of JSON, uint8, and the embeddings.
    """
    content = json.dumps(classes, ensure_ascii=False).encode()
    return {
        prefix + CLASSES: torch.tensor(list(content), dtype=torch.uint8),
        prefix + CLASS_EMBEDS: class_embeds.detach().cpu().contiguous(),
    }


def pop_vocabulary(
    tensors: MutableMapping[str, torch.Tensor], prefix: str = ""
) -> tuple[list[dict[str, Any]], torch.Tensor] | None:
    """Take what [`vocabulary_tensors`] made out of an adapter's tensors.

    Args:
        tensors: by name; those of the vocabulary are removed.
        prefix: of their names.

    Returns:
        Classes and embeddings; `None`: the adapter has none, as those of older releases.
    """
    if prefix + CLASSES not in tensors:
        return None
    content = bytes(tensors.pop(prefix + CLASSES).tolist())
    return json.loads(content), tensors.pop(prefix + CLASS_EMBEDS)
