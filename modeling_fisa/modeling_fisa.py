"""FISA's public models: FisaModel, CLIP with mask tokens beside its image stream, and FisaForUniversalSegmentation,
which puts a frozen mask generator before it and scores behind it."""

from collections.abc import MutableMapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from os import PathLike
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForUniversalSegmentation,
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModel,
    PreTrainedModel,
    initialization,
)
from transformers.utils import cached_file, can_return_tuple

from fisa.acceleration.class_text_files import ClassTextFiles, text_fingerprint
from fisa.acceleration.class_texts import ClassTextCache, average_templates
from fisa.acceleration.deformable_attention import sum_samples_at_once
from fisa.acceleration.offloaded_weights import brought_in, computing_device
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_PREFIX, pop_vocabulary
from fisa.modeling_fisa.loss_fisa import mask_classification_loss
from fisa.modeling_fisa.mask_attention import MaskEncoder, mask_attention_bias, patch_coverage
from fisa.modeling_fisa.mask_classification import (
    class_logits,
    ensemble_with_generator,
    joint_log_probs,
    known_class_ids,
    resolve_prompt_classes,
)
from fisa.modeling_fisa.mask_generation import generate_proposals, ready_proposals
from fisa.modeling_fisa.outputs_fisa import FisaModelOutput, FisaOutput
from fisa.modeling_fisa.proposal_matching import labels_of_proposals
from fisa.modeling_fisa.semantic_guidance import ZeroLinear, guiding_texts


class FisaPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and what both models share."""

    config: FisaConfig
    config_class = FisaConfig
    base_model_prefix = "fisa"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # Its layers work with the parts of CLIP's, which must therefore be where they are.
    _no_split_modules = ["FisaModel"]
    # Modules that a call is given, which accelerate's hooks must not move.
    _skip_keys_device_placement = ["clip_layer", "clip_attention", "layer_norm"]

    @classmethod
    def is_custom_code(cls) -> bool:
        """False: `_init_weights` asks each tensor whether it was loaded, as transformers' own models do.

        For code outside transformers the library skips modules without parameters of their own, and with them CLIP's
        and the generator's own initialisation.
        """
        return False

    @property
    def is_gradient_checkpointing(self) -> bool:
        """The older name of `is_activation_checkpointing`, by which PEFT still asks for it."""
        return self.is_activation_checkpointing

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """As transformers' own: see [`~transformers.PreTrainedModel.from_pretrained`]."""
        loaded = super().from_pretrained(*arguments, **options)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.freeze_untrained_parts()  # loading puts new parameters in place, all of which ask for gradients
        model._check_offloading()
        return loaded

    def _check_offloading(self) -> None:
        """Refuse weights that lie where the model cannot bring them in from."""

    @property
    def device(self) -> torch.device:
        """Where the model computes, also where its weights lie elsewhere between calls."""
        device = super().device
        return computing_device(self) or device if device.type == "meta" else device

    def freeze_untrained_parts(self) -> None:
        """Let the parts that no training of FISA changes not ask for gradients.

        Gradients that nobody uses cost memory, and distributed training waits in vain for those that never come.
        """
        for part in self._untrained_parts():
            part.requires_grad_(False)

    def _untrained_parts(self) -> list[nn.Module]:
        raise NotImplementedError

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ZeroLinear):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, FisaModel):
            factor = self.config.text_config.initializer_factor
            for projection in (module.text_projection, module.visual_projection):
                initialization.normal_(projection.weight, std=projection.in_features**-0.5 * factor)
            initialization.constant_(module.logit_scale, self.config.logit_scale_init_value)
            if module.class_embeds is not None:
                initialization.zeros_(module.class_embeds)
            module.init_mask_encoder_from_clip()


