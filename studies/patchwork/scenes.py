"""Patchwork scenes: pictograms laid on a quilt of textured, lit stuff, with the ground truth of both.

Everything follows from the painter's seed and the scene's number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from fisa.studies.patchwork.glyphs import default_folder, load_glyphs
from fisa.studies.patchwork.textures import texture
from fisa.studies.patchwork.words import STUFF, THINGS, WORDS


PIECES = 12
"""How many pieces of each stuff a painter has."""

LEAST_VISIBLE = 0.45
"""If a new thing would leave less than this share of another one visible, it is put elsewhere."""

PLACES_TRIED = 4
LEAST_DRAWING = 16
"""Pixels per side from which on a pictogram is kept in half its size too, and in half of that."""

SHOWN_TEXELS = 96
"""A scene is this wide and high in texels, the unit of textures, whatever its pixels."""

SEAM_COLOUR = np.array((255, 246, 224), np.float32)[:, None]


@dataclass(frozen=True)
class SceneKind:
    """What a scene is made of. Ranges hold both ends.

    Args:
        side: height and width of the picture, in pixels.
        num_objects: things on it.
        object_size: width of a thing, as a share of the side.
        num_patches: pieces of the quilt.
        rotation: the most that things are turned, in degrees, either way.
        recoloured: whether the colours of each thing and piece of stuff are changed, each in its own way, and other
            stuff shines through each piece: so they resemble no stuff that has a name.
        restyled: whether each thing is drawn as another hand might: stretched, slanted, shaded, in colours not quite
            the same, now and then with an outline.
    """

    side: int = 192
    num_objects: tuple[int, int] = (2, 5)
    object_size: tuple[float, float] = (0.22, 0.46)
    num_patches: tuple[int, int] = (2, 4)
    rotation: float = 25.0
    recoloured: bool = False
    restyled: bool = False


@dataclass(frozen=True)
class Scene:
    """A painted scene.

    Attributes:
        image: `(side, side, 3)`, uint8.
        label: `(side, side)`, int32, segment ids; 0 is nowhere.
        segments_info: `id` and `category_id` of each segment, `iscrowd` 0. Stuff of one kind is one segment.
    """

    image: np.ndarray
    label: np.ndarray
    segments_info: list[dict[str, Any]]

    @property
    def class_indices(self) -> list[int]:
        """The words on it, as indices into `WORDS`, each once."""
        return sorted({info["category_id"] - 1 for info in self.segments_info})


class Painter:
    """Paints scenes in the hand of one artist.

    Args:
        artist: one of `ARTISTS`.
        things, stuff: names of the words that it may use; all if not given. Things that the artist did not draw are
            left out.
        seed: of everything.
        glyph_folder: where the pictograms are, if not in the usual place.
    """

    def __init__(
        self,
        artist: str,
        *,
        seed: int,
        things: Sequence[str] | None = None,
        stuff: Sequence[str] | None = None,
        glyph_folder: Path | None = None,
    ):
        self.artist, self.seed, self.glyph_folder = artist, seed, glyph_folder or default_folder()
        drawings = _drawings(artist, self.glyph_folder)
        self.things = [i for i, word in enumerate(THINGS) if drawings[i] and (things is None or word.name in things)]
        self._textures: dict[tuple[int, int, int], np.ndarray] = {}
        self.stuff = [len(THINGS) + i for i, word in enumerate(STUFF) if stuff is None or word.name in stuff]

    def paint(self, kind: SceneKind, number: int) -> Scene:
        """The scene of this number."""
        random = np.random.default_rng((self.seed, number))
        quilt = self._quilt(kind, random)
        label, segments = quilt.label, quilt.segments
        canvas, light = quilt.canvas, _light(kind.side, random)
        areas: dict[int, int] = {}
        for class_index in self._chosen_things(kind, random):
            thing = self._thing(class_index, kind, random)
            corner = _place(thing[3] > 127, label, areas, random)
            if corner is None:
                continue
            segment_id = len(segments) + 1
            areas[segment_id] = _lay(thing, canvas, label, corner, segment_id=segment_id)
            segments.append({"id": segment_id, "category_id": class_index + 1, "iscrowd": 0})
        image = np.ascontiguousarray(np.clip(canvas * light, 0, 255).astype(np.uint8).transpose(1, 2, 0))
        visible = np.bincount(label.ravel(), minlength=len(segments) + 1)
        return Scene(image, label, [info for info in segments if visible[info["id"]]])

    def _chosen_things(self, kind: SceneKind, random: np.random.Generator) -> list[int]:
        """Class indices, some of them several times."""
        count = int(random.integers(kind.num_objects[0], kind.num_objects[1] + 1))
        chosen = random.choice(self.things, size=count).tolist()
        return [chosen[i - 1] if i and random.random() < 0.2 else chosen[i] for i in range(count)]

    def _quilt(self, kind: SceneKind, random: np.random.Generator) -> "_Quilt":
        side, least, most = kind.side, *kind.num_patches
        count = int(random.integers(least, most + 1))
        patches = random.choice(self.stuff, size=count, replace=count > len(self.stuff))
        along = np.arange(side, dtype=np.float32) / side
        y, x = along[:, None], along[None]
        region, nearest = np.zeros((side, side), np.uint8), np.full((side, side), np.inf, np.float32)
        for index in range(count):
            (cy, cx), (wy, wx) = random.random(2).tolist(), random.uniform(6, 16, 2).tolist()
            # To the patch's centre, with an addend of each axis that makes the seams wavy.
            distance = np.sqrt((y - cy) ** 2 + (x - cx) ** 2)
            distance += 0.04 * np.sin(wy * y + 9 * cx) + 0.04 * np.sin(wx * x + 9 * cy)
            np.putmask(region, distance < nearest, index)
            np.minimum(nearest, distance, out=nearest)
        canvas, label, segments = np.empty((3, side, side), np.float32), np.empty((side, side), np.int32), []
        ids: dict[int, int] = {}
        for index, class_index in enumerate(patches.tolist()):
            where = region == index
            if not where.any():
                continue
            if class_index not in ids:
                ids[class_index] = len(ids) + 1
                segments.append({"id": ids[class_index], "category_id": class_index + 1, "iscrowd": 0})
            piece = self._piece(class_index, side, random)
            if kind.recoloured:
                mixed = self._mixed(piece, random)
                piece = _recoloured(np.concatenate([mixed, np.full_like(mixed[:1], 255)]), random)[:3]
            np.copyto(canvas, piece, where=where)
            label[where] = ids[class_index]
        seam, thread = np.zeros((side, side), bool), _detail(side)
        seam[thread:] |= region[thread:] != region[:-thread]
        seam[:, thread:] |= region[:, thread:] != region[:, :-thread]
        stitched = np.flatnonzero(seam & _stitches(side))
        flat = canvas.reshape(3, -1)
        flat[:, stitched] = 0.35 * flat[:, stitched] + 0.65 * SEAM_COLOUR
        return _Quilt(canvas, label, segments)

    def _piece(self, class_index: int, side: int, random: np.random.Generator) -> np.ndarray:
        """A square of stuff, `(3, side, side)`, uint8."""
        piece = self._texture(class_index, int(random.integers(PIECES)), detail=_detail(side))
        if random.random() < 0.5:
            piece = piece[:, ::-1]
        top, left = random.integers(0, len(piece) - side + 1, 2)
        return piece[top : top + side, left : left + side].transpose(2, 0, 1)

    def _mixed(self, piece: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A square of stuff through which another one shines, enlarged, `(3, side, side)`, float32."""
        side = piece.shape[-1]
        other = self._piece(int(random.choice(self.stuff)), side, random).transpose(1, 2, 0)
        shown = int(side / random.uniform(1, 4))
        enlarged = Image.fromarray(np.ascontiguousarray(other[:shown, :shown])).resize((side, side), Image.BICUBIC)
        share = np.float32(random.uniform(0, 0.7))
        return (1 - share) * piece + share * np.asarray(enlarged).transpose(2, 0, 1)

    def _texture(self, class_index: int, number: int, *, detail: int) -> np.ndarray:
        key = class_index, number, detail
        if key not in self._textures:
            random = np.random.default_rng((self.seed, class_index, number))
            self._textures[key] = texture(WORDS[class_index].name, random, artist=self.artist, detail=detail)
        return self._textures[key]

    def _thing(self, class_index: int, kind: SceneKind, random: np.random.Generator) -> np.ndarray:
        """A pictogram, turned, scaled and perhaps mirrored, `(4, n, n)`, float32, premultiplied RGBA in [0, 255]."""
        size = random.uniform(*kind.object_size) * kind.side
        angle = math.radians(random.uniform(-1, 1) * kind.rotation)
        # Output to input: turned by the angle, then mirrored, stretched and slanted.
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        turn[0] *= -1 if random.random() < 0.5 else 1
        if kind.restyled:
            stretch = math.exp(random.uniform(-0.15, 0.15))
            turn = np.array([[stretch, random.uniform(-0.15, 0.15)], [0, 1 / stretch]]) @ turn
        drawing = _fitting(_drawings(self.artist, self.glyph_folder)[class_index], size)
        # The corners of the drawing are where the inverse takes them.
        extent = math.ceil(size * np.abs(np.linalg.inv(turn)).sum(axis=1).max()) + 1
        matrix = drawing.width / size * turn
        # Both from the centre of their pixels.
        shift = drawing.width / 2 - matrix.sum(axis=1) * extent / 2
        turned = drawing.transform(
            (extent, extent), Image.AFFINE, (*matrix[0], shift[0], *matrix[1], shift[1]), Image.BILINEAR
        )
        thing = np.ascontiguousarray(np.asarray(turned).transpose(2, 0, 1), np.float32)
        if kind.restyled:
            thing = _restyled(thing, random)
        return _recoloured(thing, random) if kind.recoloured else thing


