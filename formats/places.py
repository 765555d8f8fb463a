"""Where formats are written: folders that replace older ones, and copies of photos."""

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fisa.formats.results import LabelledPhoto, Results
from fisa.processing.archives import split_address
from fisa.processing.downloads import is_online
from fisa.processing.failures import reason_of
from fisa.processing.files import path_of, remove_whole, written_whole
from fisa.processing.photos import DECODER_ERRORS, exif_orientation, load_photo, open_image, photo_content


# Pillow's names of what all readers of results read alike, and its endings. TIFF is none of these: browsers do not
# show it, and trainers take its pixels as they are stored, of 16 bits or floating point.
COMMON_FORMATS = {
    "BMP": (".bmp",),
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "WEBP": (".webp",),
}
MARK = ".fisa"  # a file that tells the folders written here from those of others


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder, which replaces `path` and what an earlier run wrote there at the end of the block.

    A killed process leaves the older folder, the new one or none, never a part of one under this name.

    Raises:
        ValueError: `path` holds what no earlier run wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        aside.mkdir()
        try:
            yield aside
            (aside / MARK).write_text(json.dumps(sorted(_files_in(aside))))
            if path.exists():
                refuse_other_files(path)
                remove_whole(path)
        except BaseException:
            shutil.rmtree(aside)
            raise


def refuse_other_files(path: Path) -> None:
    """Refuse a folder with files that no earlier run wrote there.

    Raises:
        ValueError: the message names some of them.
    """
    mark = path / MARK
    own = set(json.loads(mark.read_text())) if mark.is_file() else set()
    others = sorted(_files_in(path) - own)
    if others:
        raise ValueError(f"{path} holds other files ({', '.join(others[:3])}); move them, or name another folder.")


def _files_in(folder: Path) -> set[str]:
    """Paths from the folder on, but for the mark's."""
    files = {file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()}
    return files - {MARK}


def photo_copies(results: Results, *, online: bool = True) -> Iterator[tuple[LabelledPhoto, str, bytes]]:
    """Photos one after the other, each with the name and the content of its copy; see [`photo_copy`].

    Those that cannot be read any more, or have changed since they were segmented, go into `results.left_out`, if that
    is given.

    Args:
        results ([`Results`])
        online (`bool`, defaults to `True`): whether photos from the web are copied; their content is empty if not.
    """
    for photo in results:
        if not online and is_online(photo.source):
            yield photo, photo.name, b""
            continue
        try:
            name, content = photo_copy(photo, **results.download_limits)
        except Exception as error:  # whatever a decoder raises concerns this photo alone
            if results.left_out is None:
                raise
            results.left_out[photo.name] = photo.source, reason_of(error)
        else:
            yield photo, name, content


def photo_copy(labelled: LabelledPhoto, **limits: Any) -> tuple[str, bytes]:
    """The name and the content of a photo's copy: its own file where all readers see in it the pixels that were
    segmented, else a PNG of these.

    Args:
        labelled ([`LabelledPhoto`])
        limits: `timeout` and `max_download_bytes`, as [`load_photo`] takes them.

    Raises:
        OSError, ValueError: the photo cannot be read, or is no longer the one that was segmented.
    """
    photo = labelled.file()
    if isinstance(photo, Mapping):
        photo = photo["path"] if photo.get("bytes") is None else photo["bytes"]
    content = photo_content(photo, **limits)
    if labelled.digest not in (None, hashlib.sha256(content).hexdigest()):
        raise ValueError(
            f"{labelled.source} has changed since it was segmented, and its segments are those of the earlier photo; "
            "run again, for addresses with --overwrite."
        )
    if endings := _common_endings(content):
        ending = own if (own := _ending(photo)) in endings else endings[0]
        return f"{labelled.name}{ending}", content
    png = io.BytesIO()
    load_photo(content).save(png, format="PNG")
    return f"{labelled.name}.png", png.getvalue()


def _common_endings(content: bytes) -> tuple[str, ...]:
    """The endings of a file that all readers read alike; none if they would not."""
    try:
        with open_image(io.BytesIO(content)) as image:
            # Many readers drop the transparency, keep 16 bits or floating point, and turn JPEGs alone as EXIF says.
            is_plain = not image.has_transparency_data and not image.mode.startswith(("I", "F"))
            is_turned = image.format not in ("JPEG", "MPO") and exif_orientation(image) != 1
            return COMMON_FORMATS.get(image.format or "", ()) if is_plain and not is_turned else ()
    except DECODER_ERRORS:
        return ()


def _ending(photo: Any) -> str:
    """That of a file's name; of what has none, an empty one."""
    if not isinstance(photo, str):
        return ""
    in_archive = split_address(photo)
    return Path(in_archive[1] if in_archive else path_of(photo)).suffix.lower()
