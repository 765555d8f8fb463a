"""A file that may come from anyone starts no program, whatever its name says."""

import io
import struct

import pytest
from PIL import EpsImagePlugin

from fisa.data.label_images import read_values
from fisa.data.segmentation_datasets import LabelProblem, size_of_photo
from fisa.page.answers import Question, Refused
from fisa.processing.photos import load_photo


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"


def _field(tag: tuple[int, int], content: bytes) -> bytes:
    return struct.pack(">BBBH", 0x1C, *tag, len(content)) + content


# A picture of one channel, whose data Pillow takes for a file of its own.
WRAPPED = b"".join(
    [
        _field((3, 60), bytes([1, 0])),
        _field((3, 20), struct.pack(">H", 8)),
        _field((3, 30), struct.pack(">H", 8)),
        _field((3, 120), bytes([5])),
        _field((8, 10), POSTSCRIPT),
    ]
)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """A file that is there once Ghostscript was called."""
    programs, mark = tmp_path / "programs", tmp_path / "started"
    programs.mkdir()
    (programs / "gs").write_text(f"#!/bin/sh\ntouch '{mark}'\nexit 1\n")
    (programs / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    return mark


@pytest.mark.parametrize("content", [POSTSCRIPT, WRAPPED], ids=["PostScript", "PostScript in IPTC"])
def test_postscript_is_refused_and_starts_nothing(tmp_path, started, content):
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    for source in (str(file), content, io.BytesIO(content), {"bytes": content, "path": None}, file.as_uri()):
        with pytest.raises(ValueError, match="no image format that FISA reads"):
            load_photo(source)
    for read in (read_values, size_of_photo):
        with pytest.raises(LabelProblem, match="cannot be read as an image"):
            read(file)
    with pytest.raises(Refused, match="not a picture that can be read"):
        Question(str(file), "dog", "panoptic", 0.5, 0).photo_file()
    assert not started.exists()
