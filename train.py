"""`fisa-train`: fine-tunes and evaluates, by a recipe, with flags after it that override it."""

import json
import logging
import os
import re
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from tqdm import tqdm
from transformers import EarlyStoppingCallback, HfArgumentParser, set_seed

from fisa.commands.options import existing_part, loadable_name, model_name, output_folder
from fisa.data.augmentation import Augmentation
from fisa.data.categories import vocabulary_of
from fisa.data.proposal_caching import cached_proposals
from fisa.data.segmentation_datasets import SegmentationDataset
from fisa.data.training_examples import (
    ExampleMaker,
    StreamedTrainingExamples,
    TrainingCollator,
    TrainingExamples,
    VocabularySampler,
    log_frequencies,
)
from fisa.data.training_masks import CacheSource, GeneratorSource, GroundTruthSource, MaskSource
from fisa.modeling_fisa.adapter_vocabulary import AnotherBaseError
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.simo import get_simo_model, simo_target_modules
from fisa.pretrained.presets import announce_download, preset_of
from fisa.processing.files import write_whole
from fisa.processing.one_line_parser import OneLineParser
from fisa.processing.processing_fisa import FisaProcessor
from fisa.training.arguments import DataArguments, ModelArguments
from fisa.training.checkpoints import damage_of, newest_whole_checkpoint
from fisa.training.evaluator import Evaluator
from fisa.training.recipes import shipped_recipes, with_recipe
from fisa.training.trainer import DivergedError, FisaTrainer
from fisa.training.training_arguments import FisaTrainingArguments
from fisa.training.training_data import open_data
from fisa.training.useless_flags import refuse_useless_flags


logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and predict as the command line says; returns the exit status."""
    status = 0
    try:
        train_and_evaluate(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as stop:
        tqdm.write(str(stop) or "stopped", file=sys.stderr)  # on a line of its own, whatever bar is shown
        status = 130  # as shells count it
    PartialState().destroy_process_group()  # its threads would abort the process on outliving the interpreter
    return status


def train_and_evaluate(arguments: Sequence[str], *, trainer_class: type[FisaTrainer] = FisaTrainer) -> dict[str, Any]:
    """Train, evaluate and predict as the arguments say.

    Args:
        arguments: of a command line.
        trainer_class: what trains and evaluates, for other ways to train the same model on the same data.

    Returns:
        The evaluation's report, empty if there was none.

    Raises:
        SystemExit: with status 2, where model, data or options cannot be used; with status 1, where training diverges.

    Example:

    ```python
    >>> flags = ["--model", "my-fisa", "--do_eval", "--eval_format", "label_maps", "--eval_data", "my-photos"]
    >>> report = train_and_evaluate([*flags, "--output_dir", "results", "--use_cpu"])
    >>> report["num_images"], report["semantic"]["miou"]
    (3, 12.5)
    ```
    """
    parser = _Parser(
        (ModelArguments, DataArguments, FisaTrainingArguments),
        usage="%(prog)s [RECIPE] [--flag value ...]",
        formatter_class=_Help,
        description="Fine-tune and evaluate. RECIPE is a YAML or JSON file with flags, or the name of a recipe that "
        f"comes with the package: {', '.join(shipped_recipes())}. Flags after it override it.",
    )
    try:
        model_options, data_options, training_options = parser.parse_args_into_dataclasses(
            with_recipe(list(arguments))
        )
        output_folder(training_options.output_dir)
        if data_options.proposal_cache is not None:  # which may be whole and lie where nothing can be written
            existing_part(data_options.proposal_cache)
        if model_options.model is not None:
            model_name(model_options.model)
        for name in (model_options.clip, model_options.mask_generator, model_options.adapter):
            if name is not None:
                loadable_name(name)
        run = Run(model_options, data_options, training_options, trainer_class=trainer_class)
    except (OSError, ValueError, ImportError, SafetensorError, ArgumentTypeError) as error:
        parser.error(str(error))
    _warn_if_alone()
    if training_options.do_train:
        try:
            run.train()
        except (DivergedError, ImportError) as error:  # the latter of an optimizer whose package is not there
            parser.exit(1, f"{parser.prog}: error: {error}\n")
    if training_options.do_eval or training_options.do_predict:
        run.evaluate()
    run.finish()
    return run.trainer.report or {}


def _warn_if_alone() -> None:
    """accelerate's launcher leaves several processes on a CPU to MPI, and without it starts one and says nothing."""
    launched_for_cpu = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    if launched_for_cpu and PartialState().num_processes == 1:
        logger.warning(
            "Running in one process. For several on a CPU: "
            "accelerate launch --multi_gpu --num_processes 2 train.py ... --use_cpu"
        )


