"""What models know of words: vocabularies encoded, stored, and followed where adapters bring their own."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import lru_cache, partial
from os import PathLike
from threading import RLock
from typing import Any, Self

import torch
from torch import nn
from transformers import CLIPTextModel

from fisa.acceleration.class_text_files import ClassTextFiles, shared_text_files, text_fingerprint
from fisa.acceleration.class_texts import ClassTextCache
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_VOCABULARY, clip_sample, vocabulary_of_tensors
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary, StoredVocabulary, names_of
from fisa.modeling_fisa.pretrained_fisa import FisaPreTrainedModel
from fisa.processing.others import (
    Competition,
    Others,
    competing,
    everyday,
    given_others,
    is_auto,
    known_others,
    without_namesakes,
)
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import Class, Vocabulary, VocabularyLike


STORING = RLock()
"""Held while a model stores a vocabulary, whose words and texts lie in several places, and while one is read: other
threads may be calling the model."""


class VocabularyModel(FisaPreTrainedModel):
    """Encodes vocabularies, and stores one with its config: all of [`FisaModel`] that is about words.

    Example:

    ```python
    >>> model.set_vocabulary(processor, "dog, grass [stuff]")
    >>> model.stored_vocabulary.class_embeds.shape
    torch.Size([2, 512])
    ```
    """

    text_model: CLIPTextModel
    text_projection: nn.Linear
    class_embeds: torch.Tensor | None  # a buffer: the stored vocabulary's
    other_embeds: torch.Tensor | None  # a buffer: those of the words beside it
    adapter_vocabulary: Any  # an `ActiveVocabulary` while adapters are in place, else `None`

    def __init__(self, config: FisaConfig):
        super().__init__(config)
        # Before all that PEFT replaces, so that it is told first and can refuse while nothing is switched.
        self.register_module(ADAPTER_VOCABULARY, None)
        for name, count in (("class_embeds", config.num_prompts), ("other_embeds", config.num_other_prompts)):
            self.register_buffer(name, torch.zeros(count, config.projection_dim) if count else None)
        self._text_cache = ClassTextCache()
        self._remembered_others: tuple[tuple[Any, ...], tuple[Class, ...]] | None = None

    def get_class_features(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        """One unit vector per name, averaged over its prompts; [`FisaModel`] has it, beside its text tower."""
        raise NotImplementedError

    @property
    def _vocabulary_model(self) -> Self:
        return self

    def _encoded(self, texts: StoredVocabulary) -> EncodedVocabulary:
        return texts.encoded()

    @torch.no_grad()
    def vocabulary_texts(
        self,
        processor: FisaProcessor,
        labels: VocabularyLike,
        *,
        others: Others = None,
        batch_size: int = 256,
        text_cache: str | PathLike | None = None,
    ) -> StoredVocabulary:
        """The words of a vocabulary and their text embeddings, as they can be stored.

        Args:
            processor, labels, others, batch_size, text_cache: as for [`encode_vocabulary`].
        """
        if not hasattr(processor, "parse_vocabulary"):
            raise TypeError(
                "The processor comes before the labels and must be a FisaProcessor, found "
                f"{type(processor).__name__}: "
                'model.set_vocabulary(processor, ["dog", "grass"]).'
            )
        vocabulary = processor.parse_vocabulary(labels)
        processor.refuse_equal_prompts(vocabulary.prompts())
        beside = _entries(self.competition(vocabulary, others))

        def encode(names: Sequence[str]) -> torch.Tensor:
            prompts = processor.tokenize(names).to(self.device)
            return self.get_class_features(prompts["input_ids"], prompts["attention_mask"])

        open_files = partial(_open_files, text_cache, self, processor) if text_cache else None
        open_other_files = partial(shared_text_files, self, processor) if is_auto(others) else None
        names, other_names = vocabulary.prompts(), [name for entry in beside for name in names_of(entry)]
        embeds = self._text_cache.embed(
            names,
            encode,
            batch_size=batch_size,
            open_files=open_files,
            others=other_names,
            open_other_files=open_files or open_other_files,
        )
        class_embeds, other_embeds = embeds.split([len(names), len(other_names)])
        return StoredVocabulary(vocabulary.to_config(), class_embeds, beside or None, other_embeds if beside else None)

    def competition(self, labels: VocabularyLike, others: Others) -> Competition:
        vocabulary = Vocabulary.parse(labels)
        if is_auto(others):
            automatic = self._automatic_others()
            return _competing(vocabulary, automatic, kinds=tuple(other.kind_is_known for other in automatic))
        rivals = without_namesakes(given_others(others), asked=vocabulary.prompts())
        return Competition(rivals, ((),) * len(vocabulary))

    def _automatic_others(self) -> tuple[Class, ...]:
        """What `others="auto"` stands for, put together anew where the settings that it comes from have changed."""
        config = self.config
        with STORING:
            sources = config.default_others, config.synonyms, config.others, config.mask_generator_config
            remembered = self._remembered_others
            if remembered is None or any(was is not now for was, now in zip(remembered[0], sources)):
                remembered = sources, self._read_automatic_others()
                self._remembered_others = remembered
            return remembered[1]

    def _read_automatic_others(self) -> tuple[Class, ...]:
        default = self.config.default_others
        if not isinstance(default, str):
            return given_others(default)
        labels = getattr(self.config.mask_generator_config, "id2label", None) or {}
        known = known_others([*self.config.vocabulary, *(self.config.others or [])], labels.values())
        return known if default == "known" else without_namesakes([*known, *everyday()])

    @property
    def stored_vocabulary(self) -> StoredVocabulary:
        """What [`set_vocabulary`] stored; empty if nothing is."""
        with nullcontext() if torch.compiler.is_compiling() else STORING:  # no graph has locks
            return StoredVocabulary(self.config.vocabulary, self.class_embeds, self.config.others, self.other_embeds)

    def store_vocabulary(
        self,
        classes: list[dict[str, Any]],
        class_embeds: torch.Tensor | None,
        others: list[dict[str, Any]] | None = None,
        other_embeds: torch.Tensor | None = None,
    ) -> None:
        """Store a vocabulary that is encoded already, what [`StoredVocabulary`] holds; while adapters are active, for
        these.

        Args:
            classes: as [`FisaConfig.vocabulary`] has them.
            class_embeds (`torch.Tensor` of shape `(num_prompts, projection_dim)`)
            others: as [`FisaConfig.others`] has them.
            other_embeds (`torch.Tensor` of shape `(num_other_prompts, projection_dim)`, *optional*)
        """
        # Parts of one table when they come; a file of a graph would hold the whole of it, and torch warns of that.
        class_embeds, other_embeds = (None if part is None else part.clone() for part in (class_embeds, other_embeds))
        vocabulary = StoredVocabulary(classes, class_embeds, others, other_embeds)
        with STORING:
            if self.adapter_vocabulary is not None:
                self.adapter_vocabulary.store(vocabulary)
            else:
                self._use(vocabulary)

    def _use(self, vocabulary: StoredVocabulary) -> None:
        with STORING:
            self.config.store_vocabulary(vocabulary.classes, vocabulary.others)
            for name in ("class_embeds", "other_embeds"):
                embeds = getattr(vocabulary, name)
                self.register_buffer(name, None if embeds is None else embeds.to(self.device, self.dtype))

    def take_over_from_adapter(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take what an adapter's file holds beside weights, by [`pop_beside_weights`]."""
        vocabulary = vocabulary_of_tensors(tensors)
        if self.adapter_vocabulary is not None:
            self.adapter_vocabulary.take_over(tensors)
        elif vocabulary is not None:
            self._use(vocabulary)

    def follow_adapters(self, adapter_name: str) -> None:
        # Imported where PEFT, an extra, is in use.
        from fisa.modeling_fisa.active_vocabulary import ActiveVocabulary

        if self.adapter_vocabulary is None:
            self.adapter_vocabulary = ActiveVocabulary(
                adapter_name, base=self.stored_vocabulary, sample=clip_sample(self), use=self._use
            )

    def leave_adapters(self) -> None:
        if self.adapter_vocabulary is not None:
            self.adapter_vocabulary.release()
            self.adapter_vocabulary = None


def _open_files(folder: str | PathLike, model: VocabularyModel, processor: FisaProcessor) -> ClassTextFiles:
    return ClassTextFiles(folder, encoder=text_fingerprint(model, processor))


@lru_cache(maxsize=64)  # the same words are asked for photo by photo
def _competing(vocabulary: Vocabulary, others: tuple[Class, ...], *, kinds: tuple[bool, ...]) -> Competition:
    """As [`competing`]; `kinds` are what classes that are equal may differ in."""
    return competing(vocabulary, others)


def _entries(competition: Competition) -> list[dict[str, Any]]:
    """The words beside a vocabulary, as [`FisaConfig.others`] has them."""
    voices = [
        Class(name).to_config() | {"speaks_for": class_id}
        for class_id, names in enumerate(competition.voices)
        for name in names
    ]
    return voices + [other.to_config() for other in competition.others]


__all__ = ["VocabularyModel"]
