"""Writes names of any script: each character in the first font that has it, shaped, and from right to left where that
is its way."""

import os
import shutil
import subprocess
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import regex
from PIL import ImageDraw, ImageFont, features

from fisa.processing.text_direction import embedding_levels, visual_order


FONTS = Path(__file__).parent / "fonts"
FIRST_FONT = "NotoSans-Regular.ttf"
# Without Raqm and the FriBiDi that it loads Pillow puts one glyph after the other.
SHAPES = bool(features.check("raqm"))
NO_CHARACTER = "\U0010ffff"  # of which no font may have a glyph
JOINERS = "\u200c\u200d"
PROBE_SIZE = 16
MARKS_AT_MOST = 4  # on a character: more climb into the lines above and below
NARROWEST = 0.1  # em: what names are cut to before they are measured

Box = tuple[float, float, float, float]
_said: set[str] = set()


class _Font(NamedTuple):
    """A file, and which of its fonts; without a file Pillow's own font."""

    path: str | None
    number: int = 0


class _Piece(NamedTuple):
    text: str
    face: ImageFont.FreeTypeFont
    direction: str | None
    left: float


@dataclass(frozen=True)
class Line:
    """A name, laid out around its left end at half of the line's height."""

    pieces: tuple[_Piece, ...]
    width: float
    baseline: float

    def box(self, stroke_width: int = 0) -> Box:
        """Left, top, right and bottom of its ink; all 0 where it has none."""
        boxes = [
            piece.face.getbbox(piece.text, anchor="ls", stroke_width=stroke_width, direction=piece.direction)
            for piece in self.pieces
        ]
        if not boxes:
            return 0, 0, 0, 0
        return (
            min(piece.left + box[0] for piece, box in zip(self.pieces, boxes)),
            self.baseline + min(box[1] for box in boxes),
            max(piece.left + box[2] for piece, box in zip(self.pieces, boxes)),
            self.baseline + max(box[3] for box in boxes),
        )

    def followed_by(self, other: "Line") -> "Line":
        """This line and another to the right of it, a space apart."""
        if not self.pieces or not other.pieces:
            return self if self.pieces else other
        last, first = self.pieces[-1], other.pieces[0]
        space = last.face.getlength(" ", direction=last.direction)
        start = self.width + space
        pieces = [*self.pieces, *(piece._replace(left=start + piece.left) for piece in other.pieces)]
        if first.face is last.face and first.direction == last.direction != "rtl":
            # Fewer pieces are drawn in less time.
            pieces[len(self.pieces) - 1 : len(self.pieces) + 1] = [last._replace(text=f"{last.text} {first.text}")]
        return Line(tuple(pieces), start + other.width, self.baseline)

    def draw(
        self,
        draw: ImageDraw.ImageDraw,
        place: tuple[float, float],
        color: Any,
        *,
        stroke_width: int = 0,
        stroke_color: Any = None,
    ) -> None:
        """Write it with its left end at a place (x, y)."""
        x, y = place
        for is_stroke in (True, False) if stroke_width else (False,):
            for piece in self.pieces:
                draw.text(
                    (round(x + piece.left), round(y + self.baseline)),
                    piece.text,
                    stroke_color if is_stroke else color,
                    piece.face,
                    anchor="ls",
                    stroke_width=stroke_width if is_stroke else 0,
                    direction=piece.direction,
                )