class _Parser(OneLineParser, HfArgumentParser):
    """Of dataclasses, with errors of one line."""


class _Help(ArgumentDefaultsHelpFormatter):
    """Help with the defaults that say something, and with what a `--no_…` of transformers' parser does."""

    def _get_help_string(self, action: Action) -> str | None:
        if action.nargs == 0 and action.const is False:
            return f"The same as --{action.dest} false."
        return action.help if action.default is None else super()._get_help_string(action)


class Run:
    """One run of this program: its data, model and Trainer.

    Raises:
        ValueError or OSError: on making it, where model, data or options cannot be used.
    """

    def __init__(
        self,
        model_options: ModelArguments,
        data_options: DataArguments,
        training_options: FisaTrainingArguments,
        *,
        trainer_class: type[FisaTrainer] = FisaTrainer,
    ):
        self.model_options, self.data_options, self.options = model_options, data_options, training_options
        self._refuse_useless_options()
        self.folder = Path(training_options.output_dir)
        self.resume = _resumed(training_options.resume_from_checkpoint, self.folder)
        self._refuse_results_of_other_runs()
        set_seed(training_options.seed)
        # transformers' arguments evaluate at the end, too, where they do so on the way.
        evaluates = training_options.do_eval or training_options.do_predict
        self.train_data, self.eval_data, self.trained_on = open_data(
            data_options, trains=training_options.do_train, evaluates=evaluates
        )
        if preset_of(model_options.model) and training_options.process_index == 0:
            announce_download(model_options.model)
        self.processor = self._processor()
        model = self._model()
        weights = model.state_dict()  # under the names that they have without an adapter
        self.model = self._with_adapter(model)
        self.trainer = self._trainer(trainer_class)
        if training_options.do_train:
            self.trainer.checkpoint_to_resume(self.resume)  # refused before training begins
            if model_options.clip is not None:
                self._save_base(model, weights)

    def _refuse_useless_options(self) -> None:
        options, base = self.options, self.model_options
        if not (options.do_train or options.do_eval or options.do_predict):
            raise ValueError("Nothing to do: add --do_train, --do_eval or --do_predict.")
        refuse_useless_flags(base, self.data_options, options)
        if options.push_to_hub and (base.clip is not None or Path(base.model).exists()):
            raise ValueError(
                "An adapter on the Hub needs its base there: push the base first (fisa.hub.export, or push_to_hub of "
                "model and processor), then train with --model OWNER/NAME."
            )

    def _refuse_results_of_other_runs(self) -> None:
        options = self.options
        if options.do_train:
            restarts = (options.resume_from_checkpoint or "").lower() == "true"
            _refuse_used_folder(self.folder, resumed=self.resume, restarts=restarts)
        if options.do_eval and not options.do_predict:
            _refuse_other_predictions(self.folder)

    def train(self) -> None:
        self.model.print_trainable_parameters()
        try:
            self.trainer.train(resume_from_checkpoint=None if self.resume is None else str(self.resume))
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(self._what_is_left()) from stop
        self.trainer.save_model()
        self.trainer.save_state()

    def _what_is_left(self) -> str:
        """What a user who stops training is told."""
        checkpoint = newest_whole_checkpoint(self.folder)
        if checkpoint is None:
            return "stopped before the first checkpoint (--save_steps); nothing that was learned is left"
        return f"stopped; {checkpoint} is left: go on from it with --resume_from_checkpoint true"

    def evaluate(self) -> None:
        self.trainer.evaluate()
        if self.trainer.is_world_process_zero():
            self.folder.mkdir(parents=True, exist_ok=True)
            report = json.dumps(self.trainer.report, indent=1, ensure_ascii=False)
            write_whole(self.folder / "metrics.json", report + "\n")
            print("\n".join(f"{name:>16} {value:7.2f}" for name, value in self.trainer.results.items()))

    def finish(self) -> None:
        """Write the card, push, and put the merged model beside the adapter."""
        if not isinstance(self.model, PeftModel) or not self.options.do_train:
            return
        if self.options.push_to_hub:
            self.trainer.push_to_hub()
        else:
            self.trainer.create_model_card()
        if self.trainer.is_world_process_zero():
            merged = self.trainer.accelerator.unwrap_model(self.trainer.model).merge_and_unload()
            merged.save_pretrained(self.folder / "merged")
            self.processor.save_pretrained(self.folder / "merged")

    def _processor(self) -> FisaProcessor:
        options = self.model_options
        templates = {} if options.prompt_templates is None else {"prompt_templates": options.prompt_templates}
        if options.clip is None:
            processor = FisaProcessor.from_pretrained(options.model, **templates)
        else:
            processor = FisaProcessor.from_clip_and_mask_generator(options.clip, options.mask_generator, **templates)
        if options.zoom is not None:
            processor.image_processor.zoom = options.zoom
        return processor

    def _model(self) -> FisaForUniversalSegmentation:
        """The base model. An adapter finds it by its name, from whichever folder it is loaded."""
        options = self.model_options
        config = options.config_fields
        if options.clip is None:
            model = FisaForUniversalSegmentation.from_pretrained(options.model, **config)
        else:
            model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
                options.clip, options.mask_generator, **config
            )
        model = model.to(self.options.device)
        if Path(model.name_or_path).is_dir():
            model.name_or_path = str(Path(model.name_or_path).resolve())
        if self.train_data is not None:
            model.set_vocabulary(self.processor, vocabulary_of(self.train_data.categories))
            if options.clip is not None:
                model.name_or_path = str((self.folder / "base").resolve())
        return model

    def _save_base(self, model: FisaForUniversalSegmentation, weights: dict[str, torch.Tensor]) -> None:
        """Put a base that is made of CLIP and a generator beside the adapter, which could not be loaded without it."""
        if self.options.process_index == 0 and not _goes_on_in(self.folder, self.resume):
            model.save_pretrained(self.folder / "base", state_dict=weights)
            self.processor.save_pretrained(self.folder / "base")

    def _with_adapter(self, model: FisaForUniversalSegmentation) -> FisaForUniversalSegmentation | PeftModel:
        if self.model_options.adapter is not None:
            adapted = self._adapted(model)
            if self.train_data is not None:  # the adapter came with the vocabulary of its own data
                model.set_vocabulary(self.processor, vocabulary_of(self.train_data.categories))
            return adapted
        if not self.options.do_train:
            return model
        rank = self.model_options.lora_rank
        if rank is None:
            return get_simo_model(model, self.model_options.simo_config())
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=self._leaves(model)))

    def _leaves(self, model: FisaForUniversalSegmentation) -> str:
        """What a new adapter would train."""
        options = self.model_options
        return simo_target_modules(model.config, options.simo_config(), norms=options.lora_rank is None)

    def _adapted(self, model: FisaForUniversalSegmentation) -> PeftModel:
        adapter = self.model_options.adapter
        if Path(adapter).is_dir() and not Path(adapter, "adapter_config.json").is_file():
            raise ValueError(
                f"--adapter {adapter} is not an adapter: it has no adapter_config.json. Name the folder that "
                "fisa-train wrote; a whole model is named by --model."
            )
        wanted = {name for name, _ in model.named_modules() if re.fullmatch(self._leaves(model), name)}
        try:
            adapted = PeftModel.from_pretrained(model, adapter, is_trainable=self.options.do_train)
        except (AnotherBaseError, RuntimeError) as error:  # the latter of sizes of weights, a line for each
            reason = str(error).splitlines()[-1].strip()
            raise ValueError(
                f"--adapter {adapter} does not fit this model; was it trained on another? {reason}"
            ) from error
        own, flags = adapted.active_peft_config, self.model_options.given_for_a_new_adapter
        is_other = (
            wanted != {*adapted.targeted_module_names} or getattr(own, "r", None) != self.model_options.lora_rank
        )
        if self.options.do_train and flags and is_other:
            raise ValueError(
                f"{', '.join(flags)} would change nothing: --adapter {adapter} trains what it has. Leave these flags "
                "out, or --adapter, to train a new one."
            )
        return adapted

    def _trainer(self, trainer_class: type[FisaTrainer]) -> FisaTrainer:
        evaluator, examples, collator = None, None, None
        if self.eval_data is not None:
            if self.data_options.oracle in ("none", "classifier") and self._base_model().mask_generator is None:
                raise ValueError(
                    "This model has no mask generator: name one, or evaluate it on true masks with --oracle generator."
                )
            evaluator = Evaluator(
                self.eval_data,
                self.processor,
                name=self.data_options.eval_name,
                oracle=self.data_options.oracle,
                trained_on=self.trained_on,
                # The photos may be private: what is pushed holds none.
                samples=None if self.options.push_to_hub else self.folder / "samples",
                predictions=self.folder / PREDICTIONS if self.options.do_predict else None,
            )
        if self.train_data is not None:
            examples, collator = self._examples()
            step = self.options.train_batch_size * self.options.world_size
            if self.options.dataloader_drop_last and hasattr(examples, "__len__") and len(examples) < step:
                raise ValueError(
                    f"--dataloader_drop_last leaves nothing to train on: there are {len(examples)} photos, fewer than "
                    f"the {step} of a step. Leave it out, or lower --per_device_train_batch_size."
                )
        patience = self.options.early_stopping_patience
        return trainer_class(
            model=self.model,
            args=self.options,
            train_dataset=examples,
            data_collator=collator,
            processing_class=self.processor,
            evaluator=evaluator,
            callbacks=[] if patience is None else [EarlyStoppingCallback(patience)],
        )

    def _examples(self) -> tuple[TrainingExamples | StreamedTrainingExamples, TrainingCollator]:
        options, data = self.data_options, self.train_data
        with torch.no_grad():
            encoded = self._base_model().encode_vocabulary(self.processor, vocabulary_of(data.categories))
        class_indices = {category.id: index for index, category in enumerate(data.categories)}
        maker = ExampleMaker(
            processor=self.processor,
            masks=self._mask_source(class_indices),
            class_indices=class_indices,
            sampler=VocabularySampler(encoded.prompt_class_ids.tolist()),
            augmentation=Augmentation(flip=options.flip, crop=options.crop, color=options.color),
            seed=self.options.seed,
        )
        examples = TrainingExamples if isinstance(data, SegmentationDataset) else StreamedTrainingExamples
        log_priors = None
        if options.logit_adjustment:
            frequencies = log_frequencies(data, class_indices)
            log_priors = options.logit_adjustment * frequencies[encoded.prompt_class_ids.cpu()]
        collator = TrainingCollator(
            encoded.class_embeds.cpu(), vocabulary_size=options.vocabulary_size, log_priors=log_priors
        )
        return examples(data, maker), collator

    def _mask_source(self, class_indices: dict[int, int]) -> MaskSource:
        options, data, model = self.data_options, self.train_data, self._base_model()
        if options.mask_source == "ground_truth":
            size = self.processor.image_processor.size
            return GroundTruthSource(
                config=model.config,
                class_indices=class_indices,
                image_size=(size["height"], size["width"]),
                unlabelled=data.unlabelled,
            )
        if model.mask_generator is None:
            raise ValueError("This model has no mask generator: name one, or train with --mask_source ground_truth.")
        if options.mask_source == "generator":
            return GeneratorSource(class_indices=class_indices, unlabelled=data.unlabelled)
        cache = cached_proposals(
            options.proposal_cache,
            data,
            model=model,
            processor=self.processor,
            flips=options.flip,
            num_workers=self.options.dataloader_num_workers,
        )
        return CacheSource(cache=cache, class_indices=class_indices)

    def _base_model(self) -> FisaForUniversalSegmentation:
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model


