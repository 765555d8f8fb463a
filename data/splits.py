"""Which photos are for training and which for validation: folders without splits, and a share that is held out."""

import hashlib
import math
from pathlib import Path

from fisa.data.segmentation_datasets import SegmentationDataset


COCO_NAMES = {"train": "train2017", "validation": "val2017"}


def is_undivided(format: str, root: Path, *, split: str) -> bool:
    """Whether a folder has no splits, so that all of its photos are read whichever split is asked for.

    Args:
        format: one of `DATASET_FORMATS`; two of COCO's and `"label_maps"` have a layout without splits.
        root: the folder.
        split: what is asked for.
    """
    if format in ("coco_panoptic", "coco_instances"):
        kind = format.removeprefix("coco_")
        of_split = root / "annotations" / f"{kind}_{COCO_NAMES.get(split, split)}.json"
        return (root / "annotations" / f"{kind}.json").exists() and not of_split.exists()
    if format == "label_maps":
        has_split = any((root / kind / split).is_dir() for kind in ("images", "labels"))
        entries = list((root / "images").glob("*"))
        return not has_split and (not entries or any(path.is_file() for path in entries))
    return False


def hold_out(data: SegmentationDataset, share: float) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Divide a data set into photos to train on and photos to validate on, by a hash of their names: the same in every
    run, and for the photos that stay when others are added nearly the same.

    Args:
        data: the photos.
        share: of the photos that are held out, above 0 and below 1; at least one is.

    Returns:
        The photos that remain and those that are held out, in their order.

    Raises:
        ValueError: fewer than two photos.

    Example:

    ```python
    >>> from fisa.data.formats import load_segmentation_dataset

    >>> training, validation = hold_out(load_segmentation_dataset("label_maps", "my-photos", split="train"), 0.1)
    >>> len(training), len(validation)
    (2, 1)
    ```
    """
    if len(data) < 2:
        raise ValueError(f"Of {len(data)} photos none can be held out: --eval_holdout needs two or more.")
    by_hash = sorted(range(len(data)), key=lambda index: hashlib.sha256(data.image_id(index).encode()).digest())
    count = min(max(1, math.floor(share * len(data) + 0.5)), len(data) - 1)
    held_out = set(by_hash[:count])
    return data.select(i for i in range(len(data)) if i not in held_out), data.select(sorted(held_out))


def shared_photos(training: SegmentationDataset, validation: SegmentationDataset) -> list[int]:
    """The photos of the validation that are training photos too, byte for byte, wherever they lie and whatever they
    are called. A photo that was saved again is another one.

    Only photos whose sizes in bytes are found in both are read, about as many as the smaller of both has; and all that
    are stored as pixels.

    Args:
        training, validation: photos to train on and to validate on; they may be of different formats.

    Returns:
        Their indices in `validation`.

    Example:

    ```python
    >>> from fisa.data.formats import load_segmentation_dataset

    >>> photos = load_segmentation_dataset("label_maps", "my-photos", split="train")
    >>> shared_photos(photos.select([0, 1]), photos.select([1, 2]))
    [0]
    ```
    """
    sizes = training.photo_sizes(), validation.photo_sizes()
    common = set(sizes[0]) & set(sizes[1]) - {None}
    alike = [[index for index, size in enumerate(of_each) if size in common] for of_each in sizes]
    trained_on = {training.photo_digest(index) for index in alike[0]}
    return [index for index in alike[1] if validation.photo_digest(index) in trained_on]
