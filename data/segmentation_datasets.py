"""Segmentation data in one schema, that of COCO panoptic, whatever format it lies in.

A record is a dictionary of `image_id` (str), `image` (PIL, RGB), `label` ((H, W) int32 array of segment ids, 0 where
no segment is) and `segments_info` (a list of `id`, `category_id`, `iscrowd`; instances that may overlap also carry
their whole mask as run lengths under `segmentation`).
"""

import hashlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from fisa.processing.photos import load_photo


logger = logging.get_logger(__name__)

Unlabelled = Literal["ignored", "background"]
"""What is known of pixels without a segment: nothing, or that nothing of the categories is there."""

SHOWN_PROBLEMS = 5
READERS = 8


@dataclass(frozen=True)
class Entry:
    """Where one record lies.

    Attributes:
        image_id: unique in the data set.
        image: path of the photo.
        label: path of its label map; `None` where `segments` has the masks.
        segments: its `segments_info`, where known without reading the label map.
    """

    image_id: str
    image: Path
    label: Path | None
    segments: list[dict[str, Any]] | None = None


class LabelProblem(ValueError):
    """What is wrong with a label, and what to do about it."""


LabelReader = Callable[[Entry], tuple[np.ndarray, list[dict[str, Any]]]]
"""Reads a label: its map of segment ids and its `segments_info`. Raises `LabelProblem` or `OSError`."""


class SegmentationDataset(Dataset):
    """Records that are read from files when they are asked for.

    Args:
        entries: where they lie, in their order.
        categories: what the segments may be, in the order of the model's class indices.
        read_label: the format's reader.
        unlabelled: see [`Unlabelled`].
    """

    def __init__(
        self,
        entries: list[Entry],
        categories: tuple[Category, ...],
        *,
        read_label: LabelReader,
        unlabelled: Unlabelled = "ignored",
    ):
        self.entries, self.categories = entries, categories
        self.read_label, self.unlabelled = read_label, unlabelled

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        image = self.image(index)
        label, segments = _named_errors(self.read_label, entry)
        if label.shape != (image.height, image.width):
            raise LabelProblem(_sizes_differ(entry, image.size, label.shape[::-1]))
        return {"image_id": entry.image_id, "image": image, "label": label, "segments_info": segments}

    def image_id(self, index: int) -> str:
        """Name of a record."""
        return self.entries[index].image_id

    def image(self, index: int) -> Image.Image:
        """The photo alone, RGB."""
        return load_photo(self.entries[index].image)

    def segments_info(self, index: int) -> list[dict[str, Any]]:
        """The segments alone; the label map is read only where its format has no other list of them."""
        entry = self.entries[index]
        return _named_errors(self.read_label, entry)[1] if entry.segments is None else entry.segments

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of what the records are: names, sizes of the files in bytes, lists of segments. No
        pixel is read for it; where the files lie does not matter."""
        digest = hashlib.sha256(json.dumps([category.to_dict() for category in self.categories]).encode())
        for entry in self.entries:
            sizes = [path.stat().st_size for path in (entry.image, entry.label) if path is not None]
            digest.update(json.dumps([entry.image_id, entry.image.name, sizes, entry.segments]).encode())
        return digest.hexdigest()

    def select(self, indices: Iterable[int]) -> "SegmentationDataset":
        """The data set of these records."""
        return SegmentationDataset(
            [self.entries[index] for index in indices],
            self.categories,
            read_label=self.read_label,
            unlabelled=self.unlabelled,
        )

    def check(self, *, skip_broken: bool = False) -> "SegmentationDataset":
        """Look through all records before any work is put into them: missing files, photos and labels of different
        sizes, categories and ids that are not known. Of photos only the headers are read.

        Args:
            skip_broken: leave broken records out, with a warning that says how many.

        Returns:
            the data set itself, or without its broken records.

        Raises:
            ValueError: broken records, or none at all; the message names the first few and what to do.
        """
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(self._problem, self.entries)
            found = list(tqdm(found, total=len(self), desc="checking data", unit="photo", disable=len(self) < 100))
        problems = [problem for problem in found if problem is not None]
        if problems and not skip_broken:
            shown = "\n".join(f"- {problem}" for problem in problems[:SHOWN_PROBLEMS])
            more = f"\nand {len(problems) - SHOWN_PROBLEMS} more." if len(problems) > SHOWN_PROBLEMS else ""
            raise ValueError(
                f"{len(problems)} of {len(self)} records cannot be used:\n{shown}{more}\n"
                "Mend them, or leave them out with --skip_broken."
            )
        if len(problems) == len(self):
            raise ValueError("There is no record left to work with.")
        if problems:
            logger.warning(f"{len(problems)} of {len(self)} records are left out. The first: {problems[0]}")
        kept = [index for index, problem in enumerate(found) if problem is None]
        return self.select(kept) if problems else self

    def _problem(self, entry: Entry) -> str | None:
        try:
            return self._problem_of_readable(entry)
        except (LabelProblem, OSError) as error:
            return str(error)

    def _problem_of_readable(self, entry: Entry) -> str | None:
        for path in (entry.image, entry.label):
            if path is not None and not path.exists():
                return f"{path}: no such file."
        size = _size_of_photo(entry.image)
        if entry.segments is not None and entry.label is not None:
            segments, label_size = entry.segments, _size_of_image(entry.label)
        else:
            label, segments = _named_errors(self.read_label, entry)
            label_size = label.shape[::-1]
        if size != label_size:
            return _sizes_differ(entry, size, label_size)
        return self._unknown_category(entry, segments)

    def _unknown_category(self, entry: Entry, segments: list[Mapping[str, Any]]) -> str | None:
        known = {category.id for category in self.categories}
        unknown = sorted({segment["category_id"] for segment in segments} - known)
        if not unknown:
            return None
        return (
            f"{entry.label or entry.image_id}: category ids {unknown} are not among the {len(known)} categories; "
            "use the categories that the annotations were made with."
        )


class StreamedSegmentationDataset(IterableDataset):
    """Records that come in as a stream, of which neither the number nor an order at random is known.

    Args:
        rows: what the records are made of, anew at each iteration; `take(count)` gives the first so many.
        record: makes a record of a row and its number.
        categories, unlabelled: as for [`SegmentationDataset`].
    """

    def __init__(
        self,
        rows: datasets.IterableDataset,
        record: Callable[[Mapping[str, Any], int], dict[str, Any]],
        categories: tuple[Category, ...],
        *,
        unlabelled: Unlabelled = "ignored",
    ):
        self.rows, self.record, self.categories, self.unlabelled = rows, record, categories, unlabelled

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(self.record, self.rows, itertools.count())

    def take(self, count: int) -> "StreamedSegmentationDataset":
        """The first so many records."""
        return StreamedSegmentationDataset(
            self.rows.take(count), self.record, self.categories, unlabelled=self.unlabelled
        )


def _named_errors(read_label: LabelReader, entry: Entry) -> tuple[np.ndarray, list[dict[str, Any]]]:
    try:
        return read_label(entry)
    except (LabelProblem, OSError, ValueError) as error:
        raise LabelProblem(f"{entry.label or entry.image_id}: {error}") from error


def _size_of_photo(path: Path) -> tuple[int, int]:
    """Width and height, right side up, from the header alone."""
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) >= 5
        return image.size[::-1] if turned else image.size


def _size_of_image(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _sizes_differ(entry: Entry, image: tuple[int, int], label: tuple[int, int]) -> str:
    return (
        f"{entry.image} is {image[0]} x {image[1]} pixels and its label {entry.label or ''} {label[0]} x {label[1]}; "
        "they must have the same size."
    )
