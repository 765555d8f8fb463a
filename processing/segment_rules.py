"""Which proposals become segments, and which pixels they get: one class for each of the two rules."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from fisa.processing.photo_outputs import PhotoOutputs
from fisa.processing.setting_values import share
from fisa.processing.winners import exact_area, first_inside, strongest_claims


@dataclass
class Painting:
    """The map of one photo, and its segments in columns."""

    ids: torch.Tensor  # (H, W) int32: 0 is void, k the k-th segment
    class_ids: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)  # none for a semantic map
    were_fused: list[bool] = field(default_factory=list)
    obstacle: str = ""  # why there are no segments, if there are none
    masks: torch.Tensor | None = None  # (N, H, W) bool

    def add(self, class_id: int, score: float, *, was_fused: bool = False) -> int:
        """Append a segment; returns its id."""
        self.class_ids.append(class_id)
        self.scores.append(round(score, 6))
        self.were_fused.append(was_fused)
        return len(self.class_ids)

    def only(self, is_kept: Sequence[bool], *, obstacle: str) -> "Painting":
        """A part of the segments, numbered anew in their order; the pixels of the rest are void.

        Args:
            is_kept: for each segment, whether it stays.
            obstacle: why none stays, if none does.
        """
        if all(is_kept):
            return self
        kept = [number for number, stays in enumerate(is_kept) if stays]
        id_of = torch.zeros(len(is_kept) + 1, dtype=self.ids.dtype, device=self.ids.device)
        id_of[[number + 1 for number in kept]] = torch.arange(1, len(kept) + 1, dtype=id_of.dtype, device=id_of.device)
        return Painting(
            ids=_looked_up(id_of, self.ids),
            class_ids=[self.class_ids[number] for number in kept],
            scores=[self.scores[number] for number in kept] if self.scores else [],
            were_fused=[self.were_fused[number] for number in kept] if self.were_fused else [],
            obstacle=obstacle,
            masks=None if self.masks is None else self.masks[kept],
        )


class Candidates(NamedTuple):
    """The proposals that compete for the pixels of a panoptic map, in the order of their segments."""

    proposals: torch.Tensor  # (K,) int64
    scores: torch.Tensor  # (K,) float32
    labels: torch.Tensor  # (K,) int64
    obstacle: str  # why there are none, if there are none


@dataclass(frozen=True, kw_only=True)
class SegmentRule:
    """What both rules share.

    Args:
        threshold: what the confidence in a proposal must exceed, in [0, 1].
        mask_threshold: the mask probability from which on a pixel is inside, in [0, 1].
        overlap_mask_area_threshold: the share of its own area that a proposal must win to be a segment, in [0, 1].

    Raises:
        ValueError: a threshold is not a number in [0, 1].
    """

    threshold: float
    mask_threshold: float
    overlap_mask_area_threshold: float

    weighted: ClassVar[bool]
    """Whether areas are those of the masks weighted by the scores, and each pixel counts as inside its winner."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, share(name, value))

    def candidates(self, photo: PhotoOutputs) -> Candidates:
        """Choose the proposals that compete for a panoptic map."""
        raise NotImplementedError

    def instances(self, photo: PhotoOutputs, class_ids: torch.Tensor, *, overlapping: bool) -> Painting:
        """Find the instances of the classes `class_ids`, with their whole masks if they may overlap."""
        raise NotImplementedError

    def panoptic(self, photo: PhotoOutputs, label_ids_to_fuse: Collection[int] | None) -> Painting:
        """Give each pixel to the strongest claim, and drop the proposals that win too little of their own area."""
        proposals, scores, labels, obstacle = self.candidates(photo)
        if not len(proposals):
            return Painting(_void(photo), obstacle=obstacle)
        codes, least, most = strongest_claims(
            photo.mask_logits,
            proposals,
            scores,
            photo.size,
            mask_threshold=self.mask_threshold,
            weighted=self.weighted,
        )
        pixels = codes.flatten().bincount(minlength=2 * len(proposals)).view(-1, 2)
        won = pixels.sum(1).masked_fill(pixels[:, 1] == 0, 0)

        def area(k: int) -> int:
            weight = scores[k] if self.weighted else 1
            return exact_area(
                photo.mask_logits,
                proposals[k],
                photo.size,
                inside=lambda probs: probs * weight >= self.mask_threshold,
            )

        shares = _shares(won, least, most, area, self.overlap_mask_area_threshold)
        survivors = [k for k, share in enumerate(shares) if share > self.overlap_mask_area_threshold]
        if label_ids_to_fuse is None:
            label_ids_to_fuse = [] if photo.is_thing is None else (~photo.is_thing).nonzero().flatten().tolist()
        painting = Painting(
            codes,
            obstacle=f"of {len(proposals)} proposals above `threshold` none wins more than {max(shares):.3f} of its "
            f"own area at `mask_threshold` {self.mask_threshold}, and `overlap_mask_area_threshold` is "
            f"{self.overlap_mask_area_threshold}",
        )
        ids = _fuse(painting, scores[survivors].tolist(), labels[survivors].tolist(), label_ids_to_fuse)
        id_of = torch.zeros(len(proposals), 2, dtype=torch.int32, device=proposals.device)
        id_of[survivors, 1] = torch.tensor(ids, dtype=torch.int32, device=proposals.device)
        painting.ids = _looked_up(id_of.flatten(), codes)
        return painting


