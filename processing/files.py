"""Files that are complete or absent, their names as other programs read them, and the digest of weights."""

import hashlib
import io
import json
import logging
import os
import re
import shutil
import time
import unicodedata
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

import torch
from PIL import Image


logger = logging.getLogger(__name__)

PARTIAL = ".partial"
LONGEST_NAME = 240  # bytes: file systems take 255, and an ending follows
TEXT_MARK = "<!-- written by fisa:"


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path for a file or a folder, which replaces `path` at the end of the block.

    If the process is killed, `path` holds either its old content or all of the new content, never a part. After an
    error `path` is unchanged. Processes that write the same path at once do not disturb each other: the last one wins.

    Args:
        path (`str` or `os.PathLike`): a file, there or not, or a folder that is not there yet; the folder around it
            exists.

    Example:
        >>> with written_whole("report.json") as aside:
        ...     aside.write_text("{}")
    """
    path = Path(path)
    aside = _aside(path)
    try:
        yield aside
    except BaseException:
        if aside.is_file():
            aside.unlink()
        raise
    if aside.is_file():  # on disk before its name: after a power cut a name must not stand for an empty file
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
    os.replace(aside, path)


def write_whole(path: str | os.PathLike, content: str | bytes) -> None:
    """Write a file that is complete or absent; text in UTF-8. See [`written_whole`]."""
    with written_whole(path) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_unless_edited(path: Path, text: str) -> None:
    """Write a text for people with a mark, by which the next time tells it from one that somebody wrote or edited,
    which stays, with a warning.

    Args:
        path (`Path`): in Markdown or HTML.
        text (`str`): what is to stand there.
    """
    if path.is_file():
        there, mark, digest = path.read_text(encoding="utf-8", errors="replace").rpartition(TEXT_MARK)
        if not mark or digest.strip(" ->\n") != _text_digest(there):
            logger.warning(f"{path} was written or edited by hand and stays; delete it for a new one.")
            return
    text = "\n".join(text.rstrip().splitlines()) + "\n\n"
    write_whole(path, f"{text}{TEXT_MARK} {_text_digest(text)} -->\n")


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def path_of(source: str) -> str:
    """The path that a `file://` address of this machine stands for; any other address or path as it is.

    Example:
        >>> path_of("file:///photos/a%20dog.jpg"), path_of("a dog.jpg")
        ('/photos/a dog.jpg', 'a dog.jpg')
    """
    if source[:6].lower() != "file:/":
        return source
    address = urlsplit(source)
    return urllib.request.url2pathname(address.path) if address.netloc.lower() in ("", "localhost") else source


def spelt_out(name: str) -> str:
    r"""A name of a file as text of any encoding: bytes that are not UTF-8, which Python has as halves of surrogates,
    are spelt out.

    Example:
        >>> spelt_out(os.fsdecode(b"caf\xe9.png"))
        'caf%DCE9.png'
    """
    return re.sub("[\ud800-\udfff]", lambda half: f"%{ord(half[0]):X}", name)


class FileNames:
    """Gives the files of a folder names, without an ending, that differ from each other on every file system: some
    know no capitals, or hold one letter for the same whichever way Unicode writes it.

    Args:
        taken (`Iterable[str]`, *optional*): names that are given already.

    Example:
        >>> names = FileNames(["dog"])
        >>> names.give("cat", of="1"), names.give("Dog", of="2")
        ('cat', 'Dog-d4735e3a')
    """

    def __init__(self, taken: Iterable[str] = ()):
        self._taken = {*map(_as_on_disk, taken)}

    def give(self, wanted: str, *, of: str) -> str:
        """A name that no other file has: the one that is wanted, spelt out and without separators of folders and
        control characters, which XML cannot hold; where that is taken or too long, with a part of a digest behind it.

        Args:
            wanted (`str`): what the file should be called.
            of (`str`): what tells it from other files that want this name, of which the digest is.
        """
        plain = re.sub(r"[/\\\x00-\x1f\x7f\ufffe\uffff]", "_", spelt_out(wanted))
        start = plain.encode()[: LONGEST_NAME - 75].decode("utf-8", "ignore")
        digest = hashlib.sha256(of.encode("utf-8", "surrogatepass")).hexdigest()
        candidates = chain(
            [plain],
            (f"{start}-{digest[:length]}" for length in (8, 16, 64)),
            (f"{start}-{digest}-{number}" for number in count(2)),
        )
        name = next(name for name in candidates if self._is_free(name))
        self._taken.add(_as_on_disk(name))
        return name

    def _is_free(self, name: str) -> bool:
        return _as_on_disk(name) not in self._taken and len(name.encode()) <= LONGEST_NAME


def _as_on_disk(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def name_fields(field: str, name: str) -> dict[str, str]:
    r"""A name of a file as JSON has it: spelt out, so that every reader takes it; and, where that is another, a second
    field `FIELD_quoted` with its bytes as addresses have them, by which it can be opened.

    Example:
        >>> name_fields("file_name", os.fsdecode(b"caf\xe9.png"))
        {'file_name': 'caf%DCE9.png', 'file_name_quoted': 'caf%E9.png'}
    """
    spelt = spelt_out(name)
    return {field: spelt} if spelt == name else {field: spelt, f"{field}_quoted": quote(os.fsencode(name), safe="/:")}


def name_of(fields: Mapping[str, str], field: str) -> str:
    """The name that [`name_fields`] wrote."""
    quoted = fields.get(f"{field}_quoted")
    return fields[field] if quoted is None else os.fsdecode(unquote_to_bytes(quoted))


def remove_whole(path: Path) -> None:
    """Delete a file or a folder, or do nothing if it is not there; a killed process leaves no part under its name."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    aside = _aside(path)
    os.replace(path, aside)
    shutil.rmtree(aside)


