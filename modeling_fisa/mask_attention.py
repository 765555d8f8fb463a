"""Mask tokens beside CLIP's image stream: one a proposal, each seeing only the patches that its proposal covers."""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, CLIPEncoderLayer, eager_attention_forward
from transformers.utils.generic import maybe_autocast

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.semantic_guidance import SemanticGuidance, TextKeys


# Fractions are sums of float32 products: a patch that is covered by exactly τ must not be lost to their rounding.
COVERAGE_TOLERANCE = 1e-5


def patch_coverage(
    masks: torch.Tensor,
    *,
    image_size: tuple[int, int],
    patch_size: int,
    proposal_sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Fraction of each image patch that each proposal covers, exact for masks and images of any size.

    Args:
        masks (`torch.Tensor` of shape `(batch_size, num_proposals, mask_height, mask_width)`):
            Mask logits, each mask spanning its photo; a pixel is covered where its logit is positive.
        image_size (`tuple[int, int]`):
            Height and width in pixels of the image that the patches are cut from. As in CLIP, what is left over at
            the bottom and on the right belongs to no patch.
        patch_size (`int`): side of a patch, in pixels of the image.
        proposal_sizes (`torch.Tensor` of shape `(batch_size, 2)`, *optional*):
            Height and width, in mask pixels, of the part of each mask that spans its photo. `None`: all of it.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_proposals, num_patches)`, float32, in [0, 1].
    """
    height, width = masks.shape[-2:]
    if proposal_sizes is None:
        heights, widths = (torch.tensor([side], device=masks.device) for side in (height, width))
    else:
        heights, widths = proposal_sizes.to(masks.device).unbind(-1)
    rows = _area_shares(heights, length=height, image_side=image_size[0], patch_size=patch_size)
    columns = _area_shares(widths, length=width, image_side=image_size[1], patch_size=patch_size)
    covered = (masks > 0).to(rows.dtype)
    with maybe_autocast(masks.device.type, enabled=False):  # it would count pixels in eight bits
        return (rows.unsqueeze(1) @ covered @ columns.unsqueeze(1).transpose(-1, -2)).flatten(2)


def _area_shares(sides: torch.Tensor, *, length: int, image_side: int, patch_size: int) -> torch.Tensor:
    """Share of each patch that each mask pixel fills, along one axis: `(batch_size, num_patches, length)`.

    `sides` `(batch_size,)` mask pixels span the image; pixels beyond fill nothing. Rows sum to 1.
    """
    # In units of 1 / image_side of a mask pixel every border is an integer, so that the overlaps are exact.
    sides = sides.view(-1, 1, 1)
    start = torch.arange(image_side // patch_size, device=sides.device).view(1, -1, 1) * patch_size * sides
    pixel = torch.arange(length, device=sides.device).view(1, 1, -1) * image_side
    overlap = torch.minimum(start + patch_size * sides, pixel + image_side) - torch.maximum(start, pixel)
    return overlap.clamp(min=0) / (patch_size * sides)


def attended_patches(coverage: torch.Tensor, *, threshold: float) -> torch.Tensor:
    """The patches that each mask token attends to: those that its proposal covers.

    A patch is covered at a coverage of at least `threshold`, and never at none; where no patch reaches the threshold,
    those of the largest coverage count. A proposal that covers nothing attends to no patch.

    Args:
        coverage (`torch.Tensor` of shape `(batch_size, num_proposals, num_patches)`): fractions in [0, 1].
        threshold (`float`): τ of [`FisaConfig`].

    Returns:
        `torch.BoolTensor` of the same shape. As coverage of zeros and ones it gives itself again.
    """
    reached = coverage.amax(dim=-1, keepdim=True).clamp(max=threshold)
    return (coverage >= reached - COVERAGE_TOLERANCE) & (coverage > 0)


def mask_attention_bias(coverage: torch.Tensor, *, threshold: float, dtype: torch.dtype) -> torch.Tensor:
    """What is added to a mask token's attention scores: 0 for the CLS token and the patches that it attends to, −∞
    elsewhere.

    Args:
        coverage, threshold: as for [`attended_patches`].
        dtype (`torch.dtype`): type of the attention scores.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, num_proposals, 1 + num_patches)`, the same for all heads.
    """
    attended = nn.functional.pad(attended_patches(coverage, threshold=threshold), (1, 0), value=True)
    bias = torch.zeros(attended.shape, dtype=dtype, device=coverage.device)
    return bias.masked_fill(~attended, float("-inf")).unsqueeze(1)


class MaskAttention(nn.Module):
    """Attention of image tokens to themselves, as in CLIP, and of mask tokens to the image tokens they may see.

    Keys, values and the output projection are CLIP's own and computed once for both; only the mask tokens' query
    projection W'_q is new, a copy of CLIP's at the start, so that training it leaves the image stream untouched.
    """

    def __init__(self, config: CLIPVisionConfig):
        super().__init__()
        self.query_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        image_states: torch.Tensor,
        mask_states: torch.Tensor,
        attention_bias: torch.Tensor,
        *,
        clip_attention: CLIPAttention,
        text_attention: Callable[[torch.Tensor], torch.Tensor] | None = None,
        masks_alone: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Returns the image tokens' and the mask tokens' attention outputs, then their attention weights or `None`.

        Args:
            text_attention (*optional*): what the mask tokens' queries find beside the image, added to their output.
            masks_alone (`bool`): leave out the image tokens' output.
        """

        def heads(states: torch.Tensor) -> torch.Tensor:
            return states.unflatten(-1, (clip_attention.num_heads, clip_attention.head_dim)).transpose(1, 2)

        key, value = heads(clip_attention.k_proj(image_states)), heads(clip_attention.v_proj(image_states))
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(
            clip_attention.config._attn_implementation, eager_attention_forward
        )

        def attend(query: torch.Tensor, bias: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
            dropout = clip_attention.dropout if self.training else 0.0
            output, weights = attention(
                clip_attention, query, key, value, bias, scaling=clip_attention.scale, dropout=dropout, **kwargs
            )
            return clip_attention.out_proj(output.flatten(2)), weights

        image_output, image_weights = None, None
        if not masks_alone:
            image_output, image_weights = attend(heads(clip_attention.q_proj(image_states)), None)
        if mask_states.shape[1] == 0:  # nothing to attend with, and not every back-end takes that
            return image_output, mask_states, image_weights, None
        mask_query = heads(self.query_proj(mask_states))
        mask_output, mask_weights = attend(mask_query, attention_bias)
        if text_attention is not None:
            mask_output = mask_output + text_attention(mask_query)
        return image_output, mask_output, image_weights, mask_weights


class FisaEncoderLayer(GradientCheckpointingLayer):
    """One of CLIP's encoder layers with the mask tokens beside the image tokens, and SEVE before it where chosen.

    The CLIP layer is handed in at each call rather than owned, so that CLIP's weights keep CLIP's names.
    """

    def __init__(self, config: FisaConfig, *, layer_index: int):
        super().__init__()
        self.mask_attention = MaskAttention(config.vision_config)
        kind = TextKeys if config.seve_tokens == "mask_keys" else SemanticGuidance
        self.semantic_guidance = kind(config) if layer_index in config.seve_layers else None

    def forward(
        self,
        image_tokens: torch.Tensor,
        mask_tokens: torch.Tensor,
        attention_bias: torch.Tensor,
        class_embeds: torch.Tensor | None,
        *,
        clip_layer: CLIPEncoderLayer,
        masks_alone: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """Returns the image tokens, the mask tokens, and the attention weights of each or `None`.

        Args:
            masks_alone (`bool`):
                Leave out the image tokens (`None`): for the last layer, after which no mask token reads them.
        """
        text_attention = None
        if isinstance(self.semantic_guidance, SemanticGuidance):
            image_tokens, mask_tokens = self.semantic_guidance(image_tokens, mask_tokens, class_embeds)
        elif self.semantic_guidance is not None:
            text_attention = partial(
                self.semantic_guidance,
                class_embeds=class_embeds,
                clip_attention=clip_layer.self_attn,
                layer_norm=clip_layer.layer_norm1,
            )
        image_output, mask_output, image_weights, mask_weights = self.mask_attention(
            clip_layer.layer_norm1(image_tokens),
            clip_layer.layer_norm1(mask_tokens),
            attention_bias,
            clip_attention=clip_layer.self_attn,
            text_attention=text_attention,
            masks_alone=masks_alone,
            **kwargs,
        )
        mask_tokens = mask_tokens + mask_output
        mask_tokens = mask_tokens + clip_layer.mlp(clip_layer.layer_norm2(mask_tokens))
        if masks_alone:
            return None, mask_tokens, None, mask_weights
        image_tokens = image_tokens + image_output
        image_tokens = image_tokens + clip_layer.mlp(clip_layer.layer_norm2(image_tokens))
        return image_tokens, mask_tokens, image_weights, mask_weights


class MaskEncoder(nn.Module):
    """What FISA adds to CLIP's image tower: a position for the mask tokens and a layer beside each of CLIP's."""

    def __init__(self, config: FisaConfig):
        super().__init__()
        # An embedding of one row rather than a bare parameter: PEFT adapts leaf modules.
        self.mask_position = nn.Embedding(1, config.vision_config.hidden_size)
        self.layers = nn.ModuleList(
            FisaEncoderLayer(config, layer_index=index) for index in range(config.vision_config.num_hidden_layers)
        )
