"""SEVE, semantic-guided visual encoding: visual tokens attend to the class texts before CLIP encodes them further, or
mask tokens find the texts among the keys of their own attention."""

import torch
from torch import nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.clip.modeling_clip import CLIPAttention, eager_attention_forward

from fisa.configuration.configuration_fisa import FisaConfig


@torch.no_grad()
def _spread_out(class_embeds: torch.Tensor, count: int) -> torch.Tensor:
    """Indices `(..., count)` of texts at even distances in the order of their embeddings' sums, which does not depend
    on the order that they are given in."""
    ranked = class_embeds.float().sum(dim=-1).argsort(dim=-1, stable=True)
    num_texts = ranked.shape[-1]
    kept = ranked[..., torch.arange(count, device=ranked.device) * num_texts // count]
    return kept.sort(dim=-1).values


def guiding_texts(class_embeds: torch.Tensor, *, at_most: int) -> torch.Tensor:
    """The class texts that SEVE attends to: all of them or, of a larger vocabulary, an even sample.

    Attention is a weighted mean over the texts, and a sample estimates a mean without leaning to any side. The texts
    most like the photo lean to one, which moves the scores more than what a sample leaves out
    (`python -m fisa.studies.benchmarks.vocabulary_bound` measures both). That holds while attention is broad, as
    SEVE's is in the shipped model; if it came to rest on a few of very many texts, a sample would miss them. The same
    texts are kept for every photo, whatever their order.

    Args:
        class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`): or one set a photo, batch first.
        at_most (`int`): how many texts are kept.

    Returns:
        `torch.Tensor` of shape `(min(num_prompts, at_most), projection_dim)`, or one set a photo. While tracing, for
        `torch.compile` or an export, whose number of texts is left open, all texts.
    """
    if torch.compiler.is_compiling() or class_embeds.shape[-2] <= at_most:
        return class_embeds
    return class_embeds.take_along_dim(_spread_out(class_embeds, at_most).unsqueeze(-1), dim=-2)


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero: what it ends is absent until it is trained."""


class GuidanceLayerNorm(nn.LayerNorm):
    """A layer norm that names its width as PEFT looks for it in layers of unknown kinds; of others PEFT warns.

    transformers initialises norms by their class name, which must therefore contain "LayerNorm".
    """

    @property
    def input_size(self) -> int:
        return self.normalized_shape[-1]

    output_size = input_size


class SemanticGuidance(nn.Module):
    """Cross-attention from visual tokens to the class text embeddings of the vocabulary in use, added to the tokens.

    The order of the classes does not matter. The output projection starts at zero, so that untrained guidance leaves
    every token as it was, bit for bit.
    """

    is_causal = False

    def __init__(self, config: FisaConfig):
        super().__init__()
        self.config = config.vision_config
        self.tokens = config.seve_tokens
        self.num_heads = config.seve_num_heads
        self.scale = (config.seve_width // config.seve_num_heads) ** -0.5
        token_width, text_width = config.vision_config.hidden_size, config.projection_dim
        self.token_norm = GuidanceLayerNorm(token_width, eps=config.vision_config.layer_norm_eps)
        self.text_norm = GuidanceLayerNorm(text_width, eps=config.vision_config.layer_norm_eps)
        self.q_proj = nn.Linear(token_width, config.seve_width)
        # Without a bias: it would raise all scores of a token alike, which the softmax takes back, and never learn.
        self.k_proj = nn.Linear(text_width, config.seve_width, bias=False)
        self.v_proj = nn.Linear(text_width, config.seve_width)
        self.out_proj = ZeroLinear(config.seve_width, token_width)

    def forward(
        self, image_tokens: torch.Tensor, mask_tokens: torch.Tensor, class_embeds: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            image_tokens (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)`)
            mask_tokens (`torch.Tensor` of shape `(batch_size, num_proposals, hidden_size)`)
            class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`): or one set a photo, batch first.

        Returns:
            Both kinds of tokens, shapes unchanged, those of `seve_tokens` guided by the texts.
        """
        texts = self.text_norm(class_embeds.to(image_tokens.dtype))
        texts = texts.expand(image_tokens.shape[0], -1, -1)
        key, value = self._heads(self.k_proj(texts)), self._heads(self.v_proj(texts))
        if self.tokens in ("both", "image"):
            image_tokens = image_tokens + self._attend(image_tokens, key, value)
        if self.tokens in ("both", "mask"):
            mask_tokens = mask_tokens + self._attend(mask_tokens, key, value)
        return image_tokens, mask_tokens

    def _heads(self, states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)

    def _attend(self, tokens: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] == 0:  # nothing to attend with, and not every back-end takes that
            return tokens
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention_forward)
        query = self._heads(self.q_proj(self.token_norm(tokens)))
        output, _ = attention(self, query, key, value, None, scaling=self.scale)
        return self.out_proj(output.flatten(2))


class TextKeys(nn.Module):
    """The class texts, projected to CLIP's width, as further keys and values of the mask tokens' own attention.

    CLIP's projections make keys and values of them as of image tokens. They have a softmax of their own, and what
    comes out of it a projection that starts at zero (as LLaMA-Adapter's gate does, arXiv 2303.16199): in one softmax
    with the image tokens, untrained texts would take attention away from these.
    """

    is_causal = False

    def __init__(self, config: FisaConfig):
        super().__init__()
        token_width, text_width = config.vision_config.hidden_size, config.projection_dim
        self.text_norm = GuidanceLayerNorm(text_width, eps=config.vision_config.layer_norm_eps)
        self.text_proj = nn.Linear(text_width, token_width)
        self.out_proj = ZeroLinear(token_width, token_width)

    def forward(
        self,
        query: torch.Tensor,
        class_embeds: torch.Tensor,
        *,
        clip_attention: CLIPAttention,
        layer_norm: nn.LayerNorm,
    ) -> torch.Tensor:
        """
        Args:
            query (`torch.Tensor` of shape `(batch_size, num_heads, num_proposals, head_dim)`): of the mask tokens.
            class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`): or one set a photo, batch first.
            clip_attention, layer_norm: of CLIP's layer, which image tokens pass through too.

        Returns:
            What the texts add to the mask tokens, `(batch_size, num_proposals, hidden_size)`.
        """
        texts = layer_norm(self.text_proj(self.text_norm(class_embeds.to(query.dtype))))
        texts = texts.expand(query.shape[0], -1, -1)
        key, value = (
            projection(texts).unflatten(-1, (clip_attention.num_heads, -1)).transpose(1, 2)
            for projection in (clip_attention.k_proj, clip_attention.v_proj)
        )
        attention = ALL_ATTENTION_FUNCTIONS.get_interface(
            clip_attention.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention(self, query, key, value, None, scaling=clip_attention.scale)
        return self.out_proj(output.flatten(2))
