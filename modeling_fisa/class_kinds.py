"""The generator's opinion whether a mask is a thing or stuff, and what it says about the classes.

A generator that was trained on things and stuff rarely confuses them. Its opinion multiplies the probability of each
class by that of the class's kind:

    p(c) ∝ p(c) · p_generator(kind of c)^w,   p_generator(thing) = Σ softmax(generator's class logits) over its things

and stuff likewise, without "no object". A class whose kind nobody stated takes the likelier kind: against it the
opinion says nothing. So words given without kinds lose nothing to words given with theirs.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch

from fisa.modeling_fisa.mask_classification import UNKNOWN, known_class_ids
from fisa.processing.class_lists import class_list
from fisa.processing.class_names import plain_name


THING, STUFF = 1, 0
PUBLISHED = ("cityscapes_19", "coco_133", "ade20k_150")


def generator_kinds(labels: Mapping[int, str], is_thing: Sequence[bool] | None = None) -> list[int] | None:
    """What a generator's labels are: `THING` or `STUFF`, one per label.

    Args:
        labels: the generator's names of its classes, numbered from 0.
        is_thing: the kinds, where the names do not tell them; see `generator_is_thing` of [`FisaConfig`].

    Returns:
        The kinds by `is_thing`, else by the names, if these are "thing" and "stuff" or all are in one published list.
        `None` for others, and where all labels are of one kind: such a generator cannot tell things from stuff.

    Raises:
        `ValueError`: not one kind per label.

    Example:

    ```python
    >>> generator_kinds({0: "thing", 1: "stuff"}), generator_kinds({0: "cat", 1: "dog"})
    ([1, 0], None)
    ```
    """
    names = [labels[index] for index in sorted(labels)]
    if is_thing is not None and len(is_thing) != len(names):
        raise ValueError(
            f"`generator_is_thing` has {len(is_thing)} entries and the mask generator {len(names)} labels; it must "
            "have one per label."
        )
    kinds = _kinds_by_name(tuple(names)) if is_thing is None else list(map(int, is_thing))
    return kinds if kinds is not None and len(set(kinds)) == 2 else None


@cache
def _kinds_by_name(labels: tuple[str, ...]) -> list[int] | None:
    for known in _published_kinds():
        kinds = [_kind_of(label, known) for label in labels]
        if UNKNOWN not in kinds:
            return kinds
    return None


def _kind_of(label: str, known: Mapping[str, int]) -> int:
    # ADE20K's labels are lists of synonyms: "road, route".
    names = [_key(name) for name in label.split(",")]
    return next((known[name] for name in names if name in known), UNKNOWN)


@cache
def _published_kinds() -> tuple[dict[str, int], ...]:
    """For each set of labels that is known by its names, the kind of each name."""
    published = [
        {_key(name): int(item.is_thing) for item in class_list(title) for name in item.prompts} for title in PUBLISHED
    ]
    return {"thing": THING, "stuff": STUFF}, *published


def _key(name: str) -> str:
    return plain_name(name.lower())


def kinds_for_generator(
    stated: Sequence[int], class_names: list[list[str]], *, labels: Mapping[int, str], label_kinds: Sequence[int]
) -> list[int]:
    """The kind that the generator's opinion of each class is compared with.

    Where the generator has the class among its own labels, that label's kind: a generator that learned doors as stuff
    sees stuff in a door, whatever the vocabulary says. Else what the vocabulary states.

    Args:
        stated: what the vocabulary states, class by class: `THING`, `STUFF` or `UNKNOWN`.
        class_names: the names of each class.
        labels: the generator's labels.
        label_kinds: their kinds.
    """
    known = known_class_ids(class_names, dict(labels))
    return [kind if index == UNKNOWN else label_kinds[index] for kind, index in zip(stated, known)]


def weigh_by_kind(
    log_probs: torch.Tensor,
    generator_logits: torch.Tensor,
    *,
    label_kinds: Sequence[int],
    class_kinds: torch.Tensor,
    weight: float,
) -> torch.Tensor:
    """Multiply the probability of each class by the generator's opinion of its kind, and renormalise.

    Args:
        log_probs (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`)
        generator_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_labels)`): without "no object".
        label_kinds: `THING` or `STUFF` for each of the generator's labels, of both at least one.
        class_kinds (`torch.Tensor` of shape `(num_classes,)`): `THING`, `STUFF` or `UNKNOWN`, int64.
        weight (`float`): exponent of the opinion; 0 changes nothing.

    Returns:
        `torch.Tensor` of the shape of `log_probs`.
    """
    label_log_probs = generator_logits.log_softmax(dim=-1)
    columns = {kind: [index for index, own in enumerate(label_kinds) if own == kind] for kind in (STUFF, THING)}
    stuff, thing = (label_log_probs[..., columns[kind]].logsumexp(dim=-1) for kind in (STUFF, THING))
    opinion = torch.stack([stuff, thing, torch.maximum(stuff, thing)], dim=-1)
    places = torch.where(class_kinds == UNKNOWN, 2, class_kinds)
    return (log_probs + weight * opinion.index_select(-1, places)).log_softmax(dim=-1)