class ClosedVocabulary(SegmentRule):
    """The rule of transformers' `Mask2FormerImageProcessor`, for a classifier trained on the very classes it is asked
    for.

    Panoptic: a proposal stays if "no object" is not its likeliest column and the score of its likeliest class is above
    `threshold`; areas are measured on masks weighted by that score, so that a score below `mask_threshold` never makes
    a segment. Instance: the Q best of all Q × C pairs of proposal and class whose score reaches `threshold`, cut at
    mask logit 0 for every `mask_threshold`, painted one over the other in the order of `torch.topk`.
    """

    weighted = True

    def candidates(self, photo: PhotoOutputs) -> Candidates:
        """In the order of the proposals."""
        scores, labels = photo.class_probs.max(-1)
        confidence = scores.masked_fill(labels == photo.class_probs.shape[1] - 1, 0)
        kept = (confidence > self.threshold).nonzero().flatten()
        obstacle = _too_low("class score", confidence, self.threshold)
        return Candidates(kept, scores[kept], labels[kept], obstacle)

    def instances(self, photo: PhotoOutputs, class_ids: torch.Tensor, *, overlapping: bool) -> Painting:
        """Those of later pairs lie on top, and may hide others entirely."""
        class_scores = photo.class_probs[:, class_ids]
        scores, pairs = class_scores.flatten().topk(len(class_scores), sorted=False)
        proposals, labels = pairs // len(class_ids), class_ids[pairs % len(class_ids)]
        inside = photo.mask_logits > 0
        scores = scores * _mean_inside(photo.mask_logits.float().sigmoid(), inside)[proposals]
        # All pixels that take after the same point are painted alike: points are painted, and the painting resized.
        (rows, row_of), (columns, column_of) = (
            _nearest(*lengths, inside).unique(return_inverse=True) for lengths in zip(inside.shape[1:], photo.size)
        )
        inside = inside.index_select(1, rows).index_select(2, columns)
        painting = Painting(
            inside.new_zeros(inside.shape[1:], dtype=torch.int32),
            obstacle=_too_low("score of an instance", scores, self.threshold),
        )
        painted = []
        for proposal, label, score in zip(proposals.tolist(), labels.tolist(), scores.tolist()):
            if score >= self.threshold and inside[proposal].any():
                painting.ids.masked_fill_(inside[proposal], painting.add(label, score))
                painted.append(proposal)
        painting.ids = painting.ids.index_select(0, row_of).index_select(1, column_of)
        if overlapping:
            painting.masks = inside[painted].index_select(1, row_of).index_select(2, column_of)
        return painting


