"""Segmentation data of every format in one schema, that of COCO panoptic.

A record is a dictionary of `image_id` (str), `image` (PIL, RGB), `label` ((H, W) int32 array of segment ids, 0 where
no segment is) and `segments_info` (a list of `id`, `category_id`, `iscrowd`; instances that may overlap also carry
their whole mask as run lengths under `segmentation`). Records of files also have the photo's `file_name`.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
import numpy as np
from PIL import Image
from torch.utils.data import Dataset, IterableDataset
from tqdm import tqdm
from transformers.utils import logging

from fisa.data.categories import Category
from fisa.processing.photos import DECODER_ERRORS, exif_orientation, load_photo, open_image


logger = logging.get_logger(__name__)

Unlabelled = Literal["ignored", "background"]
"""What pixels without a segment mean: nothing is known of them, or they show none of the categories."""

Purpose = Literal["training", "validation"]

SHOWN_PROBLEMS = 5
SHOWN_ABSENT = 10
SHOWN_TURNED = 10
READERS = 8


@dataclass(frozen=True)
class Entry:
    """Where one record lies.

    Attributes:
        image_id: unique in the data set.
        image: path of the photo.
        label: path of its label map; `None` where `instances` are the label.
        segments: its `segments_info`, if they are known without reading the label map.
        instances: the instances to draw, as COCO's files have them.
        size: height and width in pixels, if the annotations give them.
    """

    image_id: str
    image: Path
    label: Path | None
    segments: list[dict[str, Any]] | None = None
    instances: list[dict[str, Any]] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class BrokenEntry:
    """A record whose annotations cannot be used.

    Attributes:
        image_id: unique in the data set; the place in the annotations where they name no image.
        problem: what is wrong, and in which entry of which file.
    """

    image_id: str
    problem: str


class LabelProblem(ValueError):
    """What is wrong with a label, and what to do about it."""


LabelReader = Callable[[Entry], tuple[np.ndarray, list[dict[str, Any]]]]
"""Reads a label: its map of segment ids and its `segments_info`. Raises `LabelProblem` or `OSError`."""


class SegmentationDataset(Dataset, ABC):
    """Records that are read when they are asked for.

    Args:
        categories: what the segments may be, in the order of the model's class indices.
        unlabelled: see [`Unlabelled`].
    """

    def __init__(self, categories: tuple[Category, ...], *, unlabelled: Unlabelled):
        self.categories, self.unlabelled = categories, unlabelled

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """A record.

        Raises:
            ValueError or OSError: it cannot be read; the message names its files or its row.
        """

    @abstractmethod
    def image_id(self, index: int) -> str:
        """Name of a record."""

    @abstractmethod
    def image(self, index: int) -> Image.Image:
        """The photo alone, RGB."""

    @abstractmethod
    def is_turned(self, index: int) -> bool:
        """Whether EXIF turns the photo: its label must then lie on the turned one."""

    @abstractmethod
    def photo_sizes(self) -> list[int | None]:
        """Bytes of each photo as it is stored, 0 for decoded ones; `None` for a photo that is not there."""

    @abstractmethod
    def photo_digest(self, index: int) -> str:
        """SHA-256, in hexadecimal, of the photo as it is stored; of its pixels where it is stored decoded."""

    @abstractmethod
    def segments_info(self, index: int) -> list[dict[str, Any]]:
        """The segments alone; the label map is read only where its format has no other list of them."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of what the records are: names, lists of segments, content of all photos and label
        maps, which are read for it but not decoded. Where the files lie does not matter."""

    @abstractmethod
    def select(self, indices: Iterable[int]) -> "SegmentationDataset":
        """The data set of these records."""

    def take(self, count: int) -> "SegmentationDataset":
        """The first `count` records."""
        return self.select(range(min(count, len(self))))

    def check(self, *, skip_broken: bool = False, purpose: Purpose | None = None) -> "SegmentationDataset":
        """Read every record in full, as training does, before any work is put into them: missing and damaged files,
        photos and labels of different sizes, categories and ids that are not known, names that come twice.

        It takes as long as reading the data once with `READERS` threads: each thread needs about 10 ms for a photo of
        COCO's size.

        Args:
            skip_broken: leave broken records out, with a warning that says how many and names the first few.
            purpose: what the records are for, if categories that none of them has, or has as crowds for the most part,
                are to be warned of: nothing is learned of them, and no mean counts them.

        Returns:
            The data set itself, or the data set without its broken records.

        Raises:
            ValueError: broken records, or none at all, or nothing to train on in any of them; the message names the
                first few and what to do.
        """
        with ThreadPoolExecutor(READERS) as pool:
            looking = pool.map(self._look, range(len(self)))
            looked = list(tqdm(looking, total=len(self), desc="checking data", unit="photo", disable=len(self) < 100))
        looks = [*_with_names_once(looked)]
        problems = [look.problem for look in looks if look.problem is not None]
        if problems and not skip_broken:
            raise ValueError(
                f"{len(problems)} of {len(self)} records cannot be used:\n{_listed(problems)}\n"
                "Fix them, or leave them out with --skip_broken."
            )
        if len(problems) == len(self):
            raise ValueError("There is no record left to work with.")
        if problems:
            logger.warning(f"{len(problems)} of {len(self)} records are left out:\n{_listed(problems)}")
        kept = self.select(index for index, look in enumerate(looks) if look.problem is None) if problems else self
        looks = [look for look in looks if look.problem is None]
        kept._warn_of_turned([index for index, look in enumerate(looks) if look.is_turned])
        if purpose is not None:
            objects, crowds = (sum((look.segments[kind] for look in looks), Counter()) for kind in (0, 1))
            kept._warn_of_absent({*objects, *crowds}, purpose)
            kept._warn_of_crowds(objects, crowds, purpose)
        return kept

    def _look(self, index: int) -> "_Look":
        try:
            record = self[index]
        except (OSError, ValueError) as error:
            return _Look(str(error))
        segments = tuple(
            Counter(segment["category_id"] for segment in record["segments_info"] if segment["iscrowd"] == kind)
            for kind in (0, 1)
        )
        return _Look(image_id=record["image_id"], segments=segments, is_turned=self.is_turned(index))

    def _warn_of_turned(self, indices: list[int]) -> None:
        if indices:
            names = ", ".join(self.image_id(index) for index in indices[:SHOWN_TURNED])
            more = f" and {len(indices) - SHOWN_TURNED} more" if len(indices) > SHOWN_TURNED else ""
            logger.warning(
                f"EXIF turns {len(indices)} of {len(self)} photos: {names}{more}. Labels are taken to "
                "lie on the photos as viewers show them; a label file with an EXIF orientation is turned by its own. "
                "If these were drawn on the pixels as stored, save the photos without the EXIF orientation."
            )

    def _warn_of_absent(self, present: Set[int], purpose: Purpose) -> None:
        absent = [category for category in self.categories if category.id not in present]
        if absent:
            names = ", ".join(f"{category.name} ({category.id})" for category in absent[:SHOWN_ABSENT])
            more = f" and {len(absent) - SHOWN_ABSENT} more" if len(absent) > SHOWN_ABSENT else ""
            logger.warning(
                f"{len(absent)} of {len(self.categories)} categories never occur in the {len(self)} {purpose} "
                f"records: {names}{more}. If they should, compare their numbers with the values in the labels: in "
                "label maps 255 and 65535 mean that nothing is known, so masks of 0 and 255 must become masks of "
                "0 and 1."
            )

    def _warn_of_crowds(self, objects: Counter[int], crowds: Counter[int], purpose: Purpose) -> None:
        """Crowds teach nothing and are nothing to find: of a category that is mostly crowds little is learned.

        Raises:
            ValueError: there is nothing else to train on.
        """
        hint = (
            "CVAT marks all masks that were drawn with a brush so: where they show single objects, set iscrowd to 0 "
            "in the annotations."
        )
        if purpose == "training" and not objects:
            found = f"all {crowds.total()} segments are marked as crowds (iscrowd 1). {hint}"
            raise ValueError(
                f"There is nothing to learn from the {len(self)} training records: "
                + (found if crowds else "none of them has a segment.")
            )
        mostly = [category for category in self.categories if crowds[category.id] > objects[category.id]]
        if mostly:
            names = ", ".join(
                f"{category.name} ({crowds[category.id]} of {crowds[category.id] + objects[category.id]})"
                for category in mostly[:SHOWN_ABSENT]
            )
            more = f" and {len(mostly) - SHOWN_ABSENT} more" if len(mostly) > SHOWN_ABSENT else ""
            effect = "teach nothing" if purpose == "training" else "count neither in PQ nor in mask AP"
            logger.warning(
                f"More than half of the segments of {len(mostly)} of {len(self.categories)} categories are marked as "
                f"crowds (iscrowd 1) in the {len(self)} {purpose} records, and {effect}: {names}{more}. {hint}"
            )


@dataclass(frozen=True)
class _Look:
    """What a look at a record showed."""

    problem: str | None = None
    image_id: str | None = None
    segments: tuple[Counter[int], ...] = (Counter(), Counter())
    """How many there are of each category: objects, and crowds."""
    is_turned: bool = False


def _with_names_once(looks: Iterable[_Look]) -> Iterator[_Look]:
    """The same looks; a record that bears the name of an earlier one is broken."""
    taken: set[str] = set()
    for look in looks:
        if look.image_id is not None and look.image_id in taken:
            look = _Look(f"{look.image_id}: two records have this name (image_id); give each photo its own.")
        elif look.image_id is not None:
            taken.add(look.image_id)
        yield look


class FileDataset(SegmentationDataset):
    """Records in files.

    Args:
        entries: where they lie, in their order; those that are broken are refused when they are read.
        categories, unlabelled: as for [`SegmentationDataset`].
        read_label: the format's reader.
    """

    def __init__(
        self,
        entries: Sequence[Entry | BrokenEntry],
        categories: tuple[Category, ...],
        *,
        read_label: LabelReader,
        unlabelled: Unlabelled = "ignored",
    ):
        super().__init__(categories, unlabelled=unlabelled)
        self.entries, self.read_label = entries, read_label

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self._entry(index)
        image = self.image(index)
        label, segments = self._label(entry)
        try:
            record = checked_record(entry.image_id, image, label, segments, categories=self.categories)
        except LabelProblem as error:
            raise LabelProblem(f"{entry.image} and its label {entry.label or ''}: {error}") from error
        return record | {"file_name": entry.image.name}

    def image_id(self, index: int) -> str:
        return self.entries[index].image_id

    def image(self, index: int) -> Image.Image:
        path = self._entry(index).image
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file.")
        return load_photo(path)

    def is_turned(self, index: int) -> bool:
        with open_image(self._entry(index).image) as image:
            return exif_orientation(image) != 1

    def photo_sizes(self) -> list[int | None]:
        return [None if isinstance(entry, BrokenEntry) else size_of_file(entry.image) for entry in self.entries]

    def photo_digest(self, index: int) -> str:
        return file_digest(self._entry(index).image)

    def segments_info(self, index: int) -> list[dict[str, Any]]:
        entry = self._entry(index)
        return self._label(entry)[1] if entry.segments is None else entry.segments

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([category.to_dict() for category in self.categories]).encode())
        entries = [*map(self._entry, range(len(self)))]
        with ThreadPoolExecutor(READERS) as pool:
            for entry, content in zip(entries, pool.map(_content_digests, entries)):
                record = [entry.image_id, entry.image.name, content, entry.segments, entry.instances]
                digest.update(json.dumps(record).encode())
        return digest.hexdigest()

    def select(self, indices: Iterable[int]) -> "FileDataset":
        return FileDataset(
            [self.entries[index] for index in indices],
            self.categories,
            read_label=self.read_label,
            unlabelled=self.unlabelled,
        )

    def _entry(self, index: int) -> Entry:
        entry = self.entries[index]
        if isinstance(entry, BrokenEntry):
            raise LabelProblem(entry.problem)
        return entry

    def _label(self, entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
        if entry.label is not None and not entry.label.exists():
            raise FileNotFoundError(f"{entry.label}: no such file.")
        try:
            return self.read_label(entry)
        except (OSError, ValueError) as error:
            raise LabelProblem(f"{entry.label or f'image {entry.image_id}'}: {error}") from error


class StreamedSegmentationDataset(IterableDataset):
    """Records that come in as a stream: their number is unknown, and they cannot be shuffled.

    Args:
        rows: the records are made of them, again at each iteration; `take(count)` gives the first ones.
        record: makes a record of a row and its number.
        categories, unlabelled: as for [`SegmentationDataset`].
        skip_broken: whether records that cannot be read are left out, with a warning.
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        record: Callable[[Mapping[str, Any], int], dict[str, Any]],
        categories: tuple[Category, ...],
        *,
        unlabelled: Unlabelled = "ignored",
        skip_broken: bool = False,
    ):
        self.rows, self.record, self.categories, self.unlabelled = rows, record, categories, unlabelled
        self.skip_broken = skip_broken

    def __iter__(self) -> Iterator[dict[str, Any]]:
        left_out = 0
        for index, row in enumerate(self.rows):
            try:
                record = self.record(row, index)
            except (OSError, ValueError) as error:
                if not self.skip_broken:
                    raise
                left_out += 1
                logger.warning(f"{left_out} of {index + 1} records are left out so far. The last: {error}")
            else:
                yield record

    def take(self, count: int) -> "StreamedSegmentationDataset":
        """The first `count` records."""
        return self._with(self.rows.take(count), skip_broken=self.skip_broken)

    def check(self, *, skip_broken: bool = False, purpose: Purpose | None = None) -> "StreamedSegmentationDataset":
        """The same data set; with `skip_broken` it leaves out broken records when it meets them, since a stream cannot
        be looked through beforehand."""
        return self._with(self.rows, skip_broken=skip_broken)

    def _with(self, rows: datasets.IterableDataset, *, skip_broken: bool) -> "StreamedSegmentationDataset":
        return StreamedSegmentationDataset(
            rows, self.record, self.categories, unlabelled=self.unlabelled, skip_broken=skip_broken
        )


