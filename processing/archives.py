"""Photos in tar archives, the shards of WebDataset among them, each under an address of its own."""

import os
import tarfile
from collections.abc import Collection
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple


SCHEME, SEPARATOR = "tar://", "::"  # as fsspec chains addresses
ENDING = ".tar"
INDICES = 8  # archives whose members are known at once


class Member(NamedTuple):
    """Where a file lies in an archive."""

    offset: int
    size: int
    modified: int
    """In seconds since 1970, as the archive says."""


class _Index(NamedTuple):
    members: dict[str, Member]
    problem: str | None


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
    """The archive and the name of the file in it, where this is the address of one."""
    if not source.startswith(SCHEME) or SEPARATOR not in source:
        return None
    name, _, archive = source.removeprefix(SCHEME).rpartition(SEPARATOR)
    return archive, name


def photos_in_archive(archive: str, *, endings: Collection[str]) -> list[str]:
    """The addresses of the photos in an archive, in their order.

    In WebDataset, the files of a sample share what stands before the first dot of their names. Where `7.jpg` is there,
    `7.seg.png` is no photo but says something of one.

    Args:
        archive: its path.
        endings: of photos, in small letters, with their dots.

    Returns:
        The archive itself is the last where it is damaged or holds no photo: reading it says what is wrong.
    """
    members, problem = _index_of(archive)
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
    with open(archive, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def find_member(archive: str, name: str) -> Member:
    """Where a file lies in an archive.

    Raises:
        OSError: the archive cannot be read, or has no such file.
    """
    members, problem = _index_of(archive)
    if name not in members:
        raise FileNotFoundError(f"{archive} has no file {name!r}{f'; {problem}' if problem else ''}")
    return members[name]


def problem_of(archive: str) -> str:
    """Why an archive is not a photo, and what is wrong with it."""
    return _index_of(archive).problem or "it is an archive without a photo"


def _index_of(archive: str) -> _Index:
    status = os.stat(archive)
    return _index(archive, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=INDICES)
def _index(archive: str, size: int, _modified: int) -> _Index:
    members: dict[str, Member] = {}
    try:
        with tarfile.open(archive, "r:") as file:
            for info in file:
                if info.islnk() and info.linkname in members:
                    members[info.name] = members[info.linkname]
                elif info.isreg() and info.offset_data + info.size <= size:
                    members[info.name] = Member(info.offset_data, info.size, int(info.mtime))
            is_whole = _is_end(archive, file.offset)
    except tarfile.TarError:
        is_whole = False
    if is_whole:
        return _Index(members, None)
    where = f"behind {list(members)[-1]!r}" if members else "at its start, or compressed"
    return _Index(members, f"the archive is damaged {where}; what follows cannot be read")


def _is_end(archive: str, offset: int) -> bool:
    """Whether an archive ends here; tarfile also stops where a head is damaged, or the file cut off."""
    with open(archive, "rb") as file:
        file.seek(offset)
        return file.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)


def _is_photo(name: str, endings: Collection[str]) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in endings and not path.name.startswith("._")  # macOS puts these beside each file


def _is_plain(name: str) -> bool:
    return PurePosixPath(name).name.count(".") == 1


def _sample(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0] or path.name))
