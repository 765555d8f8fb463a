"""Which segment each pixel of a photo belongs to, and what the segments are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self, overload

import numpy as np
import torch
from PIL import Image

from fisa.processing.class_names import listed
from fisa.processing.regions import Runs, areas_and_boxes
from fisa.processing.segment import Box, Segment


@dataclass(frozen=True, eq=False)
class SegmentMap:
    """Which segment each pixel belongs to, and what the segments are.

    [`Segmentation`] adds pictures and other forms, and explains the arguments.

    Example:

    ```python
    >>> ids = torch.tensor([[1, 1, 0], [1, 2, 2]])
    >>> segments = SegmentMap.from_map(ids, labels=["dog", "grass"])
    >>> segments.size, segments[0].label, segments.mask(segments[1]).sum()
    ((3, 2), 'dog', 2)
    ```
    """

    ids: torch.Tensor
    segments: tuple[Segment, ...]
    masks: torch.Tensor | None = None
    photo: Image.Image | None = None
    asked: tuple[str, ...] = ()
    orientation: int | None = None

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
    ) -> Self:
        """Measure the segments of a map.

        Args:
            ids (`torch.Tensor`): (H, W) integers, 0 where there is no segment.
            labels (`Sequence[str]`): the names of the segments 1, 2, 3, …; each of the others is of this length too.
            class_ids (`Sequence[int]`, *optional*): numbered by first appearance of the labels if not given.
            scores, are_things, were_fused, are_others (*optional*): as in [`Segment`].
            masks, photo, asked (*optional*): as in [`Segmentation`].

        Raises:
            ValueError: the map holds a segment that has no label.
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

    def __repr__(self) -> str:
        width, height = self.size
        found = listed([_in_brief(segment) for segment in self], limit=8) or "no segments"
        missing = f"; not found: {listed(self.not_found)}" if self.not_found else ""
        return f"{type(self).__name__}({width}x{height}: {found}{missing})"

    def __len__(self) -> int:
        return len(self.segments)

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments)

    def __contains__(self, item: object) -> bool:
        return any(item in (segment, segment.label) for segment in self)

    @overload
    def __getitem__(self, item: int) -> Segment: ...

    @overload
    def __getitem__(self, item: slice | str) -> tuple[Segment, ...]: ...

    def __getitem__(self, item: int | slice | str) -> Segment | tuple[Segment, ...]:
        """A segment by its place, or the segments of a label; none for a class that was asked for and not found.

        Raises:
            KeyError: no segment bears the label, and nobody asked for it. IndexError: there are fewer segments.
        """
        if isinstance(item, int) and not -len(self) <= item < len(self):
            raise IndexError(f"There is no segment {item}: there are {len(self)}, counted from 0.")
        if not isinstance(item, str):
            return self.segments[item]
        segments = tuple(segment for segment in self if segment.label == item)
        if not segments and item not in self.asked:
            names = dict.fromkeys([*self.asked, *(segment.label for segment in self)])
            raise KeyError(f"{item!r} was not looked for; there are {listed([*names]) or 'no segments'}.")
        return segments

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
        labels = {segment.label for segment in self if not segment.is_other}
        return tuple(name for name in self.asked if name not in labels)

    def mask(self, segment: Segment) -> np.ndarray:
        """Where a segment is seen, (H, W) bool.

        Raises:
            TypeError: it is not a segment. ValueError: it is none of these.
        """
        if not isinstance(segment, Segment):
            raise TypeError(
                f"Name one of the segments, segmentation[0] or segmentation['dog'][0] for example; found {segment!r}."
            )
        if segment not in self.segments:
            raise ValueError(
                f"Segment {segment.id} ({segment.label!r}) is not in {self}: ask the segmentation that it belongs to."
            )
        return (self.ids == segment.id).cpu().numpy()

    def resized(self, size: tuple[int, int]) -> Self:
        """The same at another width and height, each pixel of the nearest one's segment. Masks and photo are left
        out."""
        ids = np.array(Image.fromarray(self.ids.cpu().numpy().astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        return type(self).from_map(
            torch.from_numpy(ids),
            labels=[segment.label for segment in self],
            class_ids=[segment.class_id for segment in self],
            scores=[segment.score for segment in self],
            are_things=[segment.is_thing for segment in self],
            were_fused=[segment.was_fused for segment in self],
            are_others=[segment.is_other for segment in self],
            asked=self.asked,
        )


def _in_brief(segment: Segment) -> str:
    score = "" if segment.score is None else f" {segment.score:.2f}"
    return f"{segment.label}{score}{' (other)' if segment.is_other else ''}"


def _measured(ids: torch.Tensor, count: int) -> tuple[list[int], list[Box]]:
    """Areas and boxes of the segments 1 to `count`."""
    runs = Runs.of(ids.cpu().numpy())
    least, most = runs.values.min(initial=0), runs.values.max(initial=0)
    if least < 0:
        raise ValueError(f"The map holds segment {least}; segments count from 1, and 0 is not a segment.")
    if most > count:
        raise ValueError(f"The map holds segment {most}, and there are {count} labels; each segment needs one.")
    areas, boxes = areas_and_boxes(runs, runs.values, count=count + 1, width=ids.shape[1])
    return areas[1:].tolist(), list(map(tuple, boxes[1:].tolist()))
