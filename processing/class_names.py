"""Names of classes as people write them: taken apart, tidied, compared, and quoted in messages."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any


# Heads of the names that people give to regions without countable instances: stuff in COCO, ADE20K or Cityscapes.
_STUFF = """
    asphalt background beach building buildings bush bushes ceiling cloud clouds concrete desert dirt earth fence field
    floor flooring foliage fog forest grass gravel ground hill hills ice lake land lava lawn leaves meadow mountain
    mountains mud ocean path pavement platform playingfield railroad river road rock rocks rubble sand sea shore
    sidewalk sky smoke snow soil street swamp terrain tree trees vegetation wall walls water waterfall wood woods
"""
_STUFF_WORDS = frozenset(_STUFF.split())
# COCO's way of saying "what remains of this kind, merged": no one calls a wall a wall-other-merged.
_COCO_MARKS = re.compile(r"(-other|-stuff|-merged)+$")
_SEPARATOR = re.compile(r"\s*[,;]\s*|\s*\n\s*")
_OTHER_NOTATION = re.compile(r"""^["“\[{]|^'.*'$|\|""")
# A number before a name, as in "0: sky" and "0 = sky", and not the ratio of "16:9 screen".
_NUMBERED = re.compile(r"\s*(\d+)(?:\s*[:=]\s+|\s*\t\s*|[:=](?!\d))(?=\S)")
# Before all names of a list, for "1. Bundesliga" is one.
_LISTED = re.compile(r"\s*(\d+)[.)]\s+(?=\S)")
_FULL_STOP = re.compile(r"\.(?:\s+|$)")
# A path from some folder on, or a name with the ending of a file: hardly a word.
_FILE_NAME = re.compile(
    r"(?:\.{0,2}/|~/|[a-z]:\\).*|[^,;\n]*[^\s.]\.[a-z][a-z0-9]{1,4}|.*\.(?:txt|json)", re.IGNORECASE | re.DOTALL
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ufffe\uffff]")  # for one thing, XML holds none of them


def tidy(name: Any) -> str:
    """A name with single blanks.

    Raises:
        TypeError or ValueError: it is not a string, or not one that can be written.
    """
    if not isinstance(name, str):
        raise TypeError(f"A class name must be a string, found {name!r} ({type(name).__name__}).")
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise ValueError(f"A class name must be text, and {name!r} holds half of a surrogate pair. Write it again.")
    name = " ".join(name.split())
    if control := _CONTROL.search(name):
        raise ValueError(f"A class name must be text, and {name!r} holds the character {control[0]!r}. Remove it.")
    return name


def as_seen(name: str) -> str:
    """A name as readers see it: without case, Unicode's different codes for one letter, unseen characters."""
    letters = unicodedata.normalize("NFKC", name)
    seen = (letter for letter in letters if letter.isspace() or unicodedata.category(letter) not in ("Cc", "Cf"))
    return " ".join("".join(seen).casefold().split())


def plain_name(name: str) -> str:
    """A name of COCO's in plain words: without the marks -other, -stuff and -merged, and without hyphens.

    Example:
        >>> plain_name("wall-other-merged"), plain_name("playing-field")
        ('wall', 'playing field')
    """
    return " ".join(_COCO_MARKS.sub("", name.strip()).replace("-", " ").split())


def sounds_like_stuff(name: str) -> bool:
    """Whether a name is that of a region without countable instances, as far as its main word says so."""
    # The head of "brick wall" is its last word, that of "glass of water" or "wall-brick" stands before the break.
    head = name.lower().partition("-")[0].partition(" of ")[0].replace("_", " ").split()
    return bool(head) and head[-1] in _STUFF_WORDS


def is_file_name(text: str) -> bool:
    """Whether a string reads like the name of a file rather than like words.

    Example:
        >>> is_file_name("words.csv"), is_file_name("St. Bernard, dog")
        (True, False)
    """
    return _FILE_NAME.fullmatch(text.strip()) is not None


def reads_like_several(name: str) -> bool:
    """Whether one name holds what stands between names."""
    return _SEPARATOR.search(name.strip()) is not None


def split_names(text: str) -> list[str]:
    """Split a string of names. Between commas a full stop is part of a name: "St. Bernard, dog"."""
    if not text:
        return []
    if is_file_name(text):
        raise ValueError(
            f'"{text}" reads like the name of a file, which `Vocabulary.from_file` reads. If it is a word, put it '
            f'into a list: ["{text}"].'
        )
    names = _SEPARATOR.split(text)
    _refuse_other_notation(names)
    if len(names) > 1 or not _FULL_STOP.search(text):
        return names
    if not text.endswith("."):
        raise ValueError(
            f'"{text}" may be one name or several. Put commas between several names; pass a list for one with a full '
            "stop in it."
        )
    return [name.strip() for name in _FULL_STOP.split(text)[:-1]]


def without_numbers(texts: Sequence[str]) -> list[str]:
    """Names without the numbers before them that others' lists have.

    Raises:
        ValueError: the numbers are not the places of the names, counted from 0, or only some names have one.

    Example:
        >>> without_numbers(["0: sky", "1: dog"])
        ['sky', 'dog']
    """
    found = [_LISTED.match(text) for text in texts]
    if not (len(found) > 1 and all(found)):
        found = [_NUMBERED.match(text) for text in texts]
    if not any(found):
        return [*texts]
    refuse_other_numbers([-1 if match is None else int(match[1]) for match in found], quoted(texts))
    return [text[match.end() :] for text, match in zip(texts, found) if match]


def refuse_other_numbers(numbers: Sequence[int], names: str) -> None:
    """Refuse numbers of classes that are not their places, counted from 0."""
    if [*numbers] != [*range(len(numbers))]:
        raise ValueError(
            f"{names}: a class's number is its place, counted from 0, and these have others or none. Leave the "
            "numbers out; in a file of the values of label maps, write _ for each value that is not a class."
        )


def _refuse_other_notation(names: Sequence[str]) -> None:
    """Refuse lists as programs write them and names with bars between: CLIP would read the marks."""
    marked = [name for name in names if _OTHER_NOTATION.search(name)]
    if marked:
        raise ValueError(
            f"{listed(marked)}: names take no quotation marks, brackets or bars, only commas between them: dog, red "
            "car."
        )


def quoted(texts: Iterable[Any], *, limit: int = 5) -> str:
    """The first `limit` texts in quotation marks, and how many more there are."""
    return listed([f'"{text}"' for text in texts], limit)


def listed(texts: Sequence[str], limit: int = 5) -> str:
    """The first `limit` texts, and how many more there are."""
    rest = [f"and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join([*texts[:limit], *rest])
