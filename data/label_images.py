"""Label images of any storage: what their pixels say, or why they cannot be read."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from fisa.data.segmentation_datasets import LabelProblem
from fisa.processing.photos import DECODER_ERRORS, UPRIGHT, exif_orientation, open_image


@contextmanager
def opened_label(file: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """A label image, read in full and turned as its own EXIF says, as viewers show it.

    Raises:
        LabelProblem: it cannot be read; the message says why, and the caller adds which file it is.
    """
    try:
        # From memory: of a path Pillow 12 maps uncompressed TIFFs by their turned size, which mixes the rows up.
        image = open_image(io.BytesIO(Path(file).read_bytes()) if isinstance(file, str | Path) else file)
        image.load()
    except DECODER_ERRORS as error:
        raise LabelProblem(f"cannot be read as an image: {error}") from error
    orientation = exif_orientation(image)
    with image:
        yield image if orientation == 1 else image.transpose(UPRIGHT[orientation])


def read_values(path: Path) -> np.ndarray:
    """Pixel values of a label image, `(H, W)` int32; see [`label_values`]."""
    with opened_label(path) as image:
        return label_values(image)


def label_values(label: Any) -> np.ndarray:
    """The whole numbers that a label map holds, `(H, W)` int32.

    Args:
        label: a PIL image of one channel (of a palette image the indices count, not the colours), or an array or
            nested list.

    Raises:
        LabelProblem: colours, transparency, or values that are not whole numbers.
    """
    if isinstance(label, Image.Image) and len(label.getbands()) > 1:
        raise LabelProblem(
            f"is a colour image ({label.mode}); a label map has one channel, whose values are the classes."
        )
    values = np.asarray(label)
    if values.ndim != 2 or values.dtype.kind not in "biuf":
        raise LabelProblem(f"is not a map of numbers: its shape is {values.shape}, its type {values.dtype}.")
    if values.dtype.kind == "f":
        wrong = values[~np.isfinite(values) | (values != np.rint(values))]
        if wrong.size:
            raise LabelProblem(f"holds {wrong[0]}; the values of a label map are whole numbers, the classes.")
    if values.size and not -(2**31) <= values.min() <= values.max() < 2**31:
        raise LabelProblem(f"holds values from {values.min()} to {values.max()}, which are not classes.")
    return values.astype(np.int32)