class Lettering:
    """Letters of one size.

    A character comes from the font that was given if that has it, else from those that ship with the package, else
    from one that fontconfig knows of. One that none of them has is written as its code point, `U+1B170`, and a warning
    names it once in a process.

    Args:
        size (`int`): the em, in pixels.
        font (`str` or `os.PathLike`, *optional*): a font file that FreeType reads.

    Raises:
        ValueError: the file is not such a font.

    Example:

    ```python
    >>> letters = Lettering(16)
    >>> letters.line("собака").width < letters.line("собака, 猫, قطة, बिल्ली").width
    True
    ```
    """

    def __init__(self, size: int, *, font: str | os.PathLike | None = None):
        self.size = size
        self._given = None if font is None else checked_font(font)

    def line(self, text: str, *, width: float | None = None) -> Line:
        """Lay out a name, cut to a width in pixels if one is given. Line breaks are spaces, and control characters are
        left out."""
        clusters = _clusters(text)
        if width is None:
            return self._laid_out(clusters)
        most = int(width / (NARROWEST * self.size))
        whole = self._laid_out(clusters[: most + 1])
        if len(clusters) <= most and whole.width <= width:
            return whole
        fewest, too_many = 0, min(len(clusters), most + 1)
        while too_many - fewest > 1:
            middle = (fewest + too_many) // 2
            fits = self._laid_out([*clusters[:middle], "…"]).width <= width
            fewest, too_many = (middle, too_many) if fits else (fewest, middle)
        return self._laid_out([*clusters[:fewest], "…"])

    def _laid_out(self, clusters: Sequence[str]) -> Line:
        return _laid_out(tuple(clusters), self.size, self._given)


def checked_font(path: str | os.PathLike) -> str:
    """The path of a font file.

    Raises:
        ValueError: FreeType reads no font there, or only one of fixed sizes.
    """
    try:
        for size in (PROBE_SIZE, 2 * PROBE_SIZE + 1):
            _face(_Font(os.fspath(path)), size)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{os.fspath(path)}: no font file that can be read ({error}); name a .ttf or .otf."
        ) from error
    return os.fspath(path)


@lru_cache(maxsize=2048)  # the same words stand on all photos of a run
def _laid_out(clusters: tuple[str, ...], size: int, given: str | None) -> Line:
    spans = [span for cluster in clusters for span in _spans(cluster, given)]
    _say_what_is_missing([text for text, font in spans if font is None])
    _say_if_unshaped(clusters)
    first = _fonts(given)[0]
    drawn = [(text, font) if font else (_code_points(text), first) for text, font in spans]
    pieces, left = [], 0.0
    for texts, font, is_backwards in _runs(drawn):
        face = _face(font, size)
        shapes = face.layout_engine == ImageFont.Layout.RAQM  # which Pillow's own font never has
        direction = ("rtl" if is_backwards else "ltr") if shapes else None
        text = "".join(reversed(texts) if is_backwards and not shapes else texts)
        pieces.append(_Piece(text, face, direction, left))
        left += face.getlength(text, direction=direction)
    ascent, descent = _face(first, size).getmetrics()
    return Line(tuple(pieces), left, (ascent - descent) / 2)


def _clusters(text: str) -> list[str]:
    """What is seen of a text, character by character with the marks on each."""
    text = "".join(
        character
        for character in unicodedata.normalize("NFC", " ".join(text.split()))
        if unicodedata.category(character) not in ("Cc", "Cf") or (SHAPES and character in JOINERS)
    )
    return [_with_few_marks(cluster) for cluster in regex.findall(r"\X", text)]


def _with_few_marks(cluster: str) -> str:
    marks = 0
    kept = []
    for character in cluster:
        marks = marks + 1 if unicodedata.category(character) in ("Mn", "Me") else 0
        if marks <= MARKS_AT_MOST:
            kept.append(character)
    return "".join(kept)


def _spans(cluster: str, given: str | None) -> Iterator[tuple[str, _Font | None]]:
    """A cluster in the one font that has all of it, or its characters in a font each, `None` where there is none."""
    needed = [character for character in cluster if not _is_invisible(character)]
    font = _font_of("".join(needed), given)
    if font is not None or len(needed) <= 1:
        yield cluster, font
    else:
        for character in needed:
            yield character, _font_of(character, given)