def _listed(problems: list[str]) -> str:
    """The first few, a line for each, and how many more there are."""
    shown = "\n".join(f"- {problem}" for problem in problems[:SHOWN_PROBLEMS])
    return shown + (f"\nand {len(problems) - SHOWN_PROBLEMS} more." if len(problems) > SHOWN_PROBLEMS else "")


def checked_record(
    image_id: str,
    image: Image.Image,
    label: np.ndarray,
    segments: list[dict[str, Any]],
    *,
    categories: tuple[Category, ...],
) -> dict[str, Any]:
    """A record of its parts.

    Raises:
        LabelProblem: photo and label of different sizes, or categories that are not known.
    """
    if label.shape != (image.height, image.width):
        turned = label.shape == image.size
        raise LabelProblem(
            f"the photo is {image.width} x {image.height} pixels and its label {label.shape[1]} x {label.shape[0]}; "
            "they must have the same size."
            + " Labels are read as drawn on the photo that EXIF has turned upright, as viewers show it."
            * turned
        )
    unknown = sorted({segment["category_id"] for segment in segments} - {category.id for category in categories})
    if unknown:
        raise LabelProblem(
            f"category ids {unknown} are not among the {len(categories)} categories; use those that the annotations "
            "were made with (--classes, for formats that do not bring theirs)."
        )
    return {"image_id": image_id, "image": image, "label": label, "segments_info": segments}


