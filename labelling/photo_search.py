"""Which photos a person means by files, folders, patterns and addresses, and what their results are called."""

import glob
import os
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from fisa.formats.places import MARK
from fisa.labelling.overlays import is_overlay
from fisa.processing.archives import (
    ENDING,
    SCHEME,
    is_of_macos,
    member_address,
    photos_in_archive,
    split_address,
)
from fisa.processing.files import FileNames, is_leftover, path_of


ADDRESSES = ("http://", "https://", "file:/", "data:", SCHEME)
LIST_ENDING = ".txt"
ANNOTATIONS, JOURNAL = "panoptic.json", "journal.jsonl"
UNREAD_ENDINGS = (".heic", ".heif", ".hif", ".jxl")  # of photos that Pillow does not read: named, not passed over
PHOTO_ENDINGS = frozenset((*Image.registered_extensions(), *UNREAD_ENDINGS))


class PhotoKey(NamedTuple):
    """What tells a photo from the others of a folder of results, whatever a call names it by."""

    place: str
    """Its path from the folder of results, or its address."""
    repetition: int = 1
    """1 where a call names it for the first time, 2 for the second time, and so on."""


def find_photos(places: Iterable[str], *, recursive: bool = False) -> list[str]:
    """Paths and addresses of the photos that a call names, in their order; within folders and patterns sorted.

    What `fisa-segment` wrote itself is left out: its overlay pictures, the maps beside a journal, and the copies of
    photos in other formats.

    Args:
        places: files, folders, patterns (`"more/*.png"`) and addresses; tar archives, such as WebDataset's shards, for
            the photos in them; and text files with a file, an address, an archive or `# a comment` per line. A file
            whose name looks like a pattern is a file.
        recursive: whether the folders in folders are searched too, also behind symbolic links, but each
            once; not those whose names begin with a dot.

    Returns:
        A folder that cannot be listed, of a place or that a pattern searches, is one of the paths: reading it says
        what is wrong.

    Raises:
        ValueError: a folder or pattern without a photo, or no place that is there. Some missing files among others
            are reported later, when they are read.

    Example:

    ```python
    >>> find_photos(["photo.jpg"])
    ['photo.jpg']
    ```
    """
    photos: list[str] = []
    for place in places:
        if place.lower().startswith(ADDRESSES):
            photos.append(place)
            continue
        is_folder = os.path.isdir(place)
        is_pattern = not is_folder and glob.has_magic(place) and not os.path.exists(place)
        if is_folder:
            paths = _photos_in(place, recursive=recursive)
        elif is_pattern:
            found = [path for path in glob.glob(place, recursive=True) if _is_meant(path, pattern=place)]
            paths = sorted({*found, *_unlistable(place)})
        elif place.lower().endswith(LIST_ENDING) and os.path.isfile(place):
            paths = _listed(place)
        else:
            paths = [place]
        paths = [photo for path in paths for photo in _in_archive(path)]
        # An overlay among files that a shell found for a pattern is left out like one in a folder.
        own = {path for path in paths if is_result(Path(path))}
        paths = [path for path in paths if path not in own]
        if (is_folder or is_pattern) and not paths:
            further = f" but {len(own)} pictures that fisa-segment made" if own else ""
            deeper = 0
            if is_folder and not recursive:
                deeper = sum(map(_has_photo_ending, _photos_in(place, recursive=True)))
            advice = (
                f"the folders in it hold {deeper}: search them with --recursive (recursive=True)."
                if deeper
                else "give files, folders with photos, patterns or URLs."
            )
            raise ValueError(f"{place}: no photo found there{further}; {advice}")
        photos += paths
    if not any(place.lower().startswith(ADDRESSES) or os.path.exists(place) for place in photos):
        raise ValueError(f"{', '.join(photos) or 'What fisa-segment made itself is not a photo'}: no such file.")
    return photos


def is_result(path: Path) -> bool:
    """Whether `fisa-segment` wrote this picture itself: an overlay, a map beside a journal, or a format's copy."""
    folder = Path(os.path.realpath(path.parent))  # links may be called anything
    return is_overlay(path) or _holds_results(folder) or _holds_results(folder.parent)


def photo_keys(sources: Iterable[str], folder: Path) -> list[PhotoKey]:
    """The key of each photo among the results in a folder: the same when the photos and the folder move together, and
    from whatever working directory they are named."""
    times: Counter[str] = Counter()
    keys = []
    for source in sources:
        place = place_of(folder, source)
        times[place] += 1
        keys.append(PhotoKey(place, times[place]))
    return keys


def place_of(folder: Path, source: str) -> str:
    """A photo's path from a folder, or its address; an archive's path from there in the address of what is in it, with
    one way to take it apart wherever one is."""
    if in_archive := split_address(source):
        archive, name = in_archive
        return member_address(_path_from(folder, archive).replace("::", "%3A%3A"), name)
    path = path_of(source)
    return path if "://" in path or path.startswith("data:") else _path_from(folder, path)


