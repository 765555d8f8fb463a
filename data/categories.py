"""Categories of a data set, and the vocabulary that they make."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisa.data.annotation_files import Fields
from fisa.processing.class_names import plain_name
from fisa.processing.vocabulary import Class, Vocabulary, read_class_lines


@dataclass(frozen=True)
class Category:
    """A category of a data set.

    Args:
        id: as the data set's files number it. The model's class index is its place in the list of categories.
        name: as the data set's files name it, metrics too.
        isthing: whether it is countable.
        synonyms: other names of it.
        kind_is_known: whether `isthing` is stated, or assumed where nothing is.
    """

    id: int
    name: str
    isthing: bool
    synonyms: tuple[str, ...] = ()
    kind_is_known: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, as COCO has it."""
        return {"id": self.id, "name": self.name, "isthing": self.isthing, "synonyms": list(self.synonyms)}


def categories_of_coco(entries: Iterable[Fields]) -> tuple[Category, ...]:
    """From the entries of COCO's `categories`; one without `isthing` is a thing.

    Raises:
        ValueError: an entry that is not as COCO's are, or two of the same id; the message names it.
    """
    categories: dict[int, Category] = {}
    for entry in entries:
        category = Category(
            entry.integer("id"),
            entry.text("name"),
            entry.flag("isthing", default=True),
            entry.texts("synonyms"),
            kind_is_known="isthing" in entry.values,
        )
        if category.id in categories:
            raise entry.error("id", f"must be unique, but is that of {categories[category.id].name!r} too")
        categories[category.id] = category
    return tuple(categories.values())


def categories_from_file(path: Path) -> tuple[Category, ...]:
    """Categories numbered in the order of a file of classes (see `Vocabulary.from_file`). In a `.txt` file any number
    of lines may be `_`: values to be ignored.

    Raises:
        ValueError: the file is refused; the message names it.
    """
    if path.suffix.lower() != ".txt":
        return categories_of(Vocabulary.from_file(path))
    try:
        classes = read_class_lines(path.read_text(encoding="utf-8-sig"))
        Vocabulary(item for item in classes if item.name != "_")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return categories_of(classes)


def categories_of(classes: Iterable[Class], *, first_id: int = 0) -> tuple[Category, ...]:
    """Categories numbered in the order of the classes."""
    return tuple(
        Category(index, item.name, item.is_thing, tuple(item.synonyms), item.kind_is_known)
        for index, item in enumerate(classes, start=first_id)
    )


def vocabulary_of(categories: Sequence[Category]) -> Vocabulary:
    """The vocabulary to look for these categories with, class by class in their order.

    COCO's suffixes -other, -stuff and -merged are dropped and the remaining hyphens become spaces, where that leaves a
    name that no other category has. A name that comes twice (data sets have such) stays with the first category that
    bears it; a later category that has no other name keeps it with its number behind it.
    """
    plain = [plain_name(category.name) for category in categories]
    unique = {name for name in plain if plain.count(name) == 1}
    names = [name if name in unique else category.name for name, category in zip(plain, categories)]
    taken: set[str] = set()
    primary = list(_first_come(names, taken))
    return Vocabulary(
        Class(
            name,
            tuple(synonym for synonym in category.synonyms if _is_free(synonym, taken)),
            is_thing=category.isthing,
            kind_is_known=category.kind_is_known,
        )
        for name, category in zip(primary, categories)
    )


def _first_come(names: Iterable[str], taken: set[str]) -> Iterable[str]:
    for number, name in enumerate(names):
        yield name if _is_free(name, taken) else f"{name} {number}"


def _is_free(name: str, taken: set[str]) -> bool:
    key = " ".join(name.split()).casefold()
    if not key or key in taken:
        return False
    taken.add(key)
    return True