def refuse_unlisted(label: np.ndarray, segments: list[dict[str, Any]]) -> None:
    """Compare a panoptic map with its list of segments.

    Raises:
        LabelProblem: ids that only one of them has.
    """
    listed, drawn = {segment["id"] for segment in segments}, set(np.unique(label).tolist()) - {0}
    if listed != drawn:
        raise LabelProblem(
            f"it has {len(drawn - listed)} segments that the JSON does not list, {sorted(drawn - listed)[:5]}, "
            f"and {len(listed - drawn)} listed ones are not in it, {sorted(listed - drawn)[:5]}; "
            "map and list (PNG and JSON files) must come from the same release."
        )


def _content_digests(entry: Entry) -> list[str]:
    paths = (path for path in (entry.image, entry.label) if path is not None)
    return [*map(file_digest, paths)]


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def size_of_file(path: Path) -> int | None:
    """In bytes; `None` where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def size_of_photo(path: Path) -> tuple[int, int]:
    """Width and height, right side up, from the header alone."""
    try:
        with open_image(path) as image:
            is_on_its_side = exif_orientation(image) >= 5 and image.format != "TIFF"  # whose size Pillow has turned
            return image.size[::-1] if is_on_its_side else image.size
    except DECODER_ERRORS as error:
        raise LabelProblem(f"{path} cannot be read as an image: {error}") from error
