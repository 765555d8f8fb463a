"""SEVE, semantic-guided visual encoding: the class texts of the vocabulary in use guide CLIP's image tower.

The paper leaves the mechanism open. This module has two, and a third class that does nothing, for layers without SEVE.
All three have the same two methods:

- [`TextCrossAttention`] acts *before* a layer: the visual tokens cross-attend to the texts.
- [`TextKeys`] acts *beside* a layer's attention: the texts are additional keys and values for the mask queries.
- [`SemanticGuidance`] returns everything unchanged.
"""

import torch
from torch import nn
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.multi_head_attention import attend, split_heads


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero: its branch changes nothing until it is trained."""


class GuidanceLayerNorm(nn.LayerNorm):
    """A layer norm that states its width where PEFT looks for it in layers of unknown types; without it, PEFT warns.

    transformers recognises norms by their class name when it initialises them: the name must contain "LayerNorm".
    """

    @property
    def input_size(self) -> int:
        return self.normalized_shape[-1]

    output_size = input_size


class SemanticGuidance(nn.Module):
    """Guidance without parameters that does nothing: for layers without SEVE, and the base of both mechanisms."""

    def before(
        self, image_tokens: torch.Tensor, mask_tokens: torch.Tensor, texts: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Guide the tokens before the layer encodes them.

        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)`)
            mask_tokens (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`)
            texts (`torch.Tensor` of shape `(num_texts, projection_dim)`):
                Or one set per photo, batch first; `None` if no layer has SEVE.

        Returns:
            The image tokens and the mask tokens, in the same shapes.
        """
        return image_tokens, mask_tokens

    def beside(
        self,
        mask_output: torch.Tensor,
        mask_query: torch.Tensor,
        texts: torch.Tensor | None,
        clip_layer: CLIPEncoderLayer,
    ) -> torch.Tensor:
        """Guide the attention output of the mask tokens.

        Args:
            mask_output (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`):
                The mask tokens' attention output.
            mask_query (`torch.Tensor` of shape `(batch_size, num_heads, num_proposals, head_dim)`):
                The queries of that attention.
            texts (`torch.Tensor` of shape `(num_texts, projection_dim)`):
                Or one set per photo, batch first; `None` if no layer has SEVE.
            clip_layer (`CLIPEncoderLayer`): the current CLIP layer.

        Returns:
            `torch.Tensor` of the shape of `mask_output`.
        """
        return mask_output


