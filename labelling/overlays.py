"""Overlay pictures: a photo with its segments drawn over it, in a file that says whose it is."""

from pathlib import Path
from typing import Any, Literal, get_args

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from fisa.processing.files import write_picture
from fisa.processing.photos import DECODER_ERRORS, open_image
from fisa.processing.segmentation import Segmentation


OverlayFormat = Literal["jpg", "png"]
OVERLAY_FORMATS: tuple[OverlayFormat, ...] = get_args(OverlayFormat)
MAKER = "fisa"  # what the pictures say in EXIF's and PNG's field `Software`
JPEG_SIDE = 65500  # pixels: libjpeg writes no more


def overlay_path(folder: Path, name: str, format: OverlayFormat) -> Path:
    """Where the overlay picture of a photo's results is."""
    return folder / f"{name}_overlay.{format}"


def write_overlay(path: Path, photo: Image.Image, segmentation: Segmentation, *, font: str | None = None) -> None:
    """Draw segments over a photo, with a font of one's own or those that ship, and write the picture, complete or
    absent, as the ending of its path says.

    A JPEG is a few times smaller than a PNG and takes a tenth of the time; sides above 65,500 pixels are scaled down,
    for it holds no more. A PNG shows each pixel as it was drawn.
    """
    picture = segmentation.plot(photo, font=font)
    options: dict[str, Any]
    if path.suffix == ".png":
        maker = PngInfo()
        maker.add_text("Software", MAKER)
        # Other repetitions than runs are rare in photos, and looking for them takes most of the time.
        options = {"format": "PNG", "pnginfo": maker, "compress_type": Image.RLE}
    else:
        picture.thumbnail((JPEG_SIDE, JPEG_SIDE))
        exif = Image.Exif()
        exif[ExifTags.Base.Software] = MAKER
        options = {"format": "JPEG", "exif": exif, "quality": 90, "subsampling": 0}  # colours as sharp as outlines
    write_picture(path, picture, **options)


def is_overlay(path: Path) -> bool:
    """Whether a file is an overlay picture that [`write_overlay`] wrote; not so if it cannot be read."""
    if not any(path.name.endswith(f"_overlay.{format}") for format in OVERLAY_FORMATS):
        return False
    try:
        with open_image(path) as picture:
            software = picture.info.get("Software") or picture.getexif().get(ExifTags.Base.Software)
    except DECODER_ERRORS:
        return False
    return software == MAKER
