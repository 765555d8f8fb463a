"""Turns the proposals of one forward pass into panoptic, instance and semantic segmentations at the photo's size. Any
universal segmentation model of transformers will do: all that is needed are class and mask logits."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from transformers.utils import logging

from fisa.processing.semantic_map import semantic_map
from fisa.processing.winners import first_inside, strongest_claims


logger = logging.get_logger(__name__)

Sizes = Sequence[tuple[int, int]] | torch.Tensor
Rule = Literal["open_vocabulary", "closed_vocabulary"]
"""Which proposals become segments, and what their scores are.

`"closed_vocabulary"` is the rule of transformers' `Mask2FormerImageProcessor`, for a classifier trained on the very
classes it is asked for. Panoptic: a proposal stays if "no object" is not its likeliest column and the score of its
likeliest class is above `threshold`; areas are measured on masks weighted by that score, so that a score below
`mask_threshold` never makes a segment. Instance: the Q best of all Q × C pairs of proposal and class, cut at mask
logit 0 whatever the `mask_threshold`, painted one over the other in the order of `torch.topk`.

`"open_vocabulary"` does not ask for a high class score, which hundreds of classes may share. `threshold` goes to the
objectness, 1 − p(no object); the score of the likeliest class only ranks and weighs. Panoptic: areas are measured on
the masks themselves, and a pixel outside the mask that wins it is void, as Mask2Former published it. Instance: each
proposal once, with its likeliest thing class, higher scores on top. Where things and stuff are told apart, what must
be above `threshold` is the probability of being a thing of any class: the sky does not come back as a kite.
"""


class _Photo(NamedTuple):
    """One image's share of the outputs, without the padding of the batch."""

    class_probs: torch.Tensor  # (Q, C + 1) float32, "no object" last
    mask_logits: torch.Tensor  # (Q, h, w)
    size: tuple[int, int]  # height and width of the map to make, upright
    is_thing: torch.Tensor | None  # (C,) bool
    orientation: int  # EXIF's, of the pixels that the caller holds


class _Found(NamedTuple):
    segmentation: torch.Tensor
    segments: list[dict[str, Any]]
    obstacle: str  # why there are no segments, if there are none


@torch.no_grad()
def panoptic_segmentation(
    outputs: Any,
    *,
    target_sizes: Sizes | None = None,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap_mask_area_threshold: float = 0.8,
    label_ids_to_fuse: Collection[int] | None = None,
    rule: Rule = "open_vocabulary",
) -> list[dict[str, Any]]:
    """Give each pixel to at most one segment, things and stuff alike.

    Beyond the maps returned this needs about 30 bytes a pixel of one photo, however many proposals there are.

    Args:
        outputs: anything with `class_queries_logits (B, Q, C + 1)`, the last column for "no object", and
            `masks_queries_logits (B, Q, h, w)`; `proposal_sizes (B, 2)`, `class_is_thing (B, C)` and
            `photo_orientation (B,)` are used if there.
        target_sizes: height and width of each photo as the caller holds it, `image.size[::-1]` for a PIL image; None
            keeps the size of the mask logits.
        threshold: what objectness or class score (see `Rule`) a proposal must exceed, in [0, 1].
        mask_threshold: the mask probability from which on a pixel counts as inside, in [0, 1].
        overlap_mask_area_threshold: the share of its own area that a proposal must win to be a segment, in [0, 1].
        label_ids_to_fuse: the classes that have one segment at most, such as sky. None: those that are not things, if
            the outputs say so.
        rule: see `Rule`.

    Returns:
        For each image `{"segmentation": (H, W) int32, "segments_info": [...]}`: 0 is void, segments count from 1 (by
        the open-vocabulary rule from the best score down), and each has one entry `{"id", "label_id", "was_fused",
        "score"}`. Where nothing is found the list is empty, and the log says why.

    Raises:
        ValueError: for shapes, sizes, thresholds or a rule that make no sense.
    """
    thresholds = _checked(
        rule,
        threshold=threshold,
        mask_threshold=mask_threshold,
        overlap_mask_area_threshold=overlap_mask_area_threshold,
    )
    find = partial(_find_segments, rule=rule, label_ids_to_fuse=label_ids_to_fuse, **thresholds)
    return _results("panoptic", find, _photos(outputs, target_sizes))