def result_names(keys: Sequence[PhotoKey], known: Mapping[PhotoKey, str] | None = None) -> list[str]:
    """What the results of each photo are called, without an ending: as the photo, and different from each other.

    Of photos with the same name, the first by its key has it alone; the others have a part of their place's digest
    behind it. So the names do not depend on the order of the photos, nor on how many of them were done before. Bytes
    that are not UTF-8 are spelt out: any program can name the files.

    Args:
        keys: all photos of a call.
        known: the names of those that are done, which they keep; no other gets these.

    Example:

    ```python
    >>> result_names([PhotoKey("b/dog.jpg"), PhotoKey("a/dog.jpg"), PhotoKey("cat.jpg")])
    ['dog-35c3d06e', 'dog', 'cat']
    ```
    """
    names = dict(known or {})
    free = FileNames(names.values())
    for key in sorted(set(keys) - names.keys()):
        names[key] = free.give(_plain_name(key), of=f"{key.repetition}:{key.place}")
    return [names[key] for key in keys]


def _plain_name(key: PhotoKey) -> str:
    in_archive = split_address(key.place)
    path = in_archive[1] if in_archive else key.place.split("?")[0] if "://" in key.place else key.place
    plain = Path(path).stem.strip(".") or "photo"
    return plain if key.repetition == 1 else f"{plain}-{key.repetition}"


def _path_from(folder: Path, source: str) -> str:
    try:
        return Path(os.path.relpath(source, folder)).as_posix()
    except ValueError:  # on another drive
        return Path(os.path.abspath(source)).as_posix()


def _listed(path: str) -> list[str]:
    """The places that a text file names, one on each line that is neither blank nor a comment."""
    content = Path(path).read_bytes()
    if b"\0" in content:
        raise ValueError(f"{path}: it is not text in UTF-8. Save it in this encoding.")
    text = content.decode("utf-8-sig", "surrogateescape")  # names of files may be any bytes
    places = [_without_blanks(line) for line in text.split("\n")]
    places = [place for place in places if place and not _is_comment(place)]
    if not places:
        raise ValueError(f"{path} is empty; a list of photos has a path or an address per line.")
    return places


def _without_blanks(line: str) -> str:
    """A line of a list without the blanks around it, unless they are part of a file's name."""
    line, plain = line.rstrip("\r"), line.strip()
    return line if line != plain and os.path.exists(line) else plain


def _is_comment(place: str) -> bool:
    return place.split()[0] == "#" and not os.path.exists(place)


def _in_archive(path: str) -> list[str]:
    """The photos of an archive; of a path that is none, itself."""
    if path.lower().endswith(ENDING) and os.path.isfile(path):
        return photos_in_archive(path, endings=PHOTO_ENDINGS)
    return [path]


def _is_meant(path: str, *, pattern: str) -> bool:
    """Whether a pattern means this file: a photo, or an archive where it asks for these."""
    return _has_photo_ending(path) or (pattern.lower().endswith(ENDING) and path.lower().endswith(ENDING))


def _unlistable(pattern: str) -> set[str]:
    """The folders in which a pattern searches and `glob`, without a word, cannot."""
    searched, (folder, name) = set[str](), os.path.split(pattern)
    while name:
        if glob.has_magic(name):
            # A closing slash: folders alone; ** searches those below it, too.
            around = os.path.join(folder, name if name == "**" else "", "")
            searched |= {*(glob.glob(around, recursive=True) if glob.has_magic(around) else [around])} - {""}
        folder, name = os.path.split(folder)
    return {os.path.normpath(place) for place in searched if os.path.isdir(place) and not _can_list(place)}


def _can_list(folder: str) -> bool:
    try:
        os.scandir(folder).close()
    except OSError:
        return False
    return True


def _photos_in(folder: str, *, recursive: bool) -> list[str]:
    paths, errors, searched, waiting = [], list[OSError](), set[str](), deque([folder])
    while waiting:  # links behind all folders: what is reached without one keeps its name when one is made
        for place, folders, files in os.walk(waiting.popleft(), onerror=errors.append):
            if os.path.realpath(place) in searched:  # by another name, or a link leads back
                folders.clear()
                continue
            searched.add(os.path.realpath(place))
            paths += [os.path.join(place, name) for name in files if _has_photo_ending(name)]
            inner = [os.path.join(place, name) for name in sorted(folders) if recursive and name[0] != "."]
            inner = [path for path in inner if not _holds_results(Path(os.path.realpath(path)))]
            waiting += filter(os.path.islink, inner)
            folders[:] = map(os.path.basename, inner)
    return sorted(str(Path(path)) for path in [*paths, *(error.filename for error in errors)])


def _holds_results(folder: Path) -> bool:
    # By `os.path`, which answers for paths that are too long as well.
    holds_maps = folder.name == Path(ANNOTATIONS).stem and os.path.exists(folder.parent / JOURNAL)
    return holds_maps or is_leftover(folder) or os.path.exists(folder / MARK)


def _has_photo_ending(path: str) -> bool:
    return Path(path).suffix.lower() in PHOTO_ENDINGS and not is_of_macos(path)
