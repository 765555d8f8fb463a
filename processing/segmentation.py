"""The one value for a result: which segment each pixel of a photo belongs to, and what the segments are."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from fisa.processing.vocabulary import listed


Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Segment:
    """One segment of a [`Segmentation`].

    Args:
        id (`int`): its number in the map, from 1.
        label (`str`): the name of its class.
        class_id (`int`): the place of its class in the vocabulary.
        score (`float` or `None`): in [0, 1]; semantic segments have none.
        is_thing (`bool` or `None`): whether its class is countable; `None` where the model's outputs do not say.
        area (`int`): its pixels in the map.
        box (`tuple[int, int, int, int]`): left, top, width and height of its pixels, all 0 where it has none.
        was_fused (`bool`): whether its class has one segment at most, made of all proposals of that class.
        is_other (`bool`): whether its class was not asked for but competed with those that were.

    Example:

    ```python
    >>> Segment(id=1, label="dog", class_id=0, score=0.9, is_thing=True, area=3, box=(0, 0, 2, 2)).label
    'dog'
    ```
    """

    id: int
    label: str
    class_id: int
    score: float | None
    is_thing: bool | None
    area: int
    box: Box
    was_fused: bool = False
    is_other: bool = False


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What is on a photo.

    Iterating gives the segments, and `len` counts them.

    Args:
        ids (`torch.Tensor`): (H, W) integers: the `id` of each pixel's segment, 0 where there is none.
        segments (`tuple[Segment, ...]`): with the ids 1, 2, 3, … in this order.
        masks (`torch.Tensor`, *optional*):
            (N, H, W) bool, the whole mask of each segment, of which others may hide a part in `ids`.
        photo (`PIL.Image.Image`, *optional*): of which this is the segmentation.
        asked (`tuple[str, ...]`): the names of the classes that were looked for.

    Example:

    ```python
    >>> import torch
    >>> from fisa.processing.segmentation import Segmentation

    >>> ids = torch.tensor([[1, 1, 0], [1, 2, 2]])
    >>> segmentation = Segmentation.from_map(ids, labels=["dog", "grass"])
    >>> [(segment.label, segment.area, segment.box) for segment in segmentation]
    [('dog', 3, (0, 0, 2, 2)), ('grass', 2, (1, 1, 2, 1))]
    >>> segmentation
    Segmentation(3x2: dog, grass)
    >>> segmentation.mask(segmentation.segments[1]).tolist()
    [[False, False, False], [False, True, True]]
    ```
    """

    ids: torch.Tensor
    segments: tuple[Segment, ...]
    masks: torch.Tensor | None = None
    photo: Image.Image | None = None
    asked: tuple[str, ...] = ()

    @classmethod
    def from_map(
        cls,
        ids: torch.Tensor,
        *,
        labels: Sequence[str],
        class_ids: Sequence[int] | None = None,
        scores: Sequence[float | None] | None = None,
        are_things: Sequence[bool | None] | None = None,
        were_fused: Sequence[bool] | None = None,
        are_others: Sequence[bool] | None = None,
        masks: torch.Tensor | None = None,
        photo: Image.Image | None = None,
        asked: tuple[str, ...] = (),
    ) -> "Segmentation":
        """Measure the segments of a map.

        Args:
            ids (`torch.Tensor`): (H, W) integers, 0 where there is no segment.
            labels (`Sequence[str]`): the names of the segments 1, 2, 3, …; each of the others is of this length too.
            class_ids (`Sequence[int]`, *optional*): numbered by first appearance of the labels if not given.
            scores, are_things, were_fused, are_others (*optional*): as in [`Segment`].
            masks, photo, asked (*optional*): as in [`Segmentation`].
        """
        if class_ids is None:
            numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
            class_ids = [numbers[label] for label in labels]
        unknown = [None] * len(labels)
        columns = zip(
            labels,
            class_ids,
            scores or unknown,
            are_things or unknown,
            *_measured(ids, len(labels)),
            were_fused or [False] * len(labels),
            are_others or [False] * len(labels),
            strict=True,
        )
        segments = tuple(Segment(number, *row) for number, row in enumerate(columns, start=1))
        return cls(ids, segments, masks, photo, asked)

    @classmethod
    def from_masks(cls, segments: Sequence[Mapping[str, Any]], *, size: tuple[int, int]) -> "Segmentation":
        """From the dictionaries that transformers' pipelines return.

        Args:
            segments (`Sequence[Mapping[str, Any]]`):
                Dictionaries with `label`, `mask` (an "L" image, 0 outside) and, if they are there, `score` and
                `is_other`. Where masks overlap, later ones lie on top.
            size (`tuple[int, int]`): width and height of the photo.

        Raises:
            ValueError: a mask is not of the photo's size.
        """
        ids = np.zeros(size[::-1], dtype=np.int32)
        for number, segment in enumerate(segments, start=1):
            if segment["mask"].size != size:
                raise ValueError(
                    f"The mask of segment {number - 1} ({segment['label']!r}) is {segment['mask'].size} and the photo "
                    f"{size}; they must have the same width and height."
                )
            ids[np.asarray(segment["mask"]) > 0] = number
        return cls.from_map(
            torch.from_numpy(ids),
            labels=[segment["label"] for segment in segments],
            scores=[segment.get("score") for segment in segments],
            are_others=[segment.get("is_other", False) for segment in segments],
        )

    def __repr__(self) -> str:
        width, height = self.size
        found = listed([_in_brief(segment) for segment in self], limit=8) or "no segments"
        missing = f"; not found: {listed(self.not_found)}" if self.not_found else ""
        return f"Segmentation({width}x{height}: {found}{missing})"

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, in pixels."""
        return self.ids.shape[1], self.ids.shape[0]

    @property
    def not_found(self) -> tuple[str, ...]:
        """The names in `asked` that no segment bears.

        Example:

        ```python
        >>> ids = torch.tensor([[0, 1]])
        >>> Segmentation.from_map(ids, labels=["dog"], asked=("dog", "pizza")).not_found
        ('pizza',)
        ```
        """
        found = {segment.label for segment in self if not segment.is_other}
        return tuple(name for name in self.asked if name not in found)

    def mask(self, segment: Segment) -> np.ndarray:
        """Where a segment is seen, (H, W) bool."""
        return (self.ids == segment.id).cpu().numpy()

    def resized(self, size: tuple[int, int]) -> "Segmentation":
        """The same at another width and height, each pixel of the nearest one's segment. Masks and photo are left
        out."""
        ids = np.array(Image.fromarray(self.ids.cpu().numpy().astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        return Segmentation.from_map(
            torch.from_numpy(ids),
            labels=[segment.label for segment in self],
            class_ids=[segment.class_id for segment in self],
            scores=[segment.score for segment in self],
            are_things=[segment.is_thing for segment in self],
            were_fused=[segment.was_fused for segment in self],
            are_others=[segment.is_other for segment in self],
            asked=self.asked,
        )

    def to_segments(self) -> list[dict[str, Any]]:
        """As transformers' pipelines return it: for each segment `label`, `score` and `mask`, an "L" image with 255
        where the segment is seen; and `is_other`, true, for the segment of an other."""
        return [
            {
                "score": segment.score,
                "label": segment.label,
                "mask": Image.fromarray(self.mask(segment).astype(np.uint8) * 255),
            }
            | ({"is_other": True} if segment.is_other else {})
            for segment in self
        ]

    def to_transformers(self, *, first_id: int = 1) -> dict[str, Any]:
        """As transformers' image processors return it: `{"segmentation": (H, W) int32, "segments_info": [...]}`.

        Args:
            first_id (`int`, defaults to 1):
                What the segments are counted from. Panoptic maps count from 1 and leave 0 to void; instance maps count
                from 0 and leave −1 to the background.
        """
        shift = first_id - 1
        segments_info = [
            {
                "id": segment.id + shift,
                "label_id": segment.class_id,
                "was_fused": segment.was_fused,
                "score": segment.score,
            }
            for segment in self
        ]
        return {"segmentation": self.ids + shift if shift else self.ids, "segments_info": segments_info}

    def to_panoptic(self, category_ids: Sequence[int]) -> dict[str, Any]:
        """As the metrics and the COCO panoptic writer take it: `{"segmentation": (H, W) array, "segments_info":
        [{"id", "category_id", "score"}, …]}`.

        Args:
            category_ids (`Sequence[int]`): the category of each class.
        """
        segments_info = [
            {"id": segment.id, "category_id": category_ids[segment.class_id], "score": segment.score}
            for segment in self
        ]
        return {"segmentation": self.ids.cpu().numpy(), "segments_info": segments_info}


def _in_brief(segment: Segment) -> str:
    score = "" if segment.score is None else f" {segment.score:.2f}"
    return f"{segment.label}{score}{' (other)' if segment.is_other else ''}"


def _measured(ids: torch.Tensor, count: int) -> tuple[list[int], list[Box]]:
    """Areas and boxes of the segments 1 to `count`."""
    if not count or not ids.numel():
        return [0] * count, [(0, 0, 0, 0)] * count
    height, width = ids.shape
    ids = ids.long()
    by_row, by_column = (
        (lines * length + torch.arange(length, device=ids.device)[:, None])
        .flatten()
        .bincount(minlength=(count + 1) * length)
        .view(count + 1, length)[1:]
        .cpu()
        for lines, length in ((ids, height), (ids.T, width))
    )
    areas = by_row.sum(1).tolist()
    (tops, bottoms), (lefts, rights) = map(_ends, (by_row, by_column))
    boxes = [
        (left, top, right - left, bottom - top) if area else (0, 0, 0, 0)
        for left, top, right, bottom, area in zip(lefts, tops, rights, bottoms, areas)
    ]
    return areas, boxes


def _ends(counts: torch.Tensor) -> tuple[list[int], list[int]]:
    """The first place of each row that is not 0, and the one after the last."""
    present = (counts > 0).int()
    return present.argmax(1).tolist(), (counts.shape[1] - present.flip(1).argmax(1)).tolist()