@torch.no_grad()
def instance_segmentation(
    outputs: Any,
    *,
    target_sizes: Sizes | None = None,
    threshold: float = 0.5,
    mask_threshold: float = 0.5,
    overlap_mask_area_threshold: float = 0.0,
    rule: Rule = "open_vocabulary",
) -> list[dict[str, Any]]:
    """Find the single things. Where the outputs say which classes are things, the other classes are left out.

    Beyond the maps returned this needs a few float32 copies of one image's mask logits and about 20 bytes a pixel.

    Args:
        outputs, target_sizes, mask_threshold, rule: as for `panoptic_segmentation`.
        threshold: what a proposal's objectness must exceed or, by the closed-vocabulary rule, what the score of an
            instance must reach, in [0, 1].
        overlap_mask_area_threshold: an instance stays if more than this share of its mask is visible under those of
            higher score, in [0, 1]. The closed-vocabulary rule does not look at it.

    Returns:
        For each image `{"segmentation": (H, W) int32, "segments_info": [...]}`: -1 is background, instances count from
        0 (by the open-vocabulary rule from the best score down), and each has one entry `{"id", "label_id",
        "was_fused", "score"}`, with score = class score × mean mask probability inside. By the closed-vocabulary rule
        an instance may be painted over entirely. Where nothing is found the list is empty, and the log says why.

    Raises:
        ValueError: for shapes, sizes, thresholds or a rule that make no sense.
    """
    thresholds = _checked(
        rule,
        threshold=threshold,
        mask_threshold=mask_threshold,
        overlap_mask_area_threshold=overlap_mask_area_threshold,
    )
    find = partial(_find_instances, rule=rule, **thresholds)
    return _results("instance", find, _photos(outputs, target_sizes))


@torch.no_grad()
def semantic_segmentation(outputs: Any, *, target_sizes: Sizes | None = None) -> list[torch.Tensor]:
    """Name the likeliest class of each pixel: argmax over c of the sum over q of p(c | q) × mask probability of q.

    Beyond the maps returned this needs about 100 MB, however many proposals and classes there are, and however large
    photo and masks.

    Args:
        outputs, target_sizes: as for `panoptic_segmentation`.

    Returns:
        For each image the (H, W) int64 map of class ids. There is no void in it.

    Raises:
        ValueError: for shapes or sizes that make no sense.
    """
    return [
        _turned_back(semantic_map(photo.class_probs[:, :-1], photo.mask_logits, photo.size), photo.orientation)
        for photo in _photos(outputs, target_sizes)
    ]


def _find_segments(
    photo: _Photo,
    *,
    rule: Rule,
    threshold: float,
    mask_threshold: float,
    overlap_mask_area_threshold: float,
    label_ids_to_fuse: Collection[int] | None,
) -> _Found:
    if rule == "closed_vocabulary":
        scores, labels = photo.class_probs.max(-1)
        name, confidence = "class score", scores.masked_fill(labels == photo.class_probs.shape[1] - 1, 0)
        order = torch.arange(len(scores), device=scores.device)
    else:
        scores, labels = photo.class_probs[:, :-1].max(-1)
        name, confidence = "objectness", 1 - photo.class_probs[:, -1]
        order = scores.argsort(descending=True, stable=True)
    kept = order[confidence[order] > threshold]
    if not len(kept):
        return _Found(_full(photo, 0), [], _too_low(name, confidence, threshold))
    scores, labels = scores[kept], labels[kept]

    weighted = rule == "closed_vocabulary"
    codes, least, most = strongest_claims(
        photo.mask_logits, kept, scores, photo.size, mask_threshold=mask_threshold, weighted=weighted
    )
    pixels = codes.flatten().bincount(minlength=2 * len(kept)).view(-1, 2)
    won = pixels.sum(1).masked_fill(pixels[:, 1] == 0, 0)

    def exact_area(k: int) -> torch.Tensor:
        probs = _resized_probs(photo, kept[k])
        return ((probs.mul_(scores[k]) if weighted else probs) >= mask_threshold).count_nonzero()

    shares = _shares(won, least, most, exact_area, overlap_mask_area_threshold)
    survivors = [k for k, share in enumerate(shares) if share > overlap_mask_area_threshold]
    if label_ids_to_fuse is None:
        label_ids_to_fuse = [] if photo.is_thing is None else (~photo.is_thing).nonzero().flatten().tolist()
    ids, segments = _fuse(scores[survivors].tolist(), labels[survivors].tolist(), label_ids_to_fuse)

    id_of = torch.zeros(len(kept), 2, dtype=torch.int32, device=kept.device)
    id_of[survivors, 1] = torch.tensor(ids, dtype=torch.int32, device=kept.device)
    obstacle = (
        f"of {len(kept)} proposals above `threshold` none wins more than {max(shares):.3f} of its own area at "
        f"`mask_threshold` {mask_threshold}, and `overlap_mask_area_threshold` is {overlap_mask_area_threshold}"
    )
    return _Found(id_of.flatten()[codes], segments, obstacle)


