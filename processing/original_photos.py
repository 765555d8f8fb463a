"""Photos as they were given, for a second look at parts of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image


class Window(NamedTuple):
    """A rectangle of a photo, in its pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class OriginalPhoto:
    """A photo with all its pixels, any part of which CLIP can be shown.

    [`FisaImageProcessor`] makes them when it is called with `zoom=`.

    Args:
        image (`PIL.Image.Image`): 8-bit RGB, upright.
        to_pixel_values: makes what CLIP reads, a float32 array of shape (3, height, width), of any picture.

    Example:

    ```python
    >>> (photo,) = processor(images=image, zoom=8, return_tensors="pt")["photos"]
    >>> photo.size, photo.pixel_values(Window(top=0, left=0, height=100, width=100)).shape
    ((480, 640), torch.Size([3, 224, 224]))
    ```
    """

    image: Image.Image
    to_pixel_values: Callable[[Image.Image], np.ndarray] = field(repr=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self.image.height, self.image.width

    def pixel_values(self, window: Window) -> torch.Tensor:
        """A part of the photo as CLIP reads it: cut out, resized and normalised.

        Returns:
            `torch.Tensor` of shape `(3, height, width)`, float32.
        """
        top, left, height, width = window
        part = self.image.crop((left, top, left + width, top + height))
        return torch.from_numpy(self.to_pixel_values(part))
