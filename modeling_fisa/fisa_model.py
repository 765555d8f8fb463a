"""FisaModel: CLIP whose image tower encodes mask proposals beside the image."""

import copy
from collections.abc import Collection, Mapping, MutableMapping, Sequence
from functools import lru_cache, partial
from os import PathLike
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    PreTrainedConfig,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple, logging

from fisa.acceleration.class_text_files import ClassTextFiles, shared_text_files, text_fingerprint
from fisa.acceleration.class_texts import ClassTextCache
from fisa.acceleration.offloaded_weights import computing_device
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.adapter_vocabulary import (
    ADAPTER_VOCABULARY,
    clip_sample,
    pop_beside_weights,
    vocabulary_of_tensors,
)
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary, StoredVocabulary, average_templates
from fisa.modeling_fisa.mask_attention import (
    mask_attention_bias,
    patch_coverage,
    segment_attention_bias,
    segments_of_patches,
)
from fisa.modeling_fisa.mask_encoder import FisaEncoderLayer, MaskEncoder
from fisa.modeling_fisa.outputs_fisa import FisaModelOutput
from fisa.modeling_fisa.semantic_guidance import ZeroLinear, guiding_texts
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.others import (
    Competition,
    Others,
    competing,
    everyday,
    given_others,
    is_auto,
    known_others,
    without_namesakes,
)
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import Class, Vocabulary, VocabularyLike


logger = logging.get_logger(__name__)


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
        fisa = self.base_model
        assert isinstance(fisa, FisaModel)
        fisa.follow_adapters(next(iter(configs)))

    @peft_config.deleter
    def peft_config(self) -> None:
        self._peft_config = None
        fisa = self.base_model
        assert isinstance(fisa, FisaModel)
        fisa.leave_adapters()

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
            `ValueError`: an unknown attention, one that a named part lacks, or an unknown part; label names that do
                not count from 0, or that the folder has no tokenizer for.
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
        # By name, since remote code may have been executed twice, which gives two classes.
        is_ours = isinstance(config, PreTrainedConfig) and config.model_type == FisaConfig.model_type
        if is_ours and pretrained_model_name_or_path is not None:
            config, vocabulary, others = _with_stored_vocabulary(config, pretrained_model_name_or_path, source)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *arguments, config=config, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_untrained_parts()  # loading puts new parameters in place, all of which ask for gradients
        model._check_offloading()
        if vocabulary is not None and pretrained_model_name_or_path is not None:
            processor = _text_processor(pretrained_model_name_or_path, source)
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

    def _untrained_parts(self) -> list[nn.Module]:
        raise NotImplementedError

    def set_vocabulary(
        self,
        processor: FisaProcessor,
        labels: VocabularyLike,
        *,
        others: Others = None,
        text_cache: str | PathLike | None = None,
    ) -> None:
        """Encode a vocabulary once and store it with the model and its config: both are saved with it."""
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroLinear):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, FisaModel):
            factor = self.config.text_tower.initializer_factor
            for projection in (module.text_projection, module.visual_projection):
                initialization.normal_(projection.weight, std=projection.in_features**-0.5 * factor)
            initialization.constant_(module.logit_scale, self.config.logit_scale_init_value)
            for stored in (module.class_embeds, module.other_embeds):
                if stored is not None:
                    initialization.zeros_(stored)
            module.init_mask_encoder_from_clip()


