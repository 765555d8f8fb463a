"""Flags that a run would not use: those that a user must hear of are refused, the others are warned of."""

import logging
from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import TrainingArguments

from fisa.training.arguments import PARTS, DataArguments, ModelArguments


logger = logging.getLogger(__name__)

TRAINING = {
    *PARTS,
    "lora_rank",
    *("max_train_samples", "proposal_cache", "vocabulary_size", "logit_adjustment", "flip", "crop", "color"),
    *("max_steps", "seve_learning_rate", "distillation_weight", "start_share", "early_stopping_patience"),
}
"""The flags that do nothing in a run that trains nothing."""


def refuse_useless_flags(
    model_options: ModelArguments, data_options: DataArguments, training_options: TrainingArguments
) -> None:
    """Warn of the flags that a run will not use.

    Args:
        model_options, data_options, training_options: of the run, which trains or evaluates.

    Raises:
        ValueError: one would leave another result than it says.
    """
    trains = training_options.do_train
    if not trains and (training_options.resume_from_checkpoint or "false").lower() != "false":
        raise ValueError(
            f"--resume_from_checkpoint {training_options.resume_from_checkpoint} goes on with training: add "
            "--do_train, or name a checkpoint to evaluate by --adapter."
        )
    if not trains and training_options.push_to_hub:
        raise ValueError("--push_to_hub pushes the adapter that a run has trained: add --do_train, or leave it out.")
    if not trains and (given := _given(model_options, data_options, training_options)):
        logger.warning("%s will not be used: nothing is trained without --do_train.", ", ".join(given))
    if trains and data_options.proposal_cache is not None and data_options.mask_source != "cache":
        logger.warning("--proposal_cache will not be used: --mask_source %s reads none.", data_options.mask_source)
    evaluates = training_options.do_eval or training_options.do_predict
    if not evaluates and data_options.given_for_evaluation:
        logger.warning(
            "%s will not be used: nothing is evaluated without --do_eval (at the end), --eval_strategy (during "
            "training too) or --do_predict.",
            ", ".join(data_options.given_for_evaluation),
        )
    if training_options.eval_steps is not None and training_options.eval_strategy == "no":
        logger.warning("--eval_steps will not be used: it needs --eval_strategy steps.")


def _given(*options: Any) -> list[str]:
    """The flags of training that are not at their defaults."""
    return [
        f"--{entry.name}"
        for group in options
        for entry in fields(group)
        if entry.name in TRAINING and getattr(group, entry.name) != _default(entry)
    ]


def _default(entry: Field) -> Any:
    return entry.default if entry.default_factory is MISSING else entry.default_factory()