def _runs(spans: Sequence[tuple[str, _Font]]) -> list[tuple[list[str], _Font, bool]]:
    """What has one font and one direction together, from left to right; whether it runs from right to left."""
    levels = iter(embedding_levels("".join(text for text, _ in spans)))
    with_levels = [(text, font, [next(levels) for _ in text][0]) for text, font in spans]
    runs = [([text for text, _, _ in run], *kind) for kind, run in groupby(with_levels, key=lambda span: span[1:])]
    order = visual_order([level for _, _, level in runs])
    return [(texts, font, level % 2 == 1) for texts, font, level in (runs[place] for place in order)]


def _is_invisible(character: str) -> bool:
    """Whether it has no ink of its own and changes how others look."""
    return character in JOINERS or "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef"


@lru_cache(maxsize=65536)
def _font_of(characters: str, given: str | None) -> _Font | None:
    """The first font that has all of some characters."""
    if any(unicodedata.category(character) == "Cs" for character in characters):
        return None
    for font in _fonts(given):
        if all(_has_glyph(font, character) for character in characters):
            return font
    return _system_font(characters)


@lru_cache(maxsize=16)
def _fonts(given: str | None) -> list[_Font]:
    shipped = sorted(FONTS.glob("*.ttf"), key=lambda path: (path.name != FIRST_FONT, path.name))
    # Code that came from the Hub has no fonts beside it.
    return [*([_Font(given)] if given else []), *(_Font(str(path)) for path in shipped)] or [_Font(None)]


@lru_cache(maxsize=512)
def _face(font: _Font, size: int, *, shapes: bool = SHAPES) -> ImageFont.FreeTypeFont:
    if font.path is not None:
        engine = ImageFont.Layout.RAQM if shapes else ImageFont.Layout.BASIC
        return ImageFont.truetype(font.path, size, index=font.number, layout_engine=engine)
    face = ImageFont.load_default(size)
    assert isinstance(face, ImageFont.FreeTypeFont)  # as wherever a size is given
    return face


def _has_glyph(font: _Font, character: str) -> bool:
    return character.isspace() or _ink(font, character) != _ink(font, NO_CHARACTER)


def _ink(font: _Font, character: str) -> tuple[tuple[int, int], bytes]:
    mask = _face(font, PROBE_SIZE, shapes=False).getmask(character)
    return mask.size, bytes(mask)


def _system_font(characters: str) -> _Font | None:
    """One that fontconfig finds for some characters."""
    program = shutil.which("fc-match")
    if program is None or not characters:
        return None
    codes = " ".join(f"{ord(character):x}" for character in characters)
    found = subprocess.run(
        [program, "--format=%{index} %{file}", f"sans-serif:charset={codes}"], capture_output=True, text=True
    )
    number, _, path = found.stdout.partition(" ")
    try:
        # Where none has them all, it names the one that it likes best.
        font = _Font(checked_font(path), int(number) & 0xFFFF)
        return font if all(_has_glyph(font, character) for character in characters) else None
    except ValueError:
        return None


def _code_points(characters: str) -> str:
    return "".join(f"U+{ord(character):04X}" for character in characters)


def _say_what_is_missing(texts: Sequence[str]) -> None:
    unsaid = [text for text in dict.fromkeys(texts) if text not in _said]
    if unsaid:
        _said.update(unsaid)
        named = ", ".join(f"{text.encode('utf-8', 'replace').decode()} ({_code_points(text)})" for text in unsaid)
        warnings.warn(
            f"No font here has {named}: its code point is drawn instead. Name a font that has it, as `font` in Python "
            "or --font on the command line.",
            stacklevel=2,
        )


def _say_if_unshaped(texts: Sequence[str]) -> None:
    joined = (text for text in texts if len(text) > 1 or unicodedata.bidirectional(text) == "AL")
    if not SHAPES and "shapes" not in _said and any(joined):
        _said.add("shapes")
        warnings.warn(
            "Letters are drawn one by one, not joined as Arabic and Indic scripts join them: Pillow finds no FriBiDi. "
            "Install it (Debian: libfribidi0, Homebrew: fribidi).",
            stacklevel=2,
        )
