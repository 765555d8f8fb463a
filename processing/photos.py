"""Photos of every kind, read into one: 8-bit RGB, right side up."""

import base64
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from huggingface_hub.utils import httpx
from PIL import ExifTags, Image, ImageOps
from transformers.image_utils import ChannelDimension
from transformers.utils import is_torch_tensor


# Floating-point photos that were resized or compressed overshoot their range a little.
_OVERSHOOT = 0.01


def load_photo(
    image: Any, *, input_data_format: str | ChannelDimension | None = None, timeout: float | None = None
) -> Image.Image:
    """Any photo as an 8-bit RGB PIL image, right side up.

    Args:
        image (`PIL.Image.Image`, `np.ndarray`, `torch.Tensor`, `str` or `os.PathLike`):
            Arrays have the shape (H, W), (H, W, C) or (C, H, W), one to four channels, and values of 8 or 16 bits,
            booleans, or floating point from 0 to 1 or 0 to 255. A string is a path, or a URL that starts with http://,
            https:// or data:image/. Transparency is laid over white.
        input_data_format (`str` or `ChannelDimension`, *optional*):
            For arrays: `"channels_first"` or `"channels_last"`. Without it an axis of 3 channels is sought, then one
            of 4, 1 or 2; where both would do, it is the last in NumPy arrays and the first in torch tensors.
        timeout (`float`, *optional*): seconds to wait for a download; no limit if not given.

    Raises:
        ValueError: the photo cannot be read, is empty, or has pixel values out of range. TypeError: it is no photo.
    """
    if isinstance(image, str | os.PathLike):
        image = _open(os.fspath(image), timeout)
    elif isinstance(image, np.ndarray) or is_torch_tensor(image):
        image = _image_of_array(image, input_data_format)
    elif not isinstance(image, Image.Image):
        raise TypeError(f"Pass a PIL image, an array, a tensor, a path or a URL; found {type(image).__name__}.")
    image = _to_rgb(_upright(image))
    if 0 in image.size:
        raise ValueError(f"The image is empty: {image.height} x {image.width} pixels.")
    return image


def load_photos(images: Any, *, input_data_format: str | ChannelDimension | None = None) -> Iterator[Image.Image]:
    """The photos of a list (nested or not), of an array with a batch axis, or of a single photo, one at a time.

    Raises:
        ValueError: as in [`load_photo`], and the message says which photo of the list it was.
    """
    for index, image in enumerate(_flat(images)):
        try:
            yield load_photo(image, input_data_format=input_data_format)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"Image {index}: {error}") from error


def _flat(images: Any) -> Iterator[Any]:
    if isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4:
        for image in images:
            yield from _flat(image)
    else:
        yield images


def _open(source: str, timeout: float | None) -> Image.Image:
    try:
        if source.startswith(("http://", "https://")):
            response = httpx.get(source, timeout=timeout, follow_redirects=True).raise_for_status()
            image = Image.open(io.BytesIO(response.content))
        elif source.startswith("data:image/"):
            image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
        else:
            image = Image.open(source)
        image.load()
    except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL, Image.DecompressionBombError) as error:
        raise ValueError(f"{source[:200]!r} cannot be read as an image: {error}") from error
    return image


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    # `exif_transpose` copies the photo even where it has nothing to turn.
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    return ImageOps.exif_transpose(image) if turned else image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):  # PIL would clip them at 255
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), _in_mode("RGBA", image))
    return _in_mode("RGB", image)


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)  # which copies even then


def _image_of_array(array: Any, input_data_format: str | ChannelDimension | None) -> Image.Image:
    likely_axes = (-1, -3)
    if is_torch_tensor(array):
        likely_axes = (-3, -1)
        array = array.detach().cpu()
        array = (array.float() if array.is_floating_point() else array).numpy()
    if input_data_format is not None:
        likely_axes = (-3,) if ChannelDimension(input_data_format) == ChannelDimension.FIRST else (-1,)
    if array.ndim == 3:
        array = np.moveaxis(array, _channel_axis(array.shape, likely_axes), -1)
        array = array[..., 0] if array.shape[-1] == 1 else array
    elif array.ndim != 2:
        raise ValueError(f"An image has the axes (H, W), (H, W, C) or (C, H, W); found the shape {array.shape}.")
    return Image.fromarray(_to_8_bit(array))


def _channel_axis(shape: tuple[int, ...], likely_axes: tuple[int, ...]) -> int:
    for channels in (3, 4, 1, 2):
        for axis in likely_axes:
            if shape[axis] == channels:
                return axis
    raise ValueError(f"An image has 1 to 4 channels, first or last; found the shape {shape}.")


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Pixel values must be numbers, found an array of {array.dtype}.")
    lowest, highest = array.min(initial=0), array.max(initial=0)
    top = _full_scale(array.dtype, highest)
    slack = _OVERSHOOT * top if array.dtype.kind == "f" else 0
    if not (-slack <= lowest and highest <= top + slack):
        raise ValueError(
            f"Pixel values lie in 0..1 (floating point), 0..255 or 0..65535 (16 bit); found {lowest} to {highest}. "
            f"Pass the photo as it was before normalisation, or divide it by its largest possible value."
        )
    scaled = np.multiply(array, 255 / top, dtype=np.float32, casting="same_kind")
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _full_scale(dtype: np.dtype, highest: float) -> int:
    """The pixel value that means white."""
    if dtype.kind == "b":
        return 1
    if dtype.kind == "f":
        return 1 if highest <= 1 + _OVERSHOOT else 255
    is_16_bit = dtype.kind == "u" and dtype.itemsize == 2
    return 65535 if is_16_bit or highest > 255 else 255
