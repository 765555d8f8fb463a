"""The image tower: CLIP's layers with mask tokens beside the image tokens, one mask token per proposal.

In layer l, with image tokens X, mask tokens M, class texts T, and CLIP's own norms, projections and MLP:

    X, M ← SEVE before the layer (X, M, T)
    M ← M + attention of LN1 M to the part of LN1 X that each proposal covers + SEVE beside it (T)
    M ← M + MLP(LN2 M)
    X ← X + self-attention of LN1 X + bias between segments;   X ← X + MLP(LN2 X)

The image tokens never see the mask tokens. The bias between segments is 0 unless `segment_attention_penalty` is set.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn
from transformers import CLIPVisionModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from fisa.acceleration.offloaded_weights import brought_in
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.mask_attention import MaskAttention
from fisa.modeling_fisa.semantic_guidance import semantic_guidance


class FisaEncoderLayer(GradientCheckpointingLayer):
    """One of CLIP's encoder layers with the mask tokens beside the image tokens, guided by SEVE where chosen.

    The CLIP layer is passed to each call rather than owned, so that CLIP's weights keep CLIP's names.
    """

    def __init__(self, config: FisaConfig, *, layer_index: int):
        super().__init__()
        self.mask_attention = MaskAttention(config.image_tower)
        self.semantic_guidance = semantic_guidance(config, layer_index=layer_index)

    def forward(
        self,
        image_tokens: torch.Tensor,
        mask_tokens: torch.Tensor,
        attention_bias: torch.Tensor,
        texts: torch.Tensor | None,
        *,
        image_bias: torch.Tensor | None = None,
        clip_layer: CLIPEncoderLayer,
        masks_alone: bool = False,
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Returns the image tokens, the mask tokens, and the attention weights of each or `None`.

        Args:
            masks_alone (`bool`):
                Leave out the image tokens (`None`): for the last layer, after which no mask token reads them.
        """
        image_tokens, mask_tokens = self.semantic_guidance.before(image_tokens, mask_tokens, texts)
        image_output, mask_output, mask_query, image_weights, mask_weights = self.mask_attention(
            clip_layer.layer_norm1(image_tokens),
            clip_layer.layer_norm1(mask_tokens),
            attention_bias,
            image_bias=image_bias,
            clip_attention=clip_layer.self_attn,
            masks_alone=masks_alone,
        )
        mask_tokens = mask_tokens + self.semantic_guidance.beside(mask_output, mask_query, texts, clip_layer)
        mask_tokens = mask_tokens + clip_layer.mlp(clip_layer.layer_norm2(mask_tokens))
        if masks_alone:
            return None, mask_tokens, None, mask_weights
        image_tokens = image_tokens + image_output
        image_tokens = image_tokens + clip_layer.mlp(clip_layer.layer_norm2(image_tokens))
        return image_tokens, mask_tokens, image_weights, mask_weights


@dataclass(frozen=True)
class EncodedTokens:
    """What [`MaskEncoder`] returns; the tuples are as in [`FisaModelOutput`], `None` unless requested.

    Attributes:
        image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)` or `None`)
        mask_tokens (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`)
    """

    image_tokens: torch.Tensor | None
    mask_tokens: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None
    mask_hidden_states: tuple[torch.Tensor, ...] | None
    attentions: tuple[torch.Tensor, ...] | None
    mask_attentions: tuple[torch.Tensor, ...] | None


class MaskEncoder(nn.Module):
    """What FISA adds to CLIP's image tower: a position for the mask tokens and a layer beside each of CLIP's."""

    def __init__(self, config: FisaConfig):
        super().__init__()
        # An embedding of one row rather than a bare parameter: PEFT adapts leaf modules.
        self.mask_position = nn.Embedding(1, config.image_tower.hidden_size)
        self.layers = nn.ModuleList(
            FisaEncoderLayer(config, layer_index=index) for index in range(config.image_tower.num_hidden_layers)
        )

    def embed(
        self, pixel_values: torch.Tensor, num_proposals: int, *, clip: CLIPVisionModel
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The image tokens of CLIP, and one mask token per proposal: CLIP's class embedding at the mask position.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, height, width)`)
            num_proposals (`int`)
            clip (`CLIPVisionModel`): whose embeddings and first norm are used.
        """
        embeddings, normalise = clip.embeddings, clip.pre_layrnorm
        with brought_in(embeddings, embeddings.position_embedding):
            class_token = embeddings.class_embedding
            image_tokens = normalise(embeddings(pixel_values, interpolate_pos_encoding=True))
        # Called rather than read, so that an adapter on it takes part.
        mask_position = self.mask_position(image_tokens.new_zeros(1, dtype=torch.long))
        mask_token = normalise(class_token + mask_position)
        return image_tokens, mask_token.expand(pixel_values.shape[0], num_proposals, -1)

    def forward(
        self,
        image_tokens: torch.Tensor,
        mask_tokens: torch.Tensor,
        attention_bias: torch.Tensor,
        texts: torch.Tensor | None,
        *,
        image_bias: torch.Tensor | None = None,
        clip_layers: nn.ModuleList,
        output_hidden_states: bool | Collection[int] = False,
        output_attentions: bool = False,
        output_image_tokens: bool = True,
    ) -> EncodedTokens:
        """
        Args:
            image_tokens, mask_tokens: from [`MaskEncoder.embed`].
            attention_bias: from [`~fisa.modeling_fisa.mask_attention.mask_attention_bias`].
            texts: from [`~fisa.modeling_fisa.semantic_guidance.guiding_texts`]; `None` without SEVE.
            image_bias: from [`~fisa.modeling_fisa.mask_attention.segment_attention_bias`]; `None` without a penalty.
            clip_layers: CLIP's encoder layers.
            output_hidden_states: True for those of all layers, or the indices of some, where 0 are the embeddings and
                negative indices count from the end. The others are `None`.
            output_image_tokens: False skips most of the last layer, unless another requested output needs it.
        """
        wanted = _wanted_hidden_states(output_hidden_states, count=len(self.layers) + 1)
        tokens = [(image_tokens, mask_tokens) if 0 in wanted else (None, None)]
        weights = []
        ends_with_masks = not (output_image_tokens or output_hidden_states or output_attentions)
        for number, (layer, clip_layer) in enumerate(zip(self.layers, clip_layers), start=1):
            image_tokens, mask_tokens, *layer_weights = layer(
                image_tokens,
                mask_tokens,
                attention_bias,
                texts,
                image_bias=image_bias,
                clip_layer=clip_layer,
                masks_alone=ends_with_masks and clip_layer is clip_layers[-1],
            )
            tokens.append((image_tokens, mask_tokens) if number in wanted else (None, None))
            if output_attentions and layer_weights[0] is not None:
                weights.append(layer_weights)
        hidden_states = zip(*tokens) if output_hidden_states else (None, None)
        attentions = zip(*weights) if weights else (None, None)
        return EncodedTokens(image_tokens, mask_tokens, *hidden_states, *attentions)


def _wanted_hidden_states(asked: bool | Collection[int], *, count: int) -> set[int]:
    if isinstance(asked, bool):
        return set(range(count)) if asked else set()
    wrong = [index for index in asked if not -count <= index < count]
    if wrong:
        raise ValueError(
            f"`output_hidden_states` names {', '.join(map(str, wrong))}; there are {count}, 0 to {count - 1}, the "
            f"embeddings first, or {-count} to -1 from the end."
        )
    return {index % count for index in asked}
