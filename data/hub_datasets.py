"""Data sets of the Hub, or of a local folder in one of its forms: panoptic or semantic columns, whole or streamed."""

import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fisa.data.categories import Category, categories_of
from fisa.data.class_lists import FIRST_IDS, class_list
from fisa.data.label_maps import VOID, ClassMapReader
from fisa.data.segmentation_datasets import (
    Entry,
    LabelProblem,
    SegmentationDataset,
    StreamedSegmentationDataset,
)
from fisa.processing.coco_panoptic import rgb_to_panoptic
from fisa.processing.photos import load_photo
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
    categories = tuple(_categories(rows.features, classes, source))
    reader = _reader(rows.features, categories, source)
    rows = rows.cast_column("image", datasets.Image(decode=False))
    if streaming:
        return StreamedSegmentationDataset(rows, reader.record, reader.kept)
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
    def kept(self) -> tuple[Category, ...]:
        """The categories that are not ignored."""
        return tuple(category for category in self.categories if category.name != "_")

    def record(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """The whole record."""
        image = photo(row)
        label, segments = self.label(row)
        if label.shape != (image.height, image.width):
            raise LabelProblem(
                f"row {index}: the image is {image.width} x {image.height} pixels and its label "
                f"{label.shape[1]} x {label.shape[0]}; they must have the same size."
            )
        return {"image_id": image_id(row, index), "image": image, "label": label, "segments_info": segments}

    def label(self, row: Mapping[str, Any]) -> tuple[np.ndarray, list[dict[str, Any]]]:
        """The label alone: map and segments."""
        picture = row[self.label_column]
        if self.is_panoptic:
            is_coded = isinstance(picture, Image.Image) and picture.mode in ("RGB", "RGBA")
            label = rgb_to_panoptic(picture.convert("RGB")) if is_coded else np.asarray(picture).astype(np.int32)
            return label, list(segments_of(row))
        ids = {category.id: category.id for category in self.kept}
        ignored = {category.id for category in self.categories} - ids.keys()
        void = {VOID, 65535, *ignored} | ({0} - ids.keys())
        reader = ClassMapReader(ids, frozenset(void - ids.keys()), read=lambda _: _values(picture))
        return reader(Entry(image_id="", image=Path(), label=Path()))


class HubDataset(SegmentationDataset):
    """A data set of the Hub that is here whole.

    Args:
        rows: with columns as [`RowReader`] wants them.
        reader: makes records of them.
    """

    def __init__(self, rows: datasets.Dataset, reader: RowReader):
        self.rows, self.reader = rows, reader
        self.categories, self.unlabelled = reader.kept, "ignored"
        self.entries = range(len(rows))

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.reader.record(self.rows[index], index)

    def image_id(self, index: int) -> str:
        return image_id(self.rows[index], index)

    def image(self, index: int) -> Image.Image:
        return photo(self.rows.select_columns("image")[index])

    def segments_info(self, index: int) -> list[dict[str, Any]]:
        if self.reader.is_panoptic:
            return list(segments_of(self.rows.select_columns("segments_info")[index]))
        return self.reader.label(self.rows.select_columns(self.reader.label_column)[index])[1]

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of what the rows are: sizes in bytes of their pictures, all else whole. No picture
        is read for it. Where the files lie does not matter here; for `datasets`' own fingerprint it does."""
        digest = hashlib.sha256(json.dumps([category.to_dict() for category in self.categories]).encode())
        for batch in self.rows.with_format("arrow").iter(batch_size=1000):
            for name in batch.column_names:
                values = batch.column(name)
                is_picture = pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0
                described = _sizes(values) if is_picture else values.to_pylist()
                digest.update(json.dumps([name, described], default=str).encode())
        return digest.hexdigest()

    def select(self, indices: Iterable[int]) -> "HubDataset":
        return HubDataset(self.rows.select(list(indices)), self.reader)

    def _problem(self, entry: int) -> str | None:
        try:
            record = self[entry]
        except (LabelProblem, OSError, ValueError) as error:
            return f"row {entry}: {error}"
        known = {category.id for category in self.categories}
        segments = record["segments_info"]
        unknown = sorted({segment["category_id"] for segment in segments} - known)
        listed, drawn = {segment["id"] for segment in segments}, set(np.unique(record["label"]).tolist()) - {0}
        if unknown:
            return f"row {entry}: category ids {unknown} are not among the {len(known)} categories; see --classes."
        if listed != drawn:
            return f"row {entry}: the label's ids {sorted(drawn ^ listed)[:5]} are in the map or the list alone."
        return None


def photo(row: Mapping[str, Any]) -> Image.Image:
    """The row's photo, RGB."""
    content = row["image"]["bytes"]
    return load_photo(row["image"]["path"] if content is None else Image.open(io.BytesIO(content)))


def image_id(row: Mapping[str, Any], index: int) -> str:
    """The row's own name, or its number."""
    return str(row.get("image_id", index))


def segments_of(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """`segments_info` of a row, whichever way round `datasets` stored it."""
    infos = row["segments_info"]
    if isinstance(infos, Mapping):
        infos = [dict(zip(infos, values)) for values in zip(*infos.values())]
    for info in infos:
        yield {"id": info["id"], "category_id": info["category_id"], "iscrowd": int(info.get("iscrowd") or 0)}


def _sizes(pictures: pa.ChunkedArray) -> list[int]:
    """Bytes of each picture, in the row or in its file; 0 where a row has none."""
    stored = pc.binary_length(pc.struct_field(pictures, "bytes")).to_pylist()
    paths = pc.struct_field(pictures, "path").to_pylist()
    return [(Path(path).stat().st_size if path else 0) if size is None else size for size, path in zip(stored, paths)]


def _values(picture: Any) -> np.ndarray:
    if isinstance(picture, Image.Image) and picture.mode in ("RGB", "RGBA"):
        raise LabelProblem("a colour image is no label map; one without `segments_info` must hold class values.")
    return np.asarray(picture).astype(np.int32)


def _reader(features: Mapping[str, Any], categories: tuple[Category, ...], source: str) -> RowReader:
    labels = [column for column in LABEL_COLUMNS if column in features]
    if "image" not in features or not labels:
        raise ValueError(
            f"{source}: found the columns {', '.join(features)}; there must be `image` and one of "
            f"{', '.join(LABEL_COLUMNS)} (and `segments_info`, if it is panoptic)."
        )
    return RowReader(categories, labels[0], is_panoptic="segments_info" in features)


def _categories(features: Mapping[str, Any], classes: str | None, source: str) -> Iterator[Category]:
    if classes is None:
        names = _class_names(features)
        if names is None:
            raise ValueError(
                f"{source} does not name its classes: pass --classes with a file of them, one a line in the order of "
                f"their ids from 0, a JSON file with COCO's `categories`, or one of {', '.join(FIRST_IDS)}."
            )
        return iter(categories_of(Vocabulary.parse(names)))
    if classes in FIRST_IDS:
        return iter(categories_of(class_list(classes), first_id=FIRST_IDS[classes]))
    entries = json.loads(Path(classes).read_text(encoding="utf-8")) if classes.endswith(".json") else None
    entries = entries.get("categories") if isinstance(entries, dict) else entries
    if isinstance(entries, list) and all(isinstance(entry, dict) and "id" in entry for entry in entries):
        return map(Category.of, entries)
    return iter(categories_of(Vocabulary.from_file(classes)))


def _class_names(features: Mapping[str, Any]) -> list[str] | None:
    """Names in the `ClassLabel` of the segments' category, if it is one."""
    infos = features.get("segments_info")
    inner = getattr(infos, "feature", infos)
    inner = inner[0] if isinstance(inner, list) else inner
    category = inner.get("category_id") if isinstance(inner, Mapping) else None
    return getattr(category, "names", None)
