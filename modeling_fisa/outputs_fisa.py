"""What the models return."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class FisaModelOutput(ModelOutput):
    r"""
    mask_embeds (`torch.Tensor` of shape `(batch_size, num_proposals, projection_dim)`):
        Embedding of each proposal in CLIP's shared space, not normalised.
    class_embeds (`torch.Tensor` of shape `(batch_size, num_prompts, projection_dim)`, *optional*):
        The class text embeddings that were used.
    last_hidden_state (`torch.Tensor` of shape `(batch_size, 1 + num_patches, hidden_size)`, *optional*, with
        `output_image_tokens=True`): the image tokens after CLIP's last layer.
    hidden_states, mask_hidden_states (`tuple(torch.Tensor)`, *optional*, with `output_hidden_states=True`):
        Image tokens and mask tokens before the first layer and after each layer.
    attentions, mask_attentions (`tuple(torch.Tensor)`, *optional*, with `output_attentions=True` and eager attention):
        Attention weights of the image tokens and of the mask tokens to the image tokens, layer by layer:
        `(batch_size, num_heads, 1 + num_patches or num_proposals, 1 + num_patches)`.

    Example:

    ```python
    >>> outputs = model.fisa(inputs["pixel_values"], mask_proposals, class_embeds=vocabulary["class_embeds"])
    >>> outputs.mask_embeds.shape
    torch.Size([1, 2, 64])
    ```
    """

    mask_embeds: torch.Tensor | None = None
    class_embeds: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    mask_hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    mask_attentions: tuple[torch.Tensor, ...] | None = None


@dataclass
class FisaOutput(ModelOutput):
    r"""
    loss (`torch.Tensor` of shape `()`, *optional*, with labels):
        Cross-entropy of the masks' classes; see [`~fisa.modeling_fisa.loss_fisa.mask_classification_loss`].
    class_queries_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes + 1)`):
        Log-probabilities in float32: log(objectness · p(class)), then log p(none of the classes), which is
        log(1 − objectness) where no others compete. Their softmax is the probabilities themselves, so that tools for
        Mask2Former's outputs can read them.
    masks_queries_logits (`torch.Tensor` of shape `(batch_size, num_proposals, height, width)`):
        Mask logits of the proposals.
    objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`):
        Probability that a proposal is an object.
    logits_per_mask (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`):
        CLIP's logits before any softmax: the cosine with the best synonym of each class, divided by the temperature.
        Of the whole photo alone, with `zoom` too.
    mask_embeds (`torch.Tensor` of shape `(batch_size, num_proposals, projection_dim)`)
    class_embeds (`torch.Tensor` of shape `(batch_size, num_prompts, projection_dim)`)
    class_is_thing (`torch.Tensor` of shape `(batch_size, num_classes)`, *optional*):
        Whether each class is a thing (True) or stuff (False), if the vocabulary specifies it.
    others_queries_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_others)`, *optional*):
        log(objectness · p(other)) for the words that competed and were not asked for, if there were any.
    other_is_thing (`torch.Tensor` of shape `(batch_size, num_others)`, *optional*): likewise.
    proposal_sizes (`torch.Tensor` of shape `(batch_size, 2)`, *optional*):
        Height and width of the part of each mask that spans its photo, in mask pixels; the rest is padding.
        `None` if there is no padding.
    photo_orientation (`torch.Tensor` of shape `(batch_size,)`, *optional*):
        EXIF orientation, 1 to 8, in which post-processing returns its results. `None`: upright, like the masks.
    hidden_states, mask_hidden_states, attentions, mask_attentions: as in [`FisaModelOutput`].

    Example:

    ```python
    >>> outputs = model(**inputs, **vocabulary)
    >>> outputs.class_queries_logits.shape, outputs.masks_queries_logits.shape
    (torch.Size([1, 20, 3]), torch.Size([1, 20, 48, 64]))
    ```
    """

    loss: torch.Tensor | None = None
    class_queries_logits: torch.Tensor | None = None
    masks_queries_logits: torch.Tensor | None = None
    objectness: torch.Tensor | None = None
    logits_per_mask: torch.Tensor | None = None
    mask_embeds: torch.Tensor | None = None
    class_embeds: torch.Tensor | None = None
    class_is_thing: torch.Tensor | None = None
    others_queries_logits: torch.Tensor | None = None
    other_is_thing: torch.Tensor | None = None
    proposal_sizes: torch.Tensor | None = None
    photo_orientation: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    mask_hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    mask_attentions: tuple[torch.Tensor, ...] | None = None
