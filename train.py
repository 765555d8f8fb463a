"""What a person runs to fine-tune and evaluate: `train.py recipe.yaml`, with flags behind it that overrule it."""

import json
import logging
import os
import sys
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import EarlyStoppingCallback, HfArgumentParser, set_seed

from fisa.commands.options import model_name, output_folder
from fisa.configuration.configuration_simo import SimoConfig
from fisa.data.augmentation import Augmentation
from fisa.data.categories import vocabulary_of
from fisa.data.formats import DATASET_FORMATS, load_segmentation_dataset
from fisa.data.proposal_caching import cached_proposals
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.data.splits import hold_out, is_undivided
from fisa.data.training_examples import (
    ExampleMaker,
    StreamedTrainingExamples,
    TrainingCollator,
    TrainingExamples,
    VocabularySampler,
    log_frequencies,
)
from fisa.data.training_masks import SOURCES, CacheSource, GeneratorSource, GroundTruthSource, MaskSource
from fisa.evaluation.predictors import PREDICTORS
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.simo import IMAGE_LEAVES, get_simo_model, simo_target_modules
from fisa.processing.processing_fisa import FisaProcessor
from fisa.training.evaluator import Evaluator
from fisa.training.model_card import public_name
from fisa.training.trainer import FisaTrainer, FisaTrainingArguments


logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parent / "recipes"
RECIPE_ENDINGS = (".yaml", ".yml", ".json")


@dataclass
class ModelArguments:
    """Which model, and which part of it is trained."""

    model: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub name of a FISA model; without it, --clip and --mask_generator make one."},
    )
    clip: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the CLIP to make a model of, instead of --model."}
    )
    mask_generator: str | None = field(
        default=None,
        metadata={"help": "Folder or Hub name of the universal segmentation model whose masks the --clip names."},
    )
    adapter: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of an adapter to evaluate, or to go on training."}
    )
    fisa_config: str = field(
        default="{}", metadata={"help": "Fields of FisaConfig to set, as JSON (in a recipe: a mapping)."}
    )
    prompt_templates: str | None = field(
        default=None, metadata={"help": "Key of PROMPT_TEMPLATES or a sentence with {}; the processor's if not given."}
    )
    image_stream: bool = field(default=True, metadata={"help": "SIMO: train projections of CLIP's image stream."})
    image_projections: list[str] = field(
        default_factory=lambda: ["q_proj"],
        metadata={
            "help": f"SIMO: the projections of the image stream that are trained, of {', '.join(IMAGE_LEAVES)}."
        },
    )
    image_layers: list[int] | None = field(
        default=None, metadata={"help": "SIMO: the layers in which --image_projections are trained; all if not given."}
    )
    mask_queries: bool = field(default=True, metadata={"help": "SIMO: train the mask tokens' query projections."})
    mask_position: bool = field(default=True, metadata={"help": "SIMO: train the mask tokens' position."})
    semantic_guidance: bool = field(default=True, metadata={"help": "SIMO: train SEVE."})
    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Train changes of this rank (LoRA) in the same places: an adapter of a few megabytes."},
    )

    def __post_init__(self):
        if (self.model is None) == (self.clip is None):
            raise ValueError("Name the model: --model FOLDER, or --clip CLIP and --mask_generator GENERATOR.")

    def simo_config(self) -> SimoConfig:
        return SimoConfig(
            image_projections=tuple(self.image_projections) if self.image_stream else (),
            image_layers=None if self.image_layers is None else tuple(self.image_layers),
            mask_queries=self.mask_queries,
            mask_position=self.mask_position,
            semantic_guidance=self.semantic_guidance,
        )


