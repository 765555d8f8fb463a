"""FisaConfig: the settings of a FISA model, and the vocabulary that is stored with it."""

import math
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import fields
from typing import Any, Literal

from huggingface_hub.dataclasses import strict, validated_field
from transformers import AutoConfig, CLIPTextConfig, CLIPVisionConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from fisa.configuration.kind_marks import split_kind
from fisa.configuration.label_names import LabelNames
from fisa.configuration.setting_names import refuse_misspelt


_VOCABULARY_FIELDS = ("id2label", "label2id", "num_labels", "synonyms", "is_thing", "kind_is_known", "others")
_SEVE_FIELDS = ("seve_layers", "seve_num_heads", "seve_width")
# Whether a vocabulary is being stored, whose fields a complete config otherwise refuses to have assigned one by one.
_IS_STORED: ContextVar[bool] = ContextVar("is stored", default=False)


def _fraction(name: str, *, default: float) -> Any:
    def check(value: float) -> None:
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` was {value}; it must lie in [0, 1].")

    return validated_field(check, default=default)


def _not_negative(name: str, *, default: float) -> Any:
    def check(value: float) -> None:
        if not 0 <= value < math.inf:
            raise ValueError(f"`{name}` was {value}; it must be finite and not negative.")

    return validated_field(check, default=default)


def _positive(name: str, *, default: float) -> Any:
    def check(value: float) -> None:
        if not 0 < value < math.inf:
            raise ValueError(
                f"`{name}` was {value}; it must be finite and greater than zero, and at least one for a whole number."
            )

    return validated_field(check, default=default)


@strict
class FisaConfig(PreTrainedConfig):
    r"""Configuration of [`FisaModel`] and [`FisaForUniversalSegmentation`] (FISA, arXiv 2409.16278).

    A composite of CLIP's two towers, which classify masks, and any universal segmentation model of transformers, which
    generates them. Where the paper leaves a choice open, the argument below states the choice and its reason.

    Args:
        text_config (`CLIPTextConfig` or `dict`, *optional*):
            CLIP's text tower.
        vision_config (`CLIPVisionConfig` or `dict`, *optional*):
            CLIP's image tower.
        mask_generator_config (`PreTrainedConfig` or `dict`, *optional*):
            Any model of `AutoModelForUniversalSegmentation` (Mask2Former, MaskFormer, EoMT). `None`: the model has no
            generator and takes ready-made proposals.
        projection_dim (`int`, defaults to 512):
            Width of CLIP's shared embedding space.
        logit_scale_init_value (`float`, defaults to 2.6592):
            Logarithm of CLIP's inverse temperature in a model without pretrained weights.
        mask_coverage_threshold (`float`, defaults to 0.0):
            τ: a mask token attends to the patches of which its proposal covers at least this fraction, in [0, 1].
            With 0 any covered pixel suffices, as in MaskCLIP and MasQCLIP, which suits fine patches. Coarse patches
            (a dozen or fewer per side) need about 0.5.
        segment_attention_penalty (`float`, defaults to 0.0):
            Subtracted from the attention scores between image patches of different proposals, before the softmax, in
            every layer; finite, 0 or more. A patch belongs to the proposal that is likeliest there; see
            [`~fisa.modeling_fisa.mask_attention.segments_of_patches`]. With 0 the image tokens attend as in CLIP,
            which is the default because the gain is measured in Patchwork alone, where 1 is best. Training reads
            likewise: by all of the generator's proposals, in the loop or in a proposal cache, or by the ground truth.
        seve_layers (`list[int]`, defaults to `[0]`):
            The CLIP layers in which the class texts guide the visual tokens (SEVE), counted from 0. The default is an
            early layer, as in the paper; an empty list switches SEVE off.
        seve_tokens (`"mask_keys"`, `"both"`, `"image"` or `"mask"`, defaults to `"mask_keys"`):
            How the class texts guide. `"mask_keys"`: they are additional keys and values of the mask tokens'
            attention, through CLIP's projections. `"image"`, `"mask"` and `"both"` read the paper differently: these
            visual tokens attend to the class texts before the layer. The default gave better results where both were
            measured (docs/study.md).
        seve_num_heads (`int`, defaults to 8):
            Attention heads of SEVE. Not used by `"mask_keys"`, which has CLIP's heads.
        seve_width (`int`, defaults to 256):
            Width of SEVE's queries, keys and values over all heads. Narrow, so that an adapter has only a few
            megabytes. Not used by `"mask_keys"`, which has CLIP's width.
        seve_max_texts (`int`, defaults to 4096):
            The largest number of class texts, synonyms included, that the visual tokens attend to. From a larger
            vocabulary SEVE takes an even sample; see [`~fisa.modeling_fisa.semantic_guidance.guiding_texts`]. This
            bounds SEVE's time and memory; every class is still scored.
        objectness_floor (`float`, defaults to 0.0):
            The generator's proposals below this objectness, in [0, 1], are neither classified nor returned, which
            saves the time for proposals that post-processing would drop.
        classifier_dtype (`"bfloat16"` or `"float16"`, *optional*):
            The dtype in which CLIP's image tower computes (autocast), independent of the dtype of its weights. Scores
            are computed in float32. The mask generator, which half precision affects more, keeps its own dtype.
        ensemble_weight (`float`, defaults to 0.0):
            Weight of the generator's own classifier in a geometric ensemble with CLIP, in [0, 1], for the classes
            that it knows by name (FC-CLIP's in-vocabulary rule). 0 leaves the generator's classes unread.
        kind_weight (`float`, defaults to 1.0):
            Exponent, 0 or more, of the generator's opinion whether a mask is a thing or stuff, which multiplies the
            probability of each class by its kind; see [`~fisa.modeling_fisa.class_kinds.weigh_by_kind`]. 0 leaves the
            opinion unread, and so does a generator that does not tell things from stuff.
        generator_is_thing (`list[bool]`, *optional*):
            True for a thing, False for stuff, for each label of the generator. `None`: by the labels' names, where
            they are "thing" and "stuff" or those of COCO's panoptic classes, ADE20K's 150 or Cityscapes' 19.
        proposal_matcher (`"iou"` or `"hungarian"`, defaults to `"iou"`):
            How proposals are matched to ground truth in training: each to the segment with the highest IoU, or one
            to one with the lowest total mask cost; see [`~fisa.modeling_fisa.proposal_matching`].
        proposal_matcher_iou (`float`, defaults to 0.5):
            The lowest IoU that `"iou"` matches, in [0, 1].
        initializer_range (`float`, defaults to 0.02):
            Standard deviation of the initial weights of SEVE's linear layers.
        id2label (`dict[int, str]`, *optional*):
            Names of the stored vocabulary's classes.
        synonyms (`list[list[str]]`, *optional*):
            The synonyms of each class, class by class. `None`: no vocabulary is stored with the model.
        is_thing (`list[bool]`, *optional*):
            True for a thing (countable), False for stuff, class by class.
        kind_is_known (`list[bool]`, *optional*):
            Whether `is_thing` is known or assumed, class by class. `None`: known for stuff, assumed for things.
        others (`list[dict]`, *optional*):
            The words that compete with the stored vocabulary and are not returned, in the form of
            [`FisaConfig.vocabulary`]. One with `speaks_for`, a class index, is a further prompt of that class instead.
            `None`: the stored classes are all there is.
        default_others (`"everyday"`, `"known"`, `list[str]` or `list[dict]`, defaults to `"everyday"`):
            What `others="auto"` stands for. `"known"`: the stored vocabulary, the others stored with it, and the mask
            generator's labels. `"everyday"`: these and a list of everyday things and stuff. Or a list of words, as
            [`~fisa.processing.vocabulary.Vocabulary.parse`] takes them, which stays the same whatever vocabulary is
            stored; an empty one for none.

    Example:

    ```python
    >>> from fisa import FisaConfig, FisaForUniversalSegmentation

    >>> config = FisaConfig(seve_layers=[0, 1], mask_generator_config={"model_type": "mask2former"})
    >>> model = FisaForUniversalSegmentation(config)
    ```
    """

    model_type = "fisa"
    sub_configs_defaults = {
        "text_config": SubConfigSpec(config_class=CLIPTextConfig),
        "vision_config": SubConfigSpec(config_class=CLIPVisionConfig),
        "mask_generator_config": SubConfigSpec(config_class=AutoConfig, model_type="mask2former", optional=True),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    mask_generator_config: dict | PreTrainedConfig | None = None
    projection_dim: int = _positive("projection_dim", default=512)
    logit_scale_init_value: float | int = 2.6592
    mask_coverage_threshold: float | int = _fraction("mask_coverage_threshold", default=0.0)
    segment_attention_penalty: float | int = _not_negative("segment_attention_penalty", default=0.0)
    seve_layers: list[int] | tuple[int, ...] = (0,)
    seve_tokens: Literal["mask_keys", "both", "image", "mask"] = "mask_keys"
    seve_num_heads: int = _positive("seve_num_heads", default=8)
    seve_width: int = _positive("seve_width", default=256)
    seve_max_texts: int = _positive("seve_max_texts", default=4096)
    objectness_floor: float | int = _fraction("objectness_floor", default=0.0)
    classifier_dtype: Literal["bfloat16", "float16"] | None = None
    ensemble_weight: float | int = _fraction("ensemble_weight", default=0.0)
    kind_weight: float | int = _not_negative("kind_weight", default=1.0)
    generator_is_thing: list[bool] | None = None
    proposal_matcher: Literal["iou", "hungarian"] = "iou"
    proposal_matcher_iou: float | int = _fraction("proposal_matcher_iou", default=0.5)
    initializer_range: float = _positive("initializer_range", default=0.02)
    synonyms: list[list[str]] | None = None
    is_thing: list[bool] | None = None
    kind_is_known: list[bool] | None = None
    others: list[dict[str, Any]] | None = None
    default_others: Literal["everyday", "known"] | list[str] | list[dict[str, Any]] = "everyday"

    def __setattr__(self, name: str, value: Any) -> None:
        """Assign a setting, with the checks of the constructor.

        Raises:
            TypeError: the name is a misspelt setting.
            ValueError: the setting is a part of the vocabulary, whose encoded texts would not change with it, or
                SEVE's settings no longer fit each other or CLIP.
        """
        is_complete = "default_others" in self.__dict__  # the last field
        if is_complete and name in _VOCABULARY_FIELDS and not _IS_STORED.get():
            self._refuse_another_vocabulary(name, value)
        if is_complete and not name.startswith("_"):
            _refuse_misspelt([name])
        if name == "id2label" and isinstance(value, dict):
            value = LabelNames(value)
        previous = self.__dict__.get(name)
        super().__setattr__(name, value)
        if is_complete and name in _SEVE_FIELDS and isinstance(self.__dict__.get("vision_config"), PreTrainedConfig):
            try:
                self.validate_semantic_guidance()
            except ValueError:
                super().__setattr__(name, previous)
                raise

    def _refuse_another_vocabulary(self, name: str, value: Any) -> None:
        if self.synonyms is None and name not in ("synonyms", "is_thing", "kind_is_known", "others"):
            return  # labels alone do not make a vocabulary
        stored = {
            "id2label": self._labels,
            "label2id": {label: index for index, label in self._labels.items()},
            "num_labels": len(self._labels),
            "synonyms": self.synonyms,
            "is_thing": self.is_thing,
            "kind_is_known": self.kind_is_known,
            "others": self.others,
        }
        if stored[name] != (_numbered(value) if name == "id2label" else value):
            raise ValueError(
                f"`{name}` is a part of the vocabulary, whose texts must be encoded: "
                "`model.set_vocabulary(processor, [...])` stores another one."
            )

    def __post_init__(self, **kwargs: Any) -> None:
        _refuse_misspelt(kwargs)
        # The base class would otherwise invent two labels, LABEL_0 and LABEL_1.
        if self.id2label is None and kwargs.get("num_labels") is None:
            self.id2label = {}
        elif self.id2label is not None:
            self.id2label = _numbered(self.id2label)
        self.__dict__["seve_layers"] = list(self.seve_layers)  # the checks run when all fields are set
        super().__post_init__(**kwargs)
        self.label2id = {label: index for index, label in self._labels.items()}

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; `from_pretrained` passes its keyword arguments on to this method.

        Labels that differ from the stored vocabulary replace it by classes without synonyms, things unless they end in
        `[stuff]`; a model that is loaded with this config encodes them.

        Raises:
            `TypeError`: a setting is misspelt.
            `ValueError`: a value cannot be read, the labels are not numbered from 0 or end in another mark, or
                `num_labels` changes without names for the classes.
        """
        _refuse_misspelt(kwargs)
        stored, named = _numbered(config_dict.get("id2label")), _numbered(kwargs.pop("id2label", None))
        named |= {int(index): label for label, index in (kwargs.pop("label2id", None) or {}).items()}
        num_labels = kwargs.pop("num_labels", None)
        if num_labels is not None and num_labels != len(named or stored):
            raise ValueError(
                f"`num_labels` is {num_labels}; name the classes with `id2label`: their names are encoded."
            )
        if named and named != stored:
            if sorted(named) != list(range(len(named))):
                raise ValueError(
                    f"`id2label` and `label2id` number {len(named)} classes {', '.join(map(str, sorted(named)[:5]))}, "
                    f"…; they must count from 0 to {len(named) - 1}."
                )
            config_dict = config_dict | _vocabulary_of_labels(named, stored=config_dict)
            config_dict.pop("label2id", None)
        try:
            return super().from_dict(config_dict, **kwargs)
        except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
            # transformers' configurations of the parts do not check all values that they read.
            raise ValueError(f"The configuration holds a value that cannot be read: {error}") from error

    @property
    def _labels(self) -> dict[int, str]:
        return _numbered(self.id2label)

    @property
    def text_tower(self) -> CLIPTextConfig:
        """CLIP's text tower: `text_config`, with its type checked."""
        if not isinstance(self.text_config, CLIPTextConfig):
            raise TypeError(f"`text_config` was a {type(self.text_config).__name__}; it must be a CLIPTextConfig.")
        return self.text_config

    @property
    def image_tower(self) -> CLIPVisionConfig:
        """CLIP's image tower: `vision_config`, with its type checked."""
        if not isinstance(self.vision_config, CLIPVisionConfig):
            raise TypeError(
                f"`vision_config` was a {type(self.vision_config).__name__}; it must be a CLIPVisionConfig."
            )
        return self.vision_config

    @property
    def num_prompts(self) -> int:
        """The number of names in the stored vocabulary, synonyms included; 0 if no vocabulary is stored."""
        return len(self.prompt_class_ids)

    @property
    def class_names(self) -> list[list[str]]:
        """The names of each class of the stored vocabulary, class by class: first the name, then its synonyms."""
        labels = self._labels  # read once: attribute access on a config is slow
        return [[labels[index], *names] for index, names in enumerate(self.synonyms or [])]

    @property
    def prompt_class_ids(self) -> list[int]:
        """The class index of each name of the stored vocabulary, in the order of `class_names`."""
        return [index for index, names in enumerate(self.synonyms or []) for _ in range(1 + len(names))]

    @property
    def vocabulary(self) -> list[dict[str, Any]]:
        """The stored vocabulary, a list of `{"name": str, "synonyms": list[str], "is_thing": bool, "kind_is_known":
        bool}`."""
        return [
            {"name": name, "synonyms": synonyms, "is_thing": is_thing, "kind_is_known": kind != -1}
            for (name, *synonyms), is_thing, kind in zip(self.class_names, self.is_thing or (), self.kinds)
        ]

    @property
    def stored_vocabulary(self) -> tuple[Any, ...]:
        """The fields that hold the stored vocabulary and the words beside it, to be compared."""
        return self.id2label, self.synonyms, self.is_thing, self.kind_is_known, self.others

    @property
    def kinds(self) -> list[int]:
        """What is known of the kind of each class of the stored vocabulary: 1 a thing, 0 stuff, −1 unknown."""
        is_thing = self.is_thing or []
        known = [not thing for thing in is_thing] if self.kind_is_known is None else self.kind_is_known
        return [int(thing) if is_known else -1 for thing, is_known in zip(is_thing, known)]

    @property
    def num_other_prompts(self) -> int:
        """The number of names in `others`, synonyms included."""
        return sum(1 + len(entry["synonyms"]) for entry in self.others or [])

    @property
    def all_labels(self) -> dict[int, str]:
        """`id2label` and, from the number of classes on, the names of the others that compete with them."""
        names = (entry["name"] for entry in self.rivals)
        return self._labels | dict(enumerate(names, start=len(self._labels)))

    @property
    def rivals(self) -> list[dict[str, Any]]:
        """Those of `others` that compete, rather than speak for a class."""
        return [entry for entry in self.others or [] if "speaks_for" not in entry]

    def store_vocabulary(self, classes: list[dict[str, Any]], others: list[dict[str, Any]] | None = None) -> None:
        """Store a vocabulary and the others that compete with it, lists like [`FisaConfig.vocabulary`].

        An entry without `kind_is_known` is stuff for certain, or a thing by assumption.

        To also encode its texts for a model, call [`~FisaForUniversalSegmentation.set_vocabulary`], which calls this.

        Example:

        ```python
        >>> config.store_vocabulary([{"name": "car", "synonyms": ["automobile"], "is_thing": True}])
        >>> config.id2label
        {0: 'car'}
        ```
        """
        id2label = {index: entry["name"] for index, entry in enumerate(classes)}
        synonyms = [list(entry["synonyms"]) for entry in classes]
        is_thing = [bool(entry["is_thing"]) for entry in classes]
        kind_is_known = [bool(entry.get("kind_is_known", not entry["is_thing"])) for entry in classes]
        token = _IS_STORED.set(True)
        try:
            self.id2label = id2label
            self.label2id = {label: index for index, label in id2label.items()}
            self.synonyms, self.is_thing, self.kind_is_known = synonyms, is_thing, kind_is_known
            self.others = [dict(entry) for entry in others] if others else None
        finally:
            _IS_STORED.reset(token)

    def validate_semantic_guidance(self) -> None:
        num_layers = self.image_tower.num_hidden_layers
        wrong = [layer for layer in self.seve_layers if not 0 <= layer < num_layers]
        if wrong or len(set(self.seve_layers)) < len(self.seve_layers):
            raise ValueError(
                f"`seve_layers` was {self.seve_layers}; it must name different layers of CLIP's image tower, "
                f"0 to {num_layers - 1}, or be empty to switch SEVE off."
            )
        if self.seve_width % self.seve_num_heads:
            raise ValueError(
                f"`seve_width` was {self.seve_width} and `seve_num_heads` {self.seve_num_heads}; "
                "the width must be a positive multiple of the number of heads."
            )

    def validate_vocabulary(self) -> None:
        if (self.synonyms is None) != (self.is_thing is None):
            raise ValueError(
                f"`synonyms` was {self.synonyms} and `is_thing` {self.is_thing}; set both to store "
                "a vocabulary, or neither."
            )
        num_classes = len(self._labels)
        for name in ("synonyms", "is_thing", "kind_is_known"):
            value = getattr(self, name)
            if value is not None and len(value) != num_classes:
                raise ValueError(
                    f"`{name}` has {len(value)} entries and `id2label` {num_classes}; they must have one per class."
                )
        if self.others is not None and self.synonyms is None:
            raise ValueError(
                f"`others` was {self.others}, and no vocabulary is stored that they could compete with; set both."
            )
        for entry in self.others or []:
            names, speaks_for = [entry.get("name"), *_listed(entry.get("synonyms"))], entry.get("speaks_for", 0)
            if (
                not all(isinstance(name, str) for name in names)
                or not isinstance(entry.get("is_thing"), bool)
                or speaks_for not in range(num_classes)
            ):
                raise ValueError(
                    f"`others` holds {entry!r}; it must hold dictionaries of `name`, `synonyms` and `is_thing`, and "
                    f"of `speaks_for` for a prompt of one of the {num_classes} classes."
                )


def _listed(names: Any) -> list[Any]:
    return names if isinstance(names, list) else [names]


def _numbered(id2label: Any) -> dict[int, str]:
    entries: Any = id2label.items() if isinstance(id2label, dict) else () if id2label is None else [(None, None)]
    if not all(isinstance(label, str) and str(index).isdecimal() for index, label in entries):
        raise ValueError(f"`id2label` was {id2label!r}; it must name classes by their numbers from 0.")
    return {int(index): label for index, label in entries}


def _vocabulary_of_labels(named: dict[int, str], *, stored: dict[str, Any]) -> dict[str, Any]:
    """The fields of a vocabulary of labels, of which those that are only marked anew keep their synonyms."""
    names, kinds = zip(*(split_kind(label) for _, label in sorted(named.items())))
    synonyms: list[list[str]] = [[] for _ in names]
    is_thing, known = [True] * len(names), [False] * len(names)
    if stored.get("synonyms") is not None and list(names) == list(_numbered(stored.get("id2label")).values()):
        synonyms, is_thing = stored["synonyms"], stored["is_thing"]
        known = stored.get("kind_is_known") or [not thing for thing in is_thing]
    return {
        "id2label": dict(enumerate(names)),
        "synonyms": synonyms,
        "is_thing": [before if kind is None else kind for kind, before in zip(kinds, is_thing)],
        "kind_is_known": [before or kind is not None for kind, before in zip(kinds, known)],
        "others": None,
    }


def _refuse_misspelt(settings: Iterable[str]) -> None:
    fisa_settings = [field.name for field in fields(FisaConfig) if field.name not in PreTrainedConfig.__annotations__]
    refuse_misspelt(settings, known=fisa_settings, owner="FisaConfig")


__all__ = ["FisaConfig"]
