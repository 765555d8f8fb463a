"""Damaged files of every format that Pillow writes: a photo comes out, or one clear sentence."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

from fisa.processing.photos import load_photo
from tests.memory import taking_less_than


SIZE = (24, 20)


def encoded() -> dict[str, bytes]:
    """A file of each format, mode and option that Pillow can both write and read."""
    Image.init()
    noise = np.random.default_rng(0).integers(0, 255, (SIZE[1], SIZE[0], 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    options = {"TIFF": {"compression": "tiff_lzw", "exif": exif}, "JPEG": {"exif": exif}, "PNG": {"exif": exif}}
    options |= {"WEBP": {"lossless": True}, "GIF": {"save_all": True, "append_images": [Image.new("L", SIZE)]}}
    files = {}
    for file_format in sorted(set(Image.SAVE) & set(Image.OPEN)):
        for mode in ("RGB", "RGBA", "L", "P", "1", "I;16", "F", "CMYK"):
            image = Image.fromarray(noise[..., 0].astype(np.uint16)) if mode == "I;16" else None
            image = image or Image.fromarray(noise).convert("RGB").convert(mode)
            for settings in ({}, options.get(file_format)):
                file = io.BytesIO()
                try:
                    image.save(file, file_format, **settings or {})
                except (OSError, ValueError, KeyError):  # a mode that the format does not have
                    continue
                files[f"{file_format} {mode} {sorted(settings or {})}"] = file.getvalue()
    return files


FILES = encoded()
EXTREMES = [0, 1, 127, 255, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]
EDITS = st.one_of(
    st.tuples(st.just("truncate"), st.floats(0, 1)),
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(1, 255)),
    st.tuples(st.just("number"), st.floats(0, 0.5), st.sampled_from(EXTREMES), st.sampled_from("<>")),
    st.tuples(st.just("repeat"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("drop"), st.floats(0, 1), st.integers(1, 64)),
    st.tuples(st.just("head of"), st.sampled_from(sorted(FILES)), st.integers(4, 200)),
)


def damaged(content: bytes, edit: tuple) -> bytes:
    kind, place, *values = edit
    if kind == "head of":
        return FILES[place][: values[0]] + content[values[0] :]
    at = int(place * len(content))
    if kind == "truncate":
        return content[:at]
    if kind == "flip":
        return content[:at] + bytes(byte ^ values[0] for byte in content[at : at + 1]) + content[at + 1 :]
    if kind == "number":
        number = struct.pack(f"{values[1]}I", values[0])
        return content[:at] + number + content[at + 4 :]
    if kind == "repeat":
        return content[: at + values[0]] + content[at:]
    return content[:at] + content[at + values[0] :]


def assert_photo_or_sentence(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            photo = load_photo(content)
        except ValueError as error:
            assert type(error) is ValueError
            assert str(error).startswith("The file given as bytes cannot be read as an image: ")
            assert "\n" not in str(error) and len(str(error)) < 500
        else:
            assert photo.mode == "RGB" and 0 not in photo.size


def test_every_format_is_there():
    assert {name.split()[0] for name in FILES} >= {"AVIF", "BMP", "DDS", "GIF", "ICNS", "JPEG", "PNG", "QOI", "TIFF"}
    for content in FILES.values():
        assert_photo_or_sentence(content)


@given(name=st.sampled_from(sorted(FILES)), edits=st.lists(EDITS, min_size=1, max_size=4))
def test_fuzz_damaged_photos(name, edits):
    content = FILES[name]
    for edit in edits:
        content = damaged(content, edit)
    with taking_less_than(1_000):
        assert_photo_or_sentence(content)


@given(st.binary(max_size=200), st.sampled_from(sorted(FILES)))
def test_fuzz_bytes_after_a_head(tail, name):
    assert_photo_or_sentence(FILES[name][:16] + tail)


def test_a_decompression_bomb_is_refused_with_the_way_to_allow_it():
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + file.getvalue()[24:29]
    bomb = file.getvalue()[:12] + header + struct.pack(">I", zlib.crc32(header)) + file.getvalue()[33:]
    with pytest.raises(ValueError, match=r"900000000 pixels.*PIL\.Image\.MAX_IMAGE_PIXELS"):
        load_photo(bomb)