class FisaModel(FisaPreTrainedModel):
    """CLIP whose image tower encodes mask proposals beside the image: one embedding per proposal.

    CLIP's parts bear CLIP's names, so that `FisaModel.from_pretrained(clip_folder, config=...)` takes a CLIP
    checkpoint as it is; what FISA adds lies in `mask_encoder` and starts from CLIP's weights.

    Example:

    ```python
    >>> model = FisaModel.from_pretrained(clip_folder, config=FisaConfig.from_pretrained(fisa_folder)).eval()
    >>> outputs = model(pixel_values, mask_proposals, class_embeds=class_embeds)
    >>> outputs.mask_embeds.shape
    torch.Size([1, 100, 512])
    ```
    """

    class_embeds: torch.Tensor | None  # a buffer: the stored vocabulary's
    other_embeds: torch.Tensor | None  # a buffer: those of the words beside it
    adapter_vocabulary: Any  # an `ActiveVocabulary` while adapters are in place, else `None`

    _keys_to_ignore_on_load_unexpected = [r"^mask_generator\."]

    def __init__(self, config: FisaConfig):
        super().__init__(config)
        # Before all that PEFT replaces, so that it is told first and can refuse while nothing is switched.
        self.register_module(ADAPTER_VOCABULARY, None)
        text_config, vision_config = config.text_tower, config.image_tower
        self.text_model = CLIPTextModel._from_config(text_config)
        self.vision_model = CLIPVisionModel._from_config(vision_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.mask_encoder = MaskEncoder(config)
        for name, count in (("class_embeds", config.num_prompts), ("other_embeds", config.num_other_prompts)):
            self.register_buffer(name, torch.zeros(count, config.projection_dim) if count else None)
        self._text_cache = ClassTextCache()
        self._remembered_others: tuple[tuple[Any, ...], tuple[Class, ...]] | None = None
        self.register_load_state_dict_pre_hook(_take_over_from_adapter)
        self.post_init()
        self.freeze_untrained_parts()

    def _untrained_parts(self) -> list[nn.Module]:
        return [self.text_model, self.text_projection]

    @torch.no_grad()
    def init_mask_encoder_from_clip(self) -> None:
        """Let the mask tokens start as CLIP's class token, unless a checkpoint brought their weights."""
        position = self.vision_model.embeddings.position_embedding.weight
        initialization.copy_(self.mask_encoder.mask_position.weight, position[:1])
        for layer, clip_layer in zip(self.mask_encoder.layers, self.vision_model.encoder.layers):
            assert isinstance(layer, FisaEncoderLayer)
            query_proj = layer.mask_attention.query_proj
            initialization.copy_(query_proj.weight, clip_layer.self_attn.q_proj.weight)
            initialization.copy_(query_proj.bias, clip_layer.self_attn.q_proj.bias)

    def adopt_clip(self, clip: CLIPModel) -> None:
        """Use the parts of a loaded CLIP unchanged and initialise the mask encoder from them."""
        for name in ("text_model", "vision_model", "text_projection", "visual_projection", "logit_scale"):
            setattr(self, name, getattr(clip, name))
        self.freeze_untrained_parts()
        with torch.device(clip.device):
            self.mask_encoder = MaskEncoder(self.config).to(clip.dtype)
        self.mask_encoder.apply(self._init_weights)
        self.init_mask_encoder_from_clip()

    def get_input_embeddings(self) -> nn.Module:
        # Of the tokens, which a tokenizer is measured against; the image tower has its own.
        return self.text_model.get_input_embeddings()

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: torch.LongTensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.LongTensor | None = None,
        **options: Any,
    ) -> BaseModelOutputWithPooling:
        """What CLIP's text tower makes of prompts, as `CLIPModel.get_text_features` returns it.

        Args:
            input_ids, attention_mask, position_ids (`torch.LongTensor` of shape `(num_prompts, length)`)
            options: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            The tower's outputs, whose `pooler_output` `(num_prompts, projection_dim)` are CLIP's text embeddings, not
            normalised.

        Example:

        ```python
        >>> prompts = processor.tokenize(["dog", "grass"])["input_ids"].flatten(0, 1)
        >>> model.get_text_features(prompts).pooler_output.shape
        torch.Size([2, 512])
        ```
        """
        outputs = self.text_model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, **options
        )
        outputs.pooler_output = self.text_projection(outputs.pooler_output)
        return outputs

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        interpolate_pos_encoding: bool = True,
        **options: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """What CLIP's own image tower makes of photos, without SEVE, as `CLIPModel.get_image_features` returns it.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`)
            interpolate_pos_encoding (`bool`, defaults to `True`): False refuses photos of another size than CLIP's.
            options: `output_hidden_states`, `output_attentions`, `return_dict`.

        Returns:
            The tower's outputs, whose `pooler_output` `(batch_size, projection_dim)` are CLIP's image embeddings, not
            normalised.

        Example:

        ```python
        >>> pixel_values = processor(images=photo, return_tensors="pt")["pixel_values"]
        >>> model.get_image_features(pixel_values).pooler_output.shape
        torch.Size([1, 512])
        ```
        """
        outputs = self.vision_model(
            pixel_values=pixel_values, interpolate_pos_encoding=interpolate_pos_encoding, **options
        )
        outputs.pooler_output = self.visual_projection(outputs.pooler_output)
        return outputs

    def get_class_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """One unit vector per name, averaged over its prompts.

        Args:
            input_ids (`torch.LongTensor` of shape `(num_names, num_templates, length)` or `(num_names, length)`)
            attention_mask (`torch.Tensor`, *optional*): of the same shape.

        Returns:
            `torch.FloatTensor` of shape `(num_names, projection_dim)`.
        """
        input_ids = input_ids if input_ids.ndim == 3 else input_ids.unsqueeze(1)
        if attention_mask is not None:
            attention_mask = attention_mask.reshape(-1, attention_mask.shape[-1])
        embeds = self.get_text_features(input_ids.flatten(0, 1), attention_mask).pooler_output
        return average_templates(embeds.unflatten(0, input_ids.shape[:2]))

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
        """Turn class names into what `forward` takes: `model(**inputs, **model.encode_vocabulary(processor, labels))`.

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
        """
        return self.vocabulary_texts(
            processor, labels, others=others, batch_size=batch_size, text_cache=text_cache
        ).encoded()

    @torch.no_grad()
    def vocabulary_texts(
        self,
        processor: FisaProcessor,
        labels: VocabularyLike,
        *,
        others: Others = None,
        batch_size: int = 256,
        text_cache: str | PathLike | None = None,
    ) -> StoredVocabulary:
        """The words of a vocabulary and their text embeddings, as they can be stored.

        Args:
            processor, labels, others, batch_size, text_cache: as for [`encode_vocabulary`].
        """
        vocabulary = processor.parse_vocabulary(labels)
        processor.refuse_equal_prompts(vocabulary.prompts())
        beside = _entries(self.competition(vocabulary, others))

        def encode(names: Sequence[str]) -> torch.Tensor:
            prompts = processor.tokenize(names).to(self.device)
            return self.get_class_features(prompts["input_ids"], prompts["attention_mask"])

        open_files = partial(_open_files, text_cache, self, processor) if text_cache else None
        open_other_files = partial(shared_text_files, self, processor) if is_auto(others) else None
        names, other_names = vocabulary.prompts(), [name for entry in beside for name in _names(entry)]
        embeds = self._text_cache.embed(
            names,
            encode,
            batch_size=batch_size,
            open_files=open_files,
            others=other_names,
            open_other_files=open_files or open_other_files,
        )
        class_embeds, other_embeds = embeds.split([len(names), len(other_names)])
        return StoredVocabulary(vocabulary.to_config(), class_embeds, beside or None, other_embeds if beside else None)

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
        vocabulary = Vocabulary.parse(labels)
        if is_auto(others):
            automatic = self._automatic_others()
            return _competing(vocabulary, automatic, kinds=tuple(other.kind_is_known for other in automatic))
        rivals = without_namesakes(given_others(others), asked=vocabulary.prompts())
        return Competition(rivals, ((),) * len(vocabulary))

    def _automatic_others(self) -> tuple[Class, ...]:
        """What `others="auto"` stands for, put together anew where the settings that it comes from have changed."""
        config = self.config
        sources = config.default_others, config.synonyms, config.others, config.mask_generator_config
        remembered = self._remembered_others
        if remembered is None or any(was is not now for was, now in zip(remembered[0], sources)):
            remembered = sources, self._read_automatic_others()
            self._remembered_others = remembered
        return remembered[1]

    def _read_automatic_others(self) -> tuple[Class, ...]:
        default = self.config.default_others
        if not isinstance(default, str):
            return given_others(default)
        labels = getattr(self.config.mask_generator_config, "id2label", None) or {}
        known = known_others([*self.config.vocabulary, *(self.config.others or [])], labels.values())
        return known if default == "known" else without_namesakes([*known, *everyday()])

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
        """
        self.store_vocabulary(*self.vocabulary_texts(processor, labels, others=others, text_cache=text_cache))

    @property
    def stored_vocabulary(self) -> StoredVocabulary:
        """What [`set_vocabulary`] stored; empty if nothing is."""
        return StoredVocabulary(self.config.vocabulary, self.class_embeds, self.config.others, self.other_embeds)

    def store_vocabulary(
        self,
        classes: list[dict[str, Any]],
        class_embeds: torch.Tensor | None,
        others: list[dict[str, Any]] | None = None,
        other_embeds: torch.Tensor | None = None,
    ) -> None:
        """Store a vocabulary that is encoded already, what [`StoredVocabulary`] holds; while adapters are active, for
        these.

        Args:
            classes: as [`FisaConfig.vocabulary`] has them.
            class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`)
            others: as [`FisaConfig.others`] has them.
            other_embeds (`torch.Tensor` of shape `(num_other_prompts, projection_dim)`, *optional*)
        """
        vocabulary = StoredVocabulary(classes, class_embeds, others, other_embeds)
        if self.adapter_vocabulary is not None:
            self.adapter_vocabulary.store(vocabulary)
        else:
            self._use(vocabulary)

    def _use(self, vocabulary: StoredVocabulary) -> None:
        self.config.store_vocabulary(vocabulary.classes, vocabulary.others)
        for name in ("class_embeds", "other_embeds"):
            embeds = getattr(vocabulary, name)
            self.register_buffer(name, None if embeds is None else embeds.to(self.device, self.dtype))

    def take_over_from_adapter(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take what an adapter's file holds beside weights, by [`pop_beside_weights`]."""
        vocabulary = vocabulary_of_tensors(tensors)
        if self.adapter_vocabulary is not None:
            self.adapter_vocabulary.take_over(tensors)
        elif vocabulary is not None:
            self._use(vocabulary)

    def follow_adapters(self, adapter_name: str) -> None:
        """Store the vocabulary of the adapter that is active, from now on.

        Args:
            adapter_name (`str`): the one that PEFT has just put in place.
        """
        # Imported where PEFT, an extra, is in use.
        from fisa.modeling_fisa.active_vocabulary import ActiveVocabulary

        if self.adapter_vocabulary is None:
            self.adapter_vocabulary = ActiveVocabulary(
                adapter_name, base=self.stored_vocabulary, sample=clip_sample(self), use=self._use
            )

    def leave_adapters(self) -> None:
        """Store the base's vocabulary, or that of the adapter that was merged into it."""
        if self.adapter_vocabulary is not None:
            self.adapter_vocabulary.release()
            self.adapter_vocabulary = None

    def resolve_class_embeds(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        class_embeds: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """The class texts of a call: ready embeddings, else prompts, else the stored vocabulary, else `None`."""
        if class_embeds is not None and input_ids is not None:
            raise ValueError(
                "Found both `input_ids` and `class_embeds`; a call takes its vocabulary as one of the two."
            )
        if input_ids is not None:
            return self.get_class_features(input_ids, attention_mask)
        return self.class_embeds if class_embeds is None else class_embeds

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        mask_proposals: torch.Tensor,
        proposal_sizes: torch.Tensor | None = None,
        objectness: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        class_embeds: torch.FloatTensor | None = None,
        patch_segments: torch.LongTensor | None = None,
        output_hidden_states: bool | Collection[int] | None = None,
        output_attentions: bool | None = None,
        output_image_tokens: bool = True,
    ) -> FisaModelOutput:
        r"""
        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`):
                Photos as CLIP wants them, at any size: CLIP's positions are interpolated.
            mask_proposals (`torch.Tensor` of shape `(batch_size, num_proposals, mask_height, mask_width)`):
                Each spans its photo: boolean or integer masks, or logits, inside where positive.
            proposal_sizes (`torch.Tensor` of shape `(batch_size, 2)`, *optional*):
                The part of each mask that spans its photo, where masks are padded to a common size.
            objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`, *optional*):
                In [0, 1], 1 if not given; read if `segment_attention_penalty` > 0.
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_names, num_templates, length)`, *optional*):
                The vocabulary as tokenised prompts; or
            class_embeds (`torch.FloatTensor` of shape `(num_prompts, projection_dim)`, *optional*):
                as ready text embeddings, also `(batch_size, num_prompts, projection_dim)`; or neither: the stored one.
            patch_segments (`torch.LongTensor` of shape `(batch_size, num_patches)`, *optional*):
                Which segment each patch belongs to, row by row, where `mask_proposals` do not divide the photo as all
                proposals do; read if `segment_attention_penalty` > 0. If not given, they are those of
                `mask_proposals`: see [`~fisa.modeling_fisa.mask_attention.segments_of_patches`].
            output_image_tokens (`bool`):
                False leaves out `last_hidden_state`, and with it most of the last layer: masks do not need it.
        """
        texts = self.resolve_class_embeds(input_ids, attention_mask, class_embeds)
        self._check_shapes(pixel_values, mask_proposals, texts, patch_segments)
        image_tokens, mask_tokens = self.mask_encoder.embed(
            pixel_values, mask_proposals.shape[1], clip=self.vision_model
        )
        attention_bias = self._attention_bias(pixel_values, mask_proposals, proposal_sizes, dtype=image_tokens.dtype)
        encoded = self.mask_encoder(
            image_tokens,
            mask_tokens,
            attention_bias,
            self._guiding_texts(texts),
            image_bias=self._image_bias(
                pixel_values, mask_proposals, proposal_sizes, objectness, patch_segments, dtype=image_tokens.dtype
            ),
            clip_layers=self.vision_model.encoder.layers,
            output_hidden_states=self._asked_for("output_hidden_states", output_hidden_states),
            output_attentions=self._asked_for("output_attentions", output_attentions),
            output_image_tokens=output_image_tokens,
        )
        return FisaModelOutput(
            mask_embeds=self.visual_projection(self.vision_model.post_layernorm(encoded.mask_tokens)),
            class_embeds=None if texts is None else texts.expand(pixel_values.shape[0], -1, -1),
            last_hidden_state=encoded.image_tokens,
            hidden_states=encoded.hidden_states,
            mask_hidden_states=encoded.mask_hidden_states,
            attentions=encoded.attentions,
            mask_attentions=encoded.mask_attentions,
        )

    def _asked_for(self, name: str, argument: Any) -> Any:
        return getattr(self.config, name) if argument is None else argument

    def _attention_bias(
        self,
        pixel_values: torch.Tensor,
        mask_proposals: torch.Tensor,
        proposal_sizes: torch.Tensor | None,
        *,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        height, width = pixel_values.shape[-2:]
        coverage = patch_coverage(
            mask_proposals,
            image_size=(height, width),
            patch_size=self.vision_model.embeddings.patch_size,
            proposal_sizes=proposal_sizes,
        )
        return mask_attention_bias(coverage, threshold=self.config.mask_coverage_threshold, dtype=dtype)

    def _image_bias(
        self,
        pixel_values: torch.Tensor,
        mask_proposals: torch.Tensor,
        proposal_sizes: torch.Tensor | None,
        objectness: torch.Tensor | None,
        patch_segments: torch.Tensor | None,
        *,
        dtype: torch.dtype,
    ) -> torch.Tensor | None:
        """The bias between patches of different segments; `None` without penalty or without segments."""
        penalty = self.config.segment_attention_penalty
        if not penalty or (patch_segments is None and not mask_proposals.shape[1]):
            return None
        if patch_segments is None:
            height, width = pixel_values.shape[-2:]
            patch_segments = segments_of_patches(
                mask_proposals,
                mask_proposals.new_ones(mask_proposals.shape[:2]) if objectness is None else objectness,
                image_size=(height, width),
                patch_size=self.vision_model.embeddings.patch_size,
                proposal_sizes=proposal_sizes,
            )
        return segment_attention_bias(patch_segments, penalty=penalty, dtype=dtype)

    def _guiding_texts(self, class_embeds: torch.Tensor | None) -> torch.Tensor | None:
        if not self.config.seve_layers:
            return None
        if class_embeds is None:
            raise ValueError(
                "SEVE needs class texts and none were found: pass `input_ids` or `class_embeds`, "
                "or store a vocabulary with `model.set_vocabulary(processor, [...])`."
            )
        return guiding_texts(class_embeds, at_most=self.config.seve_max_texts)

    def _check_shapes(
        self,
        pixel_values: torch.Tensor,
        mask_proposals: torch.Tensor,
        class_embeds: torch.Tensor | None,
        patch_segments: torch.Tensor | None,
    ) -> None:
        if mask_proposals.shape[0] != pixel_values.shape[0]:
            raise ValueError(
                f"`mask_proposals` are for {len(mask_proposals)} photos and `pixel_values` holds {len(pixel_values)}; "
                "there must be one set of proposals per photo."
            )
        width = self.config.projection_dim
        if class_embeds is not None and class_embeds.shape[-1] != width:
            raise ValueError(
                f"`class_embeds` has shape {tuple(class_embeds.shape)}; its last dimension must be the model's "
                f"projection_dim, {width}."
            )
        if patch_segments is None:
            return
        patch_size = self.vision_model.embeddings.patch_size
        rows, columns = (side // patch_size for side in pixel_values.shape[-2:])
        if patch_segments.shape != (len(pixel_values), rows * columns) or patch_segments.is_floating_point():
            raise ValueError(
                f"`patch_segments` has shape {tuple(patch_segments.shape)} and type {patch_segments.dtype}; it must "
                f"hold one integer per patch, {(len(pixel_values), rows * columns)} for {rows} x {columns} patches."
            )


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


def _text_processor(folder: str | PathLike, source: dict[str, Any]) -> FisaProcessor:
    """The folder's tokenizer and templates. Its image processor, which remote code asks trust for anew, stays away."""
    try:
        settings, _ = FisaProcessor.get_processor_dict(folder, **source)
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} has no tokenizer and templates to encode the given labels with; save the FisaProcessor in it: "
            "`processor.save_pretrained(folder)`."
        ) from error
    return FisaProcessor(FisaImageProcessor(), tokenizer, settings.get("prompt_templates", "default"))


