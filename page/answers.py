"""What the page is asked, and what it answers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fisa.processing.photos import DECODER_ERRORS, open_image
from fisa.processing.pipeline_fisa import FisaPipeline
from fisa.processing.segment import Segment
from fisa.processing.segmentation import Segmentation
from fisa.processing.vocabulary import Vocabulary


LARGEST_PHOTO = 50_000_000  # pixels
LONGEST_NAME = 200  # characters; CLIP reads 77 tokens
MOST_NAMES = 1000
SHOWN_SIDE = 1600  # pixels of the longer side


class Refused(ValueError):
    """A question without an answer; the message says why, and what to do."""


@dataclass(frozen=True)
class Question:
    """A photo, and what to look for on it.

    Args:
        photo (`str` or `None`): path of an image file; `None` where none was chosen.
        words (`str`): as [`Vocabulary.parse`] reads them.
        subtask (`str`), threshold (`float`), zoom (`int`): as for [`FisaPipeline`].
    """

    photo: str | None
    words: str
    subtask: str
    threshold: float
    zoom: int

    @property
    def name(self) -> str:
        """The file name of the photo."""
        return Path(self.photo or "").name

    def vocabulary(self) -> Vocabulary:
        """The words, parsed.

        Raises:
            Refused: there are none, too many or too long ones, or they cannot be read.
        """
        if not self.words.strip(", \n"):
            raise Refused("No words to look for: name at least one thing, for example: dog, grass [stuff].")
        if len(self.words) > MOST_NAMES * LONGEST_NAME:  # which would be read for seconds
            raise Refused(
                f"The words have {len(self.words):,} characters; the page takes {MOST_NAMES * LONGEST_NAME:,}. "
                "fisa-segment takes any number."
            )
        try:
            vocabulary = Vocabulary.parse(self.words)
        except ValueError as error:
            raise Refused(str(error)) from error
        names = vocabulary.prompts()
        longest = max(names, key=len)
        if len(longest) > LONGEST_NAME:
            raise Refused(
                f"A name has {len(longest):,} characters ({longest[:30]}…); it may have {LONGEST_NAME}. "
                "Put commas between names."
            )
        if len(names) > MOST_NAMES:
            raise Refused(
                f"There are {len(names):,} names; the page takes {MOST_NAMES:,}. fisa-segment takes any number."
            )
        return vocabulary

    def photo_file(self) -> bytes:
        """What the photo's file holds.

        Raises:
            Refused: there is no photo, it is gone, it is no picture, or it is too large.
        """
        if self.photo is None:
            raise Refused("No photo: upload one, paste one, or choose an example.")
        try:
            with open_image(self.photo) as picture:
                width, height = picture.size
        except FileNotFoundError as error:
            raise Refused("This photo is no longer here, since uploads are deleted soon: choose it again.") from error
        except Image.DecompressionBombError as error:
            raise Refused(f"This photo has too many pixels; it may have {LARGEST_PHOTO:,}.") from error
        except DECODER_ERRORS as error:
            raise Refused("This file is not a picture that can be read: choose a JPEG, PNG or WebP.") from error
        if width * height > LARGEST_PHOTO:
            raise Refused(f"This photo has {width} × {height} pixels; it may have {LARGEST_PHOTO:,} in all.")
        return Path(self.photo).read_bytes()


@dataclass(frozen=True)
class Answer:
    """What was found.

    Args:
        segmentation ([`Segmentation`]): with the photo.
        vocabulary ([`Vocabulary`]): what was looked for.
    """

    segmentation: Segmentation
    vocabulary: Vocabulary

    def rows(self) -> list[list[Any]]:
        """A row for each segment, as `described` has it, the largest first."""
        segments = sorted(self.segmentation, key=lambda segment: segment.area, reverse=True)
        return [described(segment, self.segmentation.size) for segment in segments]

    @property
    def left_out(self) -> list[str]:
        """The words that were not looked for: stuff, where instances are asked for."""
        return [name for name in self.vocabulary.names if name not in self.segmentation.asked]

    def missing(self) -> list[str]:
        """The words that no segment bears; of those that are left out, why."""
        return [*self.segmentation.not_found, *(f"{name} (instances are of things alone)" for name in self.left_out)]

    def places(self, shown: tuple[int, int]) -> "Places":
        """Which segment is where, small enough to be kept while the page is open.

        Args:
            shown (`tuple[int, int]`): width and height of the picture as it is shown.
        """
        step = max(1, max(self.segmentation.size) // SHOWN_SIDE)
        kept = replace(self.segmentation, ids=self.segmentation.ids[::step, ::step].to(torch.int16), photo=None)
        return Places(kept, self.segmentation.size, shown=shown, step=step)


@dataclass(frozen=True)
class Places:
    """Which segment is where in a photo.

    Args:
        segmentation ([`Segmentation`]): without the photo, its map thinned out.
        size (`tuple[int, int]`): width and height of the photo.
        shown (`tuple[int, int]`): width and height of the picture as it is shown.
        step (`int`): of how many pixels of the photo the map has one.
    """

    segmentation: Segmentation
    size: tuple[int, int]
    shown: tuple[int, int]
    step: int

    def at(self, x: int, y: int) -> Segment | None:
        """The segment at a pixel of the shown picture; `None` where there is none."""
        if not (0 <= x < self.shown[0] and 0 <= y < self.shown[1]):
            return None
        # Each side by a scale of its own: the short one of a very long photo is rounded up to a pixel.
        column, row = (place * side // shown // self.step for place, side, shown in zip((x, y), self.size, self.shown))
        segment_id = int(self.segmentation.ids[row, column])
        return next((segment for segment in self.segmentation if segment.id == segment_id), None)


def described(segment: Segment, size: tuple[int, int]) -> list[Any]:
    """Name, score and share of the photo, for people."""
    score = "" if segment.score is None else f"{segment.score:.2f}"
    return [segment.label, score, f"{segment.area / (size[0] * size[1]):.1%}"]


def answer(segmenter: FisaPipeline, question: Question) -> Answer:
    """Look for the words on the photo.

    Raises:
        Refused: see [`Question`]; or the photo is damaged.

    Example:

    ```python
    >>> question = Question("photo.jpg", "dog, grass [stuff]", subtask="panoptic", threshold=0.5, zoom=0)
    >>> [segment.label for segment in answer(segmenter, question).segmentation]
    ['dog', 'grass']
    ```
    """
    vocabulary, photo = question.vocabulary(), question.photo_file()
    try:
        segmentation = segmenter(
            photo,
            candidate_labels=vocabulary,
            subtask=question.subtask,
            threshold=question.threshold,
            zoom=question.zoom,
            return_type="segmentation",
        )
    except ValueError as error:
        raise Refused(str(error)) from error
    return Answer(segmentation, vocabulary)