class OpenVocabulary(SegmentRule):
    """The rule for any words: it does not ask for a high class score, which hundreds of classes may share.

    `threshold` goes to the objectness, 1 − p(no object); the score of the likeliest class only ranks and weighs.
    Panoptic: areas are measured on the masks themselves, and a pixel outside the mask that wins it is void, as
    Mask2Former published it. Instance: each proposal once, with its likeliest thing class, higher scores on top. Where
    things and stuff are told apart, what must be above `threshold` is the probability of being a thing of any class:
    the sky does not come back as a kite.
    """

    weighted = False

    def candidates(self, photo: PhotoOutputs) -> Candidates:
        """From the best score down."""
        scores, labels = photo.class_probs[:, :-1].max(-1)
        objectness = 1 - photo.class_probs[:, -1]
        order = scores.argsort(descending=True, stable=True)
        kept = order[objectness[order] > self.threshold]
        obstacle = _too_low("objectness", objectness, self.threshold)
        return Candidates(kept, scores[kept], labels[kept], obstacle)

    def instances(self, photo: PhotoOutputs, class_ids: torch.Tensor, *, overlapping: bool) -> Painting:
        """From the best score down, the better ones on top. One that is hidden too far makes no segment."""
        class_scores = photo.class_probs[:, class_ids]
        confidence = class_scores.sum(-1)
        kept = (confidence > self.threshold).nonzero().flatten()
        if not len(kept):
            obstacle = _too_low("probability of a thing", confidence, self.threshold)
            return Painting(_void(photo), obstacle=obstacle)
        scores, columns = class_scores[kept].max(-1)
        probs = photo.mask_logits[kept].float().sigmoid()
        scores, order = (scores * _mean_inside(probs, probs >= self.mask_threshold)).sort(descending=True, stable=True)
        kept, labels = kept[order], class_ids[columns[order]].tolist()
        painting = Painting(
            _void(photo),
            obstacle=f"no mask of {len(kept)} proposals above `threshold` reaches `mask_threshold` "
            f"{self.mask_threshold}",
        )
        paint = self._paint_all_seen if self.overlap_mask_area_threshold == 0 else self._paint_in_turn
        painted = paint(painting, photo, kept, labels, scores.tolist())
        if overlapping:
            masks = [_resized_probs(photo, proposal) >= self.mask_threshold for proposal in kept[painted]]
            painting.masks = torch.stack(masks) if masks else painting.ids.new_zeros((0, *photo.size)).bool()
        return painting

    def _paint_all_seen(
        self, painting: Painting, photo: PhotoOutputs, proposals: torch.Tensor, labels: list[int], scores: list[float]
    ) -> list[int]:
        """Keep all that is seen at all, so that what is seen does not depend on what has stayed; returns the places of
        the proposals that were painted."""
        highest = first_inside(photo.mask_logits, proposals, photo.size, mask_threshold=self.mask_threshold)
        seen = highest.flatten().bincount(minlength=len(proposals) + 1)[:-1].nonzero().flatten()
        id_of = torch.zeros(len(proposals) + 1, dtype=torch.int32, device=proposals.device)
        id_of[seen] = torch.arange(1, len(seen) + 1, dtype=torch.int32, device=proposals.device)
        painting.ids = _looked_up(id_of, highest)
        for k in seen.tolist():
            painting.add(labels[k], scores[k])
        return seen.tolist()

    def _paint_in_turn(
        self, painting: Painting, photo: PhotoOutputs, proposals: torch.Tensor, labels: list[int], scores: list[float]
    ) -> list[int]:
        """Keep what those kept before it leave enough of; returns the places of the proposals that were painted."""
        painted = []
        for k, proposal in enumerate(proposals):
            mask = _resized_probs(photo, proposal) >= self.mask_threshold
            visible = mask & (painting.ids == 0)
            if visible.count_nonzero() > self.overlap_mask_area_threshold * mask.count_nonzero():
                painting.ids.masked_fill_(visible, painting.add(labels[k], scores[k]))
                painted.append(k)
        return painted


def _shares(
    won: torch.Tensor,
    least: torch.Tensor,
    most: torch.Tensor,
    exact_area: Callable[[int], int],
    threshold: float,
) -> list[float]:
    """The share of its area that each proposal wins.

    It is an upper bound for proposals that certainly miss or certainly exceed the threshold. If no proposal exceeds
    the threshold, the largest share is exact.
    """
    # As Python floats, like transformers' own: compared as float32, a share of 4/5 would not be above 0.8.
    at_most = (won.float() / least).masked_fill((won == 0) | (most == 0), 0).tolist()
    at_least = (won.float() / most).masked_fill(least == 0, 0).tolist()  # an area that may be 0 may win nothing

    def measure(k: int) -> None:
        area = exact_area(k)
        at_most[k] = at_least[k] = (won[k].float() / area).item() if area else 0.0

    for k in range(len(won)):
        if at_most[k] > threshold >= at_least[k]:
            measure(k)
    while at_least[best := max(range(len(won)), key=at_most.__getitem__)] < at_most[best] <= threshold:
        measure(best)
    return at_most


def _fuse(painting: Painting, scores: list[float], labels: list[int], label_ids_to_fuse: Collection[int]) -> list[int]:
    """Add one segment for each proposal, or one for all of a class to fuse; returns the segment id of each."""
    ids = []
    fused: dict[int, int] = {}
    for score, label in zip(scores, labels):
        segment_id = fused.get(label)
        if segment_id is None:
            segment_id = painting.add(label, score, was_fused=label in label_ids_to_fuse)
            if label in label_ids_to_fuse:
                fused[label] = segment_id
        painting.scores[segment_id - 1] = max(painting.scores[segment_id - 1], round(score, 6))
        ids.append(segment_id)
    return ids


def _looked_up(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """`table[places]`, for int32 places several times as fast."""
    return table.index_select(0, places.flatten()).view(places.shape)


def _nearest(length: int, target_length: int, like: torch.Tensor) -> torch.Tensor:
    """Which row (or column) of the grid each one of the photo takes after, (target_length,)."""
    rows = torch.arange(length, dtype=torch.float32, device=like.device)
    return F.interpolate(rows[None, None], size=target_length, mode="nearest")[0, 0].long()


def _resized_probs(photo: PhotoOutputs, proposal: torch.Tensor) -> torch.Tensor:
    probs = photo.mask_logits[proposal].float().sigmoid()[None, None]
    return F.interpolate(probs, size=photo.size, mode="bilinear", align_corners=False)[0, 0]


def _mean_inside(probs: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    return (probs * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)


def _void(photo: PhotoOutputs) -> torch.Tensor:
    return torch.zeros(photo.size, dtype=torch.int32, device=photo.mask_logits.device)


def _too_low(name: str, values: torch.Tensor, threshold: float) -> str:
    if not len(values):
        return "there are no proposals"
    return f"the highest {name} is {values.max():.3f}, and `threshold` is {threshold}"
