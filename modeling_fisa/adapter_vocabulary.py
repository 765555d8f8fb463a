"""What an adapter's file holds beside weights: its vocabulary, and a sample of the CLIP that it was trained on."""

import json
from collections.abc import Collection, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn

from fisa.modeling_fisa.encoded_vocabulary import StoredVocabulary


# The name of the module that PEFT asks for these tensors.
ADAPTER_VOCABULARY = "adapter_vocabulary"
CLASSES, CLASS_EMBEDS, CLIP_SAMPLE = "classes", "class_embeds", "clip_sample"
OTHERS, OTHER_EMBEDS = "others", "other_embeds"
# The prefix that PEFT puts before the names of `FisaModel`'s tensors in an adapter's file.
ADAPTER_PREFIX = "base_model.model.fisa."


def vocabulary_tensors(vocabulary: StoredVocabulary) -> dict[str, torch.Tensor]:
    """A stored vocabulary as tensors, the only kind of value in an adapter's file.

    Returns:
        The classes as the bytes of JSON, uint8, and the embeddings, and those of the others, if there are any; nothing
        for an empty vocabulary.
    """
    if vocabulary.class_embeds is None:
        return {}
    tensors = {
        CLASSES: _as_tensor(vocabulary.classes),
        CLASS_EMBEDS: vocabulary.class_embeds.detach().cpu().contiguous(),
    }
    if vocabulary.others and vocabulary.other_embeds is not None:
        tensors[OTHERS] = _as_tensor(vocabulary.others)
        tensors[OTHER_EMBEDS] = vocabulary.other_embeds.detach().cpu().contiguous()
    return tensors


def vocabulary_of_tensors(tensors: Mapping[str, torch.Tensor]) -> StoredVocabulary | None:
    """The vocabulary of [`vocabulary_tensors`]; `None` if there is none, as in adapters of older releases."""
    if CLASSES not in tensors:
        return None
    others = tensors.get(OTHERS)
    return StoredVocabulary(
        classes=_from_tensor(tensors[CLASSES]),
        class_embeds=tensors[CLASS_EMBEDS],
        others=None if others is None else _from_tensor(others),
        other_embeds=tensors.get(OTHER_EMBEDS),
    )


def pop_beside_weights(tensors: MutableMapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Remove from an adapter's tensors those that are not weights, and return them by their names above.

    Args:
        tensors: by name; what is returned is removed.
        prefix: of the names of `FisaModel`'s tensors.
    """
    prefix += f"{ADAPTER_VOCABULARY}."
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


class AnotherBaseError(ValueError):
    """An adapter that trained other layers than its base has."""


def refuse_another_base(*, adapter: str, base: str, unexpected: Collection[str], missing: Collection[str]) -> None:
    """Refuse an adapter that trained other layers than the base has.

    Args:
        adapter, base: their names.
        unexpected: the adapter's weights that have no place in the base.
        missing: the places in the base for which the adapter has no weight.

    Raises:
        [`AnotherBaseError`]: there are such weights or places.
    """
    if not unexpected and not missing:
        return
    where = f"the base lacks {min(unexpected)}" if unexpected else f"the adapter lacks {min(missing)}"
    raise AnotherBaseError(
        f"The adapter {adapter} does not fit the base {base}: {where}. It was trained on another base; load that one."
    )


def clip_sample(model: nn.Module) -> torch.Tensor | None:
    """[`weights_sample`] of CLIP.

    Args:
        model ([`FisaModel`]): with adapters or without; theirs are left out.
    """
    parts = ("text_model", "vision_model", "text_projection", "visual_projection")
    return weights_sample(*(model.get_submodule(part) for part in parts))


def weights_sample(*modules: nn.Module) -> torch.Tensor | None:
    """Up to eight numbers of each weight, to know the modules again by; `None` if they are quantised or offloaded.

    A few numbers tell models apart as surely as all of them: training moves every weight of a layer.

    Args:
        modules: with adapters or without; theirs are left out.
    """
    weights = [weight for module in modules for weight in _base_weights(module)]
    if any(weight.is_meta or not weight.is_floating_point() for weight in weights):
        return None
    return torch.cat([weight.detach().flatten()[:: -(-weight.numel() // 8) or 1].cpu() for weight in weights])


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


def _as_tensor(entries: list[dict[str, Any]]) -> torch.Tensor:
    return torch.tensor(list(json.dumps(entries, ensure_ascii=False).encode()), dtype=torch.uint8)


def _from_tensor(content: torch.Tensor) -> list[dict[str, Any]]:
    return json.loads(bytes(content.tolist()))