@dataclass
class _Quilt:
    """A scene before its things: `canvas` `(3, side, side)`, float32 in [0, 255]; `label` `(side, side)`, int32."""

    canvas: np.ndarray
    label: np.ndarray
    segments: list[dict[str, Any]]


@lru_cache
def _drawings(artist: str, folder: Path) -> list[list[Image.Image]]:
    """Each pictogram, premultiplied, whole and in halves of its size: made of the whole, small ones would shimmer.
    Nothing for a word that the artist did not draw."""
    drawings: list[list[Image.Image]] = []
    for glyph in load_glyphs(artist, folder=folder):
        sizes = [Image.fromarray(glyph).convert("RGBa")] if glyph[..., 3].any() else []
        while sizes and sizes[-1].width > 2 * LEAST_DRAWING:
            sizes.append(sizes[-1].reduce(2))
        drawings.append(sizes)
    return drawings


def _fitting(sizes: Sequence[Image.Image], size: float) -> Image.Image:
    """The smallest drawing that need not be enlarged."""
    return min(sizes, key=lambda drawing: (drawing.width < size, abs(drawing.width - size)))


def _detail(side: int) -> int:
    """How many pixels per side a texel has in a scene this large."""
    return max(1, -(-side // SHOWN_TEXELS))


@lru_cache
def _stitches(side: int) -> np.ndarray:
    """Where a seam shows its thread, `(side, side)`, bool."""
    along = np.arange(side, dtype=np.float32) / side
    return 12 * (along + 1.3 * along[:, None]) % 1 < 0.6


def _light(side: int, random: np.random.Generator) -> np.ndarray:
    """Brighter on one side, `(side, side)`."""
    along = np.arange(side, dtype=np.float32) / side - 0.5
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0.05, 0.3)
    plane = 1 + strength * (math.cos(angle) * along + math.sin(angle) * along[:, None])
    return np.float32(random.uniform(0.85, 1.1)) * plane


def _place(
    solid: np.ndarray, label: np.ndarray, areas: dict[int, int], random: np.random.Generator
) -> tuple[int, int] | None:
    """Where a thing can go without hiding too much of another, as its top left corner; `None`: nowhere was found."""
    side, extent = len(label), len(solid)
    remaining = np.bincount(label.ravel(), minlength=256)
    for _ in range(PLACES_TRIED):
        top, left = random.integers(-extent // 6, max(side - extent + extent // 6, 1), 2).tolist()
        inside, part = _overlap(top, left, extent, side)
        hidden = np.bincount(label[inside][solid[part]], minlength=256)
        if all(remaining[i] - hidden[i] >= LEAST_VISIBLE * area for i, area in areas.items()):
            return top, left
    return None


def _overlap(top: int, left: int, extent: int, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """The part of the scene that a thing covers, and the part of the thing that lies in it."""
    spans = [(max(start, 0), max(min(start + extent, side), 0), start) for start in (top, left)]
    return (
        tuple(slice(low, high) for low, high, _ in spans),
        tuple(slice(low - start, high - start) for low, high, start in spans),
    )


def _lay(thing: np.ndarray, canvas: np.ndarray, label: np.ndarray, corner: tuple[int, int], *, segment_id: int) -> int:
    """Lay a thing and its shadow into the scene; returns how many pixels it covers."""
    extent, side = len(thing[0]), len(label)
    drop = max(1, round(extent / 20))
    shadow = Image.fromarray(thing[3].astype(np.uint8)).filter(ImageFilter.BoxBlur(drop))
    inside, part = _overlap(corner[0] + drop, corner[1] + drop, extent, side)
    canvas[:, *inside] *= 1 - np.asarray(shadow, np.float32)[part] * (0.4 / 255)
    inside, part = _overlap(*corner, extent, side)
    shown = thing[:, *part]
    canvas[:, *inside] = canvas[:, *inside] * (1 - shown[3] / 255) + shown[:3]
    solid = shown[3] > 127
    label[inside][solid] = segment_id
    return int(solid.sum())


def _recoloured(thing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Another hue, saturation and brightness, and now and then fewer tones: as if someone else had coloured it."""
    return _tinted(thing, random, hue=0.5, fewer_tones=0.4)


def _tinted(thing: np.ndarray, random: np.random.Generator, *, hue: float, fewer_tones: float) -> np.ndarray:
    """In other colours.

    Args:
        hue: standard deviation of the turn of the colours' circle, in radians.
        fewer_tones: how probable it is that there are fewer tones.
    """
    colour, alpha = thing[:3], thing[3:]
    angle = random.normal(0, hue)
    turn = np.full((3, 3), (1 - math.cos(angle)) / 3) + math.cos(angle) * np.eye(3)
    turn += math.sin(angle) / math.sqrt(3) * np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    grey = np.full((3, 3), 1 / 3)
    matrix = (grey + random.uniform(0.6, 1.5) * (turn - grey)) * random.uniform(0.75, 1.2)
    colour = np.clip(np.tensordot(matrix.astype(np.float32), colour, axes=1), 0, alpha)
    if random.random() < fewer_tones:
        step = 255 / random.integers(3, 7)
        colour = np.minimum(np.round(colour / step) * step, alpha)
    return np.concatenate([colour, alpha])


def _restyled(thing: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Shaded, in colours not quite the same, now and then with an outline."""
    thing = _tinted(thing, random, hue=0.12, fewer_tones=0.2)
    colour, alpha = thing[:3], thing[3:]
    colour = np.clip(colour * _light(len(alpha[0]), random), 0, alpha)
    if random.random() < 0.3:
        # Two sizes of line, in a dark colour: what grows beyond the thing is filled with it.
        grown = np.asarray(
            Image.fromarray(alpha[0].astype(np.uint8)).filter(
                ImageFilter.MaxFilter(3 + 2 * int(random.random() < 0.3))
            ),
            np.float32,
        )[None]
        ink = random.uniform(0, 70, (3, 1, 1)).astype(np.float32) / 255
        colour, alpha = colour + ink * (grown - alpha), grown
    return np.concatenate([colour, alpha])
