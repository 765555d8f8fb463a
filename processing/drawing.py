"""Draws segments over a photo: filled, outlined and named, with a legend below."""

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fisa.processing.segment import Segment


Color = tuple[int, int, int]

# Found by search: sky and water come out blue, grass and trees green, and other common words far from each other.
COLOR_SALT = 4011936
FILL_OPACITY = round(0.45 * 255)
PLACES_AT_A_TIME = 1024  # of a label: most find a free one among the first
PAPER, INK, FAINT_INK = (255, 255, 255), (32, 33, 36), (128, 134, 139)


def paint(photo: Image.Image, ids: np.ndarray, segments: Sequence[Segment]) -> Image.Image:
    """Fill, outline and name segments.

    Args:
        photo: RGB.
        ids: (H, W) integers of the photo's size, the `id` of each pixel's segment, 0 where there is none.
        segments: with the ids 1, 2, 3, ….

    Returns:
        A picture of the photo's size.
    """
    if not segments:
        return photo
    font, colors = _font_for(photo), _segment_colors(segments)
    picture = _paint(photo, ids, colors, line_width=max(1, round(font.size / 14)))
    _write_labels(picture, ids, segments, colors, font)
    return picture


def paint_with_legend(photo: Image.Image, ids: np.ndarray, segments: Sequence[Segment]) -> Image.Image:
    """As [`paint`], with a legend of the classes and their shares of the pixels below."""
    picture = paint(photo, ids, segments)
    legend = _draw_legend(_legend_entries(segments, ids.size), _font_for(photo), photo.width)
    sheet = Image.new("RGB", (legend.width, photo.height + legend.height), PAPER)
    sheet.paste(picture, (0, 0))
    sheet.paste(legend, (0, photo.height))
    return sheet


def draw_legend(names: Sequence[str], *, font: ImageFont.FreeTypeFont, width: int) -> Image.Image:
    """The colours of classes by name, in columns from top to bottom, on a sheet of this width in pixels, or wider if a
    single column needs it.

    Example:

    ```python
    >>> from PIL import ImageFont

    >>> legend = draw_legend(["dog", "grass"], font=ImageFont.load_default(size=16), width=300)
    >>> legend.width
    300
    ```
    """
    return _draw_legend([(name, class_color(name), "") for name in names], font, width)


def class_color(name: str, instance: int = 0) -> Color:
    """The colour (R, G, B, each 0 to 255) of a class: the same in every photo and every run. Further instances of the
    class are a little lighter or darker.

    Example:

    ```python
    >>> class_color("dog") == class_color("Dog"), class_color("dog") == class_color("dog", 1)
    (True, False)
    ```
    """
    digest = hashlib.sha256(f"{COLOR_SALT} {name.strip().casefold()}".encode()).digest()
    hue, lightness, chroma = (int.from_bytes(digest[i : i + 4]) / 2**32 for i in (0, 4, 8))
    shade = (0, 0.06, -0.06, 0.11, -0.11)[instance % 5]
    return _oklch_to_rgb(0.58 + 0.22 * lightness + shade, 0.12 + 0.08 * chroma, hue)


def _oklch_to_rgb(lightness: float, chroma: float, hue: float) -> Color:
    # Oklab (Ottosson 2020), where equal steps of hue and lightness look equal. Hue in turns.
    a, b = chroma * math.cos(math.tau * hue), chroma * math.sin(math.tau * hue)
    cones = np.array(
        [
            lightness + 0.3963377774 * a + 0.2158037573 * b,
            lightness - 0.1055613458 * a - 0.0638541728 * b,
            lightness - 0.0894841775 * a - 1.2914855480 * b,
        ]
    )
    to_linear_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_linear_rgb @ cones**3, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(np.round(255 * encoded).astype(int).tolist())


def _font_for(photo: Image.Image) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=max(12, round(math.sqrt(photo.width * photo.height) / 40)))
    assert isinstance(font, ImageFont.FreeTypeFont)  # as wherever a size is given
    return font


def _segment_colors(segments: Iterable[Segment]) -> np.ndarray:
    counts: dict[str, int] = {}
    colors = []
    for segment in segments:
        instance = counts.get(segment.label, 0)
        counts[segment.label] = instance + 1
        colors.append(class_color(segment.label, instance))
    return np.array(colors, dtype=np.uint8)


