"""The vocabulary: which classes to look for, by what names, whether each is a thing or stuff, and the sentences
(prompt templates) that each name is put into before CLIP reads it."""

import json
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, overload

from fisa.configuration.kind_marks import refuse_mark, split_kind
from fisa.processing.class_names import (
    as_seen,
    listed,
    quoted,
    reads_like_several,
    refuse_other_numbers,
    sounds_like_stuff,
    split_names,
    tidy,
    without_numbers,
)
from fisa.processing.json_values import read_json_text


PROMPT_TEMPLATES: dict[str, tuple[str, ...]] = {
    "default": ("a photo of a {}",),
    "scene": (
        "a photo of a {}",
        "a photo with a {} in it",
        "a picture of the {} in a room or a street",
        "an everyday scene that shows a {}",
        "the {} fills a part of this photo",
        "a {} next to other things",
        "a {} partly hidden behind something",
        "a small {} far away",
        "a large {} close to the camera",
        "a {} in the background of a photo",
        "a blurry or dark photo of a {}",
        "a drawing or a painting of a {}",
    ),
}

# By what names others' files hold their lists of classes: COCO's, YOLO's, FISA's, transformers' and unnamed formats.
_LISTS = ("categories", "names", "vocabulary", "id2label", "classes", "labels")
_COMMENT = re.compile(r"(^|\s)#.*")


