"""The colours of classes: far apart within a picture, whatever one's colour vision, and the same throughout a run."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from threading import Lock

import numpy as np


Color = tuple[int, int, int]

# Each is as far as can be, in Oklab, from all before it: at full strength and laid over black, grey and white photos,
# with normal vision, protanopia, deuteranopia and tritanopia, whichever is closest. So any number of them from the
# first on are far apart. tests/processing/test_palette.py has the search.
COLORS: tuple[Color, ...] = tuple(
    (int(code[:2], 16), int(code[2:4], 16), int(code[4:], 16))
    for code in """
    0078b4 f0e169 782d00 c38700 69c3ff 2d00d2 d20069 c3b487 2dffe1 a578ff 1ea5b4 962dff 692d96 964b00 f0a50f f05a78
    b4691e a5e1a5 2d6987 ff69d2 d23cd2 96005a e1c369 1ee1e1 5a9687 a596ff 87c3b4 c32da5 b40f4b 783cc3 87875a 782d78
    b4a55a 001ef0 00b4d2 5a0fb4 a55aff a55a0f d2960f 875a69 78b4a5 873c2d b4f0b4 c3d200 f0c3ff b487a5 ff0f4b ff96ff
    96d2a5 a56996 b41ee1 e14be1 c3f000 780078 96c33c 87e1c3 005a3c 69873c 962da5 965ab4 a53c87 2d87e1 69a587 c3e13c
    """.split()
)
VOCABULARIES = 64  # whose numbering is kept
SHADES, MOST_SHADE = 5, 0.07  # of a class: how many, and by how much of the lightness

_LINEAR_RGB_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_CONES_TO_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_lock = Lock()


def class_colors(names: Iterable[str], *, asked: Sequence[str] = ()) -> dict[str, Color]:
    """Choose the colours of the classes of one picture.

    A class has the same colour in all pictures of a run: classes that were asked for are numbered as they were asked
    for, others as they come up in this process, and have the colours of [`COLORS`] by number. From the 65th on a class
    has one that an earlier class has too, and another one in pictures where both are.

    Args:
        names (`Iterable[str]`): of the classes in the picture.
        asked (`Sequence[str]`, *optional*): the names of all classes that were looked for.

    Returns:
        For each name its colour (R, G, B), each 0 to 255. Names that differ in case or spaces alone have one colour.

    Example:

    ```python
    >>> class_colors(["grass"], asked=["dog", "grass"]) == class_colors(["Grass", "dog"], asked=["dog", "grass"])
    False
    >>> class_colors(["grass"], asked=["dog", "grass"])["grass"]
    (240, 225, 105)
    ```
    """
    plain = {name: _plain(name) for name in names}
    places: dict[str, int] = {}
    for name, number in sorted(_numbers(plain.values(), tuple(asked)).items(), key=lambda item: item[1]):
        free = [place for place in range(len(COLORS)) if place not in places.values()]
        own = number % len(COLORS)
        places[name] = own if own in free or not free else free[0]
    return {name: COLORS[places[key]] for name, key in plain.items()}


def instance_colors(labels: Iterable[str], colors: Mapping[str, Color]) -> list[Color]:
    """The colours of segments: those of their classes, and for further instances of a class a little lighter or
    darker, by less than half of what is between two classes."""
    shades = _shades(sorted(set(colors.values())))
    counts: dict[str, int] = {}
    chosen = []
    for label in labels:
        count = counts.get(label, 0)
        counts[label] = count + 1
        chosen.append(shades[colors[label]][count % SHADES])
    return chosen


def checked_color(label: str, color: Sequence[int]) -> Color:
    """A colour that a user gave to a class.

    Raises:
        ValueError: it is not three whole numbers, each 0 to 255.
    """
    values = [] if isinstance(color, str) else [*color]
    if len(values) != 3 or not all(isinstance(value, int | np.integer) and 0 <= value <= 255 for value in values):
        raise ValueError(f"The colour of {label!r} was {color!r}; it must be (R, G, B), whole numbers from 0 to 255.")
    red, green, blue = map(int, values)
    return red, green, blue


def oklab(colors: np.ndarray) -> np.ndarray:
    """Colours (…, 3), each 0 to 255, in Oklab (Ottosson 2020), where equal distances look equal: lightness 0 to 1, and
    two axes of hue and chroma."""
    encoded = np.asarray(colors) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _LINEAR_RGB_TO_CONES.T) @ _CONES_TO_OKLAB.T


def _from_oklab(colors: np.ndarray) -> np.ndarray:
    linear = np.clip((colors @ np.linalg.inv(_CONES_TO_OKLAB).T) ** 3 @ np.linalg.inv(_LINEAR_RGB_TO_CONES).T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(int)


def _shades(colors: Sequence[Color]) -> dict[Color, list[Color]]:
    places = oklab(np.array(colors).reshape(-1, 3))
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    np.fill_diagonal(distances, np.inf)
    reach = np.minimum(MOST_SHADE, 0.4 * distances.min(axis=1, initial=np.inf))
    lighter = np.zeros((len(colors), SHADES, 3))
    lighter[..., 0] = reach[:, None] * np.array([0, 1, -1, 0.5, -0.5])
    shades = _from_oklab(places[:, None] + lighter).tolist()
    return {color: [color, *map(tuple, others[1:])] for color, others in zip(colors, shades)}


def _plain(name: str) -> str:
    return " ".join(name.split()).casefold()


def _numbers(names: Iterable[str], asked: tuple[str, ...]) -> dict[str, int]:
    with _lock:
        known = _known(asked)
        return {name: known.setdefault(name, len(known)) for name in names}


@lru_cache(maxsize=VOCABULARIES)
def _known(asked: tuple[str, ...]) -> dict[str, int]:
    known: dict[str, int] = {}
    for name in map(_plain, asked):
        known.setdefault(name, len(known))
    return known
