"""The formats by name, and the one way to open any of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from fisa.data import coco, label_maps
from fisa.data.hub_datasets import hub
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.data.splits import is_undivided


FILE_FORMATS: dict[str, Callable[..., SegmentationDataset]] = {
    "coco_panoptic": coco.coco_panoptic,
    "coco_instances": coco.coco_instances,
    "ade20k": label_maps.ade20k,
    "ade20k_full": label_maps.ade20k_full,
    "pascal_context_59": label_maps.pascal_context_59,
    "pascal_context_459": label_maps.pascal_context_459,
    "voc_20": label_maps.voc_20,
    "voc_21": label_maps.voc_21,
    "cityscapes": label_maps.cityscapes,
    "label_maps": label_maps.label_maps,
}
DATASET_FORMATS = (*FILE_FORMATS, "hub")


def load_segmentation_dataset(
    format: str, source: str, *, split: str, classes: str | None = None, streaming: bool = False
) -> SegmentationDataset | StreamedSegmentationDataset:
    """Open a data set. Only its lists are read; photos and labels are read when they are asked for.

    Args:
        format: one of `DATASET_FORMATS`; each says where its files must lie.
        source: its folder, or for `"hub"` its name.
        split: `"train"`, `"validation"`, or what the format calls it.
        classes: a file with the classes, for formats that need one (`"label_maps"`, `"hub"`).
        streaming: read a data set of the Hub as a stream.

    Raises:
        ValueError: an unknown format, an option that it does not take, or files that are not there.

    Example:

    ```python
    >>> data = load_segmentation_dataset("label_maps", "my-photos", split="train")
    >>> len(data), [category.name for category in data.categories]
    (3, ['dog', 'grass'])
    >>> data[0]["label"].shape, data[0]["segments_info"][0]
    ((12, 16), {'id': 1, 'category_id': 0, 'iscrowd': 0})
    ```
    """
    if format not in DATASET_FORMATS:
        raise ValueError(f"No format {format!r}; there are {', '.join(DATASET_FORMATS)}.")
    if format == "hub":
        return hub(source, split=split, classes=classes, streaming=streaming)
    if streaming:
        raise ValueError(f"--streaming is for data sets of the Hub; {format} lies in files that are read one by one.")
    if classes is not None and format != "label_maps":
        raise ValueError(f"--classes was {classes}, but {format} comes with its classes; leave the flag out.")
    if split not in ("train", "validation") and is_undivided(format, Path(source), split=split):
        raise ValueError(
            f"{source} has no split {split!r}: its photos are not divided into splits. Leave the split out, or name "
            "another folder."
        )
    open_format = FILE_FORMATS[format]
    if classes is not None:
        open_format = partial(open_format, classes=classes)
    return open_format(Path(source), split=split)
