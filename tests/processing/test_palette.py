"""Colours that can be told apart, by colorspacious: its own simulation of colour-vision deficiencies and its own
measure, CAM02-UCS, in which 1 is about what a person just sees."""

import itertools
import threading

import matplotlib
import numpy as np
import pytest
from colorspacious import cspace_convert

from fisa.processing.drawing import FILL_OPACITY
from fisa.processing.palette import COLORS, class_colors, instance_colors, oklab


VISIONS = (None, "protanomaly", "deuteranomaly", "tritanomaly")
OKABE_ITO = [
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
]
# Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
DEFICIENCIES = np.array(
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ]
)


def least_difference(colors) -> float:
    """Between any two colours, with the vision for which it is least."""
    colors = np.array(colors) / 255
    least = np.inf
    for vision in VISIONS:
        seen = colors
        if vision is not None:
            seen = cspace_convert(colors, {"name": "sRGB1+CVD", "cvd_type": vision, "severity": 100}, "sRGB1")
        places = cspace_convert(np.clip(seen, 0, 1), "sRGB1", "CAM02-UCS")
        least = min(least, *(np.linalg.norm(one - two) for one, two in itertools.combinations(places, 2)))
    return least


def over(photo: int, colors) -> np.ndarray:
    """Fills over a photo of one grey."""
    share = FILL_OPACITY / 255
    return np.round(share * np.array(colors) + (1 - share) * photo)


class TestPalette:
    @pytest.mark.parametrize(
        "count, outlines, fills",
        [
            (2, 50, 32),
            (3, 48, 26),
            (5, 25, 12),
            (7, 17, 11),
            (10, 13, 6),
            (12, 10, 6),
            (20, 8, 3.5),
            (40, 3.5, 2),
            (64, 3, 1.5),
        ],
    )
    def test_can_be_told_apart_with_any_colour_vision_on_dark_and_light_photos(self, count, outlines, fills):
        assert least_difference(COLORS[:count]) > outlines
        for photo in (0, 128, 255):
            assert least_difference(over(photo, COLORS[:count])) > fills

    def test_is_wider_than_known_palettes(self):
        # 17.6 against 11.0, 13.3 against 1.6, and 8.6 against 1.1.
        known = [(np.array(matplotlib.colormaps[name].colors) * 255).round() for name in ("tab10", "tab20")]
        for colors in (OKABE_ITO, *known):
            assert least_difference(COLORS[: len(colors)]) > 1.5 * least_difference(colors)

    def test_is_what_the_search_finds(self):
        steps = range(0, 256, 15)
        candidates = np.array(list(itertools.product(steps, repeat=3)))
        lightness, *chroma = oklab(candidates).T
        candidates = candidates[(lightness >= 0.4) & (lightness <= 0.9) & (np.hypot(*chroma) >= 0.06)]
        # Differences of outlines count less than those of fills, which are about half as large.
        looks = [0.35 * look for look in _seen(candidates)]
        for photo in (0, 128, 255):
            looks += _seen(np.round(0.5 * candidates + 0.5 * photo))
        looks = np.stack(looks).astype(np.float32)
        chosen = [int(np.abs(candidates - (0, 114, 178)).sum(1).argmin())]
        farness = np.full(len(candidates), np.inf)
        for _ in COLORS[1:]:
            farness = np.minimum(farness, np.linalg.norm(looks - looks[:, chosen[-1:]], axis=-1).min(0))
            chosen.append(int(farness.argmax()))
        assert [tuple(color) for color in candidates[chosen].tolist()] == list(COLORS)

    def test_outlines_are_seen_on_black_and_white(self):
        for photo in (0, 255):
            for color in COLORS:
                assert least_difference([color, (photo, photo, photo)]) > 7


def _seen(colors) -> list[np.ndarray]:
    encoded = colors / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = [linear, *(np.clip(linear @ matrix.T, 0, 1) for matrix in DEFICIENCIES)]
    return [oklab(255 * np.where(look <= 0.0031308, 12.92 * look, 1.055 * look ** (1 / 2.4) - 0.055)) for look in seen]


class TestClasses:
    def test_of_one_picture_have_the_widest_palette_of_their_number(self):
        names = [f"only here {number}" for number in range(12)]
        assert list(class_colors(names, asked=names).values()) == list(COLORS[:12])

    def test_keep_their_colour_from_picture_to_picture(self):
        asked = [f"word {number}" for number in range(40)]
        everything = class_colors(asked, asked=asked)
        for some in (asked[7:9], asked[::-3], asked[-1:]):
            assert class_colors(some, asked=asked).items() <= everything.items()

    def test_keep_it_where_nobody_says_what_was_asked_for(self):
        first = class_colors(["wolf in a first picture", "lake in a first picture"])
        second = class_colors(["a third thing", "lake in a first picture"])
        assert second["lake in a first picture"] == first["lake in a first picture"]
        assert len({*first.values(), *second.values()}) == 3

    def test_are_the_same_in_any_process_for_what_was_asked_for(self):
        found = class_colors(["grass"], asked=["dog", "grass"])
        assert found == {"grass": COLORS[1]}

    def test_are_told_by_their_words_not_by_case_or_spaces(self):
        found = class_colors(["Sky", " sky", "red  car", "red car"])
        assert found["Sky"] == found[" sky"] != found["red  car"] == found["red car"]

    @pytest.mark.parametrize("count", [65, 133, 1203])
    def test_of_a_large_vocabulary_differ_within_a_picture(self, count):
        asked = [f"word {number}" for number in range(count)]
        random = np.random.default_rng(0)
        kept = 0
        for _ in range(50):
            some = [asked[place] for place in random.choice(count, 12, replace=False)]
            colors = class_colors(some, asked=asked)
            assert len(set(colors.values())) == 12
            assert least_difference(list(colors.values())) > 3
            kept += sum(colors[name] == COLORS[int(name.split()[1]) % len(COLORS)] for name in some)
        assert kept > 0.85 * 50 * 12

    def test_of_a_picture_with_more_classes_than_colours(self):
        names = [f"word {number}" for number in range(200)]
        assert set(class_colors(names, asked=names).values()) == set(COLORS)

    def test_in_threads(self):
        names = [f"threads {number}" for number in range(30)]
        found: list[dict] = []
        threads = [threading.Thread(target=lambda: found.append(class_colors(names))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(colors == found[0] for colors in found) and len(set(found[0].values())) == 30


class TestInstances:
    @pytest.mark.parametrize("count", [1, 2, 12, 40])
    def test_look_more_like_their_class_than_like_another(self, count):
        colors = {f"class {number}": color for number, color in enumerate(COLORS[:count])}
        own = oklab(np.array(list(colors.values())))
        shades = np.array(instance_colors([name for name in colors for _ in range(5)], colors)).reshape(count, 5, 3)
        for place, shade in itertools.product(range(count), range(5)):
            assert np.linalg.norm(oklab(shades[place, shade]) - own, axis=1).argmin() == place
        assert all(len(np.unique(of_class, axis=0)) == 5 for of_class in shades)

    def test_differ_a_little(self):
        shades = np.array(instance_colors(["dog"] * 5, {"dog": COLORS[0]}))
        for one, two in itertools.combinations(shades, 2):
            assert 5 < np.abs(one - two).max() < 120
