"""A data set in Parquet that `datasets.load_dataset` reads: photos, maps and segments, as COCO panoptic has them."""

from itertools import islice, starmap
from pathlib import Path
from typing import Any

from fisa.formats.places import photo_copies, replaced_folder
from fisa.formats.results import LabelledPhoto, Results
from fisa.processing.coco_panoptic import panoptic_png
from fisa.processing.extras import library


SHARD = 1024  # photos in a file
GROUP = 16  # photos that are in memory at once


def write_parquet(results: Results, folder: Path) -> None:
    """Write a data set whose rows have `image_id`, `image`, `label` and `segments_info`; `category_id` is a
    `ClassLabel` with the names of the classes.

    The photos' files are in it, so that it can be moved and shared as it is.

    Args:
        results ([`Results`])
        folder (`Path`): replaced as a whole where an earlier call wrote it.

    Raises:
        ImportError: datasets is not installed.
        ValueError: the folder holds other files; or a photo cannot be read.
    """
    datasets = library("datasets", extra="formats", purpose="Writing Parquet")
    arrow, parquet = (
        library(name, extra="formats", purpose="Writing Parquet") for name in ("pyarrow", "pyarrow.parquet")
    )
    schema = _features(datasets, results).arrow_schema
    rows = starmap(_row, photo_copies(results))
    with replaced_folder(folder) as aside:
        (aside / "data").mkdir()
        for shard in range(max(1, -(-len(results) // SHARD))):
            with parquet.ParquetWriter(aside / "data" / f"train-{shard:05}.parquet", schema) as writer:
                for _ in range(SHARD // GROUP):
                    group = list(islice(rows, GROUP))
                    writer.write_table(arrow.Table.from_pylist(group, schema=schema))


def _features(datasets: Any, results: Results) -> Any:
    segment = {
        "id": datasets.Value("int32"),
        "category_id": datasets.ClassLabel(names=[category["name"] for category in results.categories]),
        "isthing": datasets.Value("bool"),
        "score": datasets.Value("float64"),
        "area": datasets.Value("int64"),
        "bbox": datasets.List(datasets.Value("int32"), length=4),
        "iscrowd": datasets.Value("int8"),
    }
    return datasets.Features(
        {
            "image_id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.Image(),
            "segments_info": datasets.List(segment),
        }
    )


def _row(photo: LabelledPhoto, name: str, content: bytes) -> dict[str, Any]:
    segmentation = photo.segmentation
    segments = [
        {
            "id": segment.id,
            "category_id": segment.class_id,
            "isthing": segment.is_thing,
            "score": segment.score,
            "area": segment.area,
            "bbox": list(segment.box),
            "iscrowd": 0,
        }
        for segment in segmentation
    ]
    return {
        "image_id": photo.name,
        "image": {"bytes": content, "path": name},
        "label": {"bytes": panoptic_png(segmentation.ids.numpy()), "path": f"{photo.name}.png"},
        "segments_info": segments,
    }