@dataclass(frozen=True, init=False)
class Class:
    """What to look for: a class, by one or more names.

    Args:
        name (`str`):
            The name that results are labelled with, and the first prompt. Runs of white space become one space.
        synonyms (`Iterable[str]`, *optional*):
            Other names of the same class, each a prompt of its own; a class counts by its best one.
        is_thing (`bool`, *optional*):
            `True` where instances are counted (a dog, a car), `False` for stuff (sky, grass), one segment in all.
            `None`: stuff if the name is in a short built-in list of common stuff words, a thing otherwise.
        kind_is_known (`bool`, *optional*):
            Whether `is_thing` is knowledge that naming masks may rely on, or only what results are merged by. Not
            given: it is known where `is_thing` is given or the name is in the list; that any other name is a thing is
            an assumption.

    Raises:
        TypeError: a name is not a string, `synonyms` not a list of strings, or `is_thing` not a boolean.

    Example:

    ```python
    >>> frisbee = Class("frisbee", synonyms=["flying disc"])
    >>> frisbee.prompts, frisbee.is_thing, frisbee.kind_is_known
    (('frisbee', 'flying disc'), True, False)
    ```
    """

    name: str
    synonyms: tuple[str, ...]
    is_thing: bool
    kind_is_known: bool = field(compare=False)  # the same is looked for, whoever said its kind

    def __init__(
        self,
        name: str,
        synonyms: Iterable[str] = (),
        is_thing: bool | None = None,
        kind_is_known: bool | None = None,
    ) -> None:
        name = tidy(name)
        if isinstance(synonyms, str | Mapping) or not isinstance(synonyms, Iterable):
            raise TypeError(f"The synonyms of {name!r} must be a list of strings, found {synonyms!r}.")
        if is_thing not in (None, True, False):
            raise TypeError(f"`is_thing` of {name!r} must be true, false or absent, found {is_thing!r}.")
        if is_thing is None:
            is_thing, known = not sounds_like_stuff(name), sounds_like_stuff(name)
        else:
            is_thing, known = bool(is_thing), True
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "synonyms", tuple(tidy(synonym) for synonym in synonyms))
        object.__setattr__(self, "is_thing", is_thing)
        object.__setattr__(self, "kind_is_known", known if kind_is_known is None else kind_is_known)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The name and the synonyms."""
        return (self.name, *self.synonyms)

    def to_config(self) -> dict[str, Any]:
        """The class as plain data for JSON; [`Vocabulary.parse`] reads a list of them."""
        return {
            "name": self.name,
            "synonyms": list(self.synonyms),
            "is_thing": self.is_thing,
            "kind_is_known": self.kind_is_known,
        }


class Vocabulary(Sequence[Class]):
    """An immutable sequence of classes. Class ids are positions in it.

    Args:
        classes (`Iterable[Class]`): the classes, in the order of their ids.

    Raises:
        ValueError: no class, an empty name, or a name or synonym that occurs twice (ignoring case).

    Example:

    ```python
    >>> vocabulary = Vocabulary([Class("dog", synonyms=["puppy"]), Class("grass")])
    >>> vocabulary.names, vocabulary.is_thing, vocabulary.prompt_class_ids
    (['dog', 'grass'], [True, False], [0, 0, 1])
    ```
    """

    def __init__(self, classes: Iterable[Class]):
        self._classes = tuple(classes)
        _refuse_empty(self._classes)
        _refuse_duplicates(self._classes)

    @classmethod
    def parse(cls, labels: "VocabularyLike") -> "Vocabulary":
        """Make a vocabulary of anything that names classes.

        Args:
            labels (`Vocabulary`, `str`, `Iterable` or `Mapping`):
                - a string of names with commas, semicolons or line breaks between them: `"dog, grass, red car"`; or
                  each with a full stop behind it, as grounding models take them: `"dog. grass. red car."`. One that
                  reads like the name of a file, `"words.csv"`, is refused;
                - a list whose items are names, [`Class`]es or dictionaries with `name`, `synonyms` and `is_thing`
                  (COCO's `isthing` and further keys such as `id` and `color` are fine). A name with commas, semicolons
                  or line breaks stays one class, with a warning; a `Class` is taken as it is;
                - a dictionary from each name to the list of its synonyms, possibly empty; or from the numbers 0, 1, 2
                  and so on to names, as `id2label` is; or one that holds any of these under a name that others give
                  their lists of classes: `categories` (COCO), `names` (YOLO), `id2label`, `classes`, `labels` or
                  `vocabulary`;
                - a vocabulary, returned as it is.

                Wherever a class is a string, it may end in `[thing]` or `[stuff]`: `"curtain [stuff]"`. Where all are,
                each may have its place before it, counted from 0: `"0: dog, 1: curtain"`.

        Raises:
            TypeError: something is neither of these. ValueError: see [`Vocabulary`].

        Example:

        ```python
        >>> Vocabulary.parse("dog, curtain [stuff]").is_thing
        [True, False]
        >>> Vocabulary.parse({"dog": ["puppy", "hound"], "grass": []}).prompts()
        ['dog', 'puppy', 'hound', 'grass']
        ```
        """
        if isinstance(labels, Mapping):
            labels = _listed_in(labels)
        if isinstance(labels, Vocabulary):
            return labels
        if isinstance(labels, str):
            labels = split_names(labels.strip())
        elif isinstance(labels, Mapping) and _are_numbered(labels):
            numbers = sorted(labels, key=int)
            refuse_other_numbers([*map(int, numbers)], quoted(f"{number}: {labels[number]}" for number in numbers))
            labels = [_class_of(labels[number]) for number in numbers]
        elif isinstance(labels, Mapping):
            labels = (_class_of_text(name, synonyms) for name, synonyms in labels.items())
        elif not isinstance(labels, Iterable) or isinstance(labels, AbstractSet):
            raise TypeError(
                f"Labels must be a string with commas, an ordered list, or a dictionary from names to synonyms, "
                f"found {type(labels).__name__}: {labels!r}."
            )
        items = [*labels]
        names = [item for item in items if isinstance(item, str)]
        return cls(map(_class_of, without_numbers(names) if len(names) == len(items) else items))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "Vocabulary":
        """Read a vocabulary from a file.

        Args:
            path (`str` or `os.PathLike`):
                A `.txt` file (UTF-8) with one class per line, `name, synonym, synonym`, optionally followed by
                `[thing]` or `[stuff]`; what follows a `#` is a comment. All lines may have their places before them,
                counted from 0: `0: name`. Or a `.json` file with anything that
                [`Vocabulary.parse`] takes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is neither, or its content is refused; the message names the file.

        Example:

        ```python
        >>> Vocabulary.from_file("my-photos/classes.txt").names
        ['dog', 'grass']
        ```
        """
        path = Path(path)
        readers: dict[str, Callable[[str], Any]] = {".txt": read_class_lines, ".json": read_json_text}
        if path.suffix.lower() not in readers and not path.is_dir():
            raise ValueError(f"{path}: a vocabulary is read from a .txt or a .json file, found {path.suffix!r}.")
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: {'that is a folder' if path.is_dir() else 'no such file'}. Name a .txt or .json file of "
                "classes that is there, or give their names with commas between."
            )
        try:
            return cls.parse(readers[path.suffix.lower()](path.read_text(encoding="utf-8-sig")))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: it is not text in UTF-8 ({error.reason}). Save it in this encoding.") from error
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: it is not JSON: {error}.") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def names(self) -> list[str]:
        """The names of the C classes."""
        return [item.name for item in self._classes]

    @property
    def is_thing(self) -> list[bool]:
        """For each of the C classes, whether it is a thing (or else stuff)."""
        return [item.is_thing for item in self._classes]

    @property
    def kinds(self) -> list[int]:
        """For each of the C classes, what is known of its kind: 1 a thing, 0 stuff, −1 unknown."""
        return [int(item.is_thing) if item.kind_is_known else -1 for item in self._classes]

    def prompts(self) -> list[str]:
        """All S names and synonyms, class by class, the name first."""
        return [prompt for item in self._classes for prompt in item.prompts]

    @property
    def prompt_class_ids(self) -> list[int]:
        """For each of the S [`Vocabulary.prompts`], the id of its class, from 0 to C - 1."""
        return [class_id for class_id, item in enumerate(self._classes) for _ in item.prompts]

    def to_config(self) -> list[dict[str, Any]]:
        """The classes as plain data for JSON; [`Vocabulary.parse`] reads it back."""
        return [item.to_config() for item in self._classes]

    def __len__(self) -> int:
        return len(self._classes)

    @overload
    def __getitem__(self, index: int) -> Class: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Class, ...]: ...

    def __getitem__(self, index: int | slice) -> Class | tuple[Class, ...]:
        return self._classes[index]

    def __iter__(self) -> Iterator[Class]:
        return iter(self._classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._classes == other._classes

    def __hash__(self) -> int:
        return hash(self._classes)

    def __repr__(self) -> str:
        return f"Vocabulary of {len(self)}: {quoted(self.names)}"


VocabularyLike: TypeAlias = Vocabulary | str | Iterable[str | Class | Mapping[str, Any]] | Mapping[str, Iterable[str]]
"""What [`Vocabulary.parse`] takes."""


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The prompt templates meant by a key of `PROMPT_TEMPLATES`, by one template, or by a list of templates.

    Raises:
        ValueError: a template has no `{}` to put the name in, or there is none at all.
    """
    if isinstance(templates, str):
        templates = PROMPT_TEMPLATES.get(templates, (templates,))
    templates = tuple(templates) if isinstance(templates, Iterable) else (templates,)
    wrong = [template for template in templates if not isinstance(template, str) or "{}" not in template]
    if wrong or not templates:
        raise ValueError(
            f"A prompt template is a sentence with {{}} where the class name goes, or one of the sets "
            f"{quoted(PROMPT_TEMPLATES)}; found {quoted(wrong) or 'an empty list'}."
        )
    return templates


def _refuse_empty(classes: Sequence[Class]) -> None:
    if not classes:
        raise ValueError("The vocabulary is empty: name at least one class.")
    for class_id, item in enumerate(classes):
        if not all(map(as_seen, item.prompts)):
            before = f"after {quoted(classes[class_id - 1].prompts)}" if class_id else "at the start"
            raise ValueError(f"An empty name in the vocabulary, {before}: {quoted(item.prompts)}. Name or remove it.")


def _refuse_duplicates(classes: Sequence[Class]) -> None:
    owners: dict[str, tuple[str, str]] = {}
    clashes = []
    for item in classes:
        for prompt in item.prompts:
            visible = as_seen(prompt)
            if visible in owners:
                owner, twin = owners[visible]
                spelling = "" if prompt.lower() == twin.lower() else f" (spelt {ascii(prompt)} and {ascii(twin)})"
                clashes.append(f'"{prompt}" of class "{item.name}" is already in class "{owner}"{spelling}')
            owners[visible] = item.name, prompt
    if clashes:
        raise ValueError(f"Names that occur twice in the vocabulary: {listed(clashes)}. Keep each name once.")


def _listed_in(labels: Mapping[Any, Any]) -> Any:
    """What a dictionary of others holds as the list of its classes; itself where it names classes."""
    word = next((word for word in _LISTS if word in labels), None)
    if word is None:
        return labels
    if len(labels) > 1 and all(map(_are_texts, labels.values())):
        rest = quoted(name for name in labels if name != word)
        raise ValueError(
            f'"{word}" may be the list of the classes, or a class like {rest}. Leave the others out, or write a list '
            f'of classes: [{{"name": "{word}", "synonyms": […]}}, …].'
        )
    return labels[word]


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)


