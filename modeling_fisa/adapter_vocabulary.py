"""The stored vocabulary in an adapter's file: two additional tensors, which all loaders pass to the model."""

import json
from collections.abc import MutableMapping
from typing import Any

import torch


CLASSES = "adapter_vocabulary.classes"
CLASS_EMBEDS = "adapter_vocabulary.class_embeds"
# The prefix that PEFT puts before the names of `FisaModel`'s tensors in an adapter's file.
ADAPTER_PREFIX = "base_model.model.fisa."


def vocabulary_tensors(
    classes: list[dict[str, Any]], class_embeds: torch.Tensor, prefix: str = ""
) -> dict[str, torch.Tensor]:
    """A stored vocabulary as tensors, the only kind of value in an adapter's file.

    Args:
        classes: the classes, as in [`FisaConfig.vocabulary`].
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`)
        prefix: the prefix of the tensors' names.

    Returns:
        The classes as the bytes of JSON, uint8, and the embeddings.
    """
    content = json.dumps(classes, ensure_ascii=False).encode()
    return {
        prefix + CLASSES: torch.tensor(list(content), dtype=torch.uint8),
        prefix + CLASS_EMBEDS: class_embeds.detach().cpu().contiguous(),
    }


def pop_vocabulary(
    tensors: MutableMapping[str, torch.Tensor], prefix: str = ""
) -> tuple[list[dict[str, Any]], torch.Tensor] | None:
    """Remove the vocabulary of [`vocabulary_tensors`] from an adapter's tensors and return it.

    Args:
        tensors: by name; those of the vocabulary are removed.
        prefix: the prefix of the tensors' names.

    Returns:
        Classes and embeddings; `None` if the adapter has none, like those of older releases.
    """
    if prefix + CLASSES not in tensors:
        return None
    content = bytes(tensors.pop(prefix + CLASSES).tolist())
    return json.loads(content), tensors.pop(prefix + CLASS_EMBEDS)
