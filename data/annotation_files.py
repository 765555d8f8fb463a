"""Annotation files in JSON. Every field is checked on reading; errors name the file, the entry and the field."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fisa.processing.files import name_of
from fisa.processing.json_values import read_json_text


_ABSENT = object()
LARGEST_ID = 2**53  # beyond it, programs that read JSON numbers as floating point confuse neighbours
LARGEST_NUMBER = 1e15
LARGEST_SEGMENT_ID = 2**24 - 1  # the three bytes of a panoptic PNG


@dataclass(frozen=True)
class Fields:
    """The fields of one object of a file.

    Args:
        values: what should be an object.
        where: its place, for messages: `"panoptic.json: annotations[3]"`.

    Raises:
        ValueError: on reading a field that is missing or of another type, or any field where `values` is not an
            object.
    """

    values: Any
    where: str

    def get(self, name: str, default: Any = _ABSENT) -> Any:
        """A field of any type."""
        if not isinstance(self.values, Mapping):
            raise ValueError(f"{self.where}: must be an object with fields, found {_brief(self.values)}.")
        value = self.values.get(name, default)
        if value is _ABSENT:
            raise ValueError(f"{self.where}: lacks the field {name!r}.")
        return value

    def integer(self, name: str, *, least: int = 0, most: int = LARGEST_ID) -> int:
        """A whole number between two bounds."""
        value = self.get(name)
        if not is_number(value) or value != int(value) or not least <= value <= most:
            raise self.error(name, f"must be a whole number from {least} to {most}")
        return int(value)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, 0 or 1."""
        value = self.get(name, default)
        if value not in (0, 1) or not isinstance(value, int):
            raise self.error(name, "must be 0 or 1")
        return bool(value)

    def text(self, name: str) -> str:
        """Text that is not blank."""
        value = self.get(name)
        if not isinstance(value, str) or not value.strip():
            raise self.error(name, "must be text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts, empty where the field is missing."""
        value = self.get(name, ())
        if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
            raise self.error(name, "must be a list of texts")
        return tuple(value)

    def name_or_number(self, name: str) -> str:
        """What images are told apart by, as text."""
        value = self.get(name)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(name, "must be a whole number or text")
        return str(value)

    def objects(self, name: str) -> Iterator["Fields"]:
        """The objects of a list."""
        value = self.get(name)
        if not isinstance(value, list):
            raise self.error(name, "must be a list")
        for index, item in enumerate(value):
            yield Fields(item, f"{self.where} {name}[{index}]")

    def path(self, name: str, *, folder: Path) -> Path:
        """A file in a folder, by its name relative to it. A link in the folder may point anywhere: its owner made it.

        A second field has the exact name where that is not UTF-8; see [`name_fields`].

        Raises:
            ValueError: the name leads out of the folder.
        """
        fields, exact = {name: self.text(name)}, f"{name}_quoted"
        if exact in self.values:
            fields[exact] = self.text(exact)
        return inside(folder, name_of(fields, name), where=f"{self.where}: {name}")

    def error(self, name: str, rule: str) -> ValueError:
        """The error of a field that breaks a rule."""
        return ValueError(f"{self.where}: {name!r} {rule}, found {_brief(self.values.get(name))}.")


def read_annotations(path: Path) -> Fields:
    """The object that a JSON file holds.

    Raises:
        ValueError: the file is not JSON, or holds something else.
    """
    return Fields(read_json(path), f"{path}:")


def read_segments(infos: Iterable[Fields]) -> list[dict[str, Any]]:
    """Segments as COCO panoptic lists them: `id`, `category_id` and `iscrowd`, which may be missing.

    Raises:
        ValueError: one that is not as COCO's are, or two of the same id; the message names it.
    """
    segments: dict[int, dict[str, Any]] = {}
    for info in infos:
        segment_id = info.integer("id", least=1, most=LARGEST_SEGMENT_ID)
        if segment_id in segments:
            raise info.error("id", "must be unique, but is that of another segment too")
        iscrowd = int(info.flag("iscrowd", default=False))
        segments[segment_id] = {"id": segment_id, "category_id": info.integer("category_id"), "iscrowd": iscrowd}
    return list(segments.values())


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        ValueError: the file is not JSON, has a name twice in one object, or escapes half of a surrogate pair, which no
            tokenizer takes.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = read_json_text(text)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from error


def inside(folder: Path, name: str, *, where: str) -> Path:
    """The file `name` of a folder; refused where the name leads out of it."""
    path = Path(name)
    if path.is_absolute() or path.drive or ".." in path.parts or "\0" in name:
        raise ValueError(f"{where} must name a file inside {folder}, found {name!r}.")
    return folder / path


def is_number(value: Any) -> bool:
    """Whether a value of JSON is a number, neither NaN nor infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST_NUMBER


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
