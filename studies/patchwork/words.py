"""The words of Patchwork: things, drawn as pictograms, and stuff, drawn as textures, seen in training or not; and what
other words mean them."""

from dataclasses import dataclass
from pathlib import Path

from fisa.data.categories import Category
from fisa.processing.vocabulary import Class, Vocabulary


THINGS_FILE = Path(__file__).parent / "things.tsv"
MEANINGS_FILE = Path(__file__).parent / "meanings.tsv"


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


def _rows(path: Path) -> list[list[str]]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [line.split("\t") for line in lines]


def _things() -> tuple[Word, ...]:
    return tuple(
        Word(name, tuple(filter(None, synonyms.split(","))), True, seen == "seen", code)
        for name, code, synonyms, seen in _rows(THINGS_FILE)
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


def _kinds() -> dict[str, set[str]]:
    """Each wider word and all of Patchwork's words that are kinds of it."""
    direct = {word: set(names.split(",")) for relation, word, names in _rows(MEANINGS_FILE) if relation == "wider"}
    return {word: names.union(*(direct.get(name, ()) for name in names)) for word, names in direct.items()}


_KINDS = _kinds()


def covered(name: str) -> set[str]:
    """A word of Patchwork's and those that are kinds of it: a poodle is a dog."""
    return {name} | _KINDS.get(name, set())


def _meanings() -> dict[str, dict[str, set[str]]]:
    meanings: dict[str, dict[str, set[str]]] = {}
    for relation, word, names in _rows(MEANINGS_FILE):
        own = {word} & {known.name for known in WORDS}
        meanings.setdefault(relation, {})[word] = own.union(*map(covered, names.split(",")))
    return meanings


MEANINGS = _meanings()
"""What other words cover of Patchwork's: by relation (wider, same, spelling, plural), the words, and what each covers.
A wider word that is one of Patchwork's own covers itself too."""