def write_picture(path: str | os.PathLike, picture: Image.Image, **options: Any) -> None:
    """Write a picture, complete or absent, with the options of Pillow's `save`; see [`written_whole`].

    Pillow encodes it in memory: where it writes JPEGs to a file itself, it does not notice that the disk is full.
    """
    content = io.BytesIO()
    picture.save(content, **options)
    write_whole(path, content.getvalue())


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is, by its name, one that is being written, or that a killed process left half written.

    Example:
        >>> is_leftover(Path("yolo.47e53324b66449c28abba39a936ca76c.partial")), is_leftover(Path("yolo"))
        (True, False)
    """
    return re.fullmatch(rf".*\.[0-9a-f]{{32}}{re.escape(PARTIAL)}", path.name, re.DOTALL) is not None


def remove_leftovers(folder: Path, *, older_than: float = 3600.0) -> None:
    """Delete the files and folders that killed processes left half written, `older_than` seconds ago or more."""
    for partial in filter(is_leftover, folder.iterdir()):
        if time.time() - partial.stat().st_mtime > older_than:
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial)
            else:
                partial.unlink(missing_ok=True)


def _aside(path: Path) -> Path:
    # The start of the name tells whose it is; the whole of a long one would make it too long for file systems.
    return path.with_name(f"{path.name[:40]}.{uuid.uuid4().hex}{PARTIAL}")


def weights_digest(description: Any, weights: Iterable[tuple[str, Any]]) -> str:
    """SHA-256, in hexadecimal, of named tensors and of what else counts.

    Args:
        description: plain data for JSON.
        weights:
            Names and entries of a `state_dict`, in an order that is always the same: tensors and what quantised layers
            hold.
    """
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, weight in weights:
        if type(weight) not in (torch.Tensor, torch.nn.Parameter) or weight.is_quantized:
            digest.update(f"{name} {_saved(weight)}".encode())
            continue
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        if weight.numel():  # the strides of an empty one may be anything
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _saved(entry: Any) -> str:
    """SHA-256 of what `torch.save` writes of a quantised tensor, a type or a number."""
    content = io.BytesIO()
    torch.save(entry, content)
    return hashlib.sha256(content.getvalue()).hexdigest()
