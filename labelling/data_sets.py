"""Photos of a data set that `datasets` reads: in a column, row by row, without a copy of them all on the disk."""

import os
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from fisa.processing.downloads import download_by_fsspec, is_online
from fisa.processing.extras import library


BUILDERS = {".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}
FILE_TYPES = ("string", "large_string", "binary", "large_binary")  # of columns with paths, addresses or files' bytes


class Row(NamedTuple):
    """A photo of a data set."""

    source: str
    """Data set, split and number of the row."""
    place: str
    """Split and number."""
    name: str
    """Of its results, without an ending."""
    image: Any
    """As `datasets` stores it, undecoded."""

    def read(self, *, timeout: float | None = None, max_download_bytes: int | None = None) -> Any:
        """The photo as [`load_photo`] takes it.

        Args:
            timeout, max_download_bytes: as in [`load_photo`].

        Raises:
            OSError: its file, in an archive or on the Hub, cannot be read or exceeds a limit.
        """
        content, path = self.content_and_path
        if content is not None or path is None or not isinstance(self.image, Mapping) or "://" not in path:
            return self.image
        if is_online(path):
            return path
        return download_by_fsspec(path, timeout=timeout, max_bytes=max_download_bytes)

    @property
    def content_and_path(self) -> tuple[bytes | None, str | None]:
        """The bytes of its file, or the path or address of it."""
        if isinstance(self.image, Mapping):
            return self.image.get("bytes"), self.image.get("path")
        return (self.image, None) if isinstance(self.image, bytes) else (None, self.image)


class DatasetPhotos:
    """The photos of a data set, in their order; iterating reads them from the start.

    Args:
        name (`str`): on the Hub; a folder that `datasets.load_dataset` reads or that `save_to_disk` wrote; or a
            Parquet, Arrow, JSON or CSV file, or a pattern of such.
        split (`str`, defaults to `"train"`)
        column (`str`, defaults to `"image"`): where the photos are, or their paths, addresses or bytes.

    Raises:
        ImportError: datasets is not installed.
        ValueError: there is no such data set, split or column, or the column holds no photos.

    Example:

    ```python
    >>> import datasets
    >>> from fisa.labelling.data_sets import DatasetPhotos

    >>> written = datasets.Dataset.from_dict({"image": ["photo.jpg"]}).to_parquet("photos.parquet")
    >>> [row.source for row in DatasetPhotos("photos.parquet")]
    ['photos.parquet/train/0']
    ```
    """

    def __init__(self, name: str, *, split: str = "train", column: str = "image"):
        self.name, self.split, self.column = name, split, column
        datasets = library("datasets", extra="formats", purpose="Reading data sets")
        try:
            rows = _rows(datasets, name, split)
            if rows.features is None:  # a stream of files that tell nothing beforehand
                rows = rows._resolve_features()
        except Exception as error:  # each builder has errors of its own
            reason = " ".join(str(error).split())
            raise ValueError(f"{name} cannot be read as a data set with a split {split}: {reason}") from error
        feature = (rows.features or {}).get(column)
        if feature is None:
            raise ValueError(f"{name} has no column {column}; there are {', '.join(rows.features or ())}.")
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
        elif getattr(feature, "dtype", None) not in FILE_TYPES:
            raise ValueError(f"The column {column} of {name} holds no photos but {feature}.")
        self._rows = rows.select_columns([column])
        splits = getattr(rows.info, "splits", None) or {}
        self.total: int | None = splits[split].num_examples or None if split in splits else None
        """How many there are, where the data set says so."""

    def __iter__(self) -> Iterator[Row]:
        rows = iter(self._rows)
        for number in count():
            try:
                image = next(rows)[self.column]
            except StopIteration:
                return
            except Exception as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{self.name} cannot be read from row {number} on: {reason}") from error
            place = f"{self.split}/{number}"
            yield Row(self.source(place), place, f"{self.split}-{number:08}", image)

    def source(self, place: str) -> str:
        """What the row of this split and number goes by."""
        return f"{self.name}/{place}"

    def settings(self, folder: Path) -> dict[str, str]:
        """What tells it from other data sets, for results in this folder."""
        is_local = os.path.exists(self.name) or Path(self.name).suffix in BUILDERS
        name = Path(os.path.relpath(self.name, folder)).as_posix() if is_local else self.name
        return {"data set": name, "split": self.split, "column": self.column}


def _rows(datasets: Any, name: str, split: str) -> Any:
    if Path(name, "dataset_dict.json").exists():
        return datasets.load_from_disk(name)[split].to_iterable_dataset()
    if Path(name, "state.json").exists():
        rows = datasets.load_from_disk(name)
        if split not in ("train", str(rows.split)):
            raise ValueError(f"it is one data set without splits; leave {split} out")
        return rows.to_iterable_dataset()
    if builder := BUILDERS.get(Path(name).suffix):
        if split != "train":
            raise ValueError(f"a file has no splits; leave {split} out")
        return datasets.load_dataset(builder, data_files={split: name}, split=split, streaming=True)
    return datasets.load_dataset(name, split=split, streaming=True)
