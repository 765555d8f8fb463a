"""Photos of every kind, read into one: 8-bit RGB, right side up."""

import base64
import hashlib
import io
import os
import struct
import urllib.request
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import urlsplit

import numpy as np
from PIL import ExifTags, Image
from transformers.image_utils import ChannelDimension
from transformers.utils import is_torch_tensor

from fisa.processing.archives import ENDING, problem_of, read_member, split_address
from fisa.processing.downloads import download
from fisa.processing.files import path_of


# Floating-point photos that were resized or compressed overshoot their range a little.
_OVERSHOOT = 0.01
# A floating-point photo of 0 to 255 is brighter than this somewhere; one of 0 to 1, or normalised, never is.
_BRIGHTER_THAN_NORMALISED = 8
_BIT_DEPTHS = (10, 12, 14, 16)
_STRIP_ROWS = 1024

# What brings the stored pixels upright; Pillow's `exif_transpose` chokes on damaged EXIF data that nobody asked for.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What Pillow's decoders raise when a file is damaged; a bug of theirs looks no different from outside.
DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


# Formats that Pillow reads by other programs: PostScript by Ghostscript, and IPTC may hold any format, PostScript too.
_READ_BY_PROGRAMS = ("EPS", "IPTC")


class Photo(NamedTuple):
    """A photo as the model reads it, and how the caller holds it."""

    image: Image.Image
    """8-bit RGB, right side up."""
    white: int = 255
    """The pixel value that the caller uses for white: 1, 255, 65535 or a value between them."""
    exif_orientation: int = 1
    """The EXIF orientation of the stored pixels, 1 (upright) to 8."""
    is_file: bool = False
    """Whether it came as a path, an address or bytes, and not as pixels."""
    digest: str | None = None
    """SHA-256 of its file, in hexadecimal, where it was asked for and there is a file."""

    @property
    def orientation_of_results(self) -> int:
        """The EXIF orientation in which results are returned: upright for a file, which any viewer shows upright, and
        that of the stored pixels for a PIL image, whose pixels the caller holds."""
        return 1 if self.is_file else self.exif_orientation

    @property
    def as_held(self) -> Image.Image:
        """8-bit RGB, in the orientation of results."""
        return self.lying(self.orientation_of_results)

    def lying(self, orientation: int) -> Image.Image:
        """8-bit RGB, as stored pixels of an EXIF orientation lie."""
        if orientation == 1:
            return self.image
        inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
        return self.image.transpose(inverse.get(orientation, UPRIGHT[orientation]))


def open_image(file: str | os.PathLike | BinaryIO) -> Image.Image:
    """`PIL.Image.open` of a file that may come from anyone, whatever its name says: no other program is started.

    Raises:
        PIL.UnidentifiedImageError: it is in no image format, or in one that Pillow leaves to other programs. Damaged
        files raise [`DECODER_ERRORS`], here or when the pixels are read.
    """
    Image.init()  # which fills `Image.ID`
    formats = [name for name in Image.ID if name not in _READ_BY_PROGRAMS]
    return Image.open(file, formats=formats)  # noqa: TID251


