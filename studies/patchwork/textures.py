"""The stuff of Patchwork: textures that are made by formula, each a little different every time, in three hands.

The artists of the pictograms draw no grass and no bricks, so each gets a hand that resembles theirs: Noto shaded,
Twemoji flat, Fluent soft and glossy, the others one of these three.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree


TEXELS = 128
"""A piece of stuff is this wide and high in texels, the unit of all sizes here: a scene shows 96 of them."""


@dataclass(frozen=True)
class Sheet:
    """What a piece of stuff is made on.

    Args:
        random: what makes it differ from the next piece.
        detail: pixels per texel, along each side.
    """

    random: np.random.Generator
    detail: int = 1

    @property
    def side(self) -> int:
        """Height and width, in pixels."""
        return TEXELS * self.detail

    # A field is (side, side), float, mostly in [0, 1].

    def noise(self, rows: int, columns: int | None = None) -> np.ndarray:
        """Smooth noise with this many cells along each side."""
        cells = self.random.random((rows + 2, (columns or rows) + 2)).astype(np.float32)
        return self._enlarged(cells)

    def clouds(self, cells: int) -> np.ndarray:
        """Noise of three scales."""
        return (4 * self.noise(cells) + 2 * self.noise(2 * cells) + self.noise(4 * cells)) / 7

    def grain(self) -> np.ndarray:
        """Noise that differs from texel to texel."""
        return self._enlarged(self.random.random((TEXELS, TEXELS), dtype=np.float32))

    def stones(self, cells: int) -> tuple[np.ndarray, np.ndarray]:
        """A shade for each of about cells² stones, and the distance to the nearest gap, in stones."""
        corners = np.argwhere(np.ones((cells + 2, cells + 2))) - 1
        centres = (corners + self.random.random(((cells + 2) ** 2, 2))) * (TEXELS / cells)
        distances, nearest = cKDTree(centres).query(self.coordinates().reshape(-1, 2), k=2)
        gap = (distances[:, 1] - distances[:, 0]) * cells / TEXELS
        shade = self.random.random(len(centres))[nearest[:, 0]]
        return shade.reshape(self.side, self.side), gap.reshape(self.side, self.side)

    def coordinates(self) -> np.ndarray:
        """Of each pixel's centre, down and across, in texels, `(side, side, 2)`."""
        along = ((np.arange(self.side) + 0.5) / self.detail - 0.5).astype(np.float32)
        return np.stack(np.meshgrid(along, along, indexing="ij"), axis=-1)

    def texels(self) -> np.ndarray:
        """In which texel each pixel is, down and across, `(2, side, side)`, int."""
        return np.moveaxis(np.rint(self.coordinates()).astype(int), -1, 0)

    def rows_of_blocks(self, *, height: int, width: int, shifted: bool) -> tuple[np.ndarray, np.ndarray]:
        """A shade for each block of a wall, and where its joints are."""
        y, x = self.texels() + self.random.integers(0, 64, (2, 1, 1))
        row = y // height
        x = x + (row % 2) * (width // 2) * shifted
        shades = self.random.random((64, 64))
        return shades[row % 64, x // width % 64], (y % height < 2) | (x % width < 2)

    def _enlarged(self, cells: np.ndarray) -> np.ndarray:
        if cells.shape != (self.side, self.side):
            cells = np.asarray(Image.fromarray(cells).resize((self.side, self.side), Image.BICUBIC))
        return np.clip(cells, 0, 1)


Texture = Callable[[Sheet], np.ndarray]


def texture(name: str, random: np.random.Generator, *, artist: str, detail: int = 1) -> np.ndarray:
    """One piece of stuff.

    Args:
        name: one of `TEXTURES`.
        random: what makes it differ from the next piece.
        artist: one of `HANDS`.
        detail: pixels per texel, along each side.

    Returns:
        `np.ndarray` of shape `(128 * detail, 128 * detail, 3)`, uint8.
    """
    sheet = Sheet(random, detail)
    picture = TEXTURES[name](sheet) * random.uniform(0.92, 1.08, size=3)
    return (HANDS[artist](np.clip(picture, 0, 1), detail) * 255).astype(np.uint8)


def _between(field: np.ndarray, low: tuple, high: tuple) -> np.ndarray:
    """Colours from `low` to `high`, RGB in [0, 1]."""
    return np.array(low) + np.clip(field, 0, 1)[..., None] * (np.array(high) - np.array(low))


# The textures


def _grass(sheet: Sheet) -> np.ndarray:
    blades = 0.6 * sheet.noise(10, 64) + 0.4 * sheet.clouds(4)
    return _between(1.6 * blades - 0.3, (0.16, 0.38, 0.08), (0.55, 0.78, 0.25))


def _water(sheet: Sheet) -> np.ndarray:
    y, _ = np.moveaxis(sheet.coordinates(), -1, 0)
    waves = np.sin(y / sheet.random.uniform(1.6, 2.4) + 9 * sheet.noise(5, 3))
    return _between(0.35 + 0.3 * waves + 0.3 * sheet.noise(4), (0.08, 0.3, 0.62), (0.45, 0.78, 0.92))


def _sand(sheet: Sheet) -> np.ndarray:
    y, x = np.moveaxis(sheet.coordinates(), -1, 0)
    dunes = np.sin((y + 0.4 * x) / sheet.random.uniform(4, 6) + 6 * sheet.noise(3))
    return _between(0.5 + 0.2 * dunes + 0.5 * (sheet.grain() - 0.5), (0.78, 0.64, 0.38), (0.98, 0.9, 0.66))


def _wood(sheet: Sheet) -> np.ndarray:
    shade, joint = sheet.rows_of_blocks(height=int(sheet.random.integers(14, 22)), width=90, shifted=True)
    fibres = 0.5 * sheet.noise(60, 4) + 0.5 * shade
    return _between(fibres, (0.42, 0.24, 0.1), (0.8, 0.55, 0.3)) * np.where(joint, 0.55, 1)[..., None]


def _gravel(sheet: Sheet) -> np.ndarray:
    shade, gap = sheet.stones(int(sheet.random.integers(13, 19)))
    return _between(shade, (0.42, 0.41, 0.4), (0.82, 0.8, 0.76)) * np.clip(0.35 + 2 * gap, 0, 1)[..., None]


def _tiles(sheet: Sheet) -> np.ndarray:
    side = int(sheet.random.integers(12, 18))
    y, x = sheet.texels() + sheet.random.integers(0, 64, (2, 1, 1))
    checks = (x // side + y // side) % 2
    colour = sheet.random.uniform(0.3, 0.9, 3)
    tiles = np.where(checks[..., None], colour, 0.35 * colour + 0.62)
    joint = (x % side < 2) | (y % side < 2)
    return np.where(joint[..., None], 0.94, tiles)


def _lava(sheet: Sheet) -> np.ndarray:
    shade, gap = sheet.stones(int(sheet.random.integers(6, 9)))
    crust = _between(0.4 * shade, (0.1, 0.06, 0.06), (0.4, 0.22, 0.2))
    glow = np.clip(1 - 4 * gap * (0.6 + 0.8 * sheet.noise(8)), 0, 1)
    return crust + glow[..., None] * (np.array((1.0, 0.55, 0.08)) - crust)


def _asphalt(sheet: Sheet) -> np.ndarray:
    return _between(0.3 * sheet.clouds(3) + 0.7 * sheet.grain() ** 3, (0.2, 0.2, 0.22), (0.55, 0.55, 0.58))


def _foliage(sheet: Sheet) -> np.ndarray:
    shade, gap = sheet.stones(int(sheet.random.integers(10, 14)))
    return _between(0.7 * shade + 0.6 * gap - 0.1, (0.03, 0.18, 0.07), (0.3, 0.58, 0.16))


def _brick_wall(sheet: Sheet) -> np.ndarray:
    shade, joint = sheet.rows_of_blocks(height=int(sheet.random.integers(9, 12)), width=22, shifted=True)
    bricks = _between(0.7 * shade + 0.3 * sheet.grain(), (0.5, 0.17, 0.11), (0.78, 0.36, 0.25))
    return np.where(joint[..., None], (0.82, 0.78, 0.72), bricks)


def _snow(sheet: Sheet) -> np.ndarray:
    sparkle = sheet.grain() > 0.99
    return _between(sheet.clouds(4) * 1.5 - 0.2 + sparkle, (0.76, 0.85, 0.96), (1, 1, 1))


def _soil(sheet: Sheet) -> np.ndarray:
    clods = 0.5 * sheet.noise(26) + 0.5 * sheet.clouds(6)
    return _between(1.7 * clods - 0.4, (0.17, 0.1, 0.06), (0.46, 0.31, 0.2))


def _sky(sheet: Sheet) -> np.ndarray:
    return _between(3 * sheet.clouds(3) - 1.2, (0.36, 0.64, 0.94), (0.97, 0.98, 1))


def _marble(sheet: Sheet) -> np.ndarray:
    veins = np.abs(sheet.clouds(4) - 0.5) * sheet.random.uniform(14, 20)
    return _between(veins, (0.48, 0.47, 0.5), (0.94, 0.93, 0.91))


def _carpet(sheet: Sheet) -> np.ndarray:
    y, x = sheet.texels()
    period = int(sheet.random.integers(18, 28))
    colours = sheet.random.uniform(0.1, 0.85, (3, 3))
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


# The hands, of pictures with this many pixels per texel


def _shaded(picture: np.ndarray, detail: int) -> np.ndarray:
    return picture


def _flat(picture: np.ndarray, detail: int) -> np.ndarray:
    smooth = gaussian_filter(picture, (0.8 * detail, 0.8 * detail, 0))
    grey = smooth.mean(axis=-1, keepdims=True)
    return np.clip(np.round((grey + 1.25 * (smooth - grey)) * 5) / 5, 0, 1)


def _glossy(picture: np.ndarray, detail: int) -> np.ndarray:
    shine = np.linspace(0.12, -0.08, len(picture))[:, None, None]
    return np.clip(gaussian_filter(picture, (1.2 * detail, 1.2 * detail, 0)) + shine, 0, 1)


HANDS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "noto": _shaded,
    "noto-v1": _shaded,
    "twemoji": _flat,
    "fxemoji": _glossy,
    "emojione": _flat,
    "streamline": _shaded,
    "fluent": _glossy,
    "openmoji": _flat,
}
