"""Mask attention: each mask token sees only the CLS token and the patches that its proposal covers.

Optionally the image tokens, too, look at their own segment more than at others: see [`segment_attention_bias`].
"""

from typing import NamedTuple

import torch
from torch import nn
from transformers import CLIPVisionConfig
from transformers.models.clip.modeling_clip import CLIPAttention
from transformers.utils.generic import maybe_autocast

from fisa.modeling_fisa.multi_head_attention import attend, split_heads


# Coverage is a sum of float32 products: rounding must not exclude a patch that is covered by exactly τ.
COVERAGE_TOLERANCE = 1e-5
# A patch where no proposal is likelier than this belongs to none.
LEAST_CLAIM = 1e-3
NO_SEGMENT = -1


def patch_coverage(
    masks: torch.Tensor,
    *,
    image_size: tuple[int, int],
    patch_size: int,
    proposal_sizes: torch.Tensor | None = None,
    windows: torch.Tensor | None = None,
) -> torch.Tensor:
    """The fraction of each image patch that each proposal covers, exact for masks and images of any size.

    Args:
        masks (`torch.Tensor` of shape `(batch_size, num_proposals, mask_height, mask_width)`):
            Mask logits, each mask spanning its photo; a pixel is covered where its logit is positive.
        image_size (`tuple[int, int]`):
            Height and width in pixels of the image that the patches are cut from. As in CLIP, remaining pixels at
            the bottom and on the right belong to no patch.
        patch_size (`int`): side of a patch, in pixels of the image.
        proposal_sizes (`torch.Tensor` of shape `(batch_size, 2)`, *optional*):
            Height and width, in mask pixels, of the part of each mask that spans its photo. `None`: all of it.
        windows (`torch.LongTensor` of shape `(batch_size, 3, 2)`, *optional*):
            The part of each photo that the image shows, in pixels of the photo: its top and left border, its height
            and width, and the height and width of the photo. `None`: all of it.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_proposals, num_patches)`, float32, in [0, 1].
    """
    return _patch_means((masks > 0).float(), image_size, patch_size, proposal_sizes, windows)


