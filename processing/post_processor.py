"""The image processor's way back: segments from the model's outputs, by its settings where a call does not say."""

from collections.abc import Collection, Mapping
from typing import Any

from fisa.processing.post_processing import (
    Sizes,
    Subtask,
    instance_segmentation,
    panoptic_segmentation,
    segmentations,
    semantic_segmentation,
)
from fisa.processing.segmentation import Segmentation


class PostProcessor:
    """The four `post_process_*` methods of [`FisaImageProcessor`], by the names that transformers gives them.

    [`~fisa.processing.post_processing`] says what they do.
    """

    threshold: float
    mask_threshold: float
    overlap_mask_area_threshold: float
    min_score: float
    post_processing_rule: str

    def post_process_segmentation(
        self,
        outputs: Any,
        subtask: Subtask = "panoptic",
        *,
        threshold: float | None = None,
        mask_threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        min_score: float | None = None,
        target_sizes: Sizes | None = None,
        id2label: Mapping[int, str] | None = None,
        include_others: bool = False,
    ) -> list[Segmentation]:
        """[`~fisa.processing.post_processing.segmentations`], by the settings where the call does not say.

        Example:

        ```python
        >>> (segmentation,) = processor.post_process_segmentation(model(**inputs), target_sizes=[(480, 640)])
        >>> [(segment.label, segment.score) for segment in segmentation]
        [('LABEL_1', 0.98), ('LABEL_0', 0.91)]
        ```
        """
        options = self._post_processing_options(threshold, mask_threshold, overlap_mask_area_threshold, min_score)
        return segmentations(
            outputs, subtask, target_sizes=target_sizes, id2label=id2label, include_others=include_others, **options
        )

    def post_process_panoptic_segmentation(
        self,
        outputs: Any,
        threshold: float | None = None,
        mask_threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        label_ids_to_fuse: Collection[int] | None = None,
        target_sizes: Sizes | None = None,
        *,
        min_score: float | None = None,
        include_others: bool = False,
    ) -> list[dict[str, Any]]:
        """[`~fisa.processing.post_processing.panoptic_segmentation`], by the settings where the call does not say."""
        options = self._post_processing_options(threshold, mask_threshold, overlap_mask_area_threshold, min_score)
        return panoptic_segmentation(
            outputs,
            target_sizes=target_sizes,
            label_ids_to_fuse=label_ids_to_fuse,
            include_others=include_others,
            **options,
        )

    def post_process_instance_segmentation(
        self,
        outputs: Any,
        threshold: float | None = None,
        mask_threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        target_sizes: Sizes | None = None,
        return_coco_annotation: bool = False,
        return_binary_maps: bool = False,
        *,
        min_score: float | None = None,
        include_others: bool = False,
    ) -> list[dict[str, Any]]:
        """[`~fisa.processing.post_processing.instance_segmentation`], by the settings where the call does not say."""
        options = self._post_processing_options(threshold, mask_threshold, overlap_mask_area_threshold, min_score)
        return instance_segmentation(
            outputs,
            target_sizes=target_sizes,
            return_coco_annotation=return_coco_annotation,
            return_binary_maps=return_binary_maps,
            include_others=include_others,
            **options,
        )

    def post_process_semantic_segmentation(
        self,
        outputs: Any,
        target_sizes: Sizes | None = None,
        return_segmentation_scores: bool = False,
        *,
        include_others: bool = False,
    ) -> list[Any]:
        """[`~fisa.processing.post_processing.semantic_segmentation`]."""
        return semantic_segmentation(
            outputs,
            target_sizes=target_sizes,
            return_segmentation_scores=return_segmentation_scores,
            include_others=include_others,
        )

    def _post_processing_options(
        self,
        threshold: float | None,
        mask_threshold: float | None,
        overlap_mask_area_threshold: float | None,
        min_score: float | None,
    ) -> dict[str, Any]:
        given = {
            "threshold": threshold,
            "mask_threshold": mask_threshold,
            "overlap_mask_area_threshold": overlap_mask_area_threshold,
            "min_score": min_score,
        }
        options = {name: getattr(self, name) if value is None else value for name, value in given.items()}
        return options | {"rule": self.post_processing_rule}
