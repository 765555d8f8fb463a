"""Names beyond ASCII are written as letters in the pictures of the installed command, far from the checkout."""

import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tests.roads.walking import walk


DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
WORDS = {"птица": ["bird"], "鱼": ["fish"], "نافورة ماء [stuff]": ["water"], "दीवार [stuff]": ["brick wall"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene):
    place = tmp_path_factory.mktemp("scripts")
    scene.save(place / "scene.png")
    (place / "words.json").write_text(json.dumps(WORDS), encoding="utf-8")
    (place / "latin.json").write_text(json.dumps({synonyms[0]: [] for synonyms in WORDS.values()}))
    return place


def overlay(place, output, *options, words="words.json"):
    command = ("fisa-segment", "scene.png", "--labels-file", words, "--overlay-format", "png", "--others", "none")
    said = walk(*command, "--output", output, *options, cwd=place)
    assert "No font" not in said
    return np.asarray(Image.open(place / output / "scene_overlay.png")), said


def test_names_are_drawn_twice_alike_without_a_word(place):
    first, said = overlay(place, "first")
    assert "птица" in said
    second, _ = overlay(place, "second")
    np.testing.assert_array_equal(first, second)


def test_a_font_of_ones_own(place):
    plain, _ = overlay(place, "plain")
    own, _ = overlay(place, "own", "--font", DEJAVU)
    assert own.shape != plain.shape or (own != plain).any()
    said = walk(
        "fisa-segment", "scene.png", "--labels-file", "words.json", "--others", "none", "--output", "own",
        cwd=place, status=2,
    )  # fmt: skip
    assert "results of other settings (font: " in said


def test_what_no_font_has_is_said_once(place):
    (place / "rare.json").write_text(json.dumps({"bird\u0378": ["bird"], "fish\u0378": ["fish"]}))
    command = ("fisa-segment", "scene.png", "scene.png", "--labels-file", "rare.json", "--others", "none")
    said = walk(*command, "--output", "rare", cwd=place)
    assert said.count("(U+0378)") == 1 and "--font" in said
