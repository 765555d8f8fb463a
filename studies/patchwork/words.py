"""The words of Patchwork: things, drawn as pictograms, and stuff, drawn as textures, seen in training or not."""

from dataclasses import dataclass
from pathlib import Path

from fisa.data.categories import Category
from fisa.processing.vocabulary import Class, Vocabulary


THINGS_FILE = Path(__file__).parent / "things.tsv"


@dataclass(frozen=True)
class Word:
    """A word of Patchwork.

    Attributes:
        name: plain English.
        synonyms: other names, which CLIP has read in captions too.
        is_thing: drawn as pictograms (things) or as a texture (stuff).
        is_seen: whether training shows masks of it. The others CLIP knows from captions alone.
        code: Unicode code points of a thing's emoji, as emoji packages name their files; empty for stuff.
    """

    name: str
    synonyms: tuple[str, ...]
    is_thing: bool
    is_seen: bool
    code: str = ""


def _things() -> tuple[Word, ...]:
    lines = [line for line in THINGS_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    rows = [line.split("\t") for line in lines]
    return tuple(
        Word(name, tuple(filter(None, synonyms.split(","))), True, seen == "seen", code)
        for name, code, synonyms, seen in rows
    )


THINGS = _things()
STUFF = (
    Word("grass", ("lawn",), False, True),
    Word("water", ("lake",), False, True),
    Word("sand", ("beach",), False, True),
    Word("wood", ("planks",), False, True),
    Word("gravel", ("pebbles",), False, True),
    Word("tiles", (), False, True),
    Word("lava", (), False, True),
    Word("asphalt", ("road",), False, True),
    Word("foliage", ("leaves",), False, True),
    Word("brick wall", ("bricks",), False, False),
    Word("snow", (), False, False),
    Word("soil", ("mud",), False, False),
    Word("sky", ("clouds",), False, False),
    Word("marble", (), False, False),
    Word("carpet", ("tartan",), False, False),
)
WORDS = THINGS + STUFF
"""All words; the index of a word is its class index, and its category id is one more."""

CATEGORIES = tuple(
    Category(index, word.name, word.is_thing, word.synonyms) for index, word in enumerate(WORDS, start=1)
)
SEEN = frozenset(word.name for word in WORDS if word.is_seen)


def vocabulary() -> Vocabulary:
    """All words, as a model's vocabulary."""
    return Vocabulary(Class(word.name, word.synonyms, is_thing=word.is_thing) for word in WORDS)
