"""What a run of `fisa-train` is told about model and data: the flags, their defaults, and what goes with what."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from huggingface_hub.errors import StrictDataclassError

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.configuration.configuration_simo import SimoConfig
from fisa.data.formats import DATASET_FORMATS
from fisa.data.splits import is_undivided
from fisa.data.training_masks import SOURCES
from fisa.evaluation.predictors import PREDICTORS
from fisa.modeling_fisa.simo import IMAGE_LEAVES
from fisa.pretrained.presets import PRESETS, preset_of
from fisa.processing.json_values import read_json_text
from fisa.training.model_card import public_name


EVALUATION = ("eval_format", "eval_data", "eval_split", "eval_classes", "max_eval_samples", "oracle")
"""The flags of [`DataArguments`] that do nothing in a run that evaluates nothing."""


PARTS = ("image_stream", "image_projections", "image_layers", "mask_queries", "mask_position", "semantic_guidance")


@dataclass
class ModelArguments:
    """Which model, and which part of it is trained."""

    _argument_group_name: ClassVar[str] = "model"

    model: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub name of a FISA model, or public parts put together: "
            f"{' or '.join(PRESETS)}; without it, --clip and --mask_generator make one."
        },
    )
    clip: str | None = field(
        default=None, metadata={"help": "Folder or Hub name of the CLIP to make a model of, instead of --model."}
    )
    mask_generator: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub name of the universal segmentation model that makes the masks, beside --clip."
        },
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
    zoom: int | None = field(
        default=None,
        metadata={
            "help": "Evaluate with this many proposals of each photo read a second time, in windows of the photo; the "
            "model's setting if not given. It is saved with the merged model."
        },
    )
    image_stream: bool = field(default=True, metadata={"help": "SIMO: train projections of CLIP's image stream."})
    image_projections: list[str] = field(
        default_factory=lambda: ["q_proj"],
        metadata={
            "help": f"SIMO: the projections of the image stream that are trained, of {', '.join(IMAGE_LEAVES)}."
        },
    )
    image_layers: list[int] | None = field(
        default=None,
        metadata={"help": "SIMO: the layers of the image stream that are trained, from 0; all if not given."},
    )
    mask_queries: bool = field(default=True, metadata={"help": "SIMO: train the mask tokens' query projections."})
    mask_position: bool = field(default=True, metadata={"help": "SIMO: train the mask tokens' position."})
    semantic_guidance: bool = field(default=True, metadata={"help": "SIMO: train SEVE."})
    lora_rank: int | None = field(
        default=None,
        metadata={"help": "Train changes of this rank (LoRA), not whole matrices: an adapter of a few megabytes."},
    )

    def __post_init__(self):
        if self.model is not None and self.clip is not None:
            raise ValueError(
                f"--model {self.model} and --clip {self.clip} both name the model: leave one of them out."
            )
        if self.model is None and self.clip is None:
            raise ValueError("Name the model: --model FOLDER, or --clip CLIP and --mask_generator GENERATOR.")
        if self.model is not None and self.mask_generator is not None:
            raise ValueError(
                f"--mask_generator {self.mask_generator} goes with --clip, and --model {self.model} has its own: "
                "leave one of the two out."
            )
        if self.image_layers is not None and not self.image_stream:
            raise ValueError("--image_layers are those of the image stream, which --image_stream false leaves alone.")
        self.config_fields = _config_fields(self.fisa_config)
        if preset := preset_of(self.model):
            self.clip, self.mask_generator = preset
        if self.zoom is not None and self.zoom < 0:
            raise ValueError(f"--zoom was {self.zoom}; it is a number of proposals, 0 for none.")

    @property
    def given_for_a_new_adapter(self) -> list[str]:
        """The flags that say what a new adapter trains, where they are not at their defaults."""
        defaults = ModelArguments(model="any")
        names = (*PARTS, "lora_rank")
        return [f"--{name}" for name in names if getattr(self, name) != getattr(defaults, name)]

    def simo_config(self) -> SimoConfig:
        return SimoConfig(
            image_projections=tuple(self.image_projections) if self.image_stream else (),
            image_layers=None if self.image_layers is None else tuple(self.image_layers),
            mask_queries=self.mask_queries,
            mask_position=self.mask_position,
            semantic_guidance=self.semantic_guidance,
        )


def _config_fields(text: str) -> dict[str, Any]:
    """The fields of [`FisaConfig`] that `--fisa_config` sets.

    Raises:
        ValueError: it is not a mapping of such fields to values that they take.
    """
    try:
        given = read_json_text(text)
        if not isinstance(given, dict):
            raise ValueError("it is not a mapping")
        if unknown := sorted(given.keys() - FisaConfig().to_dict().keys()):
            raise ValueError(f"FisaConfig has no field {', '.join(unknown)}")
        FisaConfig(**given)
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"--fisa_config {text}: {reason}. Give fields of FisaConfig as JSON.") from error
    return given


@dataclass
class DataArguments:
    """Which data, and how the model is trained on it."""

    _argument_group_name: ClassVar[str] = "data"

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
            "help": "The masks that training classifies: those of the ground truth, the generator's proposals, or "
            "proposals read from --proposal_cache. Default: cache if --proposal_cache is given, else ground_truth.",
            "choices": [*SOURCES],
        },
    )
    proposal_cache: str | None = field(
        default=None, metadata={"help": "Folder of the proposal cache, made on first use."}
    )
    vocabulary_size: int = field(
        default=64, metadata={"help": "Number of classes that each training photo's masks choose from."}
    )
    logit_adjustment: float = field(
        default=0.0,
        metadata={
            "help": "Strength, 0 to 1, of a correction that keeps frequent classes from being preferred: for data in "
            "which a few classes have most of the masks."
        },
    )
    flip: bool = field(default=True, metadata={"help": "Mirror every other training photo."})
    crop: float = field(default=1.0, metadata={"help": "Smallest share of a training photo that a random crop keeps."})
    color: float = field(default=0.4, metadata={"help": "Strength of random changes of colour, 0 to 1."})
    oracle: str = field(
        default="none",
        metadata={"help": "Evaluate with a part replaced by the ground truth.", "choices": [*PREDICTORS]},
    )

    @property
    def evaluates_on_training_data(self) -> bool:
        """Whether training and evaluation read the same folder or data set, if perhaps not the same split of it."""
        places = [Path(source).resolve() for source in (self.train_data, self.eval_data) if source is not None]
        return len(places) == 2 and places[0] == places[1]

    @property
    def eval_name(self) -> str:
        """What reports call the photos of the evaluation."""
        name = public_name(self.eval_data)
        if self.eval_holdout is not None:
            return f"{name} ({100 * self.eval_holdout:g}% held out of {self.train_split})"
        if self.asks_for_training_photos and self.evaluates_on_training_data:
            return f"{name} ({self.eval_split}, the training photos)"
        if is_undivided(self.eval_format, Path(self.eval_data), split=self.eval_split):
            return name
        return f"{name} ({self.eval_split})"

    def __post_init__(self):
        self.given_for_evaluation = [f"--{name}" for name in EVALUATION if getattr(self, name) not in (None, "none")]
        self.asks_for_training_photos = self.eval_split == self.train_split
        self._fill_in()
        self._refuse_impossible_numbers()
        self._refuse_contradictions()

    def _fill_in(self) -> None:
        """Give flags that were not given the values that follow from others."""
        self.eval_format, self.eval_data = self.eval_format or self.train_format, self.eval_data or self.train_data
        self.eval_classes = self.eval_classes or self.classes
        self.eval_split = self.eval_split or "validation"
        self.mask_source = self.mask_source or ("ground_truth" if self.proposal_cache is None else "cache")

    def _refuse_impossible_numbers(self) -> None:
        if self.eval_holdout is not None and not 0 < self.eval_holdout < 1:
            raise ValueError(f"--eval_holdout was {self.eval_holdout}; it is a share, above 0 and below 1.")
        if self.vocabulary_size < 1:
            raise ValueError(f"--vocabulary_size was {self.vocabulary_size}; it is a number of classes, 1 or more.")
        if not 0 <= self.logit_adjustment < math.inf:
            raise ValueError(f"--logit_adjustment was {self.logit_adjustment}; it is a strength, 0 to 1.")
        for name in ("max_train_samples", "max_eval_samples"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise ValueError(f"--{name} was {count}; it is a number of photos, 1 or more.")

    def _refuse_contradictions(self) -> None:
        if self.eval_holdout is not None and (
            self.streaming or not self.evaluates_on_training_data or self.eval_format != self.train_format
        ):
            raise ValueError(
                "--eval_holdout evaluates on a share of --train_data, which must not be streamed: leave --streaming, "
                "--eval_data, --eval_format and --eval_classes out, or --eval_holdout."
            )
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
