"""Draws segments over a photo: filled, outlined and named, with a legend below."""

import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from fisa.processing.lettering import Lettering
from fisa.processing.palette import Color, instance_colors
from fisa.processing.segment import Segment


FILL_OPACITY = round(0.5 * 255)
TEXT_SIZE = 12  # pixels, at least
PLACES_AT_A_TIME = 1024  # of a label: most find a free one among the first
PAPER, INK, FAINT_INK = (255, 255, 255), (32, 33, 36), (128, 134, 139)


def paint(
    photo: Image.Image,
    ids: np.ndarray,
    segments: Sequence[Segment],
    *,
    colors: Mapping[str, Color],
    legend: bool = False,
    font: str | os.PathLike | None = None,
) -> Image.Image:
    """Fill, outline and name segments.

    Args:
        photo: RGB.
        ids: (H, W) integers of the photo's size, the `id` of each pixel's segment, 0 where there is none.
        segments: with the ids 1, 2, 3, ….
        colors: of their classes, by label.
        legend: whether the classes and their shares of the pixels stand below.
        font: a font file for the names; see [`Lettering`].

    Returns:
        A picture of the photo's size, and the legend.
    """
    letters = Lettering(text_size(photo.size), font=font)
    if legend:
        below = _draw_legend(_legend_entries(segments, ids.size, colors), letters, photo.width)
        picture = Image.new("RGB", (below.width, photo.height + below.height), PAPER)
        picture.paste(photo, (0, 0))
        picture.paste(below, (0, photo.height))
    else:
        picture = photo.copy()
    if segments:
        shades = np.array(instance_colors([segment.label for segment in segments], colors), dtype=np.uint8)
        _fill(picture, ids, shades, line_width=max(1, round(letters.size / 14)))
        _write_labels(picture, ids, segments, shades, letters)
    return picture


def draw_legend(colors: Mapping[str, Color], *, letters: Lettering, width: int) -> Image.Image:
    """The colours of classes by name, in columns from top to bottom, on a sheet of this width in pixels, or wider if a
    single column needs it.

    Example:

    ```python
    >>> from fisa.visualization import Lettering, class_colors

    >>> legend = draw_legend(class_colors(["dog", "grass"]), letters=Lettering(16), width=300)
    >>> legend.width
    300
    ```
    """
    return _draw_legend([(name, color, "", "") for name, color in colors.items()], letters, width)


def text_size(size: tuple[int, int]) -> int:
    """The em, in pixels, of the names on a photo of this width and height: legible where the whole photo fits a
    window."""
    width, height = size
    longest, shortest = max(size), min(size)
    return max(TEXT_SIZE, round(math.sqrt(width * height) / 40), round(min(longest / 100, shortest / 8)))


def _fill(picture: Image.Image, ids: np.ndarray, colors: np.ndarray, line_width: int) -> None:
    opacity = np.where(_contour(ids, line_width), np.uint8(255), np.uint8(FILL_OPACITY)) * (ids != 0)
    # Four bytes per pixel, as Pillow has them: each is looked up as one number, and none is copied.
    palette = np.zeros((len(colors) + 1, 4), dtype=np.uint8)
    palette[1:, :3] = colors
    rows = np.ascontiguousarray(ids)  # the maps of photos that EXIF turns lie in columns
    tints = palette.view(np.uint32)[:, 0][rows].view(np.uint8).reshape(*ids.shape, 4)
    picture.paste(Image.fromarray(tints), (0, 0), Image.fromarray(opacity))


def _contour(ids: np.ndarray, width: int) -> np.ndarray:
    """The pixels that have two segments within `width` pixels in both directions, (H, W) bool."""
    # Two segments meet in squares of 2 × 2 pixels; `width` of these lie before a pixel, and as many from it on.
    near = np.zeros(ids.shape, dtype=bool)
    beside, below = ids[:, 1:] != ids[:, :-1], ids[1:] != ids[:-1]
    near[:, :-1] |= beside
    near[:-1, :-1] |= beside[1:]
    near[:-1] |= below
    near[:-1, :-1] |= below[:, 1:]
    near = np.pad(near, (width, width - 1))
    for _ in range(2):
        reach = 1
        while reach < 2 * width:  # twice as far with each step
            step = min(reach, 2 * width - reach)
            near, reach = near[step:] | near[:-step], reach + step
        near = near.T
    return near


