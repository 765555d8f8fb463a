"""The vocabulary of a call as tensors: class text embeddings, and what is known of their classes."""

from collections import UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import nn


UNKNOWN = -1  # the index of a class that the generator does not know, and a kind that nobody has said

# What the others' tensors are called beside those of the classes that were asked for.
OTHERS = {
    "class_embeds": "other_embeds",
    "prompt_class_ids": "prompt_other_ids",
    "class_is_thing": "other_is_thing",
    "class_kinds": "other_kinds",
    "generator_class_ids": "other_generator_class_ids",
}


@dataclass(frozen=True, eq=False)
class EncodedVocabulary(Mapping[str, torch.Tensor]):
    """A vocabulary as the model reads it, checked once when it is made.

    It unpacks into the arguments of [`FisaForUniversalSegmentation.forward`] that bear the names of its tensors, those
    of the others included; what is `None` is left out.

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
        others ([`EncodedVocabulary`] or `None`):
            The words that compete with the classes and are not returned. They unpack as `other_embeds`,
            `prompt_other_ids`, `other_is_thing`, `other_kinds` and `other_generator_class_ids`.
        id2label (`dict[int, str]` or `None`):
            The names of the classes and, from num_classes on, of the others, as post-processing takes them.
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
    >>> (segmentation,) = processor.post_process_segmentation(outputs, id2label=vocabulary.id2label)
    ```
    """

    class_embeds: torch.Tensor
    prompt_class_ids: torch.Tensor | None = None
    class_is_thing: torch.Tensor | None = None
    class_kinds: torch.Tensor | None = None
    generator_class_ids: torch.Tensor | None = None
    others: "EncodedVocabulary | None" = None
    id2label: dict[int, str] | None = None
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

    @property
    def everything(self) -> "EncodedVocabulary":
        """The classes and, after them, the others, all as classes."""
        if self.others is None:
            return self
        others, num_others = self.others, self.others.num_classes
        assert self.prompt_class_ids is not None and others.prompt_class_ids is not None  # as in every finished one
        batch_shape = self.class_embeds.shape[:-2]
        other_embeds = others.class_embeds.to(self.class_embeds).expand(*batch_shape, -1, -1)
        is_thing = self.class_is_thing
        if is_thing is not None:
            are_things = is_thing.new_ones(num_others) if others.class_is_thing is None else others.class_is_thing
            is_thing = torch.cat([is_thing, are_things])
        return EncodedVocabulary(
            torch.cat([self.class_embeds, other_embeds], dim=-2),
            prompt_class_ids=torch.cat([self.prompt_class_ids, others.prompt_class_ids + self.num_classes]),
            class_is_thing=is_thing,
            class_kinds=self._joined(self._stated_kinds, others._stated_kinds),
            generator_class_ids=self._joined(self.generator_class_ids, others.generator_class_ids),
            id2label=self.id2label,
        )

    def __getitem__(self, name: str) -> torch.Tensor:
        given = self._given()
        if name not in given:
            raise KeyError(f"{name}: this vocabulary has {', '.join(self)}.")
        return given[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given())

    def __len__(self) -> int:
        return len(self._given())

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self) | dict(other)

    def __ror__(self, other: dict[str, Any] | UserDict[str, Any]) -> Mapping[str, Any]:
        return other | dict(self)

    def _given(self) -> dict[str, torch.Tensor]:
        tensors = {name: getattr(self, name) for name in OTHERS}
        if self.others is not None:
            tensors |= {name: getattr(self.others, own_name) for own_name, name in OTHERS.items()}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}

    @property
    def _stated_kinds(self) -> torch.Tensor | None:
        if self.class_kinds is None and self.class_is_thing is not None:
            return self.class_is_thing.long()
        return self.class_kinds

    def _joined(self, of_classes: torch.Tensor | None, of_others: torch.Tensor | None) -> torch.Tensor | None:
        """What is known of the classes and of the others, unknown where nothing is said."""
        if of_classes is None and of_others is None:
            return None
        assert self.others is not None  # or there is nothing to join
        counts = self.num_classes, self.others.num_classes
        unknown = (torch.full((count,), UNKNOWN, device=self.class_embeds.device) for count in counts)
        parts = zip((of_classes, of_others), unknown)
        return torch.cat([blank if part is None else part for part, blank in parts])

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


class StoredVocabulary(NamedTuple):
    """A vocabulary as a model stores it: words and their text embeddings.

    Attributes:
        classes (`list[dict]`): as in [`FisaConfig.vocabulary`]; empty where nothing is stored.
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)` or `None`): of all names of the classes.
        others (`list[dict]` or `None`): as in [`FisaConfig.others`]; `None` for none.
        other_embeds (`torch.Tensor` of shape `(num_other_prompts, projection_dim)` or `None`): of all their names.
    """

    classes: list[dict[str, Any]]
    class_embeds: torch.Tensor | None
    others: list[dict[str, Any]] | None = None
    other_embeds: torch.Tensor | None = None

    @property
    def rivals(self) -> list[dict[str, Any]]:
        """The others that compete, rather than speak for a class."""
        return [entry for entry in self.others or [] if "speaks_for" not in entry]

    def encoded(self) -> EncodedVocabulary:
        """As the model reads it, where something is stored."""
        class_embeds, class_ids, rivals = self.class_embeds, _owners(self.classes), None
        assert class_embeds is not None
        if self.others and self.other_embeds is not None:
            spoken_for = [entry.get("speaks_for", UNKNOWN) for entry in self.others for _ in names_of(entry)]
            voices = [row for row, class_id in enumerate(spoken_for) if class_id != UNKNOWN]
            rival_rows = [row for row, class_id in enumerate(spoken_for) if class_id == UNKNOWN]
            if voices:
                class_embeds = torch.cat([class_embeds, self.other_embeds[voices]])
                class_ids = class_ids + [spoken_for[row] for row in voices]
            if rival_rows:
                rivals = _encoded(self.rivals, self.other_embeds[rival_rows], _owners(self.rivals))
        names = [entry["name"] for entry in [*self.classes, *self.rivals]]
        return replace(_encoded(self.classes, class_embeds, class_ids), others=rivals, id2label=dict(enumerate(names)))


def _encoded(entries: list[dict[str, Any]], embeds: torch.Tensor, owners: list[int]) -> EncodedVocabulary:
    return EncodedVocabulary(
        embeds,
        prompt_class_ids=torch.tensor(owners, device=embeds.device),
        class_is_thing=torch.tensor([entry["is_thing"] for entry in entries], device=embeds.device),
        class_kinds=torch.tensor(stated_kinds(entries), device=embeds.device),
    )


def stated_kinds(entries: list[dict[str, Any]]) -> list[int]:
    """What [`FisaConfig.vocabulary`] knows of the kind of each class: 1 a thing, 0 stuff, −1 unknown."""
    return [int(entry["is_thing"]) if _kind_is_known(entry) else UNKNOWN for entry in entries]


def _kind_is_known(entry: dict[str, Any]) -> bool:
    return entry.get("kind_is_known", not entry["is_thing"])


def names_of(entry: dict[str, Any]) -> list[str]:
    """The name and the synonyms of a class as [`FisaConfig.vocabulary`] has it."""
    return [entry["name"], *entry["synonyms"]]


def _owners(entries: list[dict[str, Any]]) -> list[int]:
    """The index of the entry that each name belongs to."""
    return [index for index, entry in enumerate(entries) for _ in names_of(entry)]


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
