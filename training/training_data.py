"""The photos of a run: which are trained on, which are evaluated, and that the two are not the same by mistake."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from fisa.data.formats import DATASET_FORMATS, load_segmentation_dataset
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.data.splits import hold_out, is_undivided, shared_photos
from fisa.training.arguments import DataArguments


logger = logging.getLogger(__name__)

SHOWN_SHARED = 5

AnyDataset = SegmentationDataset | StreamedSegmentationDataset


class RunData(NamedTuple):
    """The photos of a run, checked."""

    train: AnyDataset | None
    """To train on, if it does."""
    eval: AnyDataset | None
    """To evaluate on, if it does."""
    trained_on: int = 0
    """How many of the latter are among the former, without having been asked for."""


def open_data(options: DataArguments, *, trains: bool, evaluates: bool) -> RunData:
    """Open and check the photos to train on and those to evaluate, as far as a run needs them.

    Args:
        options: where they are.
        trains: whether the run needs the former.
        evaluates: whether it needs the latter.

    Raises:
        ValueError or OSError: data that cannot be used, or an evaluation that would be of the training photos without
            having been told so.

    Example:

        >>> options = DataArguments(train_format="label_maps", train_data="my-photos", eval_holdout=0.1)
        >>> data = open_data(options, trains=True, evaluates=True)
        >>> len(data.train), len(data.eval)
        (2, 1)
    """
    train_data, eval_data, trained_on = None, None, 0
    if options.eval_holdout is not None:
        train_data, eval_data = hold_out(_opened(options, "train"), options.eval_holdout)
    else:
        if trains or (evaluates and _are_slices_of_one_split(options)):
            train_data = _opened(options, "train")
        if evaluates:
            eval_data = _opened(options, "eval")
            refuse_training_photos(options)
    train_data, eval_data = _first(train_data, options.max_train_samples), _first(eval_data, options.max_eval_samples)
    if trains:
        train_data = train_data.check(skip_broken=options.skip_broken, purpose="training")
    if evaluates:
        eval_data = eval_data.check(skip_broken=options.skip_broken, purpose="validation")
        if not (options.asks_for_training_photos and options.evaluates_on_training_data):
            trained_on = _on_main_process(partial(count_training_photos, train_data, eval_data))
    return RunData(train_data if trains else None, eval_data if evaluates else None, trained_on)


def _on_main_process(count: Callable[[], int]) -> int:
    """What is counted on the main process, or the error that it ends with, in all of them: each would read the same
    photos, and warn of them."""
    outcome: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            outcome = [count()]
        except Exception as error:  # of any kind, since the others wait for it
            outcome = [error]
    (result,) = broadcast_object_list(outcome)
    if isinstance(result, Exception):
        raise result
    return result


def _opened(options: DataArguments, part: str) -> AnyDataset:
    """The whole split of `"train"` or `"eval"`."""
    data_format, source, split = (getattr(options, f"{part}_{name}") for name in ("format", "data", "split"))
    if data_format is None or source is None:
        raise ValueError(f"Name the data: --{part}_format (one of {', '.join(DATASET_FORMATS)}) and --{part}_data.")
    classes = options.classes if part == "train" else options.eval_classes
    return load_segmentation_dataset(data_format, source, split=split, classes=classes, streaming=options.streaming)


def refuse_training_photos(options: DataArguments) -> None:
    """Refuse a validation of the photos that a model learns from, unless they are asked for by name.

    Raises:
        ValueError: it would be.
    """
    if not options.evaluates_on_training_data or options.asks_for_training_photos:
        return
    is_whole = is_undivided(options.eval_format, Path(options.eval_data), split=options.eval_split)
    if is_whole or _share_a_split(options.eval_split, options.train_split):
        raise ValueError(
            f"The validation photos would be the training photos, {options.eval_data} ({options.train_split}): "
            "name others with --eval_data or --eval_split, hold out a share with --eval_holdout 0.1, or ask for "
            f"the training photos with --eval_split {options.train_split}."
        )


def _share_a_split(one: str, other: str) -> bool:
    """Whether both name a split, such as `"train"`, `"train+validation"` and `"train[:10%]"`, of which one takes all.
    Slices of one split may be of different photos."""
    parts = [set(map(str.strip, names.split("+"))) for names in (one, other)]
    whole = [{part for part in named if "[" not in part} for named in parts]
    names = [{part.partition("[")[0] for part in named} for named in parts]
    return bool(parts[0] & parts[1] or whole[0] & names[1] or names[0] & whole[1])


def _are_slices_of_one_split(options: DataArguments) -> bool:
    """Whether training and validation name parts of one split, such as `"train[:80%]"` and `"train[50%:]"`."""
    names = [
        {part.partition("[")[0].strip() for part in split.split("+")}
        for split in (options.train_split, options.eval_split)
    ]
    return options.evaluates_on_training_data and bool(names[0] & names[1])


def count_training_photos(train_data: AnyDataset | None, eval_data: AnyDataset) -> int:
    """Compare the content of the photos: whatever folder or split they are of, copies may be in both.

    Streams are not compared, which would read them to their end.

    Returns:
        How many validation photos are training photos.

    Raises:
        ValueError: half of the validation photos or more are training photos. Fewer are warned of.
    """
    if not isinstance(train_data, SegmentationDataset) or not isinstance(eval_data, SegmentationDataset):
        return 0
    shared = shared_photos(train_data, eval_data)
    if not shared:
        return 0
    names = ", ".join(eval_data.image_id(index) for index in shared[:SHOWN_SHARED])
    more = f" and {len(shared) - SHOWN_SHARED} more" if len(shared) > SHOWN_SHARED else ""
    found = f"{len(shared)} of {len(eval_data)} validation photos are training photos, byte for byte: {names}{more}."
    if 2 * len(shared) >= len(eval_data):
        raise ValueError(
            f"{found} Name others with --eval_data or --eval_split, or hold out a share with --eval_holdout 0.1; "
            "training photos are measured where --eval_split is the same as --train_split, without --eval_data."
        )
    logger.warning(f"{found} The figures are better than on new photos; remove these photos from one of the two.")
    return len(shared)


def _first(data: AnyDataset | None, limit: int | None) -> AnyDataset | None:
    return data if data is None or limit is None else data.take(limit)
