"""Data sets of the Hub, or of a local folder in one of its forms: panoptic or semantic columns, whole or streamed."""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fisa.data.annotation_files import Fields, read_json, read_segments
from fisa.data.categories import Category, categories_from_file, categories_of, categories_of_coco
from fisa.data.label_images import label_values, opened_label
from fisa.data.label_maps import VOID, ClassMap
from fisa.data.segmentation_datasets import (
    LabelProblem,
    SegmentationDataset,
    StreamedSegmentationDataset,
    checked_record,
    file_digest,
    refuse_unlisted,
    size_of_file,
)
from fisa.processing.class_lists import FIRST_IDS, class_list
from fisa.processing.coco_panoptic import rgb_to_panoptic
from fisa.processing.photos import exif_orientation, load_photo, open_image
from fisa.processing.vocabulary import Vocabulary


LABEL_COLUMNS = ("label", "annotation", "labels", "mask", "semantic_segmentation", "segmentation")


def hub(
    source: str, *, split: str, classes: str | None, streaming: bool
) -> SegmentationDataset | StreamedSegmentationDataset:
    """A data set by its name on the Hub, or a local folder that `datasets.load_dataset` reads.

    Panoptic where it has a column `segments_info`, else semantic: columns `image` and one of `LABEL_COLUMNS`.

    Args:
        source: name or folder.
        split: name of the split.
        classes: a shipped class list by name, or a file: COCO's `categories` with ids (JSON), or names in the order of
            their ids from 0, `_` for one to be ignored. `None`: the features of the data set name them.
        streaming: read it as a stream.

    Raises:
        ValueError: columns or classes that are not there; the message says what was found.
    """
    rows = datasets.load_dataset(source, split=split, streaming=streaming)
    if rows.features is None:  # a stream of files that tell nothing beforehand
        rows = rows._resolve_features()
    categories = _categories(rows.features, classes, source)
    reader = _reader(rows.features, categories, source)
    if streaming:
        return StreamedSegmentationDataset(_undecoded(rows, reader), reader.record, reader.kept)
    return HubDataset(rows, reader)


@dataclass(frozen=True)
class RowReader:
    """Makes a record of a row.

    Args:
        categories: all there are, ignored ones too.
        label_column: where the label is.
        is_panoptic: whether `segments_info` tells what it means, or its values are category ids.
    """

    categories: tuple[Category, ...]
    label_column: str
    is_panoptic: bool

    @property
    def columns(self) -> tuple[str, str]:
        """Those of photos and labels."""
        return "image", self.label_column

    @property
    def kept(self) -> tuple[Category, ...]:
        """The categories that are not ignored."""
        return tuple(category for category in self.categories if category.name != "_")

    def record(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The whole record.

        Raises:
            LabelProblem: it cannot be used; the message names the row.
        """
        try:
            label, segments = self.label(row)
            return checked_record(image_id(row, index), photo(row), label, segments, categories=self.kept)
        except (OSError, ValueError) as error:
            raise LabelProblem(f"row {index}: {error}") from error

    def label(self, row: Mapping[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The label alone: map and segments."""
        if not self.is_panoptic:
            return self.class_map.segments(self._values(row))
        label, segments = self._values(row), segments_of(row)
        refuse_unlisted(label, segments)
        return label, segments

    @property
    def class_map(self) -> ClassMap:
        """What the values of a semantic label mean."""
        ids = {category.id: category.id for category in self.kept}
        ignored = {category.id for category in self.categories} - ids.keys()
        return ClassMap(ids, frozenset({0, VOID, 65535, *ignored} - ids.keys()))

    def _values(self, row: Mapping[str, Any]) -> np.ndarray:
        label = row[self.label_column]
        if _is_missing(label):
            raise LabelProblem("has no label.")
        if not isinstance(label, Mapping):
            return label_values(label)
        with opened_label(label["path"] if label["bytes"] is None else io.BytesIO(label["bytes"])) as image:
            if self.is_panoptic and image.mode in ("RGB", "RGBA"):
                return rgb_to_panoptic(image.convert("RGB"))
            return label_values(image)


class HubDataset(SegmentationDataset):
    """A data set of the Hub that is on this machine as a whole.

    Args:
        rows: with columns as [`RowReader`] wants them. Pictures are read as they are stored, whatever format
            (`"numpy"`, `"torch"` and others) the rows have; a transform of their owner's stays.
        reader: makes records of them.
    """

    def __init__(self, rows: datasets.Dataset, reader: RowReader):
        super().__init__(reader.kept, unlabelled="ignored")
        self.rows, self.reader = _as_stored(rows, reader), reader

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.reader.record(self.rows[index], index)

    def image_id(self, index: int) -> str:
        return image_id(self.rows[index], index)

    def image(self, index: int) -> Image.Image:
        return photo(self.rows.select_columns("image")[index])

    def is_turned(self, index: int) -> bool:
        stored = self.rows.select_columns("image")[index]["image"]
        if not isinstance(stored, Mapping):  # whoever made the rows has them decoded
            return exif_orientation(stored) != 1
        with open_image(stored["path"] if stored["bytes"] is None else io.BytesIO(stored["bytes"])) as image:
            return exif_orientation(image) != 1

    def photo_sizes(self) -> list[int | None]:
        feature = self.rows.features["image"]
        if not isinstance(feature, datasets.Image) or feature.decode:
            return [0] * len(self)
        sizes: list[int | None] = []
        # In small batches, as for the fingerprint: of a selection, each is copied.
        for batch in self.rows.select_columns("image").with_format("arrow").iter(batch_size=32):
            stored, paths = (pc.struct_field(batch.column("image"), name) for name in ("bytes", "path"))
            for size, path in zip(pc.binary_length(stored).to_pylist(), paths.to_pylist()):
                sizes.append(size if size is not None or path is None else size_of_file(Path(path)))
        return sizes

    def photo_digest(self, index: int) -> str:
        stored = self.rows.select_columns("image")[index]["image"]
        if isinstance(stored, Mapping) and not _is_missing(stored):
            return str(_picture_digest(stored))
        image = self.image(index)
        return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()

    def segments_info(self, index: int) -> list[dict[str, Any]]:
        if self.reader.is_panoptic:
            return segments_of(self.rows.select_columns("segments_info")[index])
        return self.reader.label(self.rows.select_columns(self.reader.label_column)[index])[1]

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps([category.to_dict() for category in self.categories]).encode())
        # In small batches: those of photos are tens of megabytes.
        for batch in self.rows.with_format("arrow").iter(batch_size=32):
            for name in batch.column_names:
                values = batch.column(name)
                is_picture = pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0
                described = [*map(_picture_digest, values.to_pylist())] if is_picture else values.to_pylist()
                digest.update(json.dumps([name, described], default=str).encode())
        return digest.hexdigest()

    def select(self, indices: Iterable[int]) -> "HubDataset":
        return HubDataset(self.rows.select(list(indices)), self.reader)


