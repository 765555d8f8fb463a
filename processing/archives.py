"""Photos in tar archives, the shards of WebDataset among them, each under an address of its own."""

import os
import posixpath
import re
import tarfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, NamedTuple


SCHEME, SEPARATOR = "tar://", "::"  # as fsspec chains addresses
ENDING = ".tar"
INDICES = 8  # archives whose members are known at once


class Member(NamedTuple):
    """Where a file lies in an archive."""

    offset: int
    size: int
    modified: int
    """In seconds since 1970, as the archive says."""
    pieces: tuple[tuple[int, int], ...]
    """Where in the file, and how many, the bytes belong that the archive holds; all others are zeros."""


class _Index(NamedTuple):
    members: dict[str, Member | str]
    """In their order; of a link, where it leads in the archive."""
    names: dict[str, str]
    """By places without dots: `tar` writes `./dog.jpg` for what a link calls `dog.jpg`."""
    problem: str | None

    def find(self, name: str) -> Member | None:
        """Where the file of a name lies, or that to which it links; `None` if the archive does not hold it."""
        seen: set[str] = set()
        while name not in seen:
            seen.add(name)
            member = self.members.get(name) or self._through_folder(name)
            if not isinstance(member, str):
                return member
            name = self.names.get(posixpath.normpath(member), member)
        return None

    def _through_folder(self, name: str) -> str | None:
        """Where a path leads whose first folders are a link; `None` where none of them is."""
        for folder in PurePosixPath(name).parents:
            target = self.members.get(self.names.get(posixpath.normpath(folder), ""))
            if isinstance(target, str):
                return posixpath.join(target, PurePosixPath(name).relative_to(folder))
        return None


def member_address(archive: str, name: str) -> str:
    """The address of a file in an archive.

    Example:

    ```python
    >>> member_address("shards/0.tar", "dog.jpg")
    'tar://dog.jpg::shards/0.tar'
    ```
    """
    return f"{SCHEME}{name}{SEPARATOR}{archive}"


def split_address(source: str) -> tuple[str, str] | None:
    """The archive and the name of the file in it, where this is the address of one. Of several ways to read it, both
    being names with `::`, the one counts by which there is such a file, else such an archive."""
    body = source.removeprefix(SCHEME)
    if body == source or SEPARATOR not in body:
        return None
    starts = [match.start() for match in re.finditer(f"(?={SEPARATOR})", body)]
    ways = [(body[start + len(SEPARATOR) :], body[:start]) for start in reversed(starts)]
    if len(ways) > 1:
        there = [way for way in ways if os.path.isfile(way[0])]
        ways = [way for way in there if _holds(*way)] or there or ways
    return ways[0]


def _holds(archive: str, name: str) -> bool:
    try:
        return name in _index_of(archive).members
    except OSError:  # reading it says what is wrong
        return False


def photos_in_archive(archive: str, *, endings: Collection[str]) -> list[str]:
    """The addresses of the photos in an archive, in their order, links to photos among them.

    In WebDataset, the files of a sample share what stands before the first dot of their names. Where `7.jpg` is there,
    `7.seg.png` is not a photo but says something about one.

    Args:
        archive: its path.
        endings: of photos, in small letters, with their dots.

    Returns:
        The archive itself is the last where it is damaged or holds no photo: reading it says what is wrong.
    """
    members, _, problem = _index_of(archive)
    names = [name for name in members if _is_photo(name, endings)]
    plain = {_sample(name) for name in names if _is_plain(name)}
    photos = [member_address(archive, name) for name in names if _is_plain(name) or _sample(name) not in plain]
    return photos if photos and problem is None else [*photos, archive]


def read_member(archive: str, name: str) -> bytes:
    """The content of a file in an archive.

    Raises:
        OSError: the archive cannot be read, or has no such file.
    """
    member = find_member(archive, name)
    content = bytearray(member.size)
    with open(archive, "rb") as file:
        file.seek(member.offset)
        for start, length in member.pieces:
            content[start : start + length] = file.read(length)
    return bytes(content)


def find_member(archive: str, name: str) -> Member:
    """Where a file lies in an archive.

    Raises:
        OSError: the archive cannot be read, or has no such file.
    """
    index = _index_of(archive)
    if member := index.find(name):
        return member
    if target := index.members.get(name):
        raise FileNotFoundError(f"{archive}: {name!r} is a link to {target!r}, and the archive has no such file")
    raise FileNotFoundError(f"{archive} has no file {name!r}{f'; {index.problem}' if index.problem else ''}")


def problem_of(archive: str) -> str:
    """Why an archive is not a photo, and what is wrong with it."""
    return _index_of(archive).problem or "it is an archive without a photo"


def _index_of(archive: str) -> _Index:
    status = os.stat(archive)
    return _index(archive, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=INDICES)
def _index(archive: str, size: int, _modified: int) -> _Index:
    members: dict[str, Member | str] = {}
    try:
        with tarfile.open(archive, "r:") as file:
            for info in file:
                if info.issym():
                    members[info.name] = posixpath.join(posixpath.dirname(info.name), info.linkname)
                elif info.islnk():  # to what had this name before
                    members[info.name] = members.get(info.linkname, info.linkname)
                elif info.isreg():
                    sparse: Any = info.sparse  # of `tar --sparse`, which leaves out zeros
                    pieces = ((0, info.size),) if sparse is None else tuple(sparse)
                    if info.offset_data + sum(length for _, length in pieces) <= size:
                        members[info.name] = Member(info.offset_data, info.size, int(info.mtime), pieces)
            is_whole = _is_end(archive, file.offset)
    except (tarfile.TarError, ValueError):  # of numbers in its heads
        is_whole = False
    names = {posixpath.normpath(name): name for name in members}
    if is_whole:
        return _Index(members, names, None)
    where = f"behind {list(members)[-1]!r}" if members else "at its start, or compressed"
    return _Index(members, names, f"the archive is damaged {where}; what follows cannot be read")


def _is_end(archive: str, offset: int) -> bool:
    """Whether an archive ends here; tarfile also stops where a head is damaged, or the file cut off."""
    with open(archive, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _is_photo(name: str, endings: Collection[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in endings and not is_of_macos(name)


def is_of_macos(path: str) -> bool:
    """Whether a file is one that macOS puts beside each other one, called as this and no photo.

    Example:

    ```python
    >>> is_of_macos("photos/._dog.jpg"), is_of_macos("photos/dog.jpg")
    (True, False)
    ```
    """
    return posixpath.basename(path).startswith("._")


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name.count(".") == 1


def _sample(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))