def load_photo(
    image: Any,
    *,
    upright: bool = True,
    input_data_format: str | ChannelDimension | None = None,
    timeout: float | None = None,
    max_download_bytes: int | None = None,
) -> Image.Image:
    """Any photo as an 8-bit RGB PIL image.

    Args:
        image:
            A PIL image; a NumPy array or torch tensor of shape (H, W), (H, W, C) or (C, H, W), with one to four
            channels and values of 8 or 16 bits, booleans, or floating point from 0 to 1 or 0 to 255; the bytes of an
            image file, a binary file object, or a dictionary with `bytes` or `path`, as `datasets` stores images; a
            path, an address (http://, https://, file://, data:, or tar://photo.jpg::shard.tar for a file in an
            archive) or the base64 text of an image file. Transparency is laid over white. 16-bit pixels that use
            fewer bits (10, 12 or 14) are read as such, with a warning.
        upright (`bool`, defaults to `True`):
            Whether a PIL image is turned as its EXIF data say. `False`: it stays as the caller holds it, and so do a
            pipeline's masks of it. Files are always turned, as viewers do.
        input_data_format (`str` or `ChannelDimension`, *optional*):
            For arrays: `"channels_first"` or `"channels_last"`. Without it an axis of 3 channels is sought, then one
            of 4, 1 or 2; where both would do, it is the last in NumPy arrays and the first in torch tensors.
        timeout (`float`, *optional*, defaults to 60): seconds that a download may take from its start to its end.
        max_download_bytes (`int`, *optional*, defaults to 100 million): bytes of a download, decompressed.

    Files of more pixels than twice `PIL.Image.MAX_IMAGE_PIXELS` (179 million; set it to allow more) are refused.

    Raises:
        ValueError: the photo cannot be read, is empty, or has pixel values out of range. TypeError: it is not a photo.

    ```python
    >>> load_photo("photo.jpg").size
    (640, 480)
    ```
    """
    photo = read_photo(
        image, input_data_format=input_data_format, timeout=timeout, max_download_bytes=max_download_bytes
    )
    return photo.image if upright else photo.as_held


def read_photo(
    image: Any,
    *,
    input_data_format: str | ChannelDimension | None = None,
    timeout: float | None = None,
    max_download_bytes: int | None = None,
    digested: bool = False,
) -> Photo:
    """As [`load_photo`], with what is needed to lay results on the caller's pixels and, if `digested`, to tell later
    whether a file is still the same."""
    if isinstance(image, Image.Image):
        photo = _photo_of_image(image)
    elif isinstance(image, np.ndarray) or is_torch_tensor(image):
        pixels, white = _pixels_of_array(image, input_data_format)
        photo = Photo(_to_rgb(Image.fromarray(pixels)), white)
    else:
        with _file_of(image, timeout=timeout, max_download_bytes=max_download_bytes) as file:
            if digested:
                file = _rewindable(file)
            photo = _decoded(file)
            if digested:
                file.seek(0)
                photo = photo._replace(digest=hashlib.sha256(file.read()).hexdigest())
    if 0 in photo.image.size:
        raise ValueError(f"The image is empty: {photo.image.height} x {photo.image.width} pixels.")
    return photo


def photo_content(image: Any, *, timeout: float | None = None, max_download_bytes: int | None = None) -> bytes:
    """The bytes of a photo's file, undecoded.

    Args:
        image, timeout, max_download_bytes: as [`load_photo`] takes them, but for pixels.

    Raises:
        ValueError: the file cannot be read. TypeError: it is not a file.
    """
    with _file_of(image, timeout=timeout, max_download_bytes=max_download_bytes) as file:
        return file.read()


def read_photos(images: Any, *, input_data_format: str | ChannelDimension | None = None) -> Iterator[Photo]:
    """The photos of a collection (nested or not), of an array with a batch axis, or a single photo, one at a time.

    Raises:
        ValueError: as in [`load_photo`], and the message says which photo of the collection it was.
    """
    for index, image in enumerate(_flat(images)):
        try:
            yield read_photo(image, input_data_format=input_data_format)
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"Image {index}: {error}") from error


def is_collection(images: Any) -> bool:
    """Whether this is several photos: a list, tuple, generator, column of a data set, array with a batch axis or array
    of objects or texts."""
    if isinstance(images, np.ndarray) and images.dtype.kind in "OSU":  # as NumPy holds photos of several sizes
        return images.ndim == 1
    if isinstance(images, np.ndarray) or is_torch_tensor(images):
        return images.ndim == 4
    is_one = isinstance(images, str | bytes | bytearray | memoryview | Mapping) or hasattr(images, "read")
    return isinstance(images, Iterable) and not is_one


def _flat(images: Any) -> Iterator[Any]:
    if is_collection(images):
        for image in images:
            yield from _flat(image)
    else:
        yield images


