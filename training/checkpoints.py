"""Checkpoints that are whole, and of this run: written aside and renamed, told from those that a killed run left in
part, and from those of a run that trains something else."""

import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.trainer_callback import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.utils import logging

from fisa.data.training_examples import StreamedTrainingExamples, TrainingExamples
from fisa.modeling_fisa.adapter_vocabulary import clip_sample, weights_sample
from fisa.processing.files import weights_digest


logger = logging.get_logger(__name__)

# Where a checkpoint is written until it is whole.
ASIDE = ".checkpoint"
STATE = "trainer_state.json"
# What a checkpoint was trained from.
ORIGIN = "trained_from.json"


def newest_whole_checkpoint(folder: str | PathLike) -> Path | None:
    """The checkpoint to resume from: the newest that can be read from beginning to end.

    Newer ones that cannot are left out, with a warning.

    Args:
        folder: the Trainer's `output_dir`; it need not exist.

    Returns:
        `Path` of the checkpoint; `None` if there is none.

    Example:

    ```python
    >>> newest_whole_checkpoint("a-new-folder") is None
    True
    ```
    """
    steps = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in Path(folder).glob("checkpoint-*")}
    numbered = {path: int(step[1]) for path, step in steps.items() if step}
    for checkpoint in sorted(numbered, key=lambda path: numbered[path], reverse=True):
        damage = damage_of(checkpoint)
        if damage is None:
            return checkpoint
        logger.warning_once(f"The checkpoint {checkpoint} is not whole and is left out: {damage}.")
    return None


def damage_of(checkpoint: Path) -> str | None:
    """What keeps a checkpoint from being resumed from, in a few words; `None` if it is whole.

    Args:
        checkpoint: a folder of the Trainer's.
    """
    if not (checkpoint / STATE).is_file():
        return f"{STATE} is missing"
    if not any(file.is_dir() or "model" in file.name for file in checkpoint.iterdir()):
        return "it has no weights"
    for file in sorted(path for path in checkpoint.rglob("*") if path.is_file()):
        try:
            _read(file)
        except (OSError, ValueError, TypeError, SafetensorError, zipfile.BadZipFile):
            return f"{file.relative_to(checkpoint)} is damaged"
    return None


def origin_of(model: nn.Module, examples: Any) -> dict[str, str]:
    """What a run trains from, under names that a person understands; a run that goes on has the same.

    Args:
        model: a FISA model before training, with an adapter or without.
        examples: what it is trained on: photos and classes, or a stream, of which the classes alone are known.
    """
    base = getattr(model, "get_base_model", lambda: model)()
    parts = {"CLIP": clip_sample(base.fisa)}
    if base.mask_generator is not None:
        parts["mask generator"] = weights_sample(base.mask_generator)
    samples = [(name, sample) for name, sample in parts.items() if sample is not None]
    trained = [[name, *weight.shape] for name, weight in model.named_parameters() if weight.requires_grad]
    origin = {
        "base model": weights_digest([*parts], samples),
        "set of trained weights": hashlib.sha256(json.dumps(trained).encode()).hexdigest(),
    }
    if isinstance(examples, TrainingExamples):
        origin["set of photos or classes"] = examples.data.fingerprint
    elif isinstance(examples, StreamedTrainingExamples):
        categories = [category.to_dict() for category in examples.data.categories]
        origin["set of photos or classes"] = hashlib.sha256(json.dumps(categories).encode()).hexdigest()
    return origin


def refuse_another_origin(checkpoint: Path, origin: Mapping[str, str]) -> None:
    """Refuse a whole checkpoint of a run that trained from something else. One that does not say what from, as those
    of earlier versions, is warned of.

    Args:
        checkpoint: a folder of the Trainer's.
        origin: of this run, from [`origin_of`].

    Raises:
        ValueError: the message names what differs.
    """
    file = checkpoint / ORIGIN
    if not file.is_file():
        logger.warning_once(
            f"The checkpoint {checkpoint} does not say what it was trained from; it is taken for this run's."
        )
        return
    theirs = json.loads(file.read_text(encoding="utf-8"))
    differing = [f"another {name}" for name in {**origin, **theirs} if theirs.get(name) != origin.get(name)]
    if differing:
        raise ValueError(
            f"The checkpoint {checkpoint} does not belong to this run: it has {' and '.join(differing)}. Name another "
            "--output_dir, or give the model, data and parts that it was trained with; to train what it holds on "
            "other data, name it by --adapter."
        )


def best_beside(checkpoint: Path, state: TrainerState) -> str | None:
    """The best checkpoint of a run that goes on. The state names it as it was called when it was saved: from another
    folder, or before the run's own was moved.

    Args:
        checkpoint: of the run, in the same folder.
        state: the run's, loaded from it.
    """
    beside = checkpoint.parent / f"checkpoint-{state.best_global_step}"
    return str(beside) if state.best_global_step and beside.is_dir() else state.best_model_checkpoint


def counts_on(callback: TrainerCallback, state: TrainerState) -> bool:
    """Have early stopping go on counting where it was when the state was saved, by its own patience.

    Args:
        callback: any; others are left alone.
        state: of a run that goes on.

    Returns:
        Whether it would still wait.
    """
    if not isinstance(callback, EarlyStoppingCallback):
        return True
    stored = state.stateful_callbacks.get(type(callback).__name__)
    last = stored[-1] if isinstance(stored, list) else stored
    if last is not None:
        callback.early_stopping_patience_counter = last["attributes"]["early_stopping_patience_counter"]
    return callback.early_stopping_patience_counter < callback.early_stopping_patience


def _read(file: Path) -> None:
    """Read a file as far as its format can tell that it is whole."""
    if file.name == STATE:
        TrainerState.load_from_json(str(file))
    elif file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".safetensors":
        with safe_open(file, "pt"):  # compares the sizes that it names with the file's
            pass
    elif file.suffix in {".pt", ".pth"}:
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"{damaged} does not match its checksum")


def put_in_place(checkpoint: Path) -> None:
    """Move a checkpoint from aside to its place, when all of it is on disk.

    Args:
        checkpoint: its place; it lies in the folder `ASIDE` beside it, under the same name.
    """
    aside = checkpoint.parent / ASIDE
    written = aside / checkpoint.name
    state = TrainerState.load_from_json(str(written / STATE))
    if state.best_model_checkpoint == str(written):
        state.best_model_checkpoint = str(checkpoint)
        state.save_to_json(str(written / STATE))
    for file in written.rglob("*"):
        if file.is_file():
            with open(file, "rb+") as opened:
                os.fsync(opened.fileno())
    if checkpoint.exists():  # of an earlier run, or damaged
        checkpoint.rename(aside / "replaced")
    written.rename(checkpoint)
    shutil.rmtree(aside, ignore_errors=True)
