"""How a run trains: transformers' training arguments with FISA's own, their defaults, and what they refuse."""

import json
import math
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import torch
from transformers import SchedulerType, TrainingArguments, get_scheduler
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from fisa.evaluation.headlines import HEADLINES


WITHOUT_EFFECT = {
    "bf16_full_eval": "evaluations run in the precision of --bf16 or --fp16",
    "fp16_full_eval": "evaluations run in the precision of --bf16 or --fp16",
    "label_smoothing_factor": "the loss is the model's own and smooths no labels",
    "neftune_noise_alpha": "it disturbs the texts that a model is trained on, and the text tower is frozen",
    "remove_unused_columns": "the collator needs all columns",
}
"""The flags of transformers' that training does not follow, and why."""


@dataclass
class FisaTrainingArguments(TrainingArguments):
    """transformers' training arguments, with defaults that suit a small adapter, and SEVE's own learning rate.

    Raises:
        ValueError: a number that no training can have, or settings that contradict each other; the message names the
            flags of `fisa-train`.

    Example:

    ```python
    >>> FisaTrainingArguments("my-adapter", learning_rate=0.75, use_cpu=True).learning_rate_of_seve
    0.25
    ```
    """

    _argument_group_name: ClassVar[str] = "training"

    learning_rate: float = field(default=3e-4, metadata={"help": "Learning rate of what is copied from CLIP."})
    seve_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Learning rate of SEVE, which starts from nothing; a third of the others' if not given."},
    )
    distillation_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of a loss that keeps whole photos' embeddings where CLIP has them; 0: no such loss."
        },
    )
    start_share: float = field(
        default=0.0,
        metadata={
            "help": "Share of the weights before training in those that are left after it, from 0 to below 1 "
            "(WiSE-FT); 0.5 is half way back. Checkpoints hold the weights as they are trained."
        },
    )
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after so many evaluations without a better --metric_for_best_model."}
    )
    warmup_steps: float = field(default=0.05, metadata={"help": "Steps of warm-up, or their share of all steps."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    report_to: None | str | list[str] = field(
        default="tensorboard", metadata={"help": "Where the logs go: tensorboard, none."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Stays off: the collator needs all columns."})
    label_names: list[str] | None = field(
        default_factory=lambda: ["mask_labels", "class_labels"], metadata={"help": "Inputs that are labels."}
    )

    @classmethod
    def of(cls, args: TrainingArguments) -> Self:
        """The same arguments with FISA's own beside them; the collator needs all columns."""
        if isinstance(args, cls):
            return args
        given = {entry.name: getattr(args, entry.name) for entry in fields(args) if entry.init}
        own = {"remove_unused_columns": False, "label_names": args.label_names or ["mask_labels", "class_labels"]}
        return cls(**given | own)

    @property
    def learning_rate_of_seve(self) -> float:
        return self.learning_rate / 3 if self.seve_learning_rate is None else self.seve_learning_rate

    def __post_init__(self) -> None:
        if self.load_best_model_at_end and self.eval_strategy == "no":
            raise ValueError(
                "--load_best_model_at_end compares evaluations while training: add --eval_strategy, the same as "
                f"--save_strategy, and --metric_for_best_model, one of {', '.join(HEADLINES)}."
            )
        super().__post_init__()
        self._refuse_impossible_numbers()
        self._refuse_stopping_without_a_measure()
        self._refuse_what_has_no_effect()
        self._refuse_what_is_incomplete()
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # which speeds copies to a GPU; torch would warn of it in each run
        if self.fp16 and self.device.type == "cpu":
            raise ValueError("--fp16 needs a GPU, and there is none in use. Leave it out, or use --bf16.")

    def _refuse_what_has_no_effect(self) -> None:
        for name, reason in WITHOUT_EFFECT.items():
            if getattr(self, name):
                raise ValueError(f"--{name} has no effect here: {reason}.")

    def _refuse_what_is_incomplete(self) -> None:
        """What transformers would find when training begins, or later."""
        available = get_available_reporting_integrations()
        if missing := [name for name in self.report_to if name in INTEGRATION_TO_CALLBACK and name not in available]:
            raise ValueError(
                f"--report_to {' '.join(missing)}: its package is not installed. Install it, or name one of "
                f"{', '.join([*available, 'none'])}."
            )
        if self.dataloader_persistent_workers and not self.dataloader_num_workers:
            raise ValueError("--dataloader_persistent_workers needs workers: add --dataloader_num_workers.")
        tried = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=self.learning_rate)
        steps = {"num_warmup_steps": 1, "num_training_steps": 2}
        try:
            get_scheduler(self.lr_scheduler_type, tried, **steps, scheduler_specific_kwargs=self.lr_scheduler_kwargs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"--lr_scheduler_type {SchedulerType(self.lr_scheduler_type).value} cannot be made with "
                f"--lr_scheduler_kwargs {json.dumps(self.lr_scheduler_kwargs or {})}: {error}."
            ) from error

    def _refuse_impossible_numbers(self) -> None:
        if not 0 <= self.start_share < 1:
            raise ValueError(f"--start_share was {self.start_share}; it is a share, from 0 to below 1.")
        for name, what in (
            ("learning_rate", "rate"),
            ("seve_learning_rate", "rate"),
            ("distillation_weight", "weight"),
        ):
            if (value := getattr(self, name)) is not None and not 0 <= value < math.inf:
                raise ValueError(f"--{name} was {value}; it is a {what}, 0 or more.")
        # transformers takes 0 steps for no limit of steps, and 0 passes for training that is done.
        if self.max_steps < 1 and self.max_steps != -1:
            raise ValueError(f"--max_steps was {self.max_steps}; it is a number of steps, 1 or more.")
        if not 0 < self.num_train_epochs < math.inf:
            raise ValueError(f"--num_train_epochs was {self.num_train_epochs}; it is a number of passes, above 0.")
        for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"--{name} was {count}; it is a number of photos or steps, 1 or more.")

    def _refuse_stopping_without_a_measure(self) -> None:
        has_a_measure = self.eval_strategy != "no" and self.metric_for_best_model is not None
        if self.early_stopping_patience is not None and not has_a_measure:
            raise ValueError(
                "--early_stopping_patience compares evaluations while training: add --eval_strategy, and "
                f"--metric_for_best_model, one of {', '.join(HEADLINES)}."
            )