def segments_of_patches(
    masks: torch.Tensor,
    objectness: torch.Tensor,
    *,
    image_size: tuple[int, int],
    patch_size: int,
    proposal_sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """The proposal that each image patch belongs to: the likeliest one there.

    How likely a proposal is on a patch is its objectness times the mean over the patch of its mask's probability, the
    sigmoid of the logits. Where no proposal is likelier than one in a thousand, the patch belongs to none.

    Args:
        masks, image_size, patch_size, proposal_sizes: as for [`patch_coverage`].
        objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`), in [0, 1].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_patches)`, int64: indices of proposals, or `NO_SEGMENT`.
    """
    probs = masks.float().sigmoid() if masks.is_floating_point() else (masks > 0).float()
    claims = _patch_means(probs, image_size, patch_size, proposal_sizes) * objectness.float().unsqueeze(-1)
    strongest = claims.max(dim=1)
    return strongest.indices.masked_fill(strongest.values <= LEAST_CLAIM, NO_SEGMENT)


def _patch_means(
    values: torch.Tensor,
    image_size: tuple[int, int],
    patch_size: int,
    proposal_sizes: torch.Tensor | None,
    windows: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mean of each mask's values `(batch_size, num_proposals, mask_height, mask_width)` over each image patch."""
    if proposal_sizes is None:
        proposal_sizes = torch.tensor([values.shape[-2:]])
    if windows is None:
        windows = torch.tensor([[[0, 0], [1, 1], [1, 1]]])
    rows, columns = (
        _area_shares(
            proposal_sizes[:, axis].to(values.device),
            windows[..., axis].to(values.device),
            length=values.shape[-2 + axis],
            image_side=image_size[axis],
            patch_size=patch_size,
        )
        for axis in (0, 1)
    )
    with maybe_autocast(values.device.type, enabled=False):  # autocast would count pixels with eight bits
        return (rows.unsqueeze(1) @ values @ columns.unsqueeze(1).transpose(-1, -2)).flatten(2)


def _area_shares(
    sides: torch.Tensor, windows: torch.Tensor, *, length: int, image_side: int, patch_size: int
) -> torch.Tensor:
    """The share of each patch that each mask pixel fills along one axis: `(batch_size, num_patches, length)`.

    The photo spans the first `sides` `(batch_size,)` mask pixels; later pixels fill nothing. `windows`
    `(batch_size, 3)`: where the image begins on the photo, how much of it it shows, and how long the photo is, in
    pixels of the photo. Rows sum to 1.
    """
    start, span, photo_side = windows.view(-1, 3, 1, 1).unbind(1)
    sides = sides.view(-1, 1, 1)
    # In units of 1 / (image_side · photo_side) of a mask pixel, all borders are integers and the overlaps exact.
    patch_length, pixel_length = patch_size * span * sides, image_side * photo_side
    patch = torch.arange(image_side // patch_size, device=sides.device).view(1, -1, 1) * patch_length
    patch = patch + start * image_side * sides
    pixel = torch.arange(length, device=sides.device).view(1, 1, -1) * pixel_length
    overlap = torch.minimum(patch + patch_length, pixel + pixel_length) - torch.maximum(patch, pixel)
    return overlap.clamp(min=0).float() / patch_length


def attended_patches(coverage: torch.Tensor, *, threshold: float) -> torch.Tensor:
    """The patches that each mask token attends to: those that its proposal covers.

    A patch counts as covered if its coverage is positive and at least `threshold`. If no patch reaches the threshold,
    the patches with the largest coverage count. The mask token of an empty proposal attends to no patch.

    Args:
        coverage (`torch.Tensor` of shape `(batch_size, num_proposals, num_patches)`): fractions in [0, 1].
        threshold (`float`): τ of [`FisaConfig`].

    Returns:
        `torch.BoolTensor` of the same shape. Passed in again as coverage, it is returned unchanged.
    """
    reached = coverage.amax(dim=-1, keepdim=True).clamp(max=threshold)
    return (coverage >= reached - COVERAGE_TOLERANCE) & (coverage > 0)


def mask_attention_bias(coverage: torch.Tensor, *, threshold: float, dtype: torch.dtype) -> torch.Tensor:
    """The bias of the mask tokens' attention scores: 0 for the CLS token and the attended patches, −∞ elsewhere.

    Args:
        coverage, threshold: as for [`attended_patches`].
        dtype (`torch.dtype`): that of the attention scores.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, num_proposals, 1 + num_patches)`, the same for all heads.
    """
    attended = nn.functional.pad(attended_patches(coverage, threshold=threshold), (1, 0), value=True)
    bias = torch.zeros(attended.shape, dtype=dtype, device=coverage.device)
    return bias.masked_fill(~attended, float("-inf")).unsqueeze(1)


def segment_attention_bias(segments: torch.Tensor, *, penalty: float, dtype: torch.dtype) -> torch.Tensor:
    """The bias of the image tokens' attention scores: −penalty between patches of different segments, else 0.

    The CLS token attends to all patches, and all to it, as ever.

    Args:
        segments (`torch.Tensor` of shape `(batch_size, num_patches)`): as [`segments_of_patches`] returns them.
        penalty (`float`): finite, 0 or more.
        dtype (`torch.dtype`): that of the attention scores.

    Returns:
        `torch.Tensor` of shape `(batch_size, 1, 1 + num_patches, 1 + num_patches)`, the same for all heads.
    """
    differ = segments.unsqueeze(-1) != segments.unsqueeze(-2)
    return nn.functional.pad(differ.to(dtype) * -penalty, (1, 0, 1, 0)).unsqueeze(1)


class Attended(NamedTuple):
    """What [`MaskAttention`] returns.

    Attributes:
        image_output (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)` or `None`):
            The attention output of the image tokens, `None` if the mask tokens are encoded alone.
        mask_output (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`):
            The attention output of the mask tokens.
        mask_query (`torch.Tensor` of shape `(batch_size, num_heads, num_proposals, head_dim)`):
            The mask tokens' queries.
        image_weights, mask_weights: the attention weights of both, `None` if the back-end does not return them.
    """

    image_output: torch.Tensor | None
    mask_output: torch.Tensor
    mask_query: torch.Tensor
    image_weights: torch.Tensor | None
    mask_weights: torch.Tensor | None


class MaskAttention(nn.Module):
    """Attention of image tokens to themselves, as in CLIP, and of mask tokens to the image tokens they may see.

    Keys and values are computed once for both, and all projections but one are CLIP's own. Only the mask tokens' query
    projection W'_q is new; it starts as a copy of CLIP's, and training it leaves the image tokens unchanged.
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
        image_bias: torch.Tensor | None = None,
        clip_attention: CLIPAttention,
        masks_alone: bool = False,
    ) -> Attended:
        """
        Args:
            image_states (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)`)
            mask_states (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`)
            attention_bias (`torch.Tensor`): as [`mask_attention_bias`] returns it.
            image_bias (`torch.Tensor`, *optional*): as [`segment_attention_bias`] returns it.
            clip_attention (`CLIPAttention`): the attention of the current CLIP layer.
            masks_alone (`bool`): leave out the image tokens' output.
        """
        clip = clip_attention
        key, value = (split_heads(project(image_states), clip.num_heads) for project in (clip.k_proj, clip.v_proj))
        options = {
            "config": clip.config,
            "scaling": clip.scale,
            "dropout": clip.dropout if self.training else 0.0,
        }
        image_output, image_weights = None, None
        if not masks_alone:
            image_query = split_heads(clip.q_proj(image_states), clip.num_heads)
            image_output, image_weights = attend(clip, image_query, key, value, image_bias, **options)
            image_output = clip.out_proj(image_output)
        mask_query = split_heads(self.query_proj(mask_states), clip.num_heads)
        mask_output, mask_weights = attend(clip, mask_query, key, value, attention_bias, **options)
        return Attended(image_output, clip.out_proj(mask_output), mask_query, image_weights, mask_weights)
