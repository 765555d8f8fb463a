"""Categories of a data set, and the vocabulary that they make."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fisa.processing.vocabulary import Class, Vocabulary


# COCO's way of saying "what remains of this kind, merged": no one calls a wall a wall-other-merged.
_COCO_SUFFIXES = re.compile(r"(-other|-stuff|-merged)+$")


@dataclass(frozen=True)
class Category:
    """A category of a data set.

    Args:
        id: as the data set's files number it. The model's class index is its place in the list of categories.
        name: as the data set's files name it, metrics too.
        isthing: whether it is countable.
        synonyms: other names of it.
    """

    id: int
    name: str
    isthing: bool
    synonyms: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Category":
        """From an entry of COCO's `categories`; one without `isthing` is a thing."""
        return cls(
            int(entry["id"]), str(entry["name"]), bool(entry.get("isthing", True)), tuple(entry.get("synonyms", ()))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self) | {"synonyms": list(self.synonyms)}


def categories_of(vocabulary: Vocabulary, *, first_id: int = 0) -> tuple[Category, ...]:
    """Categories numbered in the order of a vocabulary."""
    return tuple(
        Category(index, item.name, item.is_thing, tuple(item.synonyms))
        for index, item in enumerate(vocabulary, start=first_id)
    )


def vocabulary_of(categories: Sequence[Category]) -> Vocabulary:
    """The vocabulary to look for these categories with, class by class in their order.

    COCO's suffixes -other, -stuff and -merged are dropped and the remaining hyphens become spaces, where that leaves a
    name that no other category has. A name that comes twice (data sets have such) stays with the first category that
    bears it; a later category that has no other name keeps it with its number behind it.
    """
    plain = [_plain(category.name) for category in categories]
    unique = {name for name in plain if plain.count(name) == 1}
    names = [name if name in unique else category.name for name, category in zip(plain, categories)]
    taken: set[str] = set()
    primary = list(_first_come(names, taken))
    return Vocabulary(
        Class(
            name,
            tuple(synonym for synonym in category.synonyms if _is_free(synonym, taken)),
            is_thing=category.isthing,
        )
        for name, category in zip(primary, categories)
    )


def _plain(name: str) -> str:
    return " ".join(_COCO_SUFFIXES.sub("", name.strip()).replace("-", " ").split())


def _first_come(names: Iterable[str], taken: set[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        yield name if _is_free(name, taken) else f"{name} {number}"


def _is_free(name: str, taken: set[str]) -> bool:
    key = " ".join(name.split()).casefold()
    if not key or key in taken:
        return False
    taken.add(key)
    return True