@contextmanager
def _file_of(source: Any, *, timeout: float | None, max_download_bytes: int | None) -> Iterator[Any]:
    """The file of a photo, wherever it is; errors in the block say which it was."""
    if isinstance(source, Mapping) and ("bytes" in source or "path" in source):
        source = source.get("path") if source.get("bytes") is None else source["bytes"]
    if source is None:
        raise ValueError("There is no photo: found NoneType.")
    try:
        if isinstance(source, bytes | bytearray | memoryview):
            yield io.BytesIO(source)
        elif hasattr(source, "read"):
            yield source
        elif isinstance(source, str | os.PathLike):
            with _opened(os.fspath(source), timeout=timeout, max_download_bytes=max_download_bytes) as file:
                yield file
        else:
            raise TypeError(
                "Pass a PIL image, an array, a tensor, the bytes of a file, a path or a URL; "
                f"found {type(source).__name__}."
            )
    except (OSError, ValueError) as error:
        is_name = isinstance(source, str | os.PathLike)
        name = repr(str(source)[:200]) if is_name else f"The file given as {type(source).__name__}"
        raise ValueError(f"{name} cannot be read as an image: {error}") from error


def _opened(source: str, *, timeout: float | None, max_download_bytes: int | None) -> Any:
    if in_archive := split_address(source):
        return io.BytesIO(read_member(*in_archive))
    if source.lower().endswith(ENDING) and os.path.isfile(source):
        raise ValueError(problem_of(source))
    address = urlsplit(source)
    if address.scheme in ("http", "https"):
        return io.BytesIO(download(source, timeout=timeout, max_bytes=max_download_bytes))
    if address.scheme == "data":
        return urllib.request.urlopen(source)
    try:
        return open(path_of(source), "rb")
    except OSError as error:
        if "://" in source:
            raise ValueError("addresses start with http://, https://, file://, data: or tar://.") from error
        if os.path.isdir(source):
            raise ValueError(f"{error.strerror}.") from error
        return io.BytesIO(_from_base64(source, error))


def _rewindable(file: Any) -> Any:
    """A file at its start; what comes through a pipe in memory, for it cannot be read twice."""
    try:
        file.seek(0)
    except (AttributeError, OSError):
        return io.BytesIO(file.read())
    return file


def _from_base64(source: str, error: OSError) -> bytes:
    """What transformers' pipelines take too: a data URI without its head. `error`: why it is not a path."""
    try:
        content = base64.b64decode("".join(source.split()), validate=True)
        open_image(io.BytesIO(content))
    except DECODER_ERRORS:
        raise ValueError(f"{error.strerror}; nor is it the base64 text of an image.") from error
    return content


def _photo_of_image(image: Image.Image) -> Photo:
    try:
        return _loaded(image)
    except DECODER_ERRORS as error:
        raise ValueError(f"The {image.format or 'PIL'} image cannot be read: {_reason(error)}") from error


NO_FORMAT = "it is in no image format that FISA reads, or damaged at its start. Save it as a JPEG or PNG."


def _decoded(file: Any) -> Photo:
    try:
        return _loaded(open_image(file))._replace(is_file=True)
    except Image.UnidentifiedImageError as error:
        raise ValueError(NO_FORMAT) from error
    except DECODER_ERRORS as error:
        raise ValueError(_reason(error)) from error


def _loaded(image: Image.Image) -> Photo:
    image.load()
    orientation, white = exif_orientation(image), 255
    if image.mode.startswith(("I", "F")):  # PIL would clip them at 255
        pixels, white = _to_8_bit(np.asarray(image))
        image = Image.fromarray(pixels)
    image = _to_rgb(image)
    if orientation != 1:
        image = image.transpose(UPRIGHT[orientation])
        image.info = {}  # or else EXIF would have it turned again
    return Photo(image, white, orientation)


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"{error} For a photo that you trust, raise `PIL.Image.MAX_IMAGE_PIXELS`, half of that limit."
    text = " ".join(str(error).split())
    return (
        text if text and isinstance(error, OSError | ValueError) else f"damaged file ({type(error).__name__} {text})"
    )