def _resumed(named: str | None, folder: Path) -> Path | None:
    """The checkpoint that the flag means, which is looked at before anything is loaded; `None` to start."""
    if named is None or named.lower() == "false":
        return None
    if named.lower() == "true":
        return newest_whole_checkpoint(folder)
    if damage := damage_of(Path(named)):
        raise ValueError(f"--resume_from_checkpoint {named} cannot be resumed from: {damage}.")
    return Path(named)


def _goes_on_in(folder: Path, resumed: Path | None) -> bool:
    return resumed is not None and resumed.resolve().parent == folder.resolve()


def _refuse_used_folder(folder: Path, *, resumed: Path | None, restarts: bool) -> None:
    """Refuse to train over what an earlier run has trained, unless it is that run which goes on. A run that restarts
    may have been killed before its first whole checkpoint, but has left no adapter then."""
    adapter, checkpoints = folder / "adapter_model.safetensors", sorted(folder.glob("checkpoint-*"))
    left = [path.name for path in (adapter, *(() if restarts else checkpoints)) if path.exists()]
    if _goes_on_in(folder, resumed) or not left:
        return
    found, ways = f"{folder} holds the {left[0]} of an earlier run", ["name another --output_dir", "delete the folder"]
    if restarts:
        found += " and no whole checkpoint to go on from"
    elif checkpoints:
        ways.insert(1, "go on with that run by --resume_from_checkpoint true")
    raise ValueError(f"{found}: {', '.join(ways[:-1])}, or {ways[-1]}.")


def _refuse_other_predictions(folder: Path) -> None:
    """Refuse to put an evaluation's figures beside the predictions of another."""
    if (folder / PREDICTIONS).exists():
        raise ValueError(
            f"{folder} holds the {PREDICTIONS} of an earlier evaluation, to which these figures would not belong: "
            f"replace them with --do_predict, name another --output_dir, or delete {PREDICTIONS} and the folder "
            "beside it."
        )


if __name__ == "__main__":
    sys.exit(main())
