"""Mask2Former's deformable attention in fewer passes over memory, for inference with unchanged weights."""

from functools import reduce
from itertools import accumulate
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention,
)


class SummedDeformableAttention(Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention):
    """Deformable attention (Zhu et al., arXiv 2010.04159, equation 3) as weighted sums of rows.

    A sample between four cells of a feature map is a weighted sum of four rows of features, and attention is a
    weighted sum of samples: `embedding_bag` computes both at once. transformers stores all samples first and sums them
    in a second and third pass. Results are equal up to rounding. transformers' own code runs with gradients, while
    tracing, and on other devices than the CPU, where the speed was not measured.
    """

    def forward(
        self, hidden_states: torch.Tensor, *arguments: Any, **context: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As in transformers: the attention output of each query, and the weights of its samples."""
        is_measured_case = hidden_states.device.type == "cpu" and not torch.is_grad_enabled() and not arguments
        if torch.compiler.is_compiling() or not is_measured_case:
            return super().forward(hidden_states, *arguments, **context)
        return self._summed(hidden_states, **context)

    def _summed(
        self,
        hidden_states: torch.Tensor,
        *,
        encoder_hidden_states: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        attention_mask: torch.Tensor | None = None,
        position_embeddings: torch.Tensor | None = None,
        **_: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        queries = self.with_pos_embed(hidden_states, position_embeddings)
        batch_size, num_queries, _ = queries.shape
        values = self.value_proj(encoder_hidden_states)
        if attention_mask is not None:
            values = values.masked_fill(attention_mask[..., None], 0.0)
        values = values.unflatten(-1, (self.n_heads, -1))
        samples = (batch_size, num_queries, self.n_heads, self.n_levels, self.n_points)
        weights = self.attention_weights(queries).unflatten(-1, (self.n_heads, -1)).softmax(dim=-1).view(samples)
        offsets = self.sampling_offsets(queries).view(*samples, 2)
        sizes = torch.tensor(spatial_shapes_list, dtype=torch.float32)
        x, y = (
            (reference_points[..., axis] * sizes[:, 1 - axis] - 0.5)[:, :, None, :, None] + offsets[..., axis]
            for axis in (0, 1)
        )
        summed = weighted_sums(values, spatial_shapes_list, x, y, weights)
        return self.output_proj(summed), weights


def sum_samples_at_once(generator: PreTrainedModel) -> PreTrainedModel:
    """Turn all deformable attentions of a generator, if any, into [`SummedDeformableAttention`]."""
    for module in generator.modules():
        if type(module) is Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention:
            module.__class__ = SummedDeformableAttention
    return generator


def weighted_sums(
    values: torch.Tensor,
    shapes: list[tuple[int, int]],
    x: torch.Tensor,
    y: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    """Sample feature maps bilinearly, with zeros outside, and sum the weighted samples of each query and head.

    Args:
        values (`torch.Tensor` of shape `(batch_size, num_cells, num_heads, width)`): all levels' cells, row by row.
        shapes: height and width of each level.
        x, y (`torch.Tensor` of shape `(batch_size, num_queries, num_heads, num_levels, num_points)`):
            where to sample, float32, in cells; 0 is the centre of the first cell.
        weights (`torch.Tensor` of the same shape): the weight of each sample.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_queries, num_heads * width)`.
    """
    batch_size, num_queries, num_heads, _, num_points = x.shape
    # Zeros outside: a frame one cell wide at the top and left, two cells wide at the bottom and right.
    levels = values.split([height * width for height, width in shapes], dim=1)
    framed = [
        nn.functional.pad(level.unflatten(1, shape), (0, 0, 0, 0, 1, 2, 1, 2)).flatten(1, 2)
        for level, shape in zip(levels, shapes)
    ]
    rows = torch.cat(framed, dim=1)
    starts = [0, *accumulate(level.shape[1] for level in framed[:-1])]

    def constant(level_values: list[int]) -> torch.Tensor:
        return x.new_tensor(level_values)[:, None].repeat(1, num_points)

    height, width = (constant(list(sides)) for sides in zip(*shapes))
    pitch, first = width + 3, constant(starts)
    # NaN counts as outside: it must not become a row index.
    x, y = (axis.fmax(axis.new_tensor(-1.0)).fmin(end) + 1 for axis, end in ((x, width), (y, height)))
    left, top = x.floor(), y.floor()
    cell = ((top * pitch + left + first) * num_heads).long()
    cell += torch.arange(num_heads)[:, None, None]
    cell += torch.arange(batch_size)[:, None, None, None, None] * (rows.shape[1] * num_heads)
    right_share, bottom_share = weights * (x - left), y - top
    left_share = weights - right_share
    shares = {
        (0, 0): left_share - left_share * bottom_share,
        (0, 1): right_share - right_share * bottom_share,
        (1, 0): left_share * bottom_share,
        (1, 1): right_share * bottom_share,
    }
    down = (pitch * num_heads).long()
    corner_sums = (
        nn.functional.embedding_bag(
            (cell + (below * down + right * num_heads)).flatten(0, 2).flatten(1),
            rows.flatten(0, 2),
            per_sample_weights=share.to(rows.dtype).flatten(0, 2).flatten(1),
            mode="sum",
        )
        for (below, right), share in shares.items()
    )
    summed = reduce(torch.add, corner_sums)
    return summed.view(batch_size, num_queries, -1)