class FisaModel(FisaPreTrainedModel):
    """CLIP whose image tower encodes mask proposals beside the image: one embedding a proposal.

    CLIP's parts bear CLIP's names, so that `FisaModel.from_pretrained(clip_folder, config=...)` takes a CLIP
    checkpoint as it is; what FISA adds lies in `mask_encoder` and starts from CLIP's weights.
    """

    _keys_to_ignore_on_load_unexpected = [r"^mask_generator\."]

    def __init__(self, config: FisaConfig):
        super().__init__(config)
        text_config, vision_config = config.text_config, config.vision_config
        self.text_model = CLIPTextModel._from_config(text_config)
        self.vision_model = CLIPVisionModel._from_config(vision_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.mask_encoder = MaskEncoder(config)
        stored = torch.zeros(config.num_prompts, config.projection_dim) if config.num_prompts else None
        self.register_buffer("class_embeds", stored)
        self._text_cache = ClassTextCache()
        self.register_load_state_dict_pre_hook(_take_over_vocabulary)
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
            query_proj = layer.mask_attention.query_proj
            initialization.copy_(query_proj.weight, clip_layer.self_attn.q_proj.weight)
            initialization.copy_(query_proj.bias, clip_layer.self_attn.q_proj.bias)

    def adopt_clip(self, clip: CLIPModel) -> None:
        """Take over a loaded CLIP's parts as they are and start the mask encoder anew from them."""
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

    def get_text_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        """CLIP's text embeddings, `(num_prompts, projection_dim)`, not normalised."""
        outputs = self.text_model(input_ids=input_ids, attention_mask=attention_mask)
        return self.text_projection(outputs.pooler_output)

    def get_image_features(self, pixel_values: torch.Tensor) -> torch.FloatTensor:
        """CLIP's own image embeddings, `(batch_size, projection_dim)`, not normalised, without SEVE."""
        outputs = self.vision_model(pixel_values=pixel_values, interpolate_pos_encoding=True)
        return self.visual_projection(outputs.pooler_output)

    def get_class_features(
        self, input_ids: torch.LongTensor, attention_mask: torch.Tensor | None = None
    ) -> torch.FloatTensor:
        """One unit vector a name, averaged over its prompts.

        Args:
            input_ids (`torch.LongTensor` of shape `(num_names, num_templates, length)` or `(num_names, length)`)
            attention_mask (`torch.Tensor`, *optional*): of the same shape.

        Returns:
            `torch.FloatTensor` of shape `(num_names, projection_dim)`.
        """
        input_ids = input_ids if input_ids.ndim == 3 else input_ids.unsqueeze(1)
        if attention_mask is not None:
            attention_mask = attention_mask.reshape(-1, attention_mask.shape[-1])
        embeds = self.get_text_features(input_ids.flatten(0, 1), attention_mask)
        return average_templates(embeds.unflatten(0, input_ids.shape[:2]))

    @torch.no_grad()
    def encode_vocabulary(
        self, processor, labels, *, batch_size: int = 256, text_cache: str | PathLike | None = None
    ) -> dict[str, torch.Tensor]:
        """Turn class names into what `forward` takes: `model(**inputs, **model.encode_vocabulary(processor, labels))`.

        Names seen before are not encoded again, whatever vocabulary they stood in (see [`ClassTextCache`]).

        Args:
            processor ([`FisaProcessor`]): holds the tokenizer and the prompt templates.
            labels: whatever `processor.parse_vocabulary` takes: a list of names or classes, a string with commas, …
            batch_size (`int`): names encoded at a time.
            text_cache (`str` or `os.PathLike`, *optional*):
                A folder that keeps what is encoded for other processes. It may serve many models, whose texts are
                told apart by their weights and templates; see [`ClassTextFiles`].

        Returns:
            `class_embeds` `(num_prompts, projection_dim)`, `prompt_class_ids` `(num_prompts,)` and
            `class_is_thing` `(num_classes,)`.
        """
        vocabulary = processor.parse_vocabulary(labels)

        def encode(names: Sequence[str]) -> torch.Tensor:
            prompts = processor.tokenize(names).to(self.device)
            return self.get_class_features(prompts["input_ids"], prompts["attention_mask"])

        def open_files() -> ClassTextFiles:
            return ClassTextFiles(text_cache, encoder=text_fingerprint(self, processor))

        class_embeds = self._text_cache.embed(
            vocabulary.prompts(), encode, batch_size=batch_size, open_files=open_files if text_cache else None
        )
        return {
            "class_embeds": class_embeds,
            "prompt_class_ids": torch.tensor(vocabulary.prompt_class_ids, device=self.device),
            "class_is_thing": torch.tensor(vocabulary.is_thing, device=self.device),
        }

    def set_vocabulary(self, processor, labels, *, text_cache: str | PathLike | None = None) -> None:
        """Encode a vocabulary once and store it with the model and its config: both are saved with it.

        Args:
            processor, labels, text_cache: as for [`encode_vocabulary`].
        """
        vocabulary = processor.parse_vocabulary(labels)
        encoded = self.encode_vocabulary(processor, vocabulary, text_cache=text_cache)
        self.store_vocabulary(vocabulary.to_config(), encoded["class_embeds"])

    def store_vocabulary(self, classes: list[dict[str, Any]], class_embeds: torch.Tensor) -> None:
        """Store a vocabulary that is encoded already.

        Args:
            classes: as [`FisaConfig.vocabulary`] has them.
            class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`)
        """
        self.config.store_vocabulary(classes)
        self.register_buffer("class_embeds", class_embeds.to(self.device, self.dtype))

    def resolve_class_embeds(
        self,
        input_ids: torch.LongTensor | None,
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
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        class_embeds: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
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
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_names, num_templates, length)`, *optional*):
                The vocabulary as tokenised prompts; or
            class_embeds (`torch.FloatTensor` of shape `(num_prompts, projection_dim)`, *optional*):
                as ready text embeddings, also `(batch_size, num_prompts, projection_dim)`; or neither: the stored one.
            output_image_tokens (`bool`):
                False leaves out `last_hidden_state`, and with it most of the last layer: masks do not need it.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if output_attentions is None:
            output_attentions = self.config.output_attentions
        class_embeds = self.resolve_class_embeds(input_ids, attention_mask, class_embeds)
        if class_embeds is None and self.config.seve_layers:
            raise ValueError(
                "SEVE needs class texts and none were found: pass `input_ids` or `class_embeds`, "
                "or store a vocabulary with `model.set_vocabulary(processor, [...])`."
            )
        self._check_shapes(pixel_values, mask_proposals, class_embeds)

        embeddings, normalise = self.vision_model.embeddings, self.vision_model.pre_layrnorm
        with brought_in(embeddings, embeddings.position_embedding):
            class_token = embeddings.class_embedding
            image_tokens = normalise(embeddings(pixel_values, interpolate_pos_encoding=True))
        # Called rather than read, so that an adapter on it takes part.
        mask_position = self.mask_encoder.mask_position(image_tokens.new_zeros(1, dtype=torch.long))
        mask_tokens = normalise(class_token + mask_position)
        mask_tokens = mask_tokens.expand(*mask_proposals.shape[:2], -1)
        coverage = patch_coverage(
            mask_proposals,
            image_size=pixel_values.shape[-2:],
            patch_size=embeddings.patch_size,
            proposal_sizes=proposal_sizes,
        )
        attention_bias = mask_attention_bias(
            coverage, threshold=self.config.mask_coverage_threshold, dtype=image_tokens.dtype
        )

        guides = None
        if self.config.seve_layers:
            guides = guiding_texts(class_embeds, at_most=self.config.seve_max_texts)
        tokens, weights = [(image_tokens, mask_tokens)], []
        clip_layers = self.vision_model.encoder.layers
        ends_with_masks = not (output_image_tokens or output_hidden_states or output_attentions)
        for layer, clip_layer in zip(self.mask_encoder.layers, clip_layers):
            image_tokens, mask_tokens, *layer_weights = layer(
                image_tokens,
                mask_tokens,
                attention_bias,
                guides,
                clip_layer=clip_layer,
                masks_alone=ends_with_masks and clip_layer is clip_layers[-1],
            )
            if output_hidden_states:
                tokens.append((image_tokens, mask_tokens))
            if output_attentions and layer_weights[0] is not None:
                weights.append(layer_weights)

        mask_embeds = self.visual_projection(self.vision_model.post_layernorm(mask_tokens))
        hidden_states, mask_hidden_states = zip(*tokens) if output_hidden_states else (None, None)
        attentions, mask_attentions = zip(*weights) if weights else (None, None)
        return FisaModelOutput(
            mask_embeds=mask_embeds,
            class_embeds=None if class_embeds is None else class_embeds.expand(mask_embeds.shape[0], -1, -1),
            last_hidden_state=image_tokens,
            hidden_states=hidden_states,
            mask_hidden_states=mask_hidden_states,
            attentions=attentions,
            mask_attentions=mask_attentions,
        )

    def _check_shapes(
        self, pixel_values: torch.Tensor, mask_proposals: torch.Tensor, class_embeds: torch.Tensor | None
    ) -> None:
        if mask_proposals.shape[0] != pixel_values.shape[0]:
            raise ValueError(
                f"`mask_proposals` are for {len(mask_proposals)} photos and `pixel_values` holds {len(pixel_values)}; "
                "there must be one set of proposals a photo."
            )
        width = self.config.projection_dim
        if class_embeds is not None and class_embeds.shape[-1] != width:
            raise ValueError(
                f"`class_embeds` has shape {tuple(class_embeds.shape)}; its last dimension must be the model's "
                f"projection_dim, {width}."
            )


def _take_over_vocabulary(model: FisaModel, tensors: MutableMapping[str, torch.Tensor], prefix: str, *_: Any) -> None:
    """Store the vocabulary that comes with an adapter's weights."""
    vocabulary = pop_vocabulary(tensors, prefix)
    if vocabulary is not None:
        model.store_vocabulary(*vocabulary)


class FisaForUniversalSegmentation(FisaPreTrainedModel):
    """FISA whole: a frozen mask generator finds the masks, CLIP with mask tokens names them with any words.

    The generator is never trained here: it runs without gradients and stays in evaluation mode.
    """

    # An adapter's vocabulary is no weight of the model; `load_adapter` stores it.
    _keys_to_ignore_on_load_unexpected = [r"adapter_vocabulary\."]

    def __init__(self, config: FisaConfig):
        super().__init__(config)
        self.fisa = FisaModel(config)
        self.mask_generator = None
        if config.mask_generator_config is not None:
            generator = AutoModelForUniversalSegmentation.from_config(config.mask_generator_config)
            self.mask_generator = sum_samples_at_once(generator)
        self.post_init()
        if self.mask_generator is not None and not self._generator_can_be_offloaded:
            self._no_split_modules.add(type(self.mask_generator).__name__)
        self.freeze_untrained_parts()

    def _untrained_parts(self) -> list[nn.Module]:
        # The last layer's image queries change image tokens that no mask token reads any more.
        last_image_queries = self.fisa.vision_model.encoder.layers[-1].self_attn.q_proj
        generator = [] if self.mask_generator is None else [self.mask_generator]
        return [*self.fisa._untrained_parts(), last_image_queries, *generator]

    @classmethod
    def from_clip_and_mask_generator(
        cls,
        clip: str | PathLike | CLIPModel,
        mask_generator: str | PathLike | PreTrainedModel | None = None,
        **config_options: Any,
    ) -> "FisaForUniversalSegmentation":
        """Put a model together from a CLIP and a mask generator; their weights arrive unchanged.

        Args:
            clip: folder, Hub name or loaded `CLIPModel`.
            mask_generator: folder, Hub name or loaded model of `AutoModelForUniversalSegmentation` (Mask2Former,
                MaskFormer, EoMT). `None`: a model for ready proposals.
            config_options: fields of [`FisaConfig`], `seve_layers=[0, 1]` for example.
        """
        known = {field.name for field in fields(FisaConfig)}
        if unknown := sorted(set(config_options) - known):
            raise TypeError(f"FisaConfig has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        if isinstance(clip, (str, PathLike)):
            clip = CLIPModel.from_pretrained(clip)
        if isinstance(mask_generator, (str, PathLike)):
            mask_generator = AutoModelForUniversalSegmentation.from_pretrained(mask_generator)
        config = FisaConfig(
            text_config=clip.config.text_config,
            vision_config=clip.config.vision_config,
            mask_generator_config=None if mask_generator is None else mask_generator.config,
            projection_dim=clip.config.projection_dim,
            logit_scale_init_value=clip.config.logit_scale_init_value,
            # Nothing said for any part: each keeps the attention back-end that it was loaded with.
            attn_implementation={part: {} for part in FisaConfig.sub_configs},
            **config_options,
        )
        # On the meta device nothing is allocated or initialised for the parts that are about to be put in place.
        with torch.device("meta"):
            model = cls(config)
        model.fisa.adopt_clip(clip)
        model.mask_generator = None if mask_generator is None else sum_samples_at_once(mask_generator)
        model.freeze_untrained_parts()
        return model.eval()

    @property
    def _generator_can_be_offloaded(self) -> bool:
        return bool(type(self.mask_generator)._no_split_modules)  # transformers' own mark of it

    def _check_offloading(self) -> None:
        """Refuse a generator that was offloaded and reads its weights in ways that accelerate cannot follow.

        Raises:
            `ValueError`: with the device map that works.
        """
        generator = self.mask_generator
        if generator is None or self._generator_can_be_offloaded or computing_device(generator) is None:
            return
        if any(parameter.is_meta for parameter in generator.parameters()):
            device = computing_device(generator)
            raise ValueError(
                f"{type(generator).__name__}, the mask generator, cannot be offloaded to the disk or another memory, "
                f'all else can: pass `device_map={{"mask_generator": "{device}", "fisa": "disk"}}` and an '
                "`offload_folder`."
            )

    def train(self, mode: bool = True) -> "FisaForUniversalSegmentation":
        """Training mode for CLIP's side; the frozen generator stays in evaluation mode."""
        super().train(mode)
        if self.mask_generator is not None:
            self.mask_generator.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.fisa.get_input_embeddings()

    def enable_input_require_grads(self) -> None:
        """Let gradients reach CLIP's patch embedding; the frozen generator is left alone."""
        self.fisa.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undo [`enable_input_require_grads`]."""
        self.fisa.disable_input_require_grads()

    def load_adapter(
        self,
        peft_model_id: str | None = None,
        adapter_name: str | None = None,
        *,
        adapter_state_dict: dict[str, torch.Tensor] | None = None,
        adapter_kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """As transformers' own models load an adapter, and with it the vocabulary that it was trained on."""
        report = super().load_adapter(
            peft_model_id,
            adapter_name,
            adapter_state_dict=adapter_state_dict,
            adapter_kwargs=adapter_kwargs,
            **options,
        )
        tensors = dict(adapter_state_dict or {})
        if peft_model_id is not None:
            # An adapter in PyTorch's own format, which PEFT once wrote, is older than this.
            file = cached_file(
                peft_model_id,
                "adapter_model.safetensors",
                _raise_exceptions_for_missing_entries=False,
                **adapter_kwargs or {},
            )
            tensors = {} if file is None else load_file(file)
        vocabulary = pop_vocabulary(tensors, ADAPTER_PREFIX)
        if vocabulary is not None:
            self.fisa.store_vocabulary(*vocabulary)
        return report

    def encode_vocabulary(
        self, processor, labels, *, batch_size: int = 256, text_cache: str | PathLike | None = None
    ) -> dict[str, torch.Tensor]:
        """As [`FisaModel.encode_vocabulary`], with the classes that the generator knows where its opinion counts."""
        vocabulary = processor.parse_vocabulary(labels)
        encoded = self.fisa.encode_vocabulary(processor, vocabulary, batch_size=batch_size, text_cache=text_cache)
        if self._asks_generator:
            names = [[entry["name"], *entry["synonyms"]] for entry in vocabulary.to_config()]
            encoded["generator_class_ids"] = self._generator_class_ids(names)
        return encoded

    def set_vocabulary(self, processor, labels, *, text_cache: str | PathLike | None = None) -> None:
        """Encode a vocabulary once and store it with the model and its config: both are saved with it.

        Args:
            processor, labels, text_cache: as for [`encode_vocabulary`].

        ```python
        >>> model.set_vocabulary(processor, ["dog", Class("frisbee", synonyms=["flying disc"]), "grass"])
        ```
        """
        self.fisa.set_vocabulary(processor, labels, text_cache=text_cache)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        mask_generator_pixel_values: torch.FloatTensor | None = None,
        mask_generator_pixel_mask: torch.Tensor | None = None,
        mask_proposals: torch.Tensor | None = None,
        objectness: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_class_ids: torch.LongTensor | None = None,
        class_embeds: torch.FloatTensor | None = None,
        class_is_thing: torch.BoolTensor | None = None,
        generator_class_ids: torch.LongTensor | None = None,
        mask_labels: torch.Tensor | Sequence[torch.Tensor] | None = None,
        class_labels: torch.LongTensor | Sequence[torch.LongTensor] | None = None,
        class_log_priors: torch.FloatTensor | None = None,
        photo_orientation: torch.LongTensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
    ) -> FisaOutput:
        r"""
        [`FisaProcessor`] makes all of this from photos and words.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`):
                Photos as CLIP wants them.
            mask_generator_pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`, *optional*):
                The same photos as the mask generator wants them, top left on a common canvas; or
            mask_generator_pixel_mask (`torch.BoolTensor` of shape `(batch_size, height, width)`, *optional*):
                True on the photo, False on the canvas around it.
            mask_proposals (`torch.Tensor` of shape `(batch_size, num_proposals, height, width)`, *optional*):
                ready proposals, each spanning its photo: boolean or integer masks, or logits. No generator runs then.
            objectness (`torch.FloatTensor` of shape `(batch_size, num_proposals)`, *optional*):
                Of the ready proposals, in [0, 1]; 1 if not given.
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_prompts, num_templates, length)`, *optional*):
                The vocabulary as tokenised prompts; or
            class_embeds (`torch.FloatTensor` of shape `(num_prompts, projection_dim)`, *optional*):
                as ready text embeddings, also `(batch_size, num_prompts, projection_dim)`; or neither: the stored one.
            prompt_class_ids (`torch.LongTensor` of shape `(num_prompts,)`, *optional*):
                Which class each prompt names, 0 to num_classes − 1; each its own if not given.
            class_is_thing (`torch.BoolTensor` of shape `(num_classes,)`, *optional*):
                Handed on to post-processing, where stuff of one class becomes one segment.
            generator_class_ids (`torch.LongTensor` of shape `(num_classes,)`, *optional*):
                The generator's index of each class, −1 where it does not know it; read if `ensemble_weight` > 0.
            mask_labels (`Sequence[torch.Tensor]`, *optional*):
                For training: the ground-truth masks of each photo, `(num_masks, height, width)`, boolean or 0 and 1,
                each spanning its photo. The proposals are matched to them.
            class_labels (`Sequence[torch.LongTensor]` or `torch.LongTensor`, *optional*):
                The class of each ground-truth mask, `(num_masks,)` a photo; or, without `mask_labels`, of each
                proposal, `(batch_size, num_proposals)`. −100: a mask that is ignored, such as void or a crowd.
            class_log_priors (`torch.FloatTensor` of shape `(num_classes,)`, *optional*):
                Added to the logits in the loss alone, also `(batch_size, num_classes)`: how frequent each class is in
                training, as a logarithm, so that the model need not learn it (logit adjustment, arXiv 2007.07314).
            photo_orientation (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Handed on to post-processing, which turns results back to how the caller holds the photo; see
                [`FisaImageProcessor`].
        """
        if mask_proposals is not None:
            proposals = ready_proposals(mask_proposals, objectness=objectness)
        elif self.mask_generator is not None and mask_generator_pixel_values is not None:
            proposals = generate_proposals(
                self.mask_generator, mask_generator_pixel_values, pixel_mask=mask_generator_pixel_mask
            ).likely(floor=self.config.objectness_floor)
        else:
            wanted = "`mask_proposals` (this model has no mask generator)"
            if self.mask_generator is not None:
                wanted = "`mask_generator_pixel_values` (FisaProcessor makes them) or `mask_proposals`"
            raise ValueError(f"No masks to classify: pass {wanted}.")

        if input_ids is None and class_embeds is None:
            stored = self._stored_vocabulary()
            class_embeds, prompt_class_ids = stored["class_embeds"], stored["prompt_class_ids"]
            class_is_thing, generator_class_ids = stored["class_is_thing"], stored["generator_class_ids"]
        class_embeds = self.fisa.resolve_class_embeds(input_ids, attention_mask, class_embeds)
        prompt_class_ids, num_classes = resolve_prompt_classes(
            prompt_class_ids, class_embeds=class_embeds, class_is_thing=class_is_thing
        )

        half = self.config.classifier_dtype
        with nullcontext() if half is None else torch.autocast(self.device.type, dtype=getattr(torch, half)):
            encoded = self.fisa(
                pixel_values,
                proposals.mask_logits,
                proposal_sizes=proposals.sizes,
                class_embeds=class_embeds,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
                output_image_tokens=False,
                return_dict=True,
            )
        with brought_in(self.fisa):
            logit_scale = self.fisa.logit_scale
        logits = class_logits(
            encoded.mask_embeds,
            class_embeds,
            logit_scale=logit_scale,
            prompt_class_ids=prompt_class_ids,
            num_classes=num_classes,
        )
        loss = None
        if class_labels is not None:
            if mask_labels is not None:
                class_labels = labels_of_proposals(
                    proposals,
                    mask_labels,
                    class_labels,
                    matcher=self.config.proposal_matcher,
                    iou_threshold=self.config.proposal_matcher_iou,
                )
            adjusted = logits if class_log_priors is None else logits + class_log_priors.unsqueeze(-2)
            loss = mask_classification_loss(adjusted, class_labels)
        log_probs = logits.log_softmax(dim=-1)
        if self._asks_generator and generator_class_ids is not None and proposals.class_logits is not None:
            log_probs = ensemble_with_generator(
                log_probs,
                proposals.class_logits,
                generator_class_ids=generator_class_ids,
                weight=self.config.ensemble_weight,
            )
        return FisaOutput(
            loss=loss,
            class_queries_logits=joint_log_probs(log_probs, proposals.objectness),
            masks_queries_logits=proposals.mask_logits,
            objectness=proposals.objectness,
            logits_per_mask=logits,
            class_is_thing=None if class_is_thing is None else class_is_thing.expand(logits.shape[0], -1),
            proposal_sizes=proposals.sizes,
            photo_orientation=photo_orientation,
            **{key: value for key, value in encoded.items() if key != "last_hidden_state"},
        )

    @property
    def _asks_generator(self) -> bool:
        return self.config.ensemble_weight > 0 and self.mask_generator is not None

    def _generator_class_ids(self, names: list[list[str]]) -> torch.LongTensor:
        known = known_class_ids(names, self.mask_generator.config.id2label)
        return torch.tensor(known, dtype=torch.long, device=self.device)

    def _stored_vocabulary(self) -> dict[str, torch.Tensor | None]:
        config = self.config
        if self.fisa.class_embeds is None:
            raise ValueError(
                "No classes to choose from: pass `input_ids` or `class_embeds` (FisaProcessor and `encode_vocabulary` "
                "make them), or store a vocabulary with `model.set_vocabulary(processor, [...])`."
            )
        return {
            "class_embeds": self.fisa.class_embeds,
            "prompt_class_ids": torch.tensor(config.prompt_class_ids, dtype=torch.long, device=self.device),
            "class_is_thing": torch.tensor(config.is_thing, dtype=torch.bool, device=self.device),
            "generator_class_ids": self._generator_class_ids(config.class_names) if self._asks_generator else None,
        }


__all__ = ["FisaForUniversalSegmentation", "FisaModel", "FisaPreTrainedModel"]
