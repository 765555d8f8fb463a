"""Others: words that take part beside those that were asked for, and are not returned."""

import re
from collections.abc import Iterable, Sized
from functools import cache
from os import PathLike
from typing import Literal, NamedTuple, TypeAlias

from fisa.processing.class_names import is_file_name, plain_name
from fisa.processing.everyday import EVERYDAY_CLASSES
from fisa.processing.vocabulary import Class, Vocabulary, VocabularyLike, read_class_lines
from fisa.processing.word_meanings import WiderWords, calls_people_by, differ_in_number


Others: TypeAlias = VocabularyLike | PathLike | Literal["auto"] | None
"""The words that compete: words or a file of them, `"auto"` for what the model's config says, `None` for none."""

# What generators without words of their own have for labels.
_NO_WORD = re.compile(
    r"things?|stuff|objects?|background|others?|void|unlabell?ed|ignored?|n/a|(label|class)?[ _]?\d+", re.I
)

SETTINGS = ("auto", "none", "everyday", "known")
"""Words that say how others are chosen, here or in a model's config, and are hardly meant to compete."""

_PLURALS = (("s", ""), ("ies", "y"), *((f"{sound}es", sound) for sound in ("s", "x", "z", "ch", "sh", "o")))


def is_auto(others: Others) -> bool:
    """Whether the words that compete are those that the model's config says."""
    return isinstance(others, str) and others == "auto"


class Competition(NamedTuple):
    """Who takes part beside the classes that were asked for.

    Attributes:
        others (`tuple[Class, ...]`): the others that mean nothing that was asked for.
        voices (`tuple[tuple[str, ...], ...]`):
            For each class that was asked for, names that mean it too or a kind of it: further prompts of it.
    """

    others: tuple[Class, ...]
    voices: tuple[tuple[str, ...], ...]


def everyday() -> Vocabulary:
    """Everyday things and stuff, to compete with the words of any photo.

    Example:

    ```python
    >>> {"dog", "car", "sky"} <= set(everyday().names)
    True
    ```
    """
    return Vocabulary(read_class_lines(EVERYDAY_CLASSES))


def competing(asked: Vocabulary, others: Iterable[Class]) -> Competition:
    """Choose the others that may compete with the classes that were asked for, by what they mean.

    An other that means a class or a kind of it speaks for the class, the nearest if there are several: where dogs and
    cats would be found, "animal" is. Of the rest, an other of which a class is a kind stays away: "dog" would take
    what "poodle" asks for. So does one that a class may be as well: "man" would take what "pedestrian" asks for. All
    else competes, "wheel" with "car" too.

    Args:
        asked ([`Vocabulary`]): the classes that were asked for.
        others (`Iterable[Class]`): a [`Vocabulary`], or several in a row; of the same name the first one stays.

    Example:

    ```python
    >>> asked = Vocabulary.parse("animal, sports car, brick wall")
    >>> competition = competing(asked, Vocabulary.parse("dogs, car, wheel, brick-wall, wall"))
    >>> [other.name for other in competition.others], competition.voices
    (['wheel'], (('dogs',), (), ()))
    ```
    """
    others = without_namesakes(others)
    names, class_ids = asked.prompts(), asked.prompt_class_ids
    asked_words, other_words = WiderWords(names), WiderWords([other.name for other in others])
    # When it is asked for: that of all classes takes the square of their number where they share a noun.
    wider_asked = cache(lambda word: asked_words.above(names[word]).keys())
    too_wide = {place for name in names for place in other_words.above(name)}
    asked_by = {calls_people_by(name) for name in names} - {None}
    known = {name.casefold() for name in names}
    voices: list[list[str]] = [[] for _ in asked]
    staying = []
    for place, other in enumerate(others):
        steps = asked_words.above(other.name)
        steps |= {word: 0 for name in other.synonyms for word, height in asked_words.above(name).items() if not height}
        if steps:
            # A mammal is an animal, hence nearer to a dog, though WordNet has fewer steps from dogs to animals.
            nearest = min(
                steps, key=lambda word: (steps[word] > 0, -len(wider_asked(word) & steps.keys()), steps[word])
            )
            voices[class_ids[nearest]] += [name for name in other.prompts if name.casefold() not in known]
        elif place not in too_wide and ((by := calls_people_by(other.name)) is None or asked_by <= {by}):
            staying.append(other)
    return Competition(tuple(staying), tuple(map(tuple, voices)))


