"""Pictures of segmentations for people: coloured segments over the photo, their names, and a legend."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from fisa.processing.drawing import draw_legend
from fisa.processing.lettering import Lettering
from fisa.processing.palette import class_colors
from fisa.processing.photos import load_photo
from fisa.processing.segmentation import Segmentation


__all__ = ["Lettering", "class_colors", "draw_legend", "draw_segments", "paint_segments"]


def draw_segments(image: Any, segments: Segmentation | Sequence[Mapping[str, Any]], **options: Any) -> Image.Image:
    """Draw the segments that a pipeline returns over the photo.

    Args:
        image: the photo: a PIL image, array, path or URL.
        segments: a [`Segmentation`] of the photo, or dictionaries with `label`, `mask` (an "L" image of the photo's
            size, 0 outside) and, if there is one, `score`. Where masks overlap, later ones lie on top. They lie as the
            pipeline got the photo: give it here in the same way, as a file or as a PIL image. A [`Segmentation`] is
            drawn rightly on both.
        options: `colors` and `font` of [`Segmentation.plot`].

    Returns:
        An RGB picture: the photo in its own size at the top, with each segment filled, outlined and named where there
        is room for its name, and below it a legend of the classes and their shares of the pixels.

    Raises:
        ValueError: a mask or the map is not of the photo's size, or the font cannot be read.

    Example:

    ```python
    >>> from fisa.visualization import draw_segments

    >>> draw_segments("photo.jpg", segmenter("photo.jpg", candidate_labels="dog, grass")).save("segments.png")
    ```
    """
    return _segmentation_of(image, segments).plot(image, **options)


def paint_segments(image: Any, segments: Segmentation | Sequence[Mapping[str, Any]], **options: Any) -> Image.Image:
    """As [`draw_segments`], without the legend: a picture of the photo's size.

    Example:

    ```python
    >>> paint_segments(photo, segmentation).size == photo.size
    True
    ```
    """
    return _segmentation_of(image, segments).plot(image, legend=False, **options)


def _segmentation_of(image: Any, segments: Segmentation | Sequence[Mapping[str, Any]]) -> Segmentation:
    # Its own map knows how it lies, whichever way the photo is given now.
    if isinstance(segments, Segmentation):
        return segments
    return Segmentation.from_masks(segments, size=load_photo(image, upright=False).size)
