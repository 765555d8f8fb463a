"""The vocabulary of a call as tensors: class text embeddings, and what is known of their classes."""

from collections import UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True, eq=False)
class EncodedVocabulary(Mapping[str, torch.Tensor]):
    """A vocabulary as the model reads it, checked once when it is made.

    It unpacks into the arguments of [`FisaForUniversalSegmentation.forward`] that bear the names of its attributes;
    those that are `None` are left out.

    Attributes:
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`):
            Text embedding of each prompt; or one set per photo, batch first.
        prompt_class_ids (`torch.Tensor` of shape `(num_prompts,)`):
            The class index of each prompt, 0 to num_classes − 1. If not given, each prompt is a separate class, in
            order.
        class_is_thing (`torch.Tensor` of shape `(num_classes,)` or `None`): whether each class is a thing or stuff.
        class_kinds (`torch.Tensor` of shape `(num_classes,)` or `None`):
            What is known of the kind of each class: 1 a thing, 0 stuff, −1 unknown. If not given, `class_is_thing`
            is taken for knowledge.
        generator_class_ids (`torch.Tensor` of shape `(num_classes,)` or `None`):
            The mask generator's index of each class, −1 where it does not know it.
        num_classes (`int`): how many classes the prompts name.
        one_prompt_per_class (`bool`):
            Whether the prompts are the classes, in their order. False while tracing, where it cannot be known.

    Raises:
        `ValueError`: not one class per prompt, or a class without a prompt.

    Example:

    ```python
    >>> vocabulary = model.encode_vocabulary(processor, {"dog": ["puppy"], "sky [stuff]": []})
    >>> vocabulary.num_classes, vocabulary.prompt_class_ids.tolist()
    (2, [0, 0, 1])
    >>> outputs = model(**processor(images=photo, return_tensors="pt"), **vocabulary)
    ```
    """

    class_embeds: torch.Tensor
    prompt_class_ids: torch.Tensor | None = None
    class_is_thing: torch.Tensor | None = None
    class_kinds: torch.Tensor | None = None
    generator_class_ids: torch.Tensor | None = None
    num_classes: int = field(init=False)
    one_prompt_per_class: bool = field(init=False)

    def __post_init__(self) -> None:
        class_ids = self._class_ids()
        num_things = None if self.class_is_thing is None else self.class_is_thing.shape[0]
        if class_ids is not None:
            num_classes = _num_classes(class_ids, num_things)
            in_order = class_ids == list(range(num_classes))
        else:
            assert num_things is not None  # or else the prompts' classes were looked at
            num_classes, in_order = num_things, False
        if self.prompt_class_ids is None:
            object.__setattr__(self, "prompt_class_ids", torch.arange(num_classes, device=self.class_embeds.device))
        object.__setattr__(self, "num_classes", num_classes)
        object.__setattr__(self, "one_prompt_per_class", in_order)

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._given():
            raise KeyError(f"{name}: this vocabulary has {', '.join(self)}.")
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._given())

    def __len__(self) -> int:
        return len(self._given())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self) | dict(other)

    def __ror__(self, other: dict[str, Any] | UserDict[str, Any]) -> Mapping[str, Any]:
        return other | dict(self)

    def _given(self) -> list[str]:
        return [entry.name for entry in fields(self) if entry.init and getattr(self, entry.name) is not None]

    def _class_ids(self) -> list[int] | None:
        """The class of each prompt; `None` where a graph is traced that takes any."""
        num_prompts = self.class_embeds.shape[-2]
        if self.prompt_class_ids is None:
            return list(range(num_prompts))
        if self.prompt_class_ids.shape[0] != num_prompts:
            raise ValueError(
                f"`prompt_class_ids` has {len(self.prompt_class_ids)} entries for {num_prompts} prompts; each needs "
                "its class."
            )
        if torch.compiler.is_compiling() and self.class_is_thing is not None:
            return None
        return self.prompt_class_ids.tolist()


def _num_classes(class_ids: list[int], num_things: int | None) -> int:
    """How many classes the prompts name, checked: each is named, and `class_is_thing` has as many."""
    named = sorted(set(class_ids))
    num_classes = len(named) if num_things is None else num_things
    if named != list(range(num_classes)):
        shown = ", ".join(map(str, named[:8])) + (", …" if len(named) > 8 else "")
        given = "" if num_things is None else f" and `class_is_thing` has {num_classes} entries"
        raise ValueError(
            f"The prompts name the classes {shown}{given}; "
            f"they must name each of 0 to {num_classes - 1} at least once."
        )
    return num_classes


def average_templates(prompt_embeds: torch.Tensor) -> torch.Tensor:
    """One unit vector per name from its prompts: normalise, average over the templates, normalise (CLIP's ensembling).

    Args:
        prompt_embeds (`torch.Tensor` of shape `(num_names, num_templates, projection_dim)`)

    Returns:
        `torch.Tensor` of shape `(num_names, projection_dim)`.
    """
    return nn.functional.normalize(nn.functional.normalize(prompt_embeds, dim=-1).mean(dim=1), dim=-1)
