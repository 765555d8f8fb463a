"""FisaTrainer: transformers' Trainer with segmentation metrics for its evaluation and a model card of its own."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, PeftType
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback, default_logdir
from transformers.trainer_utils import EvalLoopOutput, TrainOutput, rotate_checkpoints
from transformers.utils import logging

from fisa.evaluation.headlines import HEADLINES, headlines
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.processing.files import write_unless_edited, write_whole
from fisa.training.checkpoints import (
    ASIDE,
    ORIGIN,
    best_beside,
    counts_on,
    damage_of,
    newest_whole_checkpoint,
    origin_of,
    put_in_place,
    refuse_another_origin,
)
from fisa.training.evaluator import Evaluator
from fisa.training.model_card import adapter_card
from fisa.training.training_arguments import FisaTrainingArguments


logger = logging.get_logger(__name__)

# What accelerate sets on a model.
OF_ACCELERATE = ("forward", "_original_forward", "_is_accelerate_prepared")


class DivergedError(ArithmeticError):
    """Training has come to a loss or to weights that are not finite."""


class FisaTrainer(Trainer):
    """Trains what a SIMO (or any PEFT) model leaves trainable.

    Args:
        evaluator: evaluates the model on its own data set, instead of `eval_dataset`. Without one, `eval_dataset`
            holds training examples, and evaluation is transformers' own: the loss, and what `compute_metrics` says.
        args: [`FisaTrainingArguments`], the default, or transformers' own, whose values stay.
        named_arguments: those of [`transformers.Trainer`].

    Raises:
        `ValueError`: `start_share` for an adapter that does not hold whole weights, as LoRA's does not; or a
            `metric_for_best_model` that the evaluator does not measure.

    Example:

    ```python
    >>> from fisa import get_simo_model
    >>> from fisa.training.evaluator import Evaluator
    >>> from fisa.training.trainer import FisaTrainer
    >>> from fisa.training.training_arguments import FisaTrainingArguments

    >>> trainer = FisaTrainer(
    ...     get_simo_model(model),
    ...     FisaTrainingArguments("my-adapter", use_cpu=True, report_to="none", disable_tqdm=True),
    ...     evaluator=Evaluator(data, processor, name="my photos"),
    ... )
    >>> trainer.get_num_trainable_parameters()
    37632
    ```
    """

    def __init__(
        self,
        model: Any = None,
        args: TrainingArguments | None = None,
        *arguments: Any,
        evaluator: Evaluator | None = None,
        **named_arguments: Any,
    ):
        self.evaluator = evaluator
        self.report: dict[str, Any] | None = None
        self._writes_aside = False
        self._photos_of_step = 0
        self._start: dict[str, torch.Tensor] = {}
        self._next_pass_begins_with: list[dict[str, Any]] = []
        self._last_batch: dict[str, Any] | None = None
        args = FisaTrainingArguments.of(args or FisaTrainingArguments())
        if evaluator is not None:
            named_arguments["eval_dataset"] = evaluator.data
            if args.metric_for_best_model:
                _refuse_unmeasurable(args.metric_for_best_model.removeprefix("eval_"), evaluator)
        super().__init__(model, args, *arguments, **named_arguments)
        if self.args.start_share:
            _refuse_to_average_changes(self.model)
        if isinstance(self.train_dataset, IterableDataset):
            # accelerate would read a stream in one process and cut large batches up for the others; ours differ in
            # their numbers of masks and cannot be put together.
            self.accelerator.dataloader_config.dispatch_batches = False
        for callback in self.callback_handler.callbacks:
            # It learns where logs go when training begins, and would put those of an evaluation alone into `./runs`.
            if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
                callback.logging_dir = str(Path(self.args.output_dir) / default_logdir())
        self._origin = {} if self.train_dataset is None else origin_of(self.model, self.train_dataset)
        if hasattr(self.train_dataset, "set_epoch"):
            self.add_callback(_EpochTeller(self.train_dataset))

    def train(self, resume_from_checkpoint: str | bool | None = None, *arguments: Any, **options: Any) -> TrainOutput:
        """As the Trainer's. `True` goes on from the newest whole checkpoint in the output folder, and starts where
        there is none: a run that is killed is simply called again.

        With `start_share` the trained weights are averaged at the end with what they are on calling: those that the
        model was made or loaded with, whichever checkpoint training goes on from.

        Raises:
            `ValueError`: the checkpoint is not whole, or of a run that trains something else.
            [`DivergedError`]: a loss or a weight is no longer finite. No checkpoint holds such weights.
        """
        self._next_pass_begins_with, self._last_batch = [], None
        checkpoint = self.checkpoint_to_resume(resume_from_checkpoint)
        with self._model_put_back():
            output = super().train(None if checkpoint is None else str(checkpoint), *arguments, **options)
            self._refuse_diverged_weights()
        self._last_batch = None
        weights = dict(self.accelerator.unwrap_model(self.model).named_parameters())
        with torch.no_grad():
            for name, before in self._start.items():
                weights[name].lerp_(before.to(weights[name]), self.args.start_share)
        return output

    @contextmanager
    def _model_put_back(self) -> Iterator[None]:
        """accelerate puts mixed precision into a model's `forward`, and a mark that nothing is to be put there again.
        Both would outlive this Trainer, and rule what the model does next, training by another Trainer included."""
        given = self.model  # none between the trials of a search; `model_init` makes another
        own = {} if given is None else vars(self.accelerator.unwrap_model(given))
        before = {name: own[name] for name in OF_ACCELERATE if name in own}
        try:
            yield
        finally:
            # In several processes the wrapper is made once, over this `forward`.
            if self.model is not None and not self.accelerator.use_distributed:
                own = vars(self.accelerator.unwrap_model(self.model))
                for name in OF_ACCELERATE:
                    own.pop(name, None)
                own.update(before if self.model is given else {})

    def _hp_search_setup(self, trial: Any) -> None:
        """As the Trainer's, which calls it in each training when the model is made, before a checkpoint is loaded."""
        super()._hp_search_setup(trial)
        self._start = self._trained_weights() if self.args.start_share else {}

    def checkpoint_to_resume(self, named: str | bool | None) -> Path | None:
        """What [`train`] goes on from; `None` where it starts.

        Args:
            named: a checkpoint, or `True` for the newest whole one in the output folder.

        Raises:
            `ValueError`: the checkpoint is not whole, or of a run that trains something else.
        """
        if not named:
            return None
        checkpoint = newest_whole_checkpoint(self.args.output_dir) if named is True else Path(named)
        if checkpoint is None:
            return None
        if damage := damage_of(checkpoint):
            raise ValueError(f"The checkpoint {checkpoint} cannot be resumed from: {damage}.")
        refuse_another_origin(checkpoint, self._origin)
        return checkpoint

    def _init_training_state(
        self, max_steps: int, steps_per_pass: int, passes: int, resume_from_checkpoint: str | None, trial: Any
    ) -> tuple[int, int]:
        """As the Trainer's. A run that goes on knows its best checkpoint, wherever its folder lies now, and how long
        early stopping has waited; one that was stopped early has no further pass."""
        passed = super()._init_training_state(max_steps, steps_per_pass, passes, resume_from_checkpoint, trial)
        if resume_from_checkpoint is None:
            return passed
        self.state.best_model_checkpoint = best_beside(Path(resume_from_checkpoint), self.state)
        waits = [counts_on(callback, self.state) for callback in self.callback_handler.callbacks]
        return passed if all(waits) else (passes, 0)

    def _trained_weights(self) -> dict[str, torch.Tensor]:
        """A copy of what is trained, by name, out of the accelerator's way."""
        weights = self.accelerator.unwrap_model(self.model).named_parameters()
        return {name: weight.detach().to("cpu", copy=True) for name, weight in weights if weight.requires_grad}

    def get_batch_samples(
        self, epoch_iterator: Iterator[dict[str, Any]], num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], torch.Tensor | int | None]:
        """The batches of a step. Those that a stream ends with, too few for a step, begin the next pass: the Trainer
        would add their gradients to those of a whole step.

        Raises:
            `ValueError`: the whole stream is not enough for a step.
        """
        batches, items = super().get_batch_samples(
            chain(self._next_pass_begins_with, epoch_iterator), num_batches, device
        )
        self._next_pass_begins_with = batches if len(batches) < num_batches else []
        if self._next_pass_begins_with:
            if self.state.global_step == 0:
                raise ValueError(
                    f"The stream ends after {len(batches)} batches of the {num_batches} of a step: lower "
                    "--gradient_accumulation_steps or --per_device_train_batch_size."
                )
            return [], None
        self._photos_of_step = sum(len(batch["pixel_values"]) for batch in batches)
        return batches, items

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, Any], *arguments: Any, **options: Any
    ) -> torch.Tensor:
        """As the Trainer's, which would log a loss of NaN as 0 and go on, and would have the photos of a smaller batch
        weigh more than the others of their step."""
        self._last_batch = inputs
        # What the Trainer divides the mean over the batch by.
        self.current_gradient_accumulation_steps = self._photos_of_step / len(inputs["pixel_values"])
        loss = super().training_step(model, inputs, *arguments, **options)
        if not loss.isfinite():
            raise _diverged(f"the loss of step {self.state.global_step + 1} is {loss.item()}")
        return loss

    def _refuse_diverged_weights(self) -> None:
        """Refuse weights that are not finite, or so large that the loss of the last batch is not: no step is left
        that would show it."""
        weights = self.accelerator.unwrap_model(self.model).named_parameters()
        for name, weight in weights:
            if weight.requires_grad and not weight.isfinite().all():
                raise _diverged(f"{name} is not finite after step {self.state.global_step}")
        if self._last_batch is None:
            return
        # With gradients, as in a step: without, a model that is given no proposals makes them. What is random goes on
        # as if this had not been.
        self.model.train()
        devices = [self.args.device.index] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self.compute_loss_context_manager():
            loss = self.compute_loss(self.model, self._prepare_inputs(self._last_batch))
        if not loss.isfinite():
            raise _diverged(f"the loss is {loss.item()} after step {self.state.global_step}")

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As the Trainer's; an evaluation that had nothing to measure by the chosen metric is not the best."""
        name = self.args.metric_for_best_model
        if self.evaluator is not None and name and f"eval_{name.removeprefix('eval_')}" not in metrics:
            logger.warning_once(f"An evaluation had nothing to measure {name} by; it cannot be the best.")
            return False
        return super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """As the Trainer's, written aside and renamed: what a kill leaves of a checkpoint never has its name."""
        self._refuse_diverged_weights()
        folder = Path(self._get_output_dir(trial))
        if self.args.should_save:
            shutil.rmtree(folder / ASIDE, ignore_errors=True)  # what a killed run left
        self.accelerator.wait_for_everyone()
        self._writes_aside = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._writes_aside = False
        self.accelerator.wait_for_everyone()
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        if self.state.best_model_checkpoint == str(folder / ASIDE / checkpoint.name):
            self.state.best_model_checkpoint = str(checkpoint)
        if self.args.should_save:
            write_whole(folder / ASIDE / checkpoint.name / ORIGIN, json.dumps(self._origin, indent=1))
            put_in_place(checkpoint)
            rotate_checkpoints(
                str(folder), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True
            )
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """As the Trainer's, without the card that PEFT writes, also over a user's own: ours comes last."""
        own = vars(self.accelerator.unwrap_model(self.model))
        own["create_or_update_model_card"] = lambda output_dir: None
        try:
            super()._save(output_dir, state_dict)
        finally:
            del own["create_or_update_model_card"]

    def _get_output_dir(self, trial: Any) -> str:
        folder = super()._get_output_dir(trial)
        return str(Path(folder) / ASIDE) if self._writes_aside else folder

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """As the Trainer's, with this run's words: the checkpoint's may have been put into other templates."""
        trained = self.accelerator.unwrap_model(self.model)
        base = trained.get_base_model() if isinstance(trained, PeftModel) else trained
        stored = base.fisa.stored_vocabulary
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if stored.classes:
            base.fisa.store_vocabulary(*stored)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """As the Trainer's, with a learning rate of its own for SEVE. By default nothing decays: pulling a
        copy of CLIP's weights towards zero pulls it away from CLIP."""
        model = model or self.model
        if self.optimizer is None:
            trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
            in_seve = [parameter for name, parameter in trained if "semantic_guidance" in name]
            others = [parameter for name, parameter in trained if "semantic_guidance" not in name]
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = [
                {"params": others, "weight_decay": self.args.weight_decay},
                {"params": in_seve, "weight_decay": self.args.weight_decay, "lr": self.args.learning_rate_of_seve},
            ]
            self.optimizer = optimizer_class([group for group in groups if group["params"]], **options)
        return self.optimizer

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **options: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The model's loss, and what whole photos' embeddings have moved by (MAFT+, arXiv 2408.00744, compensates
        CLIP's representation likewise)."""
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if self.args.distillation_weight:
            moved = representation_shift(self.accelerator.unwrap_model(model), inputs["pixel_values"])
            loss = loss + self.args.distillation_weight * moved
        return (loss, outputs) if return_outputs else loss

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """This process's share of the evaluator's photos."""
        if self.evaluator is None:
            return super().get_eval_dataloader(eval_dataset)
        return self.evaluator.loader(
            batch_size=self.args.per_device_eval_batch_size, num_workers=self.args.dataloader_num_workers
        )

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate, keep the whole report in `self.report`, and return its headlines, in percent."""
        if self.evaluator is None:
            with self._model_put_back(), self.accelerator.autocast():
                return super().evaluation_loop(
                    dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
                )
        model = self.accelerator.unwrap_model(self.model)
        model = model if isinstance(model, FisaForUniversalSegmentation) else model.get_base_model()
        was_training = model.training
        model.eval()
        self.report = self.evaluator.evaluate(model, dataloader, autocast=self.accelerator.autocast)
        model.train(was_training)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.results.items()}
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=self.report["num_images"])

    @property
    def results(self) -> dict[str, float]:
        """The figures of the last evaluation that people compare, in percent; those that had nothing to measure are
        left out."""
        return headlines(self.report or {})

    def create_model_card(self, model_name: str | None = None, **_: Any) -> None:
        """Write the model card, with the last evaluation's results where the Hub reads them."""
        if self.is_world_process_zero():
            card = adapter_card(
                self.accelerator.unwrap_model(self.model),
                repo_id=self.args.hub_model_id or model_name or Path(self.args.output_dir).name,
                report=self.report,
                results=self.results,
                log_history=self.state.log_history,
            )
            write_unless_edited(Path(self.args.output_dir) / "README.md", str(card))


def _refuse_unmeasurable(metric: str, evaluator: Evaluator) -> None:
    """Refuse a metric that the evaluator does not know, and one of things or of stuff where no category is of that
    kind."""
    if metric not in HEADLINES:
        raise ValueError(
            f"--metric_for_best_model is {metric}, which an evaluation does not measure: name one of "
            f"{', '.join(HEADLINES)}."
        )
    kinds = {category["isthing"] for category in evaluator.categories}
    wanted = {"ap": True, "pq_things": True, "pq_stuff": False}.get(metric)
    if wanted is not None and wanted not in kinds:
        raise ValueError(
            f"--metric_for_best_model is {metric}, which is over {'things' if wanted else 'stuff'}, and none of the "
            "categories is one: name miou, pq or another of all classes."
        )


def _diverged(found: str) -> DivergedError:
    return DivergedError(f"Training has diverged: {found}. Train again with a lower --learning_rate.")


def _refuse_to_average_changes(model: torch.nn.Module) -> None:
    """An average of LoRA's factors, or of other changes to weights, is not that of the weights."""
    if not isinstance(model, PeftModel):
        return
    kinds = {str(model.peft_config[name].peft_type.value) for name in model.active_adapters}
    if others := sorted(kinds - {PeftType.LN_TUNING.value}):
        raise ValueError(
            f"--start_share averages whole weights, and an adapter of the kind {', '.join(others)} holds factors of "
            "their changes, whose average is another model: train get_simo_model's (no --lora_rank), or leave it out."
        )


def representation_shift(model: PeftModel, pixel_values: torch.Tensor) -> torch.Tensor:
    """1 − cosine between CLIP's embeddings of whole photos with the adapter and without, mean over the photos.

    Args:
        model: a PEFT model of [`FisaForUniversalSegmentation`].
        pixel_values: `(B, 3, H, W)`, as CLIP wants them.
    """
    clip = model.get_base_model().fisa
    with torch.no_grad(), model.disable_adapter():
        original = clip.get_image_features(pixel_values).pooler_output
    adapted = clip.get_image_features(pixel_values).pooler_output
    return (1 - torch.nn.functional.cosine_similarity(adapted, original)).mean()


class _EpochTeller(TrainerCallback):
    """Tells the data set which pass begins. accelerate does so itself in a single process only."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def on_epoch_begin(self, args, state, control, **kwargs):
        # In the middle of a pass when a run is resumed; a hair below its end where the division rounded.
        self.dataset.set_epoch(math.floor((state.epoch or 0) + 1e-6))
