"""What words mean to each other: which are kinds of which, by WordNet and by the heads of noun phrases.

A word is a kind of a wider one if what it commonly means stands beneath anything that the wider one may mean. So a
poodle is a dog, though WordNet has other dogs, and a dog is not a person, though some persons are called dogs.
"""

import base64
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Literal

from fisa.processing.class_names import plain_name
from fisa.processing.wordnet_table import WORDNET_TABLE


_ARTICLE = re.compile(r"^(a|an|the)\s+")
# What follows says more of the thing that stands before: "glass of milk", "man with a hat".
_PREPOSITION = re.compile(r"\s+(?:of|with|without|in|on|at|for|from|under|by)\s+")
_SPELLINGS = {"grey": "gray", "colour": "color", "coloured": "colored", "woollen": "woolen"}
# WordNet has people as a group, and humans as apes.
_SPELLINGS |= {"people": "person", "human": "person", "humans": "person"}
# What people are called by age and sex, whatever they do: a pedestrian, too, is one of these.
_BY_AGE_AND_SEX = frozenset("adult baby boy child gentleman girl guy kid lady man teenager toddler woman".split())
# In this order: "plates" are plates before they are plats, and "boxes" are found by the last ending.
PLURALS = (("s", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"), ("es", ""))


# How many names the meanings are kept of: those of the largest vocabularies.
REMEMBERED = 100_000


@dataclass(frozen=True)
class Meaning:
    """What a name says.

    Attributes:
        head: the letters of the noun that says what it is, in the singular: "car" in "red cars".
        senses: numbers of that noun's senses in WordNet, the commonest first; none where it is unknown.
        qualities: what else it says: `{"red"}`.
    """

    head: str
    senses: tuple[int, ...]
    qualities: frozenset[str]


class WiderWords:
    """Finds, among some names, those that another name is a kind of.

    Args:
        names (`Sequence[str]`)

    Example:

    ```python
    >>> words = WiderWords(["animal", "dog", "cat", "red car", "vehicle"])
    >>> words.above("poodles")
    {1: 1, 0: 3}
    >>> words.above("dark red sports car")
    {4: 6, 3: 3}
    ```
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._meanings = [meaning(name) for name in names]
        self._of_sense = defaultdict(list)
        self._of_head = defaultdict(list)
        for place, found in enumerate(self._meanings):
            if found.head:
                self._of_head[found.head].append(place)
            for sense in found.senses:
                self._of_sense[sense].append(place)

    def above(self, name: str) -> dict[int, int]:
        """The places of the names that `name` is a kind of, and how many steps of meaning lie between: 0 where both
        mean the same."""
        low = meaning(name)
        steps = dict.fromkeys(self._of_head.get(low.head, ()), 0)
        if low.senses:
            for sense, height in _wordnet().steps_up(low.senses[0]).items():
                for place in self._of_sense.get(sense, ()):
                    steps[place] = min(height, steps.get(place, height))
        return {
            place: height + len(low.qualities - self._meanings[place].qualities)
            for place, height in steps.items()
            if self._meanings[place].qualities <= low.qualities
        }


@lru_cache(maxsize=REMEMBERED)
def calls_people_by(name: str) -> Literal["age and sex", "role"] | None:
    """What a name calls people by, `None` if it calls none. A man may be a pedestrian too, though neither word is a
    kind of the other.

    Example:

    ```python
    >>> calls_people_by("tall man"), calls_people_by("pedestrian"), calls_people_by("dog")
    ('age and sex', 'role', None)
    ```
    """
    if not WiderWords(["person"]).above(name):
        return None
    heads = {meaning(name).head, meaning(name.split()[-1]).head}
    return "role" if heads.isdisjoint(_BY_AGE_AND_SEX) else "age and sex"


def differ_in_number(plural: str, singular: str) -> bool:
    """Whether one name only looks like the plural of the other: "glasses" means more than several of a glass.

    Example:

    ```python
    >>> differ_in_number("glasses", "glass"), differ_in_number("dogs", "dog")
    (True, False)
    ```
    """
    return bool(meaning(plural).senses and meaning(singular).senses) and not (
        WiderWords([singular]).above(plural) or WiderWords([plural]).above(singular)
    )


@lru_cache(maxsize=REMEMBERED)
def meaning(name: str) -> Meaning:
    """What a name says, by the longest end of it that WordNet has.

    Example:

    ```python
    >>> meaning("two-door red cars").head, sorted(meaning("grey car").qualities)
    ('car', ['gray'])
    ```
    """
    plain = _ARTICLE.sub("", plain_name(name.casefold()))
    words = [_SPELLINGS.get(word, word) for word in plain.split()]
    whole = _wordnet().known_form(_letters(words))
    if whole is None and "-" in name and " " not in name.strip():  # as data sets name kinds of stuff: "wall-brick"
        words = [*words[1:], *words[:1]]
    elif whole is None:
        first, *others = _PREPOSITION.split(plain)
        words = [_SPELLINGS.get(word, word) for part in (*others, first) for word in _ARTICLE.sub("", part).split()]
    for start in range(len(words)):
        head = _wordnet().known_form(_letters(words[start:]))
        if head is not None:
            return Meaning(head, _wordnet().senses(head), frozenset(words[:start]))
    last = _letters(words[-1:])
    return Meaning(last.removesuffix("s") or last, (), frozenset(words[:-1]))


def _letters(words: Sequence[str]) -> str:
    """Words without spaces and punctuation, as WordNet's table has them: "T-shirt" is "tshirt"."""
    return "".join(mark for mark in "".join(words) if unicodedata.category(mark)[0] not in "PZ")


class _WordNet:
    """The packed table, and what follows from it."""

    def __init__(self) -> None:
        text = zlib.decompress(base64.b64decode(WORDNET_TABLE)).decode()
        wider, names, senses, plurals = (paragraph.split("\n") for paragraph in text.split("\f"))
        self._wider = wider
        self._senses = dict(zip(names, senses))
        self._singulars = dict(line.split(" ") for line in plurals)
        self._steps_up: dict[int, dict[int, int]] = {}

    def known_form(self, name: str) -> str | None:
        """A noun as it is, or its singular, whichever WordNet has."""
        return next((form for form in self._forms(name) if form in self._senses), None)

    def senses(self, name: str) -> tuple[int, ...]:
        """The senses of a noun that is in the table, the commonest first."""
        return tuple(map(int, self._senses[name].split(",")))

    def _forms(self, name: str) -> list[str]:
        if name in self._singulars:
            return [name, self._singulars[name]]
        singulars = [name.removesuffix(plural) + one for plural, one in PLURALS if name.endswith(plural)]
        return [name] if name.endswith("ss") else [name, *singulars]

    def steps_up(self, sense: int) -> dict[int, int]:
        """Each wider sense of a sense, itself among them, and how many steps up it is."""
        if sense not in self._steps_up:
            steps = {sense: 0}
            pending = [sense]
            for number in pending:
                for back in filter(None, self._wider[number].split(",")):
                    wider = number - int(back)
                    if wider not in steps:
                        steps[wider] = steps[number] + 1
                        pending.append(wider)
            self._steps_up[sense] = steps
        return self._steps_up[sense]


@cache
def _wordnet() -> _WordNet:
    return _WordNet()
