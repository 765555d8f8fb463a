"""FisaPreTrainedModel: what FISA's models share with transformers', and how they differ in loading and freezing."""

import copy
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedModel, initialization

from fisa.acceleration.offloaded_weights import computing_device
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary, StoredVocabulary
from fisa.modeling_fisa.semantic_guidance import ZeroLinear
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.others import Competition, Others
from fisa.processing.parts import refuse_other_model
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import VocabularyLike


# Of `from_pretrained`: what says where the files are.
SOURCE_OPTIONS = (
    "cache_dir",
    "force_download",
    "local_files_only",
    "proxies",
    "revision",
    "subfolder",
    "token",
)


class FisaPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and what both models share.

    Example:

    ```python
    >>> isinstance(model, FisaPreTrainedModel), isinstance(model.fisa, FisaPreTrainedModel)
    (True, True)
    ```
    """

    config: FisaConfig
    config_class = FisaConfig
    base_model_prefix = "fisa"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _peft_config: dict[str, Any] | None = None
    # Its layers work with the parts of CLIP's, which must therefore be where they are.
    _no_split_modules: set[str] | list[str] | None = ["FisaModel"]
    # Modules that a call is given, which accelerate's hooks must not move.
    _skip_keys_device_placement = ["clip_layers", "clip_layer", "clip_attention"]

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: `_init_weights` asks each tensor whether it was loaded, as transformers' own models do.

        For code outside transformers the library skips modules without parameters of their own, and with them CLIP's
        and the generator's own initialisation.
        """
        return False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """The older name of `is_activation_checkpointing`, which PEFT still reads."""
        return self.is_activation_checkpointing

    @property
    def peft_config(self) -> dict[str, Any]:
        """The configurations of the adapters in place, by name.

        PEFT sets them when it has put the first adapter in place, and deletes them with the last one: the model knows
        of adapters by this.
        """
        if self._peft_config is None:
            raise AttributeError("peft_config")
        return self._peft_config

    @peft_config.setter
    def peft_config(self, configs: dict[str, Any]) -> None:
        self._peft_config = configs
        self.follow_adapters(next(iter(configs)))

    @peft_config.deleter
    def peft_config(self) -> None:
        self._peft_config = None
        self.leave_adapters()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | PathLike | None,
        *arguments: Any,
        config: Any = None,
        **options: Any,
    ) -> Any:
        """As transformers' own: see [`~transformers.PreTrainedModel.from_pretrained`].

        Label names (`id2label`, `label2id`, or those of a config) other than the stored ones become the stored
        vocabulary, encoded with the folder's own tokenizer and templates. A label may end in `[stuff]`; without that
        mark it is a thing.

        `attn_implementation` is one name, which the parts that have a choice of attention take, or a dictionary: a
        name for each part, by the part's name in the configuration.

        ```python
        >>> model = FisaForUniversalSegmentation.from_pretrained(folder, attn_implementation="sdpa")
        >>> model = FisaForUniversalSegmentation.from_pretrained(
        ...     folder, attn_implementation={"vision_config": "sdpa", "text_config": "eager"}
        ... )
        ```

        Raises:
            `ValueError`: another kind of model; an unknown attention, one that a named part lacks, or an unknown part;
                label names that do not count from 0, or that the folder has no tokenizer for.
        """
        attention = options.get("attn_implementation")
        if isinstance(attention, dict) and (unknown := sorted(set(attention) - {"", *FisaConfig.sub_configs})):
            raise ValueError(
                f"`attn_implementation` names {', '.join(unknown)}; "
                f"FISA's parts are {', '.join(FisaConfig.sub_configs)}."
            )
        source = {name: options[name] for name in SOURCE_OPTIONS if name in options}
        labels = {name: options.pop(name) for name in ("id2label", "label2id", "num_labels") if name in options}
        if labels:
            folder = config or pretrained_model_name_or_path
            if folder is None:
                raise ValueError(f"{', '.join(labels)} need the folder of a model or of a config to begin from.")
            config = FisaConfig.from_pretrained(folder, **source, **labels)
        vocabulary, others = None, None
        if config is None and pretrained_model_name_or_path is not None:
            refuse_other_model(pretrained_model_name_or_path, **source)
        # By name, since remote code may have been executed twice, which gives two classes.
        is_ours = isinstance(config, PreTrainedConfig) and config.model_type == FisaConfig.model_type
        if is_ours and pretrained_model_name_or_path is not None:
            config, vocabulary, others = _with_stored_vocabulary(config, pretrained_model_name_or_path, source)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *arguments, config=config, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_untrained_parts()  # loading puts new parameters in place, all of which ask for gradients
        model._check_offloading()
        if vocabulary is not None and pretrained_model_name_or_path is not None:
            processor = _text_processor(pretrained_model_name_or_path, config, source)
            model.set_vocabulary(processor, vocabulary, others=others)
        return loaded

    def _check_offloading(self) -> None:
        """Refuse weights that lie where the model cannot bring them in from."""

    @property
    def device(self) -> torch.device:
        """Where the model computes, also where its weights lie elsewhere between calls."""
        device = super().device
        return computing_device(self) or device if device.type == "meta" else device

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *arguments: Any, **options: Any
    ) -> nn.Embedding:
        """Return the token embeddings unchanged.

        Raises:
            `ValueError`: the number of tokens differs from that of the embeddings.
        """
        embeddings = self.get_input_embeddings()
        assert isinstance(embeddings, nn.Embedding)
        if new_num_tokens not in (None, embeddings.num_embeddings):
            raise ValueError(
                f"CLIP's text tower is never trained and reads {embeddings.num_embeddings} tokens; "
                f"{new_num_tokens} would have embeddings that mean nothing. Classes are words, not tokens: "
                "`model.set_vocabulary(processor, [...])`."
            )
        return embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Refused: CLIP's text tower is never trained.

        Raises:
            `ValueError`: always.
        """
        raise ValueError(
            "CLIP's text tower is never trained and keeps its token embeddings. For another CLIP make a new model: "
            "`FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, mask_generator)`."
        )

    def freeze_untrained_parts(self) -> None:
        """Switch gradients off for the parts that FISA never trains.

        Unused gradients cost memory, and distributed training would wait for gradients that are never computed.
        """
        for part in self._untrained_parts():
            part.requires_grad_(False)

    @torch.inference_mode(False)  # what comes of it may be trained with
    @torch.no_grad()
    def encode_vocabulary(
        self,
        processor: FisaProcessor,
        labels: VocabularyLike,
        *,
        others: Others = None,
        batch_size: int = 256,
        text_cache: str | PathLike | None = None,
    ) -> EncodedVocabulary:
        """Turn class names into what `forward` takes; of a model with a generator, with what that knows of the classes
        where its opinion counts.

        Names of an earlier vocabulary are not encoded again (see [`ClassTextCache`]).

        Args:
            processor ([`FisaProcessor`]): holds the tokenizer and the prompt templates.
            labels: any form that [`Vocabulary.parse`] takes: a list of names or classes, a string with commas, …
            others (`"auto"`, words or a file, *optional*):
                Words that compete with the classes and are not returned, less those that `labels` names: a list in
                any form that `labels` has, a file of them, or `"auto"`, what `config.default_others` says. `None`: the
                classes are all there is.
            batch_size (`int`): names encoded at a time.
            text_cache (`str` or `os.PathLike`, *optional*):
                A folder that keeps what is encoded for other processes. It may serve many models, whose texts are
                told apart by their weights and templates; see [`ClassTextFiles`]. Where it is not given, those of
                `"auto"` are kept in `fisa/others` of Hugging Face's cache folder.

        Returns:
            [`EncodedVocabulary`] with `class_embeds` `(num_prompts, projection_dim)`, `prompt_class_ids`
            `(num_prompts,)`, `class_is_thing` and `class_kinds` `(num_classes,)`, the same of the others, and the
            names, `id2label`.

        Raises:
            `ValueError`: the vocabulary is refused, or two of its names are the same to CLIP.

        ```python
        >>> encoded = model.encode_vocabulary(processor, {"dog": ["puppy"], "grass": []}, others="auto")
        >>> outputs = model(**processor(images=photo, return_tensors="pt"), **encoded)
        ```
        """
        texts = self._vocabulary_model.vocabulary_texts(
            processor, labels, others=others, batch_size=batch_size, text_cache=text_cache
        )
        return self._encoded(texts)

    @torch.inference_mode(False)
    def set_vocabulary(
        self,
        processor: FisaProcessor,
        labels: VocabularyLike,
        *,
        others: Others = None,
        text_cache: str | PathLike | None = None,
    ) -> None:
        """Encode a vocabulary once and store it with the model and its config: both are saved with it.

        Args:
            processor, labels, others, text_cache: as for [`encode_vocabulary`].

        ```python
        >>> model.set_vocabulary(processor, ["dog", Class("frisbee", synonyms=["flying disc"]), "grass"])
        ```
        """
        words = self._vocabulary_model
        words.store_vocabulary(*words.vocabulary_texts(processor, labels, others=others, text_cache=text_cache))

    def competition(self, labels: VocabularyLike, others: Others) -> Competition:
        """Which words compete with the classes of a vocabulary, and which ones speak for a class.

        Args:
            labels, others: as for [`encode_vocabulary`].

        Example:

        ```python
        >>> [other.name for other in model.competition("dog, grass", ["dogs", "cat"]).others]
        ['cat']
        ```
        """
        return self._vocabulary_model.competition(labels, others)

    def follow_adapters(self, adapter_name: str) -> None:
        """Store the vocabulary of the adapter that is active, from now on.

        Args:
            adapter_name (`str`): the one that PEFT has just put in place.
        """
        self._vocabulary_model.follow_adapters(adapter_name)

    def leave_adapters(self) -> None:
        """Store the base's vocabulary, or that of the adapter that was merged into it."""
        self._vocabulary_model.leave_adapters()

    # What follows, FisaModel and FisaForUniversalSegmentation do in their own ways; this class is not a model itself.

    @property
    def _vocabulary_model(self) -> Any:
        """The [`VocabularyModel`] that knows this model's words: itself or a part of it."""
        raise NotImplementedError

    def _encoded(self, texts: StoredVocabulary) -> EncodedVocabulary:
        """What `forward` takes, of texts as they are stored."""
        raise NotImplementedError

    def _untrained_parts(self) -> list[nn.Module]:
        """The parts that FISA never trains."""
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroLinear):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)