def _shares(
    won: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    exact_area: Callable[[int], torch.Tensor],
    threshold: float,
) -> list[float]:
    """What share of its own area each proposal wins; where the threshold is out of reach or surely exceeded, at the
    most. If none exceeds it, the largest is exact."""
    # As Python floats, like transformers' own: compared as float32, a share of 4/5 would not be above 0.8.
    at_most = (won / least).masked_fill((won == 0) | (most == 0), 0).tolist()
    at_least = (won / most).masked_fill(least == 0, 0).tolist()  # a mask that may be empty may be no segment

    def find_out(k: int) -> None:
        area = exact_area(k)
        at_most[k] = at_least[k] = (won[k] / area).item() if area else 0.0

    for k in range(len(won)):
        if at_most[k] > threshold >= at_least[k]:
            find_out(k)
    while at_least[best := max(range(len(won)), key=at_most.__getitem__)] < at_most[best] <= threshold:
        find_out(best)
    return at_most


def _fuse(
    scores: list[float], labels: list[int], label_ids_to_fuse: Collection[int]
) -> tuple[list[int], list[dict[str, Any]]]:
    """The segment id of each proposal, and the segments."""
    ids, segments, fused = [], [], {}
    for score, label in zip(scores, labels):
        segment = fused.get(label)
        if segment is None:
            segment = _segment(len(segments) + 1, label, score, was_fused=label in label_ids_to_fuse)
            segments.append(segment)
            if segment["was_fused"]:
                fused[label] = segment
        segment["score"] = max(segment["score"], round(score, 6))
        ids.append(segment["id"])
    return ids, segments


def _find_instances(photo: _Photo, *, rule: Rule, threshold: float, **thresholds: float) -> _Found:
    if photo.is_thing is None:
        class_ids = torch.arange(photo.class_probs.shape[1] - 1, device=photo.class_probs.device)
    else:
        class_ids = photo.is_thing.nonzero().flatten()
    if not len(class_ids):
        return _Found(_full(photo, -1), [], "none of the classes is a thing")
    if rule == "closed_vocabulary":
        return _paint_pairs(photo, class_ids, threshold)
    return _paint_things(photo, class_ids, threshold, **thresholds)


def _paint_pairs(photo: _Photo, class_ids: torch.Tensor, threshold: float) -> _Found:
    class_scores = photo.class_probs[:, class_ids]
    scores, pairs = class_scores.flatten().topk(len(class_scores), sorted=False)
    proposals, labels = pairs // len(class_ids), class_ids[pairs % len(class_ids)]
    inside = photo.mask_logits > 0
    scores = scores * _mean_inside(photo.mask_logits.float().sigmoid(), inside)[proposals]
    # All pixels that take after the same point are painted alike: the points are painted, and the painting is resized.
    (rows, row_of), (columns, column_of) = (
        _nearest(*lengths, inside).unique(return_inverse=True) for lengths in zip(inside.shape[1:], photo.size)
    )
    inside = inside.index_select(1, rows).index_select(2, columns)
    segmentation, segments = inside.new_full(inside.shape[1:], -1, dtype=torch.int32), []
    for proposal, label, score in zip(proposals.tolist(), labels.tolist(), scores.tolist()):
        if score >= threshold and inside[proposal].any():
            segmentation.masked_fill_(inside[proposal], len(segments))
            segments.append(_segment(len(segments), label, score))
    segmentation = segmentation.index_select(0, row_of).index_select(1, column_of)
    return _Found(segmentation, segments, _too_low("score of an instance", scores, threshold))