def _write_labels(
    picture: Image.Image,
    ids: np.ndarray,
    segments: Sequence[Segment],
    colors: np.ndarray,
    letters: Lettering,
) -> None:
    draw = ImageDraw.Draw(picture)
    stroke = max(1, round(letters.size / 8))
    taken = np.zeros((0, 4))
    # Small segments come first, for they have fewer places to choose from. One without a free place goes unnamed: the
    # legend has its colour.
    seen = [index for index, segment in enumerate(segments) if segment.area]
    for index in sorted(seen, key=lambda index: math.prod(segments[index].box[2:])):
        score = segments[index].score
        line = letters.line(segments[index].label, width=15 * letters.size)
        if score is not None:
            line = line.followed_by(letters.line(f"{score:.2f}"))
        left, top, right, bottom = line.box(stroke)
        half = line.width / 2
        box = left - half, top, right - half, bottom
        points = _points_inside(ids, segments[index])
        boxes = np.tile(points, 2) + box
        place = _free_place(boxes, taken, ids.shape[::-1])
        if place is not None:
            taken = np.vstack([taken, boxes[place]])
            dark = tuple((colors[index] // 5).tolist())
            x, y = points[place]
            line.draw(draw, (x - half, y), "white", stroke_width=stroke, stroke_color=dark)


def _free_place(boxes: np.ndarray, taken: np.ndarray, size: tuple[int, int]) -> int | None:
    """The place of the first box (left, top, right, bottom) that lies within a picture and crosses none of those
    taken."""
    for start in range(0, len(boxes), PLACES_AT_A_TIME):
        candidates = boxes[start : start + PLACES_AT_A_TIME]
        fits = (candidates[:, :2] >= 0).all(1) & (candidates[:, 2:] <= size).all(1)
        crosses = (candidates[:, None, :2] < taken[:, 2:]) & (candidates[:, None, 2:] > taken[:, :2])
        free = np.flatnonzero(fits & ~np.any(crosses.all(2), axis=1))
        if len(free):
            return start + int(free[0])
    return None


def _points_inside(ids: np.ndarray, segment: Segment) -> np.ndarray:
    """Points (x, y) of a segment, best places for a label first: far from its edge, near its middle."""
    left, top, width, height = segment.box
    step = max(1, max(width, height) // 128)
    inside = np.pad(ids[top : top + height : step, left : left + width : step] == segment.id, 1)
    depth = ndimage.distance_transform_edt(inside)[inside]
    points = np.argwhere(inside)
    off_centre = np.hypot(*(points - points.mean(0)).T)
    rows, columns = (points[np.argsort(0.05 * off_centre - depth, kind="stable")].T - 1) * step
    return np.stack([left + columns, top + rows], axis=1)


def _legend_entries(
    segments: Sequence[Segment], pixels: int, colors: Mapping[str, Color]
) -> list[tuple[str, Color | None, str, str]]:
    """Name, colour, number of segments and share of the pixels of each class, the largest first; what no segment
    covers comes last."""
    totals: dict[str, list[int]] = {}
    for segment in segments:
        total = totals.setdefault(segment.label, [0, 0])
        total[0] += segment.area
        total[1] += 1
    entries: list[tuple[str, Color | None, str, str]] = []
    for name, (area, count) in sorted(totals.items(), key=lambda item: -item[1][0]):
        entries.append((name, colors[name], "" if count == 1 else f"({count})", _percent(area / pixels)))
    void = pixels - sum(segment.area for segment in segments)
    if void:
        entries.append(("no segment" if segments else "no segments found", None, "", _percent(void / pixels)))
    return entries


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _draw_legend(
    entries: Sequence[tuple[str, Color | None, str, str]], letters: Lettering, photo_width: int
) -> Image.Image:
    em = letters.size
    names, shares = [], []
    for name, _, count, share in entries:
        line = letters.line(name, width=20 * em)
        names.append(line.followed_by(letters.line(count)) if count else line)
        shares.append(letters.line(share))
    name_width = math.ceil(max(name.width for name in names))
    share_width = math.ceil(letters.line("100%").width) if any(share.width for share in shares) else 0
    column = em + round(0.6 * em) + name_width + em + share_width + 2 * em
    columns = max(1, min(len(entries), (photo_width - em) // column))
    rows = math.ceil(len(entries) / columns)
    line_height = round(1.6 * em)
    width = max(photo_width, em + column)
    legend = Image.new("RGB", (width, 2 * em + rows * line_height - (line_height - em)), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, (line, percent, (_, color, _, _)) in enumerate(zip(names, shares, entries)):
        x, y = em + index // rows * column, em + index % rows * line_height
        draw.rounded_rectangle((x, y, x + em, y + em), em // 4, fill=color, outline=color or FAINT_INK, width=em // 10)
        x += em + round(0.6 * em)
        line.draw(draw, (x, y + em / 2), INK if color else FAINT_INK)
        percent.draw(draw, (x + name_width + em + share_width - percent.width, y + em / 2), FAINT_INK)
    return legend