def _as_stored(rows: datasets.Dataset, reader: RowReader) -> datasets.Dataset:
    """Rows whose pictures are read by the reader, rather than made into arrays or tables by `datasets`."""
    are_pictures = all(isinstance(rows.features.get(column), datasets.Image) for column in reader.columns)
    if rows.format["type"] == "custom" or not are_pictures:
        return rows
    return _undecoded(rows.with_format(None), reader)


def _undecoded(rows: Any, reader: RowReader) -> Any:
    """Rows or a stream of them whose pictures are files still, which the reader opens."""
    for column in reader.columns:
        if isinstance(rows.features[column], datasets.Image):
            rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def photo(row: Mapping[str, Any]) -> Image.Image:
    """The row's photo, RGB."""
    if _is_missing(row["image"]):
        raise ValueError("has no photo.")
    return load_photo(row["image"])


def image_id(row: Mapping[str, Any], index: int) -> str:
    """The row's own name, or its number."""
    return str(row.get("image_id", index))


def segments_of(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`segments_info` of a row, whichever way round `datasets` stored it.

    Raises:
        ValueError: it is not a list, or a segment is not as COCO's are.
    """
    infos = row["segments_info"]
    if isinstance(infos, Mapping) and all(isinstance(values, list) for values in infos.values()):
        infos = [dict(zip(infos, values)) for values in zip(*infos.values())]
    if not isinstance(infos, list):
        raise LabelProblem(f"segments_info must be a list of segments, found {infos}.")
    return read_segments(Fields(_told(info), f"segments_info[{index}]") for index, info in enumerate(infos))


def _told(info: Any) -> Any:
    """A segment without the fields that only others of the data set have."""
    return {name: value for name, value in info.items() if value is not None} if isinstance(info, Mapping) else info


def _is_missing(picture: Any) -> bool:
    return picture is None or (isinstance(picture, Mapping) and picture["bytes"] is None and picture["path"] is None)


def _picture_digest(picture: Mapping[str, Any] | None) -> str | None:
    """SHA-256 of a picture's bytes, in the row or in its file."""
    if picture is None:
        return None
    if picture["bytes"] is None:
        return file_digest(Path(picture["path"]))
    return hashlib.sha256(picture["bytes"]).hexdigest()


def _reader(features: Mapping[str, Any], categories: tuple[Category, ...], source: str) -> RowReader:
    labels = [column for column in LABEL_COLUMNS if column in features]
    if "image" not in features or not labels:
        raise ValueError(
            f"{source}: found the columns {', '.join(features)}; there must be `image` and one of "
            f"{', '.join(LABEL_COLUMNS)} (and `segments_info`, if it is panoptic)."
        )
    return RowReader(categories, labels[0], is_panoptic="segments_info" in features)


def _categories(features: Mapping[str, Any], classes: str | None, source: str) -> tuple[Category, ...]:
    if classes is None:
        names = _class_names(features)
        if names is None:
            raise ValueError(
                f"{source} does not name its classes: pass --classes with a file of them, one per line in the order "
                f"of their ids from 0, a JSON file with COCO's `categories`, or one of {', '.join(FIRST_IDS)}."
            )
        return categories_of(Vocabulary.parse(names))
    if classes in FIRST_IDS:
        return categories_of(class_list(classes), first_id=FIRST_IDS[classes])
    if classes.endswith(".json"):
        content = read_json(Path(classes))
        entries = content.get("categories") if isinstance(content, dict) else content
        if isinstance(entries, list) and any(isinstance(entry, dict) and "id" in entry for entry in entries):
            return categories_of_coco(Fields(entry, f"{classes}: [{i}]") for i, entry in enumerate(entries))
    return categories_from_file(Path(classes))


def _class_names(features: Mapping[str, Any]) -> list[str] | None:
    """Names in the `ClassLabel` of the segments' category, if it is one."""
    infos = features.get("segments_info")
    inner = getattr(infos, "feature", infos)
    inner = inner[0] if isinstance(inner, list) else inner
    category = inner.get("category_id") if isinstance(inner, Mapping) else None
    return getattr(category, "names", None)
