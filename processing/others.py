"""Others: words that take part beside those that were asked for, and are not returned."""

from collections.abc import Iterable
from typing import NamedTuple

from fisa.processing.everyday import EVERYDAY_CLASSES
from fisa.processing.vocabulary import Class, Vocabulary, plain_name, read_class_lines


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
    """Choose the others that may compete with the classes that were asked for.

    An other stays away if one of its names is one of theirs, whatever the case, the number or COCO's marks.

    Args:
        asked ([`Vocabulary`]): the classes that were asked for.
        others (`Iterable[Class]`): a [`Vocabulary`], or several in a row; of the same name the first one stays.

    Example:

    ```python
    >>> asked = Vocabulary.parse("dog, brick wall")
    >>> competition = competing(asked, Vocabulary.parse("Dogs, cat, brick-wall, wall"))
    >>> [other.name for other in competition.others], competition.voices
    (['cat', 'wall'], ((), ()))
    ```
    """
    taken = {spelling for name in asked.prompts() for spelling in _spellings(name)}
    staying = []
    for other in others:
        names = {spelling for name in other.prompts for spelling in _spellings(name)}
        if taken.isdisjoint(names):
            staying.append(other)
            taken |= names
    return Competition(tuple(staying), ((),) * len(asked))


def _spellings(name: str) -> set[str]:
    """A name in lower case, without COCO's marks, as it is and in all singulars that it may have."""
    words = plain_name(name.casefold())
    singulars = {words.removesuffix(plural) + singular for plural, singular in _PLURALS if words.endswith(plural)}
    return {words} | singulars