@dataclass
class DataArguments:
    """Which data, and how the model is trained on it."""

    train_format: str | None = field(
        default=None, metadata={"help": "Format of the training data.", "choices": [*DATASET_FORMATS]}
    )
    train_data: str | None = field(
        default=None, metadata={"help": "Folder of the training data, or their name on the Hub."}
    )
    train_split: str = field(default="train", metadata={"help": "Split of the training data."})
    eval_format: str | None = field(
        default=None,
        metadata={
            "help": "Format of the evaluation data; --train_format if not given.",
            "choices": [*DATASET_FORMATS],
        },
    )
    eval_data: str | None = field(
        default=None,
        metadata={"help": "Folder of the evaluation data, or their name on the Hub; --train_data if not given."},
    )
    eval_split: str | None = field(
        default=None,
        metadata={
            "help": "Split of the evaluation data; validation if not given. It is never that of the training photos "
            "unless it is named here."
        },
    )
    classes: str | None = field(
        default=None,
        metadata={"help": "A .txt or .json file with the training data's classes, where they do not bring them."},
    )
    eval_classes: str | None = field(
        default=None,
        metadata={"help": "A .txt or .json file with the evaluation data's classes; that of --classes if not given."},
    )
    eval_holdout: float | None = field(
        default=None,
        metadata={
            "help": "Evaluate on this share of --train_data, above 0 and below 1, and train on the rest: the same "
            "photos in every run with the same data."
        },
    )
    streaming: bool = field(default=False, metadata={"help": "Read a Hub data set as a stream."})
    skip_broken: bool = field(
        default=False, metadata={"help": "Leave out records that cannot be used, and say how many."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many photos, the first."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on this many photos, the first."})
    mask_source: str | None = field(
        default=None,
        metadata={
            "help": "What is classified in training: the ground truth's masks, the generator's proposals, or those of "
            "the cache. If not given: the cache where --proposal_cache names one, else the ground truth.",
            "choices": [*SOURCES],
        },
    )
    proposal_cache: str | None = field(
        default=None, metadata={"help": "Folder of the proposal cache, made on first use."}
    )
    vocabulary_size: int = field(
        default=64, metadata={"help": "How many classes a training photo's masks choose from."}
    )
    logit_adjustment: float = field(
        default=0.0,
        metadata={
            "help": "How far frequent classes are kept from being preferred, 0 (not at all) to 1: for data in which a "
            "few classes have most of the masks."
        },
    )
    flip: bool = field(default=True, metadata={"help": "Mirror every other training photo."})
    crop: float = field(default=1.0, metadata={"help": "Least share of a training photo that is kept."})
    color: float = field(default=0.4, metadata={"help": "Strength of changes of colour, 0 to 1."})
    oracle: str = field(
        default="none",
        metadata={"help": "Evaluate with a part replaced by the ground truth.", "choices": [*PREDICTORS]},
    )

    @property
    def evaluates_on_training_data(self) -> bool:
        """Whether training and evaluation read the same folder or data set, if perhaps not the same split of it."""
        places = [Path(source).resolve() for source in (self.train_data, self.eval_data) if source is not None]
        return len(places) == 2 and places[0] == places[1] and self.train_format == self.eval_format

    @property
    def eval_name(self) -> str:
        """What reports call the photos of the evaluation."""
        name = public_name(self.eval_data)
        if self.eval_holdout is not None:
            return f"{name} ({self.eval_holdout:.0%} held out of {self.train_split})"
        if self.asks_for_training_photos and self.evaluates_on_training_data:
            return f"{name} ({self.eval_split}, the training photos)"
        if is_undivided(self.eval_format, Path(self.eval_data), split=self.eval_split):
            return name
        return f"{name} ({self.eval_split})"

    def __post_init__(self):
        self.eval_format, self.eval_data = self.eval_format or self.train_format, self.eval_data or self.train_data
        self.eval_classes = self.eval_classes or self.classes
        self.asks_for_training_photos = self.eval_split == self.train_split
        self.eval_split = self.eval_split or "validation"
        if self.eval_holdout is not None and not 0 < self.eval_holdout < 1:
            raise ValueError(f"--eval_holdout was {self.eval_holdout}; it is a share, above 0 and below 1.")
        if self.eval_holdout is not None and (self.streaming or not self.evaluates_on_training_data):
            raise ValueError(
                "--eval_holdout evaluates on a share of --train_data, which must not be streamed: leave --streaming, "
                "--eval_data and --eval_classes out, or --eval_holdout."
            )
        self.mask_source = self.mask_source or ("ground_truth" if self.proposal_cache is None else "cache")
        if self.mask_source == "cache" and self.proposal_cache is None:
            raise ValueError("--mask_source cache needs --proposal_cache FOLDER.")
        if self.mask_source == "cache" and (self.crop != 1 or self.streaming):
            raise ValueError(
                "The proposal cache holds whole photos of a data set that stays: leave --crop at 1 and --streaming "
                "off, or choose another --mask_source."
            )
        if self.logit_adjustment and self.streaming:
            raise ValueError(
                "--logit_adjustment counts the segments before training begins; a stream cannot be counted."
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, evaluate and predict as the command line says; returns the exit status."""
    train_and_evaluate(sys.argv[1:] if arguments is None else arguments)
    PartialState().destroy_process_group()  # whose threads, where they outlive the interpreter, abort the process
    return 0


def train_and_evaluate(arguments: Sequence[str], *, trainer_class: type[FisaTrainer] = FisaTrainer) -> dict[str, Any]:
    """Train, evaluate and predict as the arguments say.

    Args:
        arguments: of a command line.
        trainer_class: what trains and evaluates, for other ways to train the same model on the same data.

    Returns:
        The evaluation's report, empty if there was none.

    Raises:
        SystemExit: with status 2, where model, data or options cannot be used.

    ```python
    >>> report = train_and_evaluate(["recipes/patchrun.yaml", "--max_steps", "10"])
    >>> report["semantic"]["miou"]
    ```
    """
    parser = HfArgumentParser(
        (ModelArguments, DataArguments, FisaTrainingArguments),
        usage="%(prog)s [RECIPE] [--flag value ...]",
        description="Fine-tune and evaluate. RECIPE is a YAML or JSON file with flags, or the name of a recipe that "
        f"comes with the package: {', '.join(shipped_recipes())}. Flags behind it overrule it.",
    )
    try:
        model_options, data_options, training_options = parser.parse_args_into_dataclasses(
            with_recipe(list(arguments))
        )
        output_folder(training_options.output_dir)
        if model_options.model is not None:
            model_name(model_options.model)
        run = Run(model_options, data_options, training_options, trainer_class=trainer_class)
    except (OSError, ValueError, SafetensorError, ArgumentTypeError) as error:
        parser.error(" ".join(str(error).split()))
    _warn_if_alone()
    if training_options.do_train:
        run.train()
    if training_options.do_eval or training_options.do_predict:
        run.evaluate()
    run.finish()
    return run.trainer.report or {}


def with_recipe(arguments: list[str]) -> list[str]:
    """The flags of a recipe that comes first, before the flags that follow it and overrule it.

    Args:
        arguments: a recipe (a YAML or JSON file, or the name of one that ships) and flags, or flags alone.

    Raises:
        ValueError or OSError: a recipe that cannot be read.

    ```python
    >>> with_recipe(["evaluate/voc_20", "--max_eval_samples", "10"])[:2]
    ['--model', 'runs/coco_panoptic/merged']
    ```
    """
    if not arguments or arguments[0].startswith("-"):
        return arguments
    recipe = _read_recipe(arguments[0])
    flags: list[str] = []
    for name, value in recipe.items():
        values = value if isinstance(value, list) else [value]
        if value is not None:
            flags += [f"--{name}", *(v if isinstance(v, str) else json.dumps(v) for v in values)]
    return flags + arguments[1:]


def shipped_recipes() -> list[str]:
    """The names of the recipes that come with the package."""
    return sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))


def _read_recipe(name: str) -> dict[str, Any]:
    path = Path(name) if name.endswith(RECIPE_ENDINGS) else RECIPES / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"No recipe {name!r}: name a YAML or JSON file, or one of {', '.join(shipped_recipes())}.")
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML or JSON file: {' '.join(str(error).split())}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} holds no flags: a recipe is a mapping from the flags' names to their values.")
    return recipe


def _warn_if_alone() -> None:
    """accelerate's launcher leaves several processes on a CPU to MPI, and without it starts one and says nothing."""
    launched_for_cpu = os.environ.get("ACCELERATE_USE_CPU") == "True" and "MASTER_ADDR" in os.environ
    if launched_for_cpu and PartialState().num_processes == 1:
        logger.warning(
            "Running in one process. For several on a CPU: "
            "accelerate launch --multi_gpu --num_processes 2 train.py ... --use_cpu"
        )


class Run:
    """One run of this program: what was loaded, and the Trainer.

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
        if not (training_options.do_train or training_options.do_eval or training_options.do_predict):
            raise ValueError("Nothing to do: add --do_train, --do_eval or --do_predict.")
        if training_options.push_to_hub and (model_options.model is None or Path(model_options.model).exists()):
            raise ValueError(
                "An adapter on the Hub needs its base there: push the base first (fisa.hub.export, or push_to_hub of "
                "model and processor), then train with --model OWNER/NAME."
            )
        self.folder = Path(training_options.output_dir)
        set_seed(training_options.seed)
        self.train_data, self.eval_data = self._data()
        self.processor = self._processor()
        model = self._model()
        self.model = self._with_adapter(model)
        self.trainer = self._trainer(trainer_class)

    def train(self) -> None:
        resume = self.options.resume_from_checkpoint
        self.model.print_trainable_parameters()
        self.trainer.train(resume_from_checkpoint=True if resume in ("true", "True") else resume)
        self.trainer.save_model()
        self.trainer.save_state()

    def evaluate(self) -> None:
        self.trainer.evaluate()
        if self.trainer.is_world_process_zero():
            self.folder.mkdir(parents=True, exist_ok=True)
            report = json.dumps(self.trainer.report, indent=1, ensure_ascii=False)
            (self.folder / "metrics.json").write_text(report + "\n", encoding="utf-8")
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

    def _data(self) -> list[SegmentationDataset | StreamedSegmentationDataset | None]:
        """The photos to train on and those to evaluate, as far as this run needs them."""
        options = self.data_options
        trains = self.options.do_train
        evaluates = self.options.do_eval or self.options.do_predict or self.options.eval_strategy != "no"
        if options.eval_holdout is not None:
            train_data, eval_data = hold_out(self._opened("train"), options.eval_holdout)
        else:
            train_data = self._opened("train") if trains else None
            eval_data = self._opened("eval") if evaluates else None
            if evaluates:
                self._refuse_training_photos()
        return [
            self._checked(train_data, options.max_train_samples, teaches=True) if trains else None,
            self._checked(eval_data, options.max_eval_samples, teaches=False) if evaluates else None,
        ]

    def _refuse_training_photos(self) -> None:
        """Nothing that is called a validation is of the photos that a model learns from."""
        options = self.data_options
        if not options.evaluates_on_training_data or options.asks_for_training_photos:
            return
        is_whole = is_undivided(options.eval_format, Path(options.eval_data), split=options.eval_split)
        if is_whole or options.eval_split == options.train_split:
            raise ValueError(
                f"The validation photos would be the training photos, {options.eval_data} ({options.train_split}): "
                "name others with --eval_data or --eval_split, hold out a share with --eval_holdout 0.1, or ask for "
                f"the training photos with --eval_split {options.train_split}."
            )

    def _checked(
        self, data: SegmentationDataset | StreamedSegmentationDataset, limit: int | None, *, teaches: bool
    ) -> SegmentationDataset | StreamedSegmentationDataset:
        """The first photos, of which none is broken."""
        chosen = data if limit is None else data.take(limit)
        return chosen.check(skip_broken=self.data_options.skip_broken, teaches=teaches)

    def _opened(self, part: str) -> SegmentationDataset | StreamedSegmentationDataset:
        """The whole split of `"train"` or `"eval"`."""
        options = self.data_options
        format, source, split = (getattr(options, f"{part}_{name}") for name in ("format", "data", "split"))
        if format is None or source is None:
            raise ValueError(
                f"Name the data: --{part}_format (one of {', '.join(DATASET_FORMATS)}) and --{part}_data."
            )
        classes = options.classes if part == "train" else options.eval_classes
        return load_segmentation_dataset(format, source, split=split, classes=classes, streaming=options.streaming)

    def _processor(self) -> FisaProcessor:
        options = self.model_options
        templates = {} if options.prompt_templates is None else {"prompt_templates": options.prompt_templates}
        if options.model is not None:
            return FisaProcessor.from_pretrained(options.model, **templates)
        return FisaProcessor.from_clip_and_mask_generator(options.clip, options.mask_generator, **templates)

    def _model(self) -> FisaForUniversalSegmentation:
        """The base model. One put together of parts is saved beside the adapter, which would otherwise have no base to
        be loaded on."""
        options = self.model_options
        config = json.loads(options.fisa_config)
        if options.model is not None:
            model = FisaForUniversalSegmentation.from_pretrained(options.model, **config)
        else:
            model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
                options.clip, options.mask_generator, **config
            )
        model = model.to(self.options.device)
        if Path(model.name_or_path).is_dir():
            # An adapter finds its base by this name, from whichever folder it is loaded.
            model.name_or_path = str(Path(model.name_or_path).resolve())
        if self.train_data is not None:
            model.set_vocabulary(self.processor, vocabulary_of(self.train_data.categories))
            if options.model is None:
                base = self.folder / "base"
                if self.options.process_index == 0:
                    model.save_pretrained(base)
                    self.processor.save_pretrained(base)
                model.name_or_path = str(base.resolve())
        return model

    def _with_adapter(self, model: FisaForUniversalSegmentation) -> FisaForUniversalSegmentation | PeftModel:
        if self.model_options.adapter is not None:
            adapted = PeftModel.from_pretrained(model, self.model_options.adapter, is_trainable=self.options.do_train)
            if self.train_data is not None:  # the adapter came with the vocabulary of its own data
                model.set_vocabulary(self.processor, vocabulary_of(self.train_data.categories))
            return adapted
        if not self.options.do_train:
            return model
        simo_config, rank = self.model_options.simo_config(), self.model_options.lora_rank
        if rank is None:
            return get_simo_model(model, simo_config)
        places = simo_target_modules(model.config, simo_config, norms=False)
        return get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=places))

    def _trainer(self, trainer_class: type[FisaTrainer]) -> FisaTrainer:
        evaluator, examples, collator = None, None, None
        if self.eval_data is not None:
            evaluator = Evaluator(
                self.eval_data,
                self.processor,
                name=self.data_options.eval_name,
                oracle=self.data_options.oracle,
                # The photos may be private: what is pushed holds none.
                samples=None if self.options.push_to_hub else self.folder / "samples",
                predictions=self.folder / "predictions.json" if self.options.do_predict else None,
            )
        if self.train_data is not None:
            examples, collator = self._examples()
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


if __name__ == "__main__":
    sys.exit(main())
