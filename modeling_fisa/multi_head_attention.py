"""Attention over several heads, by the back-end that a model was loaded with (`attn_implementation`)."""

from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import eager_attention_forward


def split_heads(states: torch.Tensor, num_heads: int) -> torch.Tensor:
    """`(batch_size, length, width)` to `(batch_size, num_heads, length, width / num_heads)`."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def attend(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    config: PreTrainedConfig,
    scaling: float,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The attention output of each query, with the heads concatenated, and its attention weights.

    Args:
        module (`nn.Module`): passed on to the back-end, which reads `is_causal` and `training` from it.
        query (`torch.Tensor` of shape `(batch_size, num_heads, num_queries, head_dim)`)
        key, value (`torch.Tensor` of shape `(batch_size, num_heads, num_keys, head_dim)`)
        bias (`torch.Tensor` of shape `(batch_size, 1, num_queries, num_keys)`, *optional*): added to the scores.
        config (`PreTrainedConfig`): names the back-end.
        scaling (`float`): the factor of the scores, applied before the bias is added.

    Returns:
        The output `(batch_size, num_queries, num_heads * head_dim)`, and the weights
        `(batch_size, num_heads, num_queries, num_keys)`, or `None` from back-ends that do not return them.
    """
    if query.shape[2] == 0:  # not every back-end takes an empty set of queries
        return query.transpose(1, 2).flatten(2), None
    backend = ALL_ATTENTION_FUNCTIONS.get_interface(config._attn_implementation, eager_attention_forward)
    output, weights = backend(module, query, key, value, bias, scaling=scaling, **options)
    return output.flatten(2), weights