class TextCrossAttention(SemanticGuidance):
    """A separate cross-attention from the visual tokens to the class texts, added to the tokens before the layer.

    The order of the classes does not matter. The output projection starts at zero, so that untrained guidance leaves
    every token bit-identical.
    """

    is_causal = False

    def __init__(self, config: FisaConfig):
        super().__init__()
        self.config = config.image_tower
        self.tokens = config.seve_tokens
        self.num_heads = config.seve_num_heads
        self.scale = (config.seve_width // config.seve_num_heads) ** -0.5
        token_width, text_width = config.image_tower.hidden_size, config.projection_dim
        self.token_norm = GuidanceLayerNorm(token_width, eps=config.image_tower.layer_norm_eps)
        self.text_norm = GuidanceLayerNorm(text_width, eps=config.image_tower.layer_norm_eps)
        self.q_proj = nn.Linear(token_width, config.seve_width)
        # Without a bias: the softmax would cancel it, and it would never learn.
        self.k_proj = nn.Linear(text_width, config.seve_width, bias=False)
        self.v_proj = nn.Linear(text_width, config.seve_width)
        self.out_proj = ZeroLinear(config.seve_width, token_width)

    def before(
        self, image_tokens: torch.Tensor, mask_tokens: torch.Tensor, texts: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add the attention output over the texts to the tokens that `seve_tokens` names."""
        assert texts is not None  # where SEVE is on, a call without class texts was refused
        texts = self.text_norm(texts.to(image_tokens.dtype)).expand(image_tokens.shape[0], -1, -1)
        key, value = (split_heads(projection(texts), self.num_heads) for projection in (self.k_proj, self.v_proj))

        def guided(tokens: torch.Tensor) -> torch.Tensor:
            query = split_heads(self.q_proj(self.token_norm(tokens)), self.num_heads)
            output, _ = attend(self, query, key, value, config=self.config, scaling=self.scale)
            return tokens + self.out_proj(output)

        if self.tokens in ("both", "image"):
            image_tokens = guided(image_tokens)
        if self.tokens in ("both", "mask"):
            mask_tokens = guided(mask_tokens)
        return image_tokens, mask_tokens


class TextKeys(SemanticGuidance):
    """The class texts, projected to CLIP's width, as additional keys and values of the mask tokens' attention.

    CLIP's own projections turn them into keys and values, like image tokens. The texts have a separate softmax, whose
    output passes through a projection that starts at zero (like LLaMA-Adapter's gate, arXiv 2303.16199): in one
    softmax with the image tokens, untrained texts would take attention away from the image.
    """

    is_causal = False

    def __init__(self, config: FisaConfig):
        super().__init__()
        token_width, text_width = config.image_tower.hidden_size, config.projection_dim
        self.text_norm = GuidanceLayerNorm(text_width, eps=config.image_tower.layer_norm_eps)
        self.text_proj = nn.Linear(text_width, token_width)
        self.out_proj = ZeroLinear(token_width, token_width)

    def beside(
        self,
        mask_output: torch.Tensor,
        mask_query: torch.Tensor,
        texts: torch.Tensor | None,
        clip_layer: CLIPEncoderLayer,
    ) -> torch.Tensor:
        """Add the attention of the mask tokens' queries to the texts to their attention output."""
        assert texts is not None  # where SEVE is on, a call without class texts was refused
        clip = clip_layer.self_attn
        texts = clip_layer.layer_norm1(self.text_proj(self.text_norm(texts.to(mask_query.dtype))))
        texts = texts.expand(mask_query.shape[0], -1, -1)
        key, value = (split_heads(projection(texts), clip.num_heads) for projection in (clip.k_proj, clip.v_proj))
        output, _ = attend(self, mask_query, key, value, config=clip.config, scaling=clip.scale)
        return mask_output + self.out_proj(output)


def semantic_guidance(config: FisaConfig, *, layer_index: int) -> SemanticGuidance:
    """The guidance that a config asks for in one layer of CLIP's image tower."""
    if layer_index not in config.seve_layers:
        return SemanticGuidance()
    return TextKeys(config) if config.seve_tokens == "mask_keys" else TextCrossAttention(config)


def guiding_texts(class_embeds: torch.Tensor, *, at_most: int) -> torch.Tensor:
    """The class texts that SEVE attends to: all of them or, from a larger vocabulary, an even sample.

    Attention is a weighted mean over the texts, and an even sample estimates it without bias. Choosing the texts most
    similar to the photo would bias it, which changes the scores more than sampling does
    (`python -m fisa.studies.benchmarks.vocabulary_bound` measures both). This holds while attention is broad, as
    SEVE's is in the shipped model; if it concentrated on a few of very many texts, a sample would miss them. The same
    texts are kept for every photo, in any order of the vocabulary.

    Args:
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`): or one set per photo, batch first.
        at_most (`int`): how many texts are kept.

    Returns:
        `torch.Tensor` of shape `(min(num_prompts, at_most), projection_dim)`, or one set per photo.
    """
    num_texts = class_embeds.shape[-2]
    if isinstance(num_texts, int) and num_texts <= at_most:  # in a graph that takes any number it is a symbol
        return class_embeds
    kept = _spread_out(class_embeds, torch.sym_min(num_texts, at_most)).unsqueeze(-1)
    return class_embeds.gather(-2, kept.expand(*kept.shape[:-1], class_embeds.shape[-1]))


@torch.no_grad()
def _spread_out(class_embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Indices `(..., count)` of texts at even distances in the order of their embeddings' sums, which does not depend
    on the order of the vocabulary."""
    ranked = class_embeds.float().sum(dim=-1).argsort(dim=-1)  # ONNX has no stable sort
    num_texts = ranked.shape[-1]
    kept = ranked[..., torch.arange(count, device=ranked.device) * num_texts // count]
    return kept.sort(dim=-1).values
