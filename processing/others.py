"""Others: words that take part beside those that were asked for, and are not returned."""

from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from fisa.processing.everyday import EVERYDAY_CLASSES
from fisa.processing.vocabulary import Class, Vocabulary, plain_name, read_class_lines
from fisa.processing.word_meanings import WiderWords


_PLURALS = (("s", ""), ("es", ""), ("ies", "y"))


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
    what "poodle" asks for. All else competes, "wheel" with "car" too.

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
    wider_asked = [asked_words.above(name).keys() for name in names]
    too_wide = {place for name in names for place in other_words.above(name)}
    known = {name.casefold() for name in names}
    voices: list[list[str]] = [[] for _ in asked]
    staying = []
    for place, other in enumerate(others):
        steps = asked_words.above(other.name)
        steps |= {word: 0 for name in other.synonyms for word, height in asked_words.above(name).items() if not height}
        if steps:
            # A mammal is an animal, hence nearer to a dog, though WordNet has fewer steps from dogs to animals.
            nearest = min(
                steps, key=lambda word: (steps[word] > 0, -len(wider_asked[word] & steps.keys()), steps[word])
            )
            voices[class_ids[nearest]] += [name for name in other.prompts if name.casefold() not in known]
        elif place not in too_wide:
            staying.append(other)
    return Competition(tuple(staying), tuple(map(tuple, voices)))


def without_namesakes(others: Iterable[Class]) -> tuple[Class, ...]:
    """The others that bear no name of an earlier one, in whatever case and number.

    Args:
        others (`Iterable[Class]`): as for [`competing`].
    """
    taken: set[str] = set()
    staying = []
    for other in others:
        names = {spelling for name in other.prompts for spelling in _spellings(name)}
        if taken.isdisjoint(names):
            staying.append(other)
            taken |= names
    return tuple(staying)


@cache
def _spellings(name: str) -> frozenset[str]:
    """A name in lower case, without COCO's marks, as it is and in all singulars that it may have."""
    words = plain_name(name.casefold())
    singulars = {words.removesuffix(plural) + singular for plural, singular in _PLURALS if words.endswith(plural)}
    return frozenset({words} | singulars)