def _paint(photo: Image.Image, ids: np.ndarray, colors: np.ndarray, line_width: int) -> Image.Image:
    opacity = np.where(_contour(ids, line_width), np.uint8(255), np.uint8(FILL_OPACITY)) * (ids != 0)
    # Four bytes per pixel, as Pillow has them: each is looked up as one number, and none is copied.
    palette = np.zeros((len(colors) + 1, 4), dtype=np.uint8)
    palette[1:, :3] = colors
    tints = palette.view(np.uint32)[:, 0][ids].view(np.uint8).reshape(*ids.shape, 4)
    return Image.composite(Image.fromarray(tints), photo, Image.fromarray(opacity))


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
    font: ImageFont.FreeTypeFont,
) -> None:
    draw = ImageDraw.Draw(picture)
    stroke = max(1, round(font.size / 8))
    taken = np.zeros((0, 4))
    # Small segments come first, for they have fewer places to choose from. One without a free place goes unnamed: the
    # legend has its colour.
    seen = [index for index, segment in enumerate(segments) if segment.area]
    for index in sorted(seen, key=lambda index: math.prod(segments[index].box[2:])):
        score = segments[index].score
        text = _shortened(segments[index].label, font, 15 * font.size) + ("" if score is None else f" {score:.2f}")
        box = draw.textbbox((0, 0), text, font=font, anchor="mm", stroke_width=stroke)
        points = _points_inside(ids, segments[index])
        boxes = np.tile(points, 2) + box
        place = _free_place(boxes, taken, picture.size)
        if place is not None:
            taken = np.vstack([taken, boxes[place]])
            dark = tuple((colors[index] // 5).tolist())
            draw.text(tuple(points[place]), text, "white", font, anchor="mm", stroke_width=stroke, stroke_fill=dark)


def _free_place(boxes: np.ndarray, taken: np.ndarray, size: tuple[int, int]) -> int | None:
    """The place of the first box (left, top, right, bottom) that lies within a picture and crosses none of those
    taken."""
    for start in range(0, len(boxes), PLACES_AT_A_TIME):
        some = boxes[start : start + PLACES_AT_A_TIME]
        fits = (some[:, :2] >= 0).all(1) & (some[:, 2:] <= size).all(1)
        crosses = (some[:, None, :2] < taken[:, 2:]) & (some[:, None, 2:] > taken[:, :2])
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


def _legend_entries(segments: Sequence[Segment], pixels: int) -> list[tuple[str, Color | None, str]]:
    """Name, colour and share of the pixels of each class, the largest first; what no segment covers comes last."""
    totals: dict[str, list[int]] = {}
    for segment in segments:
        total = totals.setdefault(segment.label, [0, 0])
        total[0] += segment.area
        total[1] += 1
    entries: list[tuple[str, Color | None, str]] = []
    for name, (area, count) in sorted(totals.items(), key=lambda item: -item[1][0]):
        entries.append((name if count == 1 else f"{name} ({count})", class_color(name), _percent(area / pixels)))
    void = pixels - sum(segment.area for segment in segments)
    if void:
        entries.append(("no segment" if segments else "no segments found", None, _percent(void / pixels)))
    return entries


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _draw_legend(
    entries: list[tuple[str, Color | None, str]], font: ImageFont.FreeTypeFont, photo_width: int
) -> Image.Image:
    em = round(font.size)
    names = [_shortened(name, font, 20 * em) for name, _, _ in entries]
    name_width = math.ceil(max(font.getlength(name) for name in names))
    share_width = math.ceil(font.getlength("100%")) if any(share for _, _, share in entries) else 0
    column = em + round(0.6 * em) + name_width + em + share_width + 2 * em
    columns = max(1, min(len(entries), (photo_width - em) // column))
    rows = math.ceil(len(entries) / columns)
    line = round(1.6 * em)
    width = max(photo_width, em + column)
    legend = Image.new("RGB", (width, 2 * em + rows * line - (line - em)), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, (name, (_, color, share)) in enumerate(zip(names, entries)):
        x, y = em + index // rows * column, em + index % rows * line
        draw.rounded_rectangle((x, y, x + em, y + em), em // 4, fill=color, outline=color or FAINT_INK, width=em // 10)
        x += em + round(0.6 * em)
        draw.text((x, y + em / 2), name, INK if color else FAINT_INK, font, anchor="lm")
        draw.text((x + name_width + em + share_width, y + em / 2), share, FAINT_INK, font, anchor="rm")
    return legend


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    text = " ".join(text.split())
    while font.getlength(text) > width:
        text = text[:-2] + "…"
    return text
