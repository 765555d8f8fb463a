"""The stored vocabulary follows the active adapter."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils import is_peft_available, logging

from fisa.modeling_fisa.adapter_vocabulary import (
    CLIP_SAMPLE,
    is_same_clip,
    refuse_another_base,
    vocabulary_of_tensors,
    vocabulary_tensors,
)
from fisa.modeling_fisa.encoded_vocabulary import StoredVocabulary
from fisa.processing.class_names import quoted


if is_peft_available():  # always, where this is imported; but transformers would ask all users of remote code for PEFT
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper


logger = logging.get_logger(__name__)


def names_of_adapter(model: nn.Module, adapter: str) -> set[str]:
    """The names in `model.state_dict()` of an adapter's weights."""
    layers = (layer for layer in model.modules() if isinstance(layer, BaseTunerLayer))
    kinds = {kind for layer in layers for kind in layer.adapter_layer_names}
    return {name for name in model.state_dict() if any(f".{kind}.{adapter}." in f"{name}." for kind in kinds)}


class ActiveVocabulary(AuxiliaryTrainingWrapper, BaseTunerLayer):
    """Lets a model store the vocabulary of the adapter that is active, or its own where none is.

    PEFT tells it of adapters that are loaded, switched, merged and deleted as it tells its own layers, and asks it
    what to save beside an adapter's weights. An adapter without a vocabulary of its own answers with the base's.

    Args:
        adapter_name (`str`): the first adapter, which is active.
        base ([`StoredVocabulary`]): what the model stores.
        sample (`torch.Tensor` or `None`): of the base's weights, by `clip_sample`.
        use: stores a vocabulary with the model.
    """

    weight = None  # type: ignore[assignment]  # PEFT would look for it in the base layer

    def __init__(
        self,
        adapter_name: str,
        *,
        base: StoredVocabulary,
        sample: torch.Tensor | None,
        use: Callable[[StoredVocabulary], None],
    ):
        super().__init__(nn.Identity(), adapter_name)
        self.merged_adapters = []
        self._base = self._in_use = base
        self._of_adapters: dict[str, StoredVocabulary] = {}
        self._sample, self._use, self._loading = sample, use, adapter_name
        self.is_loading = False

    def store(self, vocabulary: StoredVocabulary) -> None:
        """Store a vocabulary for the adapters that are active, or for the base where none is."""
        answering = self._answering()
        self._of_adapters |= dict.fromkeys(answering, vocabulary)
        self._base = self._base if answering else vocabulary
        self._switch()

    def take_over(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep what the file of the adapter that is being loaded holds beside its weights."""
        self.is_loading = False
        vocabulary, sample = vocabulary_of_tensors(tensors), tensors.get(CLIP_SAMPLE)
        if not tensors and self._base.classes:  # as of older releases; today's say at least what they were trained on
            words = quoted([entry["name"] for entry in self._base.classes])
            logger.warning(
                f'The adapter "{self._loading}" does not say which words it was trained on, and the model '
                f"answers with the base's: {words}. `set_vocabulary(processor, [...])` gives it others."
            )
        if vocabulary is not None:
            self._of_adapters[self._loading] = vocabulary
            self._switch()
        if sample is not None and self._sample is not None and not is_same_clip(sample, self._sample):
            logger.warning(
                f'The weights of this base are not those that the adapter "{self._loading}" was trained on, and its '
                "scores may differ. It was trained on `base_model_name_or_path` in its adapter_config.json, as that "
                "was then."
            )

    def check_layers(self, model: PreTrainedModel, names: Collection[str]) -> None:
        """Refuse the adapter that is being loaded if it was trained on other layers than the model has.

        Args:
            model ([`FisaModel`]): with a place for the adapter's weights wherever its configuration says.
            names: of the adapter's weights, as in `model.state_dict()`.

        Raises:
            `ValueError`: see [`refuse_another_base`].
        """
        refuse_another_base(
            adapter=self._loading,
            base=model.name_or_path or "given",
            unexpected=set(names) - set(model.state_dict()),
            missing=names_of_adapter(model, self._loading) - set(names),
        )

    def release(self) -> None:
        """Leave the vocabulary of what was merged, else the base's, to a model without adapters."""
        if not self.merged:
            self._active_adapter = []
            self._switch()

    # What PEFT calls: of an auxiliary module, to save and load

    def init_modules(self, adapter_name: str, **_: Any) -> None:
        """Nothing is trained here."""

    def adapter_state_dict(self, adapter_name: str, *_: Any) -> dict[str, torch.Tensor]:
        """What an adapter's file holds beside weights."""
        sample = {} if self._sample is None else {CLIP_SAMPLE: self._sample}
        return vocabulary_tensors(self._vocabulary_of(adapter_name)) | sample

    def adapter_state_dict_load_map(self, adapter_name: str) -> dict[str, str]:
        """No weights. PEFT asks for them right before it loads an adapter, and by no other sign says which."""
        self._adapters.add(adapter_name)
        self._loading, self.is_loading = adapter_name, True
        return {}

    # and of both kinds, when adapters are switched

    def check_set_adapter(self, adapter_name: str | list[str]) -> str | None:
        """The name to set; of several adapters, which share one vocabulary, the first.

        Raises:
            `ValueError`: their vocabularies differ.
        """
        names = [adapter_name] if isinstance(adapter_name, str) else list(adapter_name)
        self._adapters.update(names)
        for name in names[1:]:
            one, other = (self._vocabulary_of(adapter) for adapter in (names[0], name))
            if _names(one) != _names(other):
                raise ValueError(
                    f'The adapters "{names[0]}" ({_described(one)}) and "{name}" ({_described(other)}) have '
                    "different vocabularies and cannot be active together. Give them one: after `set_adapter` to each "
                    "of them alone, `set_vocabulary(processor, [...])`."
                )
        return names[0] if names else None

    def set_adapter(self, adapter_names: str | list[str], inference_mode: bool = False) -> None:
        """Store the vocabulary of the adapter that becomes active."""
        name = self.check_set_adapter(adapter_names)
        self._active_adapter = [] if name is None else [name]
        self._switch()

    def enable_adapters(self, enabled: bool) -> None:
        """Store the active adapter's vocabulary, or the base's while adapters are disabled."""
        self._disable_adapters = not enabled
        self._switch()

    def delete_adapter(self, adapter_name: str, new_active_adapters: list[str] | None = None) -> None:
        """Forget an adapter's vocabulary."""
        self._adapters.discard(adapter_name)
        self._of_adapters.pop(adapter_name, None)
        if new_active_adapters is None and adapter_name in self.active_adapters:
            new_active_adapters = sorted(self._adapters)[:1]  # as PEFT's own layers choose
        self.set_adapter(self.active_adapters if new_active_adapters is None else new_active_adapters)

    def merge(  # type: ignore[override]  # in the order of LNTuningLayer; the other methods name the arguments
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Store the vocabulary of the adapter that the base takes in."""
        self.merged_adapters = list(adapter_names or self.active_adapters)
        self._switch()

    def unmerge(self) -> None:
        """Undo [`merge`]."""
        self.merged_adapters = []
        self._switch()

    @property
    def base_layer(self) -> nn.Module:
        return self.original_module

    def get_base_layer(self) -> nn.Module:
        """Itself: it stays until the model drops its adapters, and [`release`] is called."""
        return self

    def unload_and_optionally_merge_module(
        self, merge: bool, safe_merge: bool, adapter_names: list[str] | None
    ) -> nn.Module:
        """As [`get_base_layer`]."""
        if merge:
            self.merge(adapter_names)
        return self

    def _get_available_adapters(self) -> set[str]:
        return set(self._adapters)

    def _answering(self) -> Sequence[str]:
        """The adapters whose weights are in effect."""
        return [] if self.disable_adapters else self.merged_adapters or self.active_adapters

    def _vocabulary_of(self, adapter_name: str) -> StoredVocabulary:
        return self._of_adapters.get(adapter_name, self._base)

    def _switch(self) -> None:
        answering = self._answering()
        vocabulary = self._vocabulary_of(answering[0]) if answering else self._base
        if vocabulary is not self._in_use:
            self._use(vocabulary)
            self._in_use = vocabulary


def _names(vocabulary: StoredVocabulary) -> tuple[list[str], list[str]]:
    """Those of the classes and of the words beside them."""
    classes, others = (
        [entry["name"] for entry in entries or []] for entries in (vocabulary.classes, vocabulary.others)
    )
    return classes, others


def _described(vocabulary: StoredVocabulary) -> str:
    classes, others = _names(vocabulary)
    return f"{quoted(classes)}, beside the others {quoted(others)}" if others else quoted(classes)
