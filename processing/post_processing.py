"""Turns the proposals of one forward pass into panoptic, instance and semantic segmentations at the photo's size. Any
universal segmentation model of transformers will do: all that is needed are class and mask logits."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from transformers.image_processing_outputs import SemanticSegmentationPostProcessorOutput
from transformers.models.mask2former.image_processing_pil_mask2former import convert_segmentation_to_rle
from transformers.utils import logging

from fisa.configuration.label_names import VOID
from fisa.processing.class_names import quoted
from fisa.processing.photo_outputs import PhotoOutputs, Sizes, in_float32, photos_of
from fisa.processing.segment_rules import ClosedVocabulary, OpenVocabulary, Painting, SegmentRule
from fisa.processing.segmentation import Segmentation
from fisa.processing.semantic_map import semantic_map
from fisa.processing.setting_values import share, switch


logger = logging.get_logger(__name__)

Subtask = Literal["panoptic", "instance", "semantic"]
Rule = Literal["open_vocabulary", "closed_vocabulary"]
"""Which proposals become segments, and what their scores are: see [`OpenVocabulary`] and [`ClosedVocabulary`]."""

RULES: dict[str, type[SegmentRule]] = {"open_vocabulary": OpenVocabulary, "closed_vocabulary": ClosedVocabulary}
FIRST_ID = {"panoptic": 1, "instance": 0}  # what transformers counts the segments of a map from


def segmentations(
    outputs: Any,
    subtask: Subtask = "panoptic",
    *,
    target_sizes: Sizes | None = None,
    id2label: Mapping[int, str] | None = None,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap_mask_area_threshold: float = 0.8,
    min_score: float = 0.0,
    label_ids_to_fuse: Collection[int] | None = None,
    overlapping: bool = False,
    include_others: bool = False,
    rule: Rule = "open_vocabulary",
) -> list[Segmentation]:
    """Segment each photo of a batch.

    Beyond the maps returned this needs, for each photo in turn, about 50 bytes per pixel, however many proposals and
    classes there are, and a few float32 copies of the photo's mask logits. It is computed in float32, inside
    `torch.autocast` too. Class logits that are NaN count as "no object", and such mask logits as outside the mask; the
    log then says how many there are.

    Others, the words that compete and were not asked for, win segments like all classes. What they win is void: the
    segments of the classes that were asked for are those that all words together give, with the same scores.

    Args:
        outputs: anything with `class_queries_logits (B, Q, C + 1)`, the last column for "no object", and
            `masks_queries_logits (B, Q, h, w)`; `proposal_sizes (B, 2)`, `class_is_thing (B, C)` and
            `photo_orientation (B,)` are used if there; and, where N others compete, `others_queries_logits (B, Q, N)`
            with `objectness (B, Q)` and `other_is_thing (B, N)`.
        subtask: `"panoptic"` gives each pixel to at most one segment, things and stuff alike. `"instance"` finds the
            single things; where the outputs say which classes are things, the other classes are left out. `"semantic"`
            gives each pixel to its likeliest class.
        target_sizes: height and width of each photo as the caller holds it, `image.size[::-1]` for a PIL image; None
            keeps the size of the mask logits.
        id2label: the names of the classes and, from C on, of the others; "LABEL_0" and so on where they are missing.
        threshold, mask_threshold, overlap_mask_area_threshold: see `panoptic_segmentation` and
            `instance_segmentation`; semantic segmentations have none.
        min_score: the lowest score of a segment, in [0, 1]; the pixels of those below it are void. Semantic segments
            have no score.
        label_ids_to_fuse: for panoptic segmentations; see there.
        overlapping: keep the whole masks of instances beside the map, where they may hide each other.
        include_others: keep the segments that others win, with class ids from C on.
        rule: see `Rule`.

    Returns:
        A [`Segmentation`] for each photo. Where there are no segments, the log says why.

    Raises:
        ValueError: for shapes, sizes, a setting, a subtask or a rule that make no sense, and for ids of no class.

    Example:

    ```python
    >>> outputs = model(**processor(images=photo, text=["dog", "grass"], return_tensors="pt"))
    >>> (segmentation,) = segmentations(
    ...     outputs, target_sizes=[(photo.height, photo.width)], id2label={0: "dog", 1: "grass"}
    ... )
    >>> [(segment.label, segment.score, segment.area) for segment in segmentation]
    [('grass', 0.98, 184320), ('dog', 0.91, 20480)]
    ```
    """
    if subtask not in get_args(Subtask):
        raise ValueError(f"`subtask` is {subtask!r}; it must be one of {', '.join(get_args(Subtask))}.")
    if rule not in RULES:
        raise ValueError(f"`rule` is {rule!r}; it must be one of {', '.join(RULES)}.")
    min_score, include_others = share("min_score", min_score), switch("include_others", include_others)
    segment_rule = RULES[rule](
        threshold=threshold,
        mask_threshold=mask_threshold,
        overlap_mask_area_threshold=overlap_mask_area_threshold,
    )

    def paint(photo: PhotoOutputs) -> Painting:
        if subtask == "panoptic":
            return segment_rule.panoptic(photo, label_ids_to_fuse)
        if subtask == "instance":
            return _instances(photo, segment_rule, overlapping=overlapping, include_others=include_others)
        return _semantic(photo)

    with torch.no_grad(), in_float32(outputs):
        photos = list(photos_of(outputs, target_sizes))
        names = _names(photos[0], id2label) if photos else []
        _refuse_unknown(() if label_ids_to_fuse is None else label_ids_to_fuse, len(names))
        paintings = [_above(min_score, paint(photo)) for photo in photos]
        if not include_others:
            paintings = [_of_the_asked(painting, photo, names) for painting, photo in zip(paintings, photos)]
        _warn_of_empty(subtask, paintings)
        return [
            _segmentation(painting, photo, names, things_alone=subtask == "instance")
            for painting, photo in zip(paintings, photos)
        ]


def panoptic_segmentation(
    outputs: Any,
    *,
    target_sizes: Sizes | None = None,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap_mask_area_threshold: float = 0.8,
    min_score: float = 0.0,
    label_ids_to_fuse: Collection[int] | None = None,
    include_others: bool = False,
    rule: Rule = "open_vocabulary",
) -> list[dict[str, Any]]:
    """Panoptic [`segmentations`] in the form that transformers gives them.

    Args:
        outputs, target_sizes, min_score, include_others, rule: as for [`segmentations`].
        threshold: what objectness or class score (see `Rule`) a proposal must exceed, in [0, 1].
        mask_threshold: the mask probability from which on a pixel counts as inside, in [0, 1].
        overlap_mask_area_threshold: the share of its own area that a proposal must win to be a segment, in [0, 1].
        label_ids_to_fuse: the ids of the classes (and others, from C on) that have one segment at most, such as sky.
            None: those that are not things, if the outputs say so.

    Returns:
        For each image `{"segmentation": (H, W) int32, "segments_info": [...]}`: 0 is void, segments count from 1 (by
        the open-vocabulary rule from the best score down), and each has one entry `{"id", "label_id", "was_fused",
        "score"}`.

    Raises:
        ValueError: as for [`segmentations`].

    Example:

    ```python
    >>> (result,) = panoptic_segmentation(model(**inputs), target_sizes=[(480, 640)])
    >>> result["segments_info"][0]
    {'id': 1, 'label_id': 1, 'was_fused': True, 'score': 0.98}
    ```
    """
    results = segmentations(
        outputs,
        "panoptic",
        target_sizes=target_sizes,
        threshold=threshold,
        mask_threshold=mask_threshold,
        overlap_mask_area_threshold=overlap_mask_area_threshold,
        min_score=min_score,
        label_ids_to_fuse=label_ids_to_fuse,
        include_others=include_others,
        rule=rule,
    )
    return [result.to_transformers(first_id=FIRST_ID["panoptic"]) for result in results]


def instance_segmentation(
    outputs: Any,
    *,
    target_sizes: Sizes | None = None,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap_mask_area_threshold: float = 0.0,
    min_score: float = 0.0,
    return_coco_annotation: bool = False,
    return_binary_maps: bool = False,
    include_others: bool = False,
    rule: Rule = "open_vocabulary",
) -> list[dict[str, Any]]:
    """Instance [`segmentations`] in the form that transformers gives them.

    Args:
        outputs, target_sizes, min_score, include_others, rule: as for [`segmentations`].
        threshold: what a proposal's objectness must exceed or, by the closed-vocabulary rule, what the score of an
            instance must reach, in [0, 1].
        mask_threshold: the mask probability from which on a pixel counts as inside, in [0, 1].
        overlap_mask_area_threshold: an instance stays if more than this share of its mask is visible under those of
            higher score, in [0, 1]. The closed-vocabulary rule does not look at it.
        return_coco_annotation: run lengths of the map instead of the map: one list for each id in it, in
            ascending order, -1 included.
        return_binary_maps: the whole mask of each instance instead of the map, hidden parts included, as
            (N, H, W) float32 of 0 and 1. Without an instance the map stays.

    Returns:
        For each image `{"segmentation": (H, W) int32, "segments_info": [...]}`: -1 is background, instances count from
        0 (by the open-vocabulary rule from the best score down), and each has one entry `{"id", "label_id",
        "was_fused", "score"}`, with score = class score × mean mask probability inside. By the closed-vocabulary rule
        an instance may be painted over entirely.

    Raises:
        ValueError: as for [`segmentations`], and for both forms at once.

    Example:

    ```python
    >>> (result,) = instance_segmentation(model(**inputs), target_sizes=[(480, 640)], return_binary_maps=True)
    >>> result["segmentation"].shape, len(result["segments_info"])
    (torch.Size([3, 480, 640]), 3)
    ```
    """
    if switch("return_coco_annotation", return_coco_annotation) & switch("return_binary_maps", return_binary_maps):
        raise ValueError(
            "`return_coco_annotation` and `return_binary_maps` are both set, and `segmentation` has one form; "
            "choose one of them."
        )
    results = segmentations(
        outputs,
        "instance",
        target_sizes=target_sizes,
        threshold=threshold,
        mask_threshold=mask_threshold,
        overlap_mask_area_threshold=overlap_mask_area_threshold,
        min_score=min_score,
        overlapping=return_binary_maps,
        include_others=include_others,
        rule=rule,
    )
    contents = [result.to_transformers(first_id=FIRST_ID["instance"]) for result in results]
    for content, result in zip(contents, results):
        if return_coco_annotation:
            content["segmentation"] = convert_segmentation_to_rle(content["segmentation"].cpu())
        elif return_binary_maps and result.masks is not None and len(result.masks):
            content["segmentation"] = result.masks.float()
    return contents


def semantic_segmentation(
    outputs: Any,
    *,
    target_sizes: Sizes | None = None,
    return_segmentation_scores: bool = False,
    include_others: bool = False,
) -> list[torch.Tensor] | list[SemanticSegmentationPostProcessorOutput]:
    """Name the likeliest class of each pixel: argmax over c of the sum over q of p(c | q) × mask probability of q.

    Beyond the maps returned this needs about 100 MB, however many proposals and classes there are, and however large
    photo and masks.

    Args:
        outputs, target_sizes: as for [`segmentations`].
        return_segmentation_scores: return those sums too, which takes C float32 numbers per pixel.
        include_others: let the map and the scores hold the others too, as the classes from C on.

    Returns:
        For each image the (H, W) int64 map of class ids, −1 (void) where an other wins; or, with scores, transformers'
        `SemanticSegmentationPostProcessorOutput` of that map as `segmentation` and `segmentation_scores`
        (C, H, W) float32.

    Raises:
        ValueError: for shapes, sizes or a setting that make no sense.

    Example:

    ```python
    >>> (labels,) = semantic_segmentation(model(**inputs), target_sizes=[(480, 640)])
    >>> labels.unique().tolist()
    [0, 1]
    ```
    """
    include_others = switch("include_others", include_others)
    with torch.no_grad(), in_float32(outputs):
        photos = photos_of(outputs, target_sizes)
        if switch("return_segmentation_scores", return_segmentation_scores):
            return [_with_scores(photo, include_others=include_others) for photo in photos]
        return [_label_map(photo, include_others=include_others) for photo in photos]


def _label_map(photo: PhotoOutputs, *, include_others: bool) -> torch.Tensor:
    labels = photo.as_held(_semantic_map(photo))
    return labels if include_others else _without_others(labels, photo)


def _without_others(labels: torch.Tensor, photo: PhotoOutputs) -> torch.Tensor:
    if photo.num_classes == photo.class_probs.shape[1] - 1:
        return labels
    return labels.masked_fill(labels >= photo.num_classes, VOID)


def _with_scores(photo: PhotoOutputs, *, include_others: bool) -> SemanticSegmentationPostProcessorOutput:
    scores = torch.einsum("qc,qhw->chw", photo.class_probs[:, :-1], photo.mask_logits.float().sigmoid())
    scores = F.interpolate(scores[None], size=photo.size, mode="bilinear", align_corners=False)[0]
    scores = photo.as_held(scores)
    labels = scores.argmax(0)
    if not include_others:
        labels, scores = _without_others(labels, photo), scores[: photo.num_classes]
    return SemanticSegmentationPostProcessorOutput(data={"segmentation": labels, "segmentation_scores": scores})


def _instances(photo: PhotoOutputs, rule: SegmentRule, *, overlapping: bool, include_others: bool) -> Painting:
    class_ids = torch.arange(photo.class_probs.shape[1] - 1, device=photo.class_probs.device)
    if photo.is_thing is not None:
        class_ids = class_ids[photo.is_thing]
    if not (class_ids if include_others else class_ids[class_ids < photo.num_classes]).numel():
        void = torch.zeros(photo.size, dtype=torch.int32, device=class_ids.device)
        return Painting(void, obstacle="none of the classes is a thing")
    return rule.instances(photo, class_ids, overlapping=overlapping)


def _semantic_map(photo: PhotoOutputs) -> torch.Tensor:
    return semantic_map(photo.class_probs[:, :-1], photo.mask_logits, photo.size)


def _semantic(photo: PhotoOutputs) -> Painting:
    class_ids, places = _semantic_map(photo).unique(return_inverse=True)
    return Painting((places + 1).int(), class_ids.tolist())


def _refuse_unknown(class_ids: Iterable[int], num_classes: int) -> None:
    unknown = [class_id for class_id in class_ids if class_id not in range(num_classes)]
    if unknown and num_classes:
        named = ", ".join(map(repr, unknown))
        raise ValueError(f"`label_ids_to_fuse` has {named}; the classes have the ids 0 to {num_classes - 1}.")


def _names(photo: PhotoOutputs, id2label: Mapping[int, str] | None) -> list[str]:
    """The names of the C classes and the N others."""
    named = id2label or {}
    return [named.get(class_id, f"LABEL_{class_id}") for class_id in range(photo.class_probs.shape[1] - 1)]


def _above(min_score: float, painting: Painting) -> Painting:
    """Leave out the segments below a score."""
    if not painting.scores:
        return painting
    return painting.only(
        [score >= min_score for score in painting.scores],
        obstacle=f"the highest score of a segment is {max(painting.scores):.3f}, and `min_score` is {min_score}",
    )


def _of_the_asked(painting: Painting, photo: PhotoOutputs, names: Sequence[str]) -> Painting:
    """Leave out the segments that others win."""
    winners = dict.fromkeys(names[class_id] for class_id in painting.class_ids)
    return painting.only(
        [class_id < photo.num_classes for class_id in painting.class_ids],
        obstacle=f"all segments belong to others: {quoted(winners)}",
    )


def _segmentation(
    painting: Painting, photo: PhotoOutputs, names: Sequence[str], *, things_alone: bool
) -> Segmentation:
    class_ids = painting.class_ids
    is_thing = [None] * len(names) if photo.is_thing is None else photo.is_thing.tolist()
    asked = names[: photo.num_classes]
    if things_alone:
        asked = [name for name, counts in zip(asked, is_thing) if counts is not False]
    return Segmentation.from_map(
        photo.as_held(painting.ids),
        labels=[names[class_id] for class_id in class_ids],
        class_ids=class_ids,
        scores=painting.scores,
        are_things=[is_thing[class_id] for class_id in class_ids],
        were_fused=painting.were_fused,
        are_others=[class_id >= photo.num_classes for class_id in class_ids],
        asked=tuple(asked),
        masks=None if painting.masks is None else photo.as_held(painting.masks),
    )


def _warn_of_empty(subtask: str, paintings: Sequence[Painting]) -> None:
    obstacles = {index: painting.obstacle for index, painting in enumerate(paintings) if not painting.class_ids}
    if obstacles:
        index, obstacle = next(iter(obstacles.items()))
        logger.warning(
            f"No {subtask} segments in {len(obstacles)} of {len(paintings)} images: in image {index}, {obstacle}."
        )
