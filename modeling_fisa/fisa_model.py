"""FisaModel: CLIP whose image tower encodes mask proposals beside the image."""

from collections.abc import Collection, MutableMapping
from typing import Any

import torch
from torch import nn
from transformers import CLIPModel, CLIPTextModel, CLIPVisionModel, initialization
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.adapter_vocabulary import pop_beside_weights
from fisa.modeling_fisa.encoded_vocabulary import average_templates
from fisa.modeling_fisa.mask_attention import (
    mask_attention_bias,
    patch_coverage,
    segment_attention_bias,
    segments_of_patches,
)
from fisa.modeling_fisa.mask_encoder import FisaEncoderLayer, MaskEncoder
from fisa.modeling_fisa.outputs_fisa import FisaModelOutput
from fisa.modeling_fisa.semantic_guidance import guiding_texts
from fisa.modeling_fisa.vocabulary_model import VocabularyModel


class FisaModel(VocabularyModel):
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

    _keys_to_ignore_on_load_unexpected = [r"^mask_generator\."]

    def __init__(self, config: FisaConfig):
        super().__init__(config)
        text_config, vision_config = config.text_tower, config.image_tower
        self.text_model = CLIPTextModel._from_config(text_config)
        self.vision_model = CLIPVisionModel._from_config(vision_config)
        self.visual_projection = nn.Linear(vision_config.hidden_size, config.projection_dim, bias=False)
        self.text_projection = nn.Linear(text_config.hidden_size, config.projection_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.mask_encoder = MaskEncoder(config)
        self.register_load_state_dict_pre_hook(_take_over_from_adapter)
        self.post_init()
        self.freeze_untrained_parts()

    def _untrained_parts(self) -> list[nn.Module]:
        return [self.text_model, self.text_projection]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is not self:
            return
        factor = self.config.text_tower.initializer_factor
        for projection in (self.text_projection, self.visual_projection):
            initialization.normal_(projection.weight, std=projection.in_features**-0.5 * factor)
        initialization.constant_(self.logit_scale, self.config.logit_scale_init_value)
        for stored in (self.class_embeds, self.other_embeds):
            if stored is not None:
                initialization.zeros_(stored)
        self.init_mask_encoder_from_clip()

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


__all__ = ["FisaModel"]
