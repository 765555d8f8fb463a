"""Scores from mask embeddings: cosine with the class texts, best synonym, joint probability with the objectness."""

import torch
from torch import nn
from transformers.utils.generic import maybe_autocast

from fisa.modeling_fisa.encoded_vocabulary import UNKNOWN, EncodedVocabulary
from fisa.processing.class_names import plain_name
from fisa.processing.photo_outputs import log_no_object


TEXTS_AT_A_TIME = 2048
"""So many texts and their scores stay in a processor's cache."""

SHORTEST_TEXT = 1e-12  # as in `torch.nn.functional.normalize`: nothing is divided by 0


def class_logits(
    mask_embeds: torch.Tensor, vocabulary: EncodedVocabulary, *, logit_scale: torch.Tensor
) -> torch.Tensor:
    """The cosine of each mask with the best synonym of each class, divided by CLIP's temperature.

    Args:
        mask_embeds (`torch.Tensor` of shape `(batch_size, num_proposals, projection_dim)`)
        vocabulary ([`EncodedVocabulary`])
        logit_scale (`torch.Tensor` of shape `()`): logarithm of the inverse temperature.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`, float32.
    """
    texts = vocabulary.class_embeds
    mask_embeds = nn.functional.normalize(mask_embeds.float(), dim=-1)
    scale = logit_scale.float().exp()

    def scores(part: torch.Tensor) -> torch.Tensor:
        part = part.float()
        lengths = torch.linalg.vector_norm(part, dim=-1).clamp(min=SHORTEST_TEXT)
        return mask_embeds @ part.transpose(-1, -2) * (scale / lengths).unsqueeze(-2)

    with maybe_autocast(mask_embeds.device.type, enabled=False):  # it would round logits of up to 100 to eight bits
        # While tracing, the size of the vocabulary may be dynamic.
        if torch.compiler.is_compiling() or texts.shape[-2] <= TEXTS_AT_A_TIME:
            logits = scores(texts)
        else:
            logits = mask_embeds.new_empty(*mask_embeds.shape[:-1], texts.shape[-2])
            for start in range(0, texts.shape[-2], TEXTS_AT_A_TIME):
                some = slice(start, start + TEXTS_AT_A_TIME)
                logits[..., some] = scores(texts[..., some, :])
    if vocabulary.one_prompt_per_class:
        return logits
    class_ids = vocabulary.prompt_class_ids
    assert class_ids is not None  # every finished vocabulary has them
    best = logits.new_full((*logits.shape[:-1], vocabulary.num_classes), float("-inf"))
    return best.scatter_reduce(-1, class_ids.expand_as(logits), logits, reduce="amax")


def known_class_ids(class_names: list[list[str]], generator_labels: dict[int, str]) -> list[int]:
    """The generator's index of each class that it knows by one of its names, `UNKNOWN` (−1) for the others.

    COCO's panoptic labels carry suffixes that no user writes ("wall-other-merged"); the comparison ignores them.
    """
    known = {plain_name(label.lower()): index for index, label in generator_labels.items()}
    plain_names = [[plain_name(name.lower()) for name in names] for names in class_names]
    return [next((known[name] for name in names if name in known), UNKNOWN) for names in plain_names]


def ensemble_with_generator(
    log_probs: torch.Tensor, generator_logits: torch.Tensor, *, generator_class_ids: torch.Tensor, weight: float
) -> torch.Tensor:
    """Geometric mean of CLIP's and the generator's probabilities for the classes that the generator knows.

    p ∝ p_CLIP^(1 − w) · p_generator^w for the classes that the generator knows, p ∝ p_CLIP for the others: FC-CLIP's
    rule (arXiv 2308.02487, eq. 5) for a generator with a closed set of classes.

    Args:
        log_probs (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): those of CLIP.
        generator_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_known_classes)`)
        generator_class_ids (`torch.Tensor` of shape `(num_classes,)`): the generator's class index, or `UNKNOWN`.
        weight (`float`): w, in [0, 1].
    """
    known = generator_class_ids != UNKNOWN
    class_ids = generator_class_ids.masked_fill(~known, 0)
    generator_log_probs = generator_logits.log_softmax(dim=-1).index_select(-1, class_ids)
    mixed = (1 - weight) * log_probs + weight * generator_log_probs
    return torch.where(known, mixed, log_probs).log_softmax(dim=-1)


def joint_log_probs(log_probs: torch.Tensor, objectness: torch.Tensor) -> torch.Tensor:
    """log p(class, object) for each class, then log p(no object). A softmax of these gives the probabilities.

    Args:
        log_probs (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): of probabilities that sum to 1.
        objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`), in [0, 1].

    Returns:
        `torch.Tensor` of shape `(batch_size, num_proposals, num_classes + 1)`, finite.
    """
    objectness = objectness.to(log_probs.dtype)
    # The smallest normal number stands for 0, whose logarithm would be infinite.
    is_object = objectness.unsqueeze(-1).clamp(min=torch.finfo(log_probs.dtype).tiny).log()
    return torch.cat([log_probs + is_object, log_no_object(objectness)], dim=-1)


def split_off_others(joint: torch.Tensor, *, num_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Tell the classes that were asked for from the others that competed with them.

    Args:
        joint (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes + num_others + 1)`):
            As [`joint_log_probs`] returns it for the classes and, after them, the others.
        num_classes (`int`): how many were asked for.

    Returns:
        log p(class, object) for each class, then log p(none of them: an other, or no object), of shape
        `(batch_size, num_proposals, num_classes + 1)`; and log p(other, object) for each other, of shape
        `(batch_size, num_proposals, num_others)`.
    """
    none_of_them = joint[..., num_classes:].logsumexp(dim=-1, keepdim=True)
    return torch.cat([joint[..., :num_classes], none_of_them], dim=-1), joint[..., num_classes:-1]
