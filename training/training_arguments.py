"""How a run trains: transformers' training arguments with FISA's own, their defaults, and what they refuse."""

import math
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

from transformers import TrainingArguments

from fisa.evaluation.headlines import HEADLINES


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
        for name in ("bf16_full_eval", "fp16_full_eval"):
            if getattr(self, name):
                raise ValueError(f"--{name} has no effect here: evaluations run in the precision of --bf16 or --fp16.")
        if self.device.type == "cpu":
            self.dataloader_pin_memory = False  # which speeds copies to a GPU; torch would warn of it in each run
        if self.fp16 and self.device.type == "cpu":
            raise ValueError("--fp16 needs a GPU, and there is none in use. Leave it out, or use --bf16.")

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