def _open_files(folder: str | PathLike, model: FisaModel, processor: FisaProcessor) -> ClassTextFiles:
    return ClassTextFiles(folder, encoder=text_fingerprint(model, processor))


@lru_cache(maxsize=64)  # the same words are asked for photo by photo
def _competing(vocabulary: Vocabulary, others: tuple[Class, ...], *, kinds: tuple[bool, ...]) -> Competition:
    """As [`competing`]; `kinds` are what classes that are equal may differ in."""
    return competing(vocabulary, others)


def _entries(competition: Competition) -> list[dict[str, Any]]:
    """The words beside a vocabulary, as [`FisaConfig.others`] has them."""
    voices = [
        Class(name).to_config() | {"speaks_for": class_id}
        for class_id, names in enumerate(competition.voices)
        for name in names
    ]
    return voices + [other.to_config() for other in competition.others]


def _names(entry: dict[str, Any]) -> list[str]:
    return [entry["name"], *entry["synonyms"]]


def _take_over_from_adapter(
    model: FisaModel, tensors: MutableMapping[str, torch.Tensor], prefix: str, *_: Any
) -> None:
    """Take what comes with an adapter's weights."""
    beside = pop_beside_weights(tensors, prefix)
    active = model.adapter_vocabulary
    is_loading = active is not None and active.is_loading
    if is_loading:
        active.check_layers(model, [name.removeprefix(prefix) for name in tensors if name.startswith(prefix)])
    if beside or is_loading:
        model.take_over_from_adapter(beside)


__all__ = ["FisaModel", "FisaPreTrainedModel"]