def _with_stored_vocabulary(
    config: FisaConfig, folder: str | PathLike, source: dict[str, Any]
) -> tuple[FisaConfig, list[dict[str, Any]] | None, list[dict[str, Any]] | None]:
    """The config with the vocabulary whose texts lie in the folder; and its own with its others, if they differ."""
    stored, _ = FisaConfig.get_config_dict(folder, **source)
    if stored.get("model_type") != FisaConfig.model_type:
        return config, None, None
    stored = FisaConfig.from_dict(stored)
    if not config.num_prompts or (stored.class_names, stored.others) == (config.class_names, config.others):
        return config, None, None
    vocabulary, others, config = config.vocabulary, config.others, copy.deepcopy(config)
    config.store_vocabulary(stored.vocabulary, stored.others)
    return config, vocabulary, others


def _text_processor(folder: str | PathLike, config: FisaConfig, source: dict[str, Any]) -> FisaProcessor:
    """The folder's tokenizer and templates. Its image processor and config, which ask anew for trust in remote code,
    stay away."""
    try:
        settings, _ = FisaProcessor.get_processor_dict(folder, **source)
        tokenizer = AutoTokenizer.from_pretrained(folder, config=config, **source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has no tokenizer and templates to encode the given labels with; save the FisaProcessor in it: "
            "`processor.save_pretrained(folder)`."
        ) from error
    return FisaProcessor(FisaImageProcessor(), tokenizer, settings.get("prompt_templates", "default"))


__all__ = ["FisaPreTrainedModel"]
