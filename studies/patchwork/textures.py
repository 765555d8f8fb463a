"""The stuff of Patchwork: textures that are made by formula, each a little different every time, in three hands.

The artists of the pictograms draw no grass and no bricks, so each gets a hand that resembles theirs: Noto shaded,
Twemoji flat, Fluent soft and glossy.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree


SIDE = 128

Random = np.random.Generator
Texture = Callable[[Random], np.ndarray]


def texture(name: str, random: Random, *, artist: str) -> np.ndarray:
    """One piece of stuff.

    Args:
        name: one of `TEXTURES`.
        random: what makes it differ from the next piece.
        artist: one of `HANDS`.

    Returns:
        `np.ndarray` of shape `(128, 128, 3)`, uint8.
    """
    picture = TEXTURES[name](random) * random.uniform(0.92, 1.08, size=3)
    return (HANDS[artist](np.clip(picture, 0, 1)) * 255).astype(np.uint8)


# Building blocks. A field is (128, 128), float, mostly in [0, 1].


def _noise(random: Random, rows: int, columns: int | None = None) -> np.ndarray:
    """Smooth noise with this many cells along each side."""
    cells = random.random((rows + 2, (columns or rows) + 2)).astype(np.float32)
    return np.clip(np.asarray(Image.fromarray(cells).resize((SIDE, SIDE), Image.BICUBIC)), 0, 1)


def _clouds(random: Random, cells: int) -> np.ndarray:
    """Noise of three scales."""
    return (4 * _noise(random, cells) + 2 * _noise(random, 2 * cells) + _noise(random, 4 * cells)) / 7


def _grain(random: Random) -> np.ndarray:
    return random.random((SIDE, SIDE), dtype=np.float32)


def _stones(random: Random, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """A shade for each of about cells² stones, and the distance to the nearest gap, in stones."""
    centres = (np.argwhere(np.ones((cells + 2, cells + 2))) - 1 + random.random(((cells + 2) ** 2, 2))) * (
        SIDE / cells
    )
    distances, nearest = cKDTree(centres).query(_coordinates().reshape(-1, 2), k=2)
    gap = (distances[:, 1] - distances[:, 0]) * cells / SIDE
    return random.random(len(centres))[nearest[:, 0]].reshape(SIDE, SIDE), gap.reshape(SIDE, SIDE)


def _coordinates() -> np.ndarray:
    return np.stack(np.mgrid[:SIDE, :SIDE], axis=-1).astype(np.float32)


def _between(field: np.ndarray, low: tuple, high: tuple) -> np.ndarray:
    """Colours from `low` to `high`, RGB in [0, 1]."""
    return np.array(low) + np.clip(field, 0, 1)[..., None] * (np.array(high) - np.array(low))


def _rows_of_blocks(random: Random, *, height: int, width: int, shifted: bool) -> tuple[np.ndarray, np.ndarray]:
    """A shade for each block of a wall, and where its joints are."""
    y, x = np.moveaxis(_coordinates().astype(int) + random.integers(0, 64, 2), -1, 0)
    row = y // height
    x = x + (row % 2) * (width // 2) * shifted
    shades = random.random((64, 64))
    return shades[row % 64, x // width % 64], (y % height < 2) | (x % width < 2)


# The textures


def _grass(random: Random) -> np.ndarray:
    blades = 0.6 * _noise(random, 10, 64) + 0.4 * _clouds(random, 4)
    return _between(1.6 * blades - 0.3, (0.16, 0.38, 0.08), (0.55, 0.78, 0.25))


def _water(random: Random) -> np.ndarray:
    y, _ = np.moveaxis(_coordinates(), -1, 0)
    waves = np.sin(y / random.uniform(1.6, 2.4) + 9 * _noise(random, 5, 3))
    return _between(0.35 + 0.3 * waves + 0.3 * _noise(random, 4), (0.08, 0.3, 0.62), (0.45, 0.78, 0.92))


def _sand(random: Random) -> np.ndarray:
    y, x = np.moveaxis(_coordinates(), -1, 0)
    dunes = np.sin((y + 0.4 * x) / random.uniform(4, 6) + 6 * _noise(random, 3))
    return _between(0.5 + 0.2 * dunes + 0.5 * (_grain(random) - 0.5), (0.78, 0.64, 0.38), (0.98, 0.9, 0.66))


def _wood(random: Random) -> np.ndarray:
    shade, joint = _rows_of_blocks(random, height=int(random.integers(14, 22)), width=90, shifted=True)
    fibres = 0.5 * _noise(random, 60, 4) + 0.5 * shade
    return _between(fibres, (0.42, 0.24, 0.1), (0.8, 0.55, 0.3)) * np.where(joint, 0.55, 1)[..., None]


def _gravel(random: Random) -> np.ndarray:
    shade, gap = _stones(random, int(random.integers(13, 19)))
    return _between(shade, (0.42, 0.41, 0.4), (0.82, 0.8, 0.76)) * np.clip(0.35 + 2 * gap, 0, 1)[..., None]


def _tiles(random: Random) -> np.ndarray:
    side = int(random.integers(12, 18))
    y, x = np.moveaxis(_coordinates().astype(int) + random.integers(0, 64, 2), -1, 0)
    checks = (x // side + y // side) % 2
    colour = random.uniform(0.3, 0.9, 3)
    tiles = np.where(checks[..., None], colour, 0.35 * colour + 0.62)
    joint = (x % side < 2) | (y % side < 2)
    return np.where(joint[..., None], 0.94, tiles)


def _lava(random: Random) -> np.ndarray:
    shade, gap = _stones(random, int(random.integers(6, 9)))
    crust = _between(0.4 * shade, (0.1, 0.06, 0.06), (0.4, 0.22, 0.2))
    glow = np.clip(1 - 4 * gap * (0.6 + 0.8 * _noise(random, 8)), 0, 1)
    return crust + glow[..., None] * (np.array((1.0, 0.55, 0.08)) - crust)


def _asphalt(random: Random) -> np.ndarray:
    return _between(0.3 * _clouds(random, 3) + 0.7 * _grain(random) ** 3, (0.2, 0.2, 0.22), (0.55, 0.55, 0.58))


def _foliage(random: Random) -> np.ndarray:
    shade, gap = _stones(random, int(random.integers(10, 14)))
    return _between(0.7 * shade + 0.6 * gap - 0.1, (0.03, 0.18, 0.07), (0.3, 0.58, 0.16))


def _brick_wall(random: Random) -> np.ndarray:
    shade, joint = _rows_of_blocks(random, height=int(random.integers(9, 12)), width=22, shifted=True)
    bricks = _between(0.7 * shade + 0.3 * _grain(random), (0.5, 0.17, 0.11), (0.78, 0.36, 0.25))
    return np.where(joint[..., None], (0.82, 0.78, 0.72), bricks)


def _snow(random: Random) -> np.ndarray:
    sparkle = _grain(random) > 0.99
    return _between(_clouds(random, 4) * 1.5 - 0.2 + sparkle, (0.76, 0.85, 0.96), (1, 1, 1))


def _soil(random: Random) -> np.ndarray:
    clods = 0.5 * _noise(random, 26) + 0.5 * _clouds(random, 6)
    return _between(1.7 * clods - 0.4, (0.17, 0.1, 0.06), (0.46, 0.31, 0.2))


def _sky(random: Random) -> np.ndarray:
    return _between(3 * _clouds(random, 3) - 1.2, (0.36, 0.64, 0.94), (0.97, 0.98, 1))


def _marble(random: Random) -> np.ndarray:
    veins = np.abs(_clouds(random, 4) - 0.5) * random.uniform(14, 20)
    return _between(veins, (0.48, 0.47, 0.5), (0.94, 0.93, 0.91))


def _carpet(random: Random) -> np.ndarray:
    y, x = np.moveaxis(_coordinates().astype(int), -1, 0)
    period = int(random.integers(18, 28))
    colours = random.uniform(0.1, 0.85, (3, 3))
    across, along = ((axis % period < period // 2)[..., None] for axis in (x, y))
    cloth = 0.5 * np.where(across, colours[0], colours[1]) + 0.5 * np.where(along, colours[0], colours[2])
    threads = ((x + y) % 4 < 2)[..., None]
    lines = ((x % period == period // 4) | (y % period == period // 4))[..., None]
    return np.where(lines, 0.95, cloth * np.where(threads, 1.0, 0.85))


TEXTURES: dict[str, Texture] = {
    "grass": _grass,
    "water": _water,
    "sand": _sand,
    "wood": _wood,
    "gravel": _gravel,
    "tiles": _tiles,
    "lava": _lava,
    "asphalt": _asphalt,
    "foliage": _foliage,
    "brick wall": _brick_wall,
    "snow": _snow,
    "soil": _soil,
    "sky": _sky,
    "marble": _marble,
    "carpet": _carpet,
}


def _shaded(picture: np.ndarray) -> np.ndarray:
    return picture


def _flat(picture: np.ndarray) -> np.ndarray:
    smooth = gaussian_filter(picture, (0.8, 0.8, 0))
    grey = smooth.mean(axis=-1, keepdims=True)
    return np.clip(np.round((grey + 1.25 * (smooth - grey)) * 5) / 5, 0, 1)


def _glossy(picture: np.ndarray) -> np.ndarray:
    shine = np.linspace(0.12, -0.08, SIDE)[:, None, None]
    return np.clip(gaussian_filter(picture, (1.2, 1.2, 0)) + shine, 0, 1)


HANDS: dict[str, Callable[[np.ndarray], np.ndarray]] = {"noto": _shaded, "twemoji": _flat, "fluent": _glossy}
