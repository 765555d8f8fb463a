"""The photos of a run: which are trained on, which are evaluated, and that the two are not the same by mistake."""

from pathlib import Path

from fisa.data.formats import DATASET_FORMATS, load_segmentation_dataset
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.data.splits import hold_out, is_undivided
from fisa.training.arguments import DataArguments


AnyDataset = SegmentationDataset | StreamedSegmentationDataset


def open_data(options: DataArguments, *, trains: bool, evaluates: bool) -> tuple[AnyDataset | None, AnyDataset | None]:
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
        >>> train_data, eval_data = open_data(options, trains=True, evaluates=True)
    """
    if options.eval_holdout is not None:
        train_data, eval_data = hold_out(_opened(options, "train"), options.eval_holdout)
    else:
        train_data = _opened(options, "train") if trains else None
        eval_data = _opened(options, "eval") if evaluates else None
        if evaluates:
            refuse_training_photos(options)
    return (
        _checked(train_data, options.max_train_samples, options=options, teaches=True) if trains else None,
        _checked(eval_data, options.max_eval_samples, options=options, teaches=False) if evaluates else None,
    )


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


def _checked(data: AnyDataset, limit: int | None, *, options: DataArguments, teaches: bool) -> AnyDataset:
    """The first photos, of which none is broken."""
    chosen = data if limit is None else data.take(limit)
    return chosen.check(skip_broken=options.skip_broken, teaches=teaches)
