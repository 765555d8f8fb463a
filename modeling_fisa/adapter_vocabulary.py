"""What an adapter's file holds beside weights: its vocabulary, and a sample of the CLIP that it was trained on."""

import json
from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import torch
from torch import nn


# The name of the module that PEFT asks for these tensors.
ADAPTER_VOCABULARY = "adapter_vocabulary"
CLASSES, CLASS_EMBEDS, CLIP_SAMPLE = "classes", "class_embeds", "clip_sample"
# The prefix that PEFT puts before the names of `FisaModel`'s tensors in an adapter's file.
ADAPTER_PREFIX = "base_model.model.fisa."


class StoredVocabulary(NamedTuple):
    """A vocabulary as a model stores it.

    Attributes:
        classes: as in [`FisaConfig.vocabulary`]; empty where nothing is stored.
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)` or `None`)
    """

    classes: list[dict[str, Any]]
    class_embeds: torch.Tensor | None


def vocabulary_tensors(vocabulary: StoredVocabulary) -> dict[str, torch.Tensor]:
    """A stored vocabulary as tensors, the only kind of value in an adapter's file.

    Returns:
        The classes as the bytes of JSON, uint8, and the embeddings; nothing for an empty vocabulary.
    """
    classes, class_embeds = vocabulary
    if class_embeds is None:
        return {}
    content = json.dumps(classes, ensure_ascii=False).encode()
    return {
        CLASSES: torch.tensor(list(content), dtype=torch.uint8),
        CLASS_EMBEDS: class_embeds.detach().cpu().contiguous(),
    }


def vocabulary_of_tensors(tensors: Mapping[str, torch.Tensor]) -> StoredVocabulary | None:
    """The vocabulary of [`vocabulary_tensors`]; `None` if there is none, as in adapters of older releases."""
    if CLASSES not in tensors:
        return None
    return StoredVocabulary(json.loads(bytes(tensors[CLASSES].tolist())), tensors[CLASS_EMBEDS])


def pop_beside_weights(tensors: MutableMapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Remove from an adapter's tensors those that are no weights, and return them by their names above.

    Args:
        tensors: by name; what is returned is removed.
        prefix: of the names of `FisaModel`'s tensors.
    """
    prefix += f"{ADAPTER_VOCABULARY}."
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def clip_sample(model: nn.Module) -> torch.Tensor | None:
    """Up to eight numbers of each weight of CLIP, to know it again by; `None` if they are quantised or offloaded.

    A few numbers tell models apart as surely as all of them: training moves every weight of a layer.

    Args:
        model ([`FisaModel`]): with adapters or without; theirs are left out.
    """
    parts = ("text_model", "vision_model", "text_projection", "visual_projection")
    weights = [weight for part in parts for weight in _base_weights(model.get_submodule(part))]
    if any(weight.is_meta or not weight.is_floating_point() for weight in weights):
        return None
    return torch.cat([weight.detach().flatten()[:: -(-weight.numel() // 8)].cpu() for weight in weights])


def is_same_clip(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two [`clip_sample`]s are of one CLIP, as far as the coarser of their precisions can tell."""
    precision = 2 * max(torch.finfo(sample.dtype).eps for sample in (one, other))
    return one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=precision, atol=1e-7)


def _base_weights(module: nn.Module) -> list[torch.Tensor]:
    """The parameters without those of adapters, which PEFT puts beside a `base_layer`."""
    if isinstance(base := getattr(module, "base_layer", None), nn.Module):
        return _base_weights(base)
    own = list(module.parameters(recurse=False))
    return own + [weight for child in module.children() for weight in _base_weights(child)]