def exif_orientation(image: Image.Image) -> int:
    """What EXIF says of the stored pixels, 1 (upright) to 8; 1 where it says nothing or nothing that makes sense."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODER_ERRORS:  # the pixels are whole: viewers show them as they are
        return 1
    return orientation if isinstance(orientation, int) and orientation in UPRIGHT else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    return _over_white(image) if image.has_transparency_data else _in_mode("RGB", image)


def _over_white(image: Image.Image) -> Image.Image:
    # Strip by strip: in whole, the largest photos would take three times their memory.
    result = Image.new("RGB", image.size)
    for top in range(0, image.height, _STRIP_ROWS):
        box = (0, top, image.width, min(top + _STRIP_ROWS, image.height))
        strip = _in_mode("RGBA", image.crop(box))
        result.paste(Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip).convert("RGB"), box)
    return result


def _in_mode(mode: str, image: Image.Image) -> Image.Image:
    if image.mode == "La":  # grey that is multiplied by its opacity: Pillow converts it to nothing else
        image = image.convert("LA")
    return image if image.mode == mode else image.convert(mode)  # which copies even then


def _pixels_of_array(array: Any, input_data_format: str | ChannelDimension | None) -> tuple[np.ndarray, int]:
    likely_axes: tuple[int, ...] = (-1, -3)
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
    return _to_8_bit(array)


def _channel_axis(shape: tuple[int, ...], likely_axes: tuple[int, ...]) -> int:
    for channels in (3, 4, 1, 2):
        for axis in likely_axes:
            if shape[axis] == channels:
                return axis
    raise ValueError(f"An image has 1 to 4 channels, first or last; found the shape {shape}.")


def _to_8_bit(array: np.ndarray) -> tuple[np.ndarray, int]:
    """The pixels from 0 to 255, and the value that meant white before."""
    if array.dtype == np.uint8:
        return array, 255
    if array.dtype.kind not in "biuf":
        raise ValueError(f"Pixel values must be numbers, found an array of {array.dtype}.")
    lowest, highest = array.min(initial=0), array.max(initial=0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError(f"Pixel values must be numbers; found {lowest} to {highest}. Replace NaN and infinity first.")
    white = _white(array.dtype, highest)
    slack = _OVERSHOOT * white if array.dtype.kind == "f" else 0
    if not (-slack <= lowest and highest <= white + slack) or (
        white == 255 and lowest < 0 and _is_dim(array, highest)
    ):
        raise ValueError(
            f"Pixel values lie in 0..1 (floating point), 0..255 or 0..65535 (16 bit); found {lowest} to {highest}. "
            f"Pass the photo as it was before normalisation, or divide it by its largest possible value."
        )
    _warn_of_assumptions(array, highest, white)
    scaled = np.multiply(array, 255 / white, dtype=np.float32, casting="same_kind")
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8), white


def _white(dtype: np.dtype, highest: float) -> int:
    """The pixel value that means white."""
    if dtype.kind == "b":
        return 1
    if dtype.kind == "f":
        return 1 if highest <= 1 + _OVERSHOOT else 255
    if highest <= 255:
        return 255
    return next((2**bits - 1 for bits in _BIT_DEPTHS if highest < 2**bits), 65535)


def _is_dim(array: np.ndarray, highest: float) -> bool:
    return array.dtype.kind == "f" and highest <= _BRIGHTER_THAN_NORMALISED


def _warn_of_assumptions(array: np.ndarray, highest: float, white: int) -> None:
    if white == 255 and _is_dim(array, highest):
        advice = "If 1 means white, clip the pixels to 0..1."
    elif 255 < white < 65535 or (white == 255 and array.dtype.kind == "u" and array.dtype.itemsize == 2 and highest):
        advice = "If 65535 means white, divide the pixels by 65535."
    else:
        return
    warnings.warn(
        f"The brightest pixel of this {array.dtype} photo is {highest}: taken as a photo of 0 to {white}. {advice}",
        stacklevel=2,
    )