def _are_numbered(labels: Mapping[Any, Any]) -> bool:
    numbers = all(str(key).isdecimal() for key in labels)
    return bool(labels) and numbers and all(isinstance(name, str) for name in labels.values())


def _class_of(item: Any) -> Class:
    if isinstance(item, Class):
        return item
    if isinstance(item, str):
        return _class_of_text(item)
    # By its name, since remote code may have been executed twice, which gives two classes.
    if type(item).__name__ == Class.__name__ and hasattr(item, "to_config"):
        item = item.to_config()
    if isinstance(item, Mapping) and "name" in item:
        is_thing = item.get("is_thing", item.get("isthing"))
        return Class(item["name"], item.get("synonyms", ()), is_thing, item.get("kind_is_known"))
    raise TypeError(
        f"A class must be a name, a Class, or a dictionary with a name, found {item!r} ({type(item).__name__})."
    )


def _class_of_text(text: str, synonyms: Iterable[str] = ()) -> Class:
    name, is_thing = split_kind(tidy(text))
    if reads_like_several(text):
        _warn_of_several(name)
    item = Class(name, synonyms, is_thing)
    for synonym in item.synonyms:
        refuse_mark(synonym)
    return item


def _warn_of_several(name: str) -> None:
    warnings.warn(
        f'"{name}" is one class, although it reads like several: an item of a list or a line of a file is not split. '
        "Give several names as several items, on several lines, or in one string; make it a Class if it is one name.",
        stacklevel=3,
    )


def _warn_of_one_line(only: Class) -> None:
    warnings.warn(
        f"The file has one line, so one class: all that is found is called {only.name!r}, and {quoted(only.synonyms)} "
        "are further names of it. Put each class on a line of its own if they are several.",
        stacklevel=3,
    )


def read_class_lines(text: str) -> list[Class]:
    """The classes of a `.txt` file, one per line; see [`Vocabulary.from_file`]."""
    lines = (_COMMENT.sub("", line).strip() for line in text.splitlines())
    classes = []
    for line in without_numbers([*filter(None, lines)]):
        names, is_thing = split_kind(line)
        name, *synonyms = names.split(",")
        if reads_like_several(name):
            _warn_of_several(name)
        classes.append(Class(name, synonyms, is_thing))
    if len(classes) == 1 and classes[0].synonyms:
        _warn_of_one_line(classes[0])
    return classes