def _nearest(length: int, target_length: int, like: torch.Tensor) -> torch.Tensor:
    """Which row (or column) of the grid each one of the photo takes after, (target_length,)."""
    rows = torch.arange(length, dtype=torch.float32, device=like.device)
    return F.interpolate(rows[None, None], size=target_length, mode="nearest")[0, 0].long()


def _paint_things(
    photo: _Photo,
    class_ids: torch.Tensor,
    threshold: float,
    mask_threshold: float,
    overlap_mask_area_threshold: float,
) -> _Found:
    class_scores = photo.class_probs[:, class_ids]
    confidence = class_scores.sum(-1)
    kept = (confidence > threshold).nonzero().flatten()
    if not len(kept):
        return _Found(_full(photo, -1), [], _too_low("probability of a thing", confidence, threshold))
    scores, columns = class_scores[kept].max(-1)
    probs = photo.mask_logits[kept].float().sigmoid()
    scores, order = (scores * _mean_inside(probs, probs >= mask_threshold)).sort(descending=True, stable=True)
    kept, labels = kept[order], class_ids[columns[order]].tolist()
    segmentation, segments = _full(photo, -1), []
    if overlap_mask_area_threshold == 0:
        # All that is seen at all stays, so that what is seen does not depend on what has stayed.
        highest = first_inside(photo.mask_logits, kept, photo.size, mask_threshold=mask_threshold)
        seen = highest.flatten().bincount(minlength=len(kept) + 1)[:-1].nonzero().flatten()
        id_of = torch.full((len(kept) + 1,), -1, dtype=torch.int32, device=kept.device)
        id_of[seen] = torch.arange(len(seen), dtype=torch.int32, device=kept.device)
        segmentation = id_of[highest]
        segments = [_segment(number, labels[k], scores[k].item()) for number, k in enumerate(seen.tolist())]
    else:
        for proposal, label, score in zip(kept, labels, scores.tolist()):
            mask = _resized_probs(photo, proposal) >= mask_threshold
            visible = mask & (segmentation < 0)
            if visible.count_nonzero() > overlap_mask_area_threshold * mask.count_nonzero():
                segmentation.masked_fill_(visible, len(segments))
                segments.append(_segment(len(segments), label, score))
    obstacle = f"no mask of {len(kept)} proposals above `threshold` reaches `mask_threshold` {mask_threshold}"
    return _Found(segmentation, segments, obstacle)


def _resized_probs(photo: _Photo, proposal: torch.Tensor) -> torch.Tensor:
    probs = photo.mask_logits[proposal].float().sigmoid()[None, None]
    return F.interpolate(probs, size=photo.size, mode="bilinear", align_corners=False)[0, 0]


