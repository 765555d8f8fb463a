"""What words mean to each other."""

import subprocess
import sys

import pytest

from fisa.processing.others import everyday
from fisa.processing.word_meanings import WiderWords, calls_people_by, meaning


def is_kind_of(name, wider):
    return bool(WiderWords([wider]).above(name))


def is_same(name, other):
    return 0 in WiderWords([other]).above(name).values() and 0 in WiderWords([name]).above(other).values()


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dog", "Dogs"),
        ("doughnut", "donut"),
        ("airplane", "aeroplane"),
        ("gray cat", "grey cats"),
        ("t-shirt", "T shirt"),
        ("teapot", "tea pot"),
        ("child", "children"),
        ("wolf", "wolves"),
        ("pony", "ponies"),
        ("couch", "sofa"),
        ("car", "automobile"),
        ("the sky", "sky"),
        ("wall-brick", "brick wall"),
        ("zorble", "zorbles"),
        # Plurals that other words are spelt like, singular or plural
        ("plate", "plates"),
        ("cookie", "cookies"),
        ("cave", "caves"),
        ("fire", "fires"),
        ("window", "windows"),
        ("clock", "clocks"),
        ("road", "roads"),
        ("person", "people"),
        ("human", "humans"),
        ("human", "person"),
        ("palm", "palm tree"),
    ],
)
def test_names_of_the_same(name, other):
    assert is_same(name, other)


@pytest.mark.parametrize(
    ("name", "wider"),
    [
        ("dog", "animal"),
        ("poodles", "dogs"),
        ("lobster", "animal"),  # before its meat
        ("leopard", "animal"),  # before its fur
        ("peach", "fruit"),  # before the tree
        ("rose", "flower"),
        ("bus", "vehicle"),
        ("pizza", "food"),
        ("red car", "car"),
        ("old red car", "red automobile"),
        ("glass of milk", "glass"),
        ("man with a red hat", "man"),
        ("police car", "car"),
        ("tulip", "plant"),
        ("wine glass", "glass"),
        ("blue zorble", "zorble"),
        ("woman", "people"),
        ("shirt", "clothes"),
        ("palm", "tree"),
        ("girl", "child"),
        ("driver", "person"),
    ],
)
def test_kinds(name, wider):
    assert is_kind_of(name, wider) and not is_kind_of(wider, name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("dog", "person"),  # some persons are called dogs
        ("drum", "fish"),  # some fish are called drums
        ("kite", "bird"),
        ("tiger", "person"),
        ("wheel", "car"),  # a part
        ("red car", "blue car"),
        ("teddy bear", "bear"),
        ("sea lion", "lion"),
        ("hot dog", "dog"),
        ("glasses", "glass"),
        ("headphones", "phone"),
        ("zorble", "animal"),
        ("cup of tea", "tea"),
        ("woman", "man"),
        ("person", "animal"),
        ("chips", "animal"),
        ("falls", "autumn"),
    ],
)
def test_no_kinds(name, other):
    assert not is_kind_of(name, other) and not is_kind_of(other, name)


@pytest.mark.parametrize("name", ["pedestrian", "player", "driver", "tennis players", "queen", "person in red"])
def test_people_by_role(name):
    assert calls_people_by(name) == "role"


@pytest.mark.parametrize("name", ["man", "women", "tall man", "man with a hat", "old man", "baby", "little girl"])
def test_people_by_age_and_sex(name):
    assert calls_people_by(name) == "age and sex"


@pytest.mark.parametrize("name", ["dog", "snowman", "crowd", "zorble"])
def test_no_people(name):
    assert calls_people_by(name) is None


def test_plurals_of_everyday_words_mean_them():
    for name in everyday().names:
        if not name.endswith("s"):
            ending = "es" if name.endswith(("x", "z", "ch", "sh")) else "s"
            plural = name[:-1] + "ies" if name.endswith("y") and name[-2] not in "aeo" else name + ending
            assert is_same(plural, name) or name in ("wood", "syringe"), plural  # woods are a forest


def test_qualities_are_steps():
    assert WiderWords(["car", "red car"]).above("dark red car") == {0: 2, 1: 1}
    assert WiderWords(["car", "vehicle"]).above("cars")[0] == 0 < WiderWords(["vehicle"]).above("cars")[0]


def test_everyday_words_mean_something():
    # A word that WordNet lacks stands alone, by its letters; few do.
    unknown = [name for name in everyday().prompts() if not meaning(name).senses]
    assert len(unknown) < 0.03 * len(everyday().prompts()), unknown


def test_the_table_is_read_when_it_is_needed():
    script = "import fisa, fisa.processing.word_meanings as words; print(words._wordnet.cache_info().currsize)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "0"


@pytest.mark.parametrize(("one", "other"), [("🐶", "🐱"), ("दाल", "दल"), ("🐶 🐶", "-")])
def test_signs_that_are_no_letters_mean_something_too(one, other):
    assert meaning(one) != meaning(other)
    assert not WiderWords([other]).above(one)
    assert WiderWords(["red 🐶"]).above("big red 🐶") == {0: 1}
