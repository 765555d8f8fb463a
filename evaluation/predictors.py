"""What an evaluation measures: the model, or the model with its masks or classes replaced by the ground truth."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from fisa.evaluation.oracle import perfect_classes, perfect_masks
from fisa.evaluation.segmentation_metric import as_reference
from fisa.modeling_fisa.mask_generation import MaskProposals, generate_proposals, ready_proposals
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import Vocabulary


class Predictor(ABC):
    """Outputs for the records of a data set, ready for the processor's post-processing.

    Args:
        model: in evaluation mode.
        processor: prepares photos and prompts.
        categories: the data set's categories, dictionaries of `id` and `isthing`, in the order of the class indices.
        vocabulary: the classes that the model looks for, in the same order.
    """

    one_photo_per_batch: ClassVar[bool] = True
    """Whether each photo needs a batch to itself, because photos differ in their number of ground-truth segments."""

    def __init__(
        self,
        model: FisaForUniversalSegmentation,
        processor: FisaProcessor,
        *,
        categories: Sequence[Mapping[str, Any]],
        vocabulary: Vocabulary,
    ):
        self.model, self.categories = model, categories

    @staticmethod
    def prepare(processor: FisaProcessor, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The inputs of a batch, made in a worker process of the data loader.

        Args:
            processor: prepares photos.
            records: records of a data set, with `image`.
        """
        return dict(processor(images=[record["image"] for record in records], return_tensors="pt"))

    @abstractmethod
    def __call__(self, records: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> FisaOutput:
        """Predict for one batch.

        Args:
            records: records of a data set.
            inputs: their inputs from [`Predictor.prepare`], on the model's device.
        """


class ModelPredictor(Predictor):
    """The model's own masks and classes."""

    one_photo_per_batch = False

    def __init__(self, model, processor, *, categories, vocabulary):
        super().__init__(model, processor, categories=categories, vocabulary=vocabulary)
        self.texts = model.encode_vocabulary(processor, vocabulary)

    def __call__(self, records, inputs):
        return self.model(**inputs, **self.texts)


class PerfectMasksPredictor(ModelPredictor):
    """The model's classes for the ground truth's masks."""

    one_photo_per_batch = True

    def __call__(self, records, inputs):
        masks = _true_masks(records).to(self.model.device)
        return self.model(
            pixel_values=inputs["pixel_values"],
            mask_proposals=masks,
            zoom=inputs.get("zoom"),
            photos=inputs.get("photos"),
            **self.texts,
        )


class PerfectClassesPredictor(Predictor):
    """The ground truth's classes for the mask generator's proposals."""

    def __call__(self, records, inputs):
        proposals = generate_proposals(
            self.model.mask_generator,
            inputs["mask_generator_pixel_values"],
            pixel_mask=inputs["mask_generator_pixel_mask"],
        )
        return _perfectly_classified(proposals, records, self.categories)


class PerfectPredictor(Predictor):
    """The ground truth's masks and classes: the highest scores that post-processing and metrics allow."""

    @staticmethod
    def prepare(processor, records):
        return {}

    def __call__(self, records, inputs):
        return _perfectly_classified(ready_proposals(_true_masks(records), objectness=None), records, self.categories)


PREDICTORS: dict[str, type[Predictor]] = {
    "none": ModelPredictor,
    "classifier": PerfectClassesPredictor,
    "generator": PerfectMasksPredictor,
    "both": PerfectPredictor,
}
"""Predictors by the half that the ground truth replaces, to show what limits the results (figure 2 of the paper)."""


def _true_masks(records: Sequence[Mapping[str, Any]]) -> torch.Tensor:
    """The ground-truth masks of the only record, `(1, G, H, W)` bool."""
    [record] = records
    masks, _ = perfect_masks(as_reference(record))
    return torch.as_tensor(masks)[None]


def _perfectly_classified(
    proposals: MaskProposals, records: Sequence[Mapping[str, Any]], categories: Sequence[Mapping[str, Any]]
) -> FisaOutput:
    [record] = records
    logits = perfect_classes(
        proposals.mask_logits[0].cpu(),
        None if proposals.sizes is None else tuple(proposals.sizes[0].tolist()),
        as_reference(record),
        categories,
    )
    return FisaOutput(
        class_queries_logits=logits[None],
        masks_queries_logits=proposals.mask_logits.cpu(),
        class_is_thing=torch.tensor([[bool(category["isthing"]) for category in categories]]),
        proposal_sizes=None if proposals.sizes is None else proposals.sizes.cpu(),
    )
