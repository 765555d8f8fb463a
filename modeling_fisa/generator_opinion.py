"""What the mask generator itself says of classes: which of a vocabulary it knows, and how its opinion is weighed."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.class_kinds import generator_kinds, kinds_for_generator, weigh_by_kind
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary, StoredVocabulary, names_of, stated_kinds
from fisa.modeling_fisa.mask_classification import ensemble_with_generator, known_class_ids


@dataclass(frozen=True)
class GeneratorOpinion:
    """The generator's opinion of classes and of their kinds, each as far as the config counts it.

    Args:
        config ([`FisaConfig`]): `ensemble_weight`, `kind_weight` and `generator_is_thing` of it.
        mask_generator (`PreTrainedModel` or `None`): knows its classes by its config's `id2label`.
    """

    config: FisaConfig
    mask_generator: PreTrainedModel | None

    @property
    def grounds(self) -> tuple[Any, ...]:
        """All that [`encoded`] depends on beside the texts."""
        config = self.config
        return config.ensemble_weight, config.kind_weight, config.generator_is_thing, self._labels

    def encoded(self, texts: StoredVocabulary, *, device: torch.device) -> EncodedVocabulary:
        """Words as the model reads them, with what the generator calls them.

        Args:
            texts ([`StoredVocabulary`]): of at least one class.
            device (`torch.device`): of the generator's ids and kinds.
        """
        encoded = texts.encoded()
        if encoded.others is not None:
            encoded = replace(encoded, others=self._with_own(encoded.others, texts.rivals, device))
        return self._with_own(encoded, texts.classes, device)

    def weigh(
        self, log_probs: torch.Tensor, generator_logits: torch.Tensor | None, vocabulary: EncodedVocabulary
    ) -> torch.Tensor:
        """CLIP's log-probabilities, with the generator's opinion of classes and of kinds where it counts.

        Args:
            log_probs (`torch.Tensor` of shape `(batch_size, num_proposals, num_classes)`): those of CLIP.
            generator_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_labels)`, *optional*):
                Without "no object"; `None` where the proposals are not the generator's.
            vocabulary ([`EncodedVocabulary`]): the classes.

        Returns:
            `torch.Tensor` of the shape of `log_probs`.
        """
        if generator_logits is None:
            return log_probs
        weight, class_ids = self.config.ensemble_weight, vocabulary.generator_class_ids
        if weight and class_ids is not None:
            log_probs = ensemble_with_generator(
                log_probs, generator_logits, generator_class_ids=class_ids, weight=weight
            )
        label_kinds, class_kinds = self._label_kinds, vocabulary.class_kinds
        if class_kinds is None and vocabulary.class_is_thing is not None:
            class_kinds = vocabulary.class_is_thing.long()
        if label_kinds is None or class_kinds is None:
            return log_probs
        return weigh_by_kind(
            log_probs,
            generator_logits,
            label_kinds=label_kinds,
            class_kinds=class_kinds,
            weight=self.config.kind_weight,
        )

    def _with_own(
        self, encoded: EncodedVocabulary, classes: list[dict[str, Any]], device: torch.device
    ) -> EncodedVocabulary:
        names = [*map(names_of, classes)]
        own = self._class_ids(names), self._kinds(stated_kinds(classes), names)
        class_ids, kinds = (
            None if known is None else torch.tensor(known, dtype=torch.long, device=device) for known in own
        )
        return replace(encoded, class_kinds=kinds, generator_class_ids=class_ids)

    def _class_ids(self, class_names: list[list[str]]) -> list[int] | None:
        """What the generator calls each class, by all its names; `None` where its opinion does not count."""
        if not self.config.ensemble_weight or self.mask_generator is None:
            return None
        return known_class_ids(class_names, self._labels)

    def _kinds(self, stated: list[int], class_names: list[list[str]]) -> list[int] | None:
        """The kind that the generator's opinion of each class is compared with; `None` where it has none."""
        label_kinds = self._label_kinds
        if label_kinds is None:
            return None
        return kinds_for_generator(stated, class_names, labels=self._labels, label_kinds=label_kinds)

    @property
    def _labels(self) -> dict[int, str]:
        labels = None if self.mask_generator is None else self.mask_generator.config.id2label
        return {int(index): label for index, label in (labels or {}).items()}

    @property
    def _label_kinds(self) -> list[int] | None:
        """Whether each of the generator's labels is a thing or stuff; `None` where its opinion is not asked for."""
        if not self.config.kind_weight or self.mask_generator is None:
            return None
        return generator_kinds(self._labels, self.config.generator_is_thing)
