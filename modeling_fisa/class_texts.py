"""Class texts: prompts to CLIP text embeddings, in batches, each prompt once."""

from collections.abc import Callable, Sequence

import torch
from torch import nn


def average_templates(prompt_embeds: torch.Tensor) -> torch.Tensor:
    """One unit vector a name from its prompts: normalise, average over the templates, normalise (CLIP's ensembling).

    Args:
        prompt_embeds (`torch.Tensor` of shape `(num_names, num_templates, projection_dim)`)

    Returns:
        `torch.Tensor` of shape `(num_names, projection_dim)`.
    """
    return nn.functional.normalize(nn.functional.normalize(prompt_embeds, dim=-1).mean(dim=1), dim=-1)


class ClassTextCache:
    """Keeps the embedding of each name, so that a vocabulary used again, or grown by a word, is not encoded again.

    One name is encoded afresh at every use. Where it comes out different, something between the words and the
    embeddings has changed (weights, an adapter, a template, the type), whatever the way, and everything is forgotten.
    Only a change that spares that name, such as new embeddings for single tokens, is not seen.
    Copies of a model start with nothing kept.
    """

    max_names = 20_000

    def __init__(self):
        self._embeds: dict[str, torch.Tensor] = {}
        self._probe: tuple[str, torch.Tensor] | None = None

    def __reduce__(self):
        return ClassTextCache, ()

    def embed(
        self, names: Sequence[str], encode: Callable[[Sequence[str]], torch.Tensor], *, batch_size: int
    ) -> torch.Tensor:
        """The embeddings of `names`, `(len(names), projection_dim)`.

        Args:
            names: what to embed, at least one.
            encode: embeds some names: `(number of names, projection_dim)`.
            batch_size: how many names are encoded at a time.
        """
        if self._probe is None or not self._is_as_before(encode):
            self._embeds, self._probe = {}, (names[0], encode(names[:1]))
        missing = [name for name in dict.fromkeys(names) if name not in self._embeds]
        for start in range(0, len(missing), batch_size):
            batch = missing[start : start + batch_size]
            self._embeds.update(zip(batch, encode(batch).unbind(0)))
        embeds = torch.stack([self._embeds[name] for name in names])
        if len(self._embeds) > self.max_names:
            self._embeds = {}
        return embeds

    def _is_as_before(self, encode: Callable[[Sequence[str]], torch.Tensor]) -> bool:
        name, before = self._probe
        now = encode([name])
        return now.dtype == before.dtype and now.device == before.device and torch.equal(now, before)
