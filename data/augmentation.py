"""Changes to a training photo that keep the classes of what it shows: mirroring, cropping, colours."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps


@dataclass(frozen=True)
class PhotoChange:
    """One drawn change, to be made to a photo and to its masks alike.

    Attributes:
        flipped: whether left and right are exchanged, after cropping.
        box: left, top, right and bottom of the part that is kept, as shares of the width and the height.
        color_factors: brightness, contrast and saturation, 1 as they are.
        hue_shift: in turns of the colour wheel.
    """

    flipped: bool = False
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    color_factors: tuple[float, float, float] = (1.0, 1.0, 1.0)
    hue_shift: float = 0.0

    def photo(self, photo: Image.Image) -> Image.Image:
        """The photo, RGB, changed."""
        photo = photo.crop(self._pixels(photo.height, photo.width))
        photo = ImageOps.mirror(photo) if self.flipped else photo
        if steps := round(256 * self.hue_shift):
            hue, *rest = photo.convert("HSV").split()
            hue = hue.point([(value + steps) % 256 for value in range(256)])
            photo = Image.merge("HSV", (hue, *rest)).convert("RGB")
        enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
        for enhancer, factor in zip(enhancers, self.color_factors):
            photo = photo if factor == 1 else enhancer(photo).enhance(factor)
        return photo

    def masks(self, masks: np.ndarray) -> np.ndarray:
        """Masks of the photo, `(G, H, W)`, cropped and mirrored like it."""
        left, top, right, bottom = self._pixels(*masks.shape[-2:])
        masks = masks[:, top:bottom, left:right]
        return masks[:, :, ::-1] if self.flipped else masks

    def _pixels(self, height: int, width: int) -> tuple[int, int, int, int]:
        left, top, right, bottom = self.box
        left, top = min(round(left * width), width - 1), min(round(top * height), height - 1)
        return left, top, max(round(right * width), left + 1), max(round(bottom * height), top + 1)


@dataclass(frozen=True)
class Augmentation:
    """How much training photos are changed.

    Args:
        flip: mirror every other photo.
        crop: the smallest share of a photo's area that a crop keeps. Crops have the photo's shape and a random place;
            1 keeps all.
        color: strength of the changes of colour, 0 to 1: brightness, contrast and saturation are multiplied by up to
            1 ± `color`, and the hue is turned by up to ± `color` / 8 of the colour wheel.

    Raises:
        ValueError: for shares out of range.
    """

    flip: bool = False
    crop: float = 1.0
    color: float = 0.0

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise ValueError(
                f"`crop` was {self.crop}; it is the smallest share of a photo that a crop keeps, in (0, 1]."
            )
        if not 0 <= self.color <= 1:
            raise ValueError(f"`color` was {self.color}; it is the strength of colour changes, in [0, 1].")

    def draw(self, random: np.random.Generator) -> PhotoChange:
        """Draw one change. Each kind takes its numbers from `random` even when it is switched off, so that the others
        stay as they were."""
        flipped = random.random() < 0.5
        side = math.sqrt(random.uniform(self.crop, 1))
        left, top = (random.random(2) * (1 - side)).tolist()
        factors = random.uniform(1 - self.color, 1 + self.color, size=3).tolist()
        hue_shift = random.uniform(-1, 1) * self.color / 8
        return PhotoChange(
            flipped=bool(self.flip and flipped),
            box=(left, top, left + side, top + side),
            color_factors=tuple(factors),
            hue_shift=hue_shift,
        )