def _mean_inside(probs: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return (probs * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)


def _full(photo: _Photo, value: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return torch.full(photo.size, value, dtype=dtype, device=photo.mask_logits.device)


def _segment(segment_id: int, label_id: int, score: float, was_fused: bool = False) -> dict[str, Any]:
    return {"id": segment_id, "label_id": label_id, "was_fused": was_fused, "score": round(score, 6)}


def _too_low(name: str, values: torch.Tensor, threshold: float) -> str:
    if not len(values):
        return "there are no proposals"
    return f"the highest {name} is {values.max():.3f}, and `threshold` is {threshold}"


def _results(subtask: str, find: Callable[[_Photo], _Found], photos: Iterable[_Photo]) -> list[dict[str, Any]]:
    found = []
    for photo in photos:
        upright = find(photo)
        found.append(upright._replace(segmentation=_turned_back(upright.segmentation, photo.orientation)))
    obstacles = {index: item.obstacle for index, item in enumerate(found) if not item.segments}
    if obstacles:
        index, obstacle = next(iter(obstacles.items()))
        logger.warning(
            f"No {subtask} segments in {len(obstacles)} of {len(found)} images: in image {index}, {obstacle}."
        )
    return [{"segmentation": item.segmentation, "segments_info": item.segments} for item in found]


def _turned_back(segmentation: torch.Tensor, orientation: int) -> torch.Tensor:
    """An upright map as a camera stores it that names this EXIF orientation."""
    stored = segmentation.mT if orientation >= 5 else segmentation
    flipped = {2: [1], 3: [0, 1], 4: [0], 6: [0], 7: [0, 1], 8: [1]}.get(orientation, [])
    return stored.flip(flipped) if flipped else stored.contiguous()


def _checked(rule: str, **thresholds: float) -> dict[str, float]:
    if rule not in get_args(Rule):
        raise ValueError(f"`rule` is {rule!r}; it must be one of {', '.join(get_args(Rule))}.")
    for name, value in thresholds.items():
        if not 0 <= value <= 1:
            raise ValueError(f"`{name}` is {value}; as a probability or a share it must lie in [0, 1].")
    return thresholds


def _photos(outputs: Any, target_sizes: Sizes | None) -> Iterator[_Photo]:
    class_logits, mask_logits = outputs.class_queries_logits, outputs.masks_queries_logits
    if class_logits.ndim != 3 or mask_logits.ndim != 4 or class_logits.shape[:2] != mask_logits.shape[:2]:
        raise ValueError(
            f"`class_queries_logits` is {tuple(class_logits.shape)} and `masks_queries_logits` "
            f"{tuple(mask_logits.shape)}; they must be (batch, proposals, classes + 1) and (batch, proposals, height, "
            "width) with the same batch and proposals."
        )
    batch_size, num_classes, grid = len(class_logits), class_logits.shape[-1] - 1, tuple(mask_logits.shape[-2:])
    if num_classes < 1:
        raise ValueError("`class_queries_logits` has no column beside the one for no object; name at least one class.")
    is_thing = getattr(outputs, "class_is_thing", None)
    if is_thing is not None and is_thing.shape != (batch_size, num_classes):
        raise ValueError(
            f"`class_is_thing` is {tuple(is_thing.shape)}; with these class logits it must be "
            f"{(batch_size, num_classes)}."
        )
    sizes = getattr(outputs, "proposal_sizes", None)
    sizes = [grid] * batch_size if sizes is None else _as_pairs("proposal_sizes", sizes, batch_size)
    if any(height > grid[0] or width > grid[1] for height, width in sizes):
        raise ValueError(f"`proposal_sizes` {sizes} exceed the height and width of the mask logits, {grid}.")
    given = target_sizes is not None
    target_sizes = _as_pairs("target_sizes", target_sizes, batch_size) if given else sizes
    orientations = getattr(outputs, "photo_orientation", None)
    orientations = [1] * batch_size if orientations is None else orientations.tolist()
    for index, (height, width) in enumerate(sizes):
        size, orientation = target_sizes[index], orientations[index]
        if given and orientation >= 5:
            size = size[::-1]
        yield _Photo(
            class_probs=class_logits[index].float().softmax(-1),
            mask_logits=mask_logits[index, :, :height, :width],
            size=size,
            is_thing=None if is_thing is None else is_thing[index].bool(),
            orientation=orientation,
        )


def _as_pairs(name: str, sizes: Sizes, batch_size: int) -> list[tuple[int, int]]:
    pairs = [tuple(int(side) for side in size) for size in sizes]
    if len(pairs) != batch_size or any(len(pair) != 2 or min(pair) < 1 for pair in pairs):
        raise ValueError(
            f"`{name}` is {pairs}; it must hold one (height, width), in pixels and at least 1, for each of the "
            f"{batch_size} images."
        )
    return pairs