def without_namesakes(others: Iterable[Class], *, asked: Iterable[str] = ()) -> tuple[Class, ...]:
    """The others that bear no name that was asked for and none of an earlier other, in whatever case and number.

    Args:
        others (`Iterable[Class]`): as for [`competing`].
        asked (`Iterable[str]`): all names that were asked for, synonyms included.
    """
    taken = {spelling for name in asked for spelling in _spellings(name)}
    staying = []
    for other in others:
        names = {spelling for name in other.prompts for spelling in _spellings(name)}
        if taken.isdisjoint(names):
            staying.append(other)
            taken |= names
    return tuple(staying)


def given_others(others: VocabularyLike | PathLike | None) -> tuple[Class, ...]:
    """The others that a caller names: words in any form that [`Vocabulary.parse`] takes, or a file of them.

    Args:
        others: a string that reads like the name of a file (`"words.txt"`) is a path, like a `Path`; `None` and an
            empty list are none.

    Raises:
        FileNotFoundError: there is no such file. TypeError, ValueError: as for [`Vocabulary.parse`]; or a string that
            is one of `SETTINGS`.

    Example:

    ```python
    >>> [other.name for other in given_others("dog, wall [stuff]")], given_others(None)
    (['dog', 'wall'], ())
    ```
    """
    if isinstance(others, PathLike) or (isinstance(others, str) and is_file_name(others)):
        return tuple(Vocabulary.from_file(others))
    if isinstance(others, str) and others.strip().casefold() in SETTINGS:
        raise ValueError(
            f'`others` is "{others}", which is not a word to compete: give None for none, "auto" for what the '
            f'model\'s `default_others` says, or the words themselves; ["{others}"] if it is one.'
        )
    if others is None or (isinstance(others, Sized) and not isinstance(others, str) and len(others) == 0):
        return ()
    try:
        return tuple(Vocabulary.parse(others))
    except (TypeError, ValueError) as error:
        raise type(error)(f"`others`: {error}") from error


def known_others(stored: VocabularyLike | None, generator_labels: Iterable[str]) -> tuple[Class, ...]:
    """The words that a model knows: its stored vocabulary and what its mask generator calls things.

    Args:
        stored: the vocabulary, in any form that [`Vocabulary.parse`] takes.
        generator_labels (`Iterable[str]`):
            Taken in plain words, with the synonyms that ADE20K's have behind commas; `thing`, `stuff`, `LABEL_0` and
            the like are not words.

    Example:

    ```python
    >>> [other.name for other in known_others("dog", ["LABEL_0", "dog", "wall-other-merged"])]
    ['dog', 'wall']
    ```
    """
    several = ([plain_name(name) for name in label.split(",")] for label in generator_labels)
    several = ([name for name in names if name and not _NO_WORD.fullmatch(name)] for names in several)
    labels = (Class(name, synonyms) for name, *synonyms in filter(None, several))
    return without_namesakes([*given_others(stored), *labels])


@cache
def _spellings(name: str) -> frozenset[str]:
    """A name in lower case, without COCO's marks, as it is and in all singulars that it may have."""
    words = plain_name(name.casefold().replace("_", " "))
    singulars = {words.removesuffix(plural) + singular for plural, singular in _PLURALS if words.endswith(plural)}
    return frozenset({words, *(singular for singular in singulars if not differ_in_number(words, singular))})
