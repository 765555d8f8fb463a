"""What changes with a photo's content: by it a run knows the photos that an earlier one did."""

import hashlib
import os
import zlib
from pathlib import Path
from typing import TypeAlias

from fisa.labelling.data_sets import Row
from fisa.labelling.photo_search import place_of
from fisa.processing.archives import find_member, split_address
from fisa.processing.files import path_of


Stamp: TypeAlias = tuple[int | str, ...] | None


def source_stamp(source: str) -> Stamp:
    """Size and time of the last change of a photo's file; `None` where there is no file, as for addresses on the web.

    Args:
        source: a path or an address.
    """
    if in_archive := split_address(source):
        try:
            member = find_member(*in_archive)
        except OSError:
            return None
        # Archives that are to be the same whoever makes them say 0.
        return member.size, member.modified or os.stat(in_archive[0]).st_mtime_ns
    try:
        status = os.stat(path_of(source))
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def row_stamp(row: Row, folder: Path) -> Stamp:
    """Size and check sum of the bytes that a data set holds of a photo; where it holds a path or an address, a digest
    of this, so that rows that changed places are told apart, and what [`source_stamp`] says of it.

    Args:
        row: of the data set.
        folder: of the results, from which paths count: photos, data set and folder may move together.
    """
    content, path = row.content_and_path
    if content is not None:
        return len(content), zlib.crc32(content)
    if path is None:
        return None
    place = place_of(folder, path).encode("utf-8", "surrogatepass")
    return hashlib.sha256(place).hexdigest()[:16], *(source_stamp(path) or ())
