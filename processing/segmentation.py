"""The one value for a result: a map of segments, its pictures, and its other forms."""

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from fisa.processing.drawing import paint
from fisa.processing.extras import library
from fisa.processing.files import write_picture
from fisa.processing.palette import Color, checked_color, class_colors
from fisa.processing.photos import read_photo
from fisa.processing.segment import Segment
from fisa.processing.segment_map import SegmentMap


NOTEBOOK_SIDE = 1024  # pixels: what a notebook keeps of a picture


@dataclass(frozen=True, eq=False, repr=False)
class Segmentation(SegmentMap):
    """What is on a photo.

    Iterating gives the segments, `len` counts them, and `in` looks for a segment or a label. In brackets, a number
    gives one segment, and a label all that bear it.

    Args:
        ids (`torch.Tensor`): (H, W) integers: the `id` of each pixel's segment, 0 where there is none.
        segments (`tuple[Segment, ...]`): with the ids 1, 2, 3, … in this order.
        masks (`torch.Tensor`, *optional*):
            (N, H, W) bool, the whole mask of each segment, of which others may hide a part in `ids`.
        photo (`PIL.Image.Image`, *optional*):
            Of which this is the segmentation, in its size and orientation. A pipeline's results have it.
        asked (`tuple[str, ...]`): the names of the classes that were looked for.
        orientation (`int`, *optional*):
            The EXIF orientation, 1 to 8, of the pixels on which the map lies. A pipeline's results have it where the
            photo came as a file or has one, and are drawn rightly on the same photo as a file and as a PIL image.

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
    >>> segmentation.mask(segmentation[1]).tolist()
    [[False, False, False], [False, True, True]]
    >>> "dog" in segmentation, len(segmentation["dog"])
    (True, 1)
    ```
    """

    @classmethod
    def from_masks(cls, segments: Sequence[Mapping[str, Any]], *, size: tuple[int, int]) -> Self:
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

    @classmethod
    def from_supervision(cls, detections: Any, *, size: tuple[int, int], photo: Any = None) -> Self:
        """From supervision's detections with masks, the reverse of [`to_supervision`].

        Args:
            detections (`supervision.Detections`):
                With masks and, in their `data`, the names of the classes as `class_name`. Where masks overlap, later
                ones lie on top.
            size (`tuple[int, int]`): width and height of the photo.
            photo (*optional*): the photo itself.

        Raises:
            ValueError: there are no masks or names, or the masks are not of the photo's size.

        Example:

        ```python
        >>> again = Segmentation.from_supervision(segmentation.to_supervision(), size=segmentation.size)
        >>> again.segments == segmentation.segments
        True
        ```
        """
        count = len(detections)
        if not count:
            return cls(torch.zeros(size[::-1], dtype=torch.int32), (), photo=photo)
        labels = detections.data.get("class_name")
        if detections.mask is None or labels is None:
            missing = "masks" if detections.mask is None else "`class_name` in their `data`"
            raise ValueError(f"These {count} detections have no {missing}; segments need masks and names.")
        masks = np.asarray(detections.mask, dtype=bool)
        if masks.shape[1:] != size[::-1]:
            raise ValueError(f"The masks are {masks.shape[:0:-1]} and the photo {size}; they must be of one size.")
        ids = np.zeros(size[::-1], dtype=np.int32)
        for number, mask in enumerate(masks, start=1):
            ids[mask] = number

        def column(name: str) -> list[Any] | None:
            values = detections.data.get(name)
            return None if values is None else np.asarray(values).tolist()

        class_ids, scores = detections.class_id, detections.confidence
        return cls.from_map(
            torch.from_numpy(ids),
            labels=[str(label) for label in labels],
            class_ids=None if class_ids is None else [int(class_id) for class_id in class_ids],
            scores=None if scores is None else [float(score) for score in scores],
            are_things=column("is_thing"),
            were_fused=column("was_fused"),
            are_others=column("is_other"),
            photo=photo,
        )

    def plot(
        self,
        photo: Any = None,
        *,
        legend: bool = True,
        colors: Mapping[str, Color] | None = None,
        font: str | os.PathLike | None = None,
    ) -> Image.Image:
        """Draw the segments over the photo.

        Args:
            photo (*optional*): as [`load_photo`] takes it; the one that is kept if not given.
            legend (`bool`, defaults to `True`): whether the classes and their shares of the pixels stand below.
            colors (`Mapping[str, tuple[int, int, int]]`, *optional*):
                R, G and B, 0 to 255, of the classes that are to have a certain colour, by label; see
                [`class_colors`] for the others.
            font (`str` or `os.PathLike`, *optional*):
                A font file for the names. What it lacks comes from the fonts that ship; see [`Lettering`].

        Returns:
            An RGB picture: the photo in its own size, with each segment filled, outlined and named where there is
            room for its name, and the legend.

        Raises:
            ValueError: there is no photo, it is of another size than the map, a colour is none, or the font cannot
                be read.

        Example:

        ```python
        >>> segmentation.plot(photo).save("segments.png")
        ```
        """
        chosen = class_colors([segment.label for segment in self], asked=self.asked)
        chosen |= {label: checked_color(label, color) for label, color in (colors or {}).items()}
        ids = self.ids.cpu().numpy()
        return paint(self._photo(photo), ids, self.segments, colors=chosen, legend=legend, font=font)

    def save(self, path: str | os.PathLike, photo: Any = None, **options: Any) -> None:
        """Write what [`plot`] draws to a file, complete or absent.

        Args:
            path (`str` or `os.PathLike`): its ending says the format, as in Pillow. Folders are made.
            photo, options (*optional*): as in [`plot`].

        Raises:
            ValueError: Pillow writes no such format; or as in [`plot`].
        """
        path = Path(path)
        formats = {ending: name for ending, name in Image.registered_extensions().items() if name in Image.SAVE}
        if path.suffix.lower() not in formats:
            raise ValueError(f"{path}: Pillow writes no pictures that end in {path.suffix!r}; try .png or .jpg.")
        picture = self.plot(photo, **options)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, picture, format=formats[path.suffix.lower()])

    def crop(self, segment: Segment, photo: Any = None) -> Image.Image:
        """Cut a segment out of the photo.

        Args:
            segment ([`Segment`]): one of these.
            photo (*optional*): as in [`plot`].

        Returns:
            The photo within the segment's box, RGBA: transparent where the segment is not. `.convert("RGB")` brings
            back what surrounds it.

        Raises:
            TypeError: it is not a segment.
            ValueError: it is none of these or has no pixels; or as in [`plot`].
        """
        mask = self.mask(segment)
        if not segment.area:
            raise ValueError(f"Segment {segment.id} ({segment.label!r}) has no pixels: others hide it.")
        left, top, width, height = segment.box
        cut = self._photo(photo).crop((left, top, left + width, top + height))
        cut.putalpha(Image.fromarray(mask[top : top + height, left : left + width].astype(np.uint8) * 255))
        return cut

    def _photo(self, given: Any) -> Image.Image:
        if given is None and self.photo is None:
            raise ValueError("This segmentation holds no photo; pass the one that was segmented.")
        read = read_photo(self.photo if given is None else given)
        orientation = (
            None if read.exif_orientation == 1 else self.orientation
        )  # what EXIF does not turn may lie anyhow
        photo = read.as_held if orientation is None else read.lying(orientation)
        if photo.size != self.size:
            raise ValueError(
                f"The segmentation is {self.size} and the photo {photo.size}; they must have the same width and "
                "height. Draw on the very image that was segmented."
            )
        return photo

    def _repr_png_(self) -> bytes | None:
        """What notebooks show; nothing without a photo."""
        if self.photo is None:
            return None
        picture, png = self.plot(), io.BytesIO()
        picture.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
        picture.save(png, format="PNG")
        return png.getvalue()

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

        Raises:
            ValueError: there are fewer categories than classes.
        """
        self._check_categories(category_ids)
        segments_info = [
            {"id": segment.id, "category_id": category_ids[segment.class_id], "score": segment.score}
            for segment in self
        ]
        return {"segmentation": self.ids.cpu().numpy(), "segments_info": segments_info}

    def to_coco(self, category_ids: Sequence[int] | None = None, *, image_id: int = 1) -> list[dict[str, Any]]:
        """As COCO annotates instances, with run lengths that pycocotools and hotcoco decode.

        Args:
            category_ids (`Sequence[int]`, *optional*): the category of each class; counted from 1 if not given.
            image_id (`int`, defaults to 1): the photo's.

        Returns:
            For each segment that is seen `id`, `image_id`, `category_id`, `segmentation`, `area`, `bbox`, `iscrowd`
            and, if it has one, `score`.

        Raises:
            ImportError: hotcoco is not installed.
            ValueError: there are fewer categories than classes.
        """
        if category_ids is not None:
            self._check_categories(category_ids)
        encode = library("hotcoco", extra="formats", purpose="Encoding masks in run lengths").mask.encode
        annotations = []
        for segment in self:
            if not segment.area:
                continue
            code = encode(self.mask(segment))
            annotations.append(
                {
                    "id": segment.id,
                    "image_id": image_id,
                    "category_id": segment.class_id + 1 if category_ids is None else category_ids[segment.class_id],
                    "segmentation": {"size": list(code["size"]), "counts": code["counts"].decode()},
                    "area": segment.area,
                    "bbox": list(segment.box),
                    "iscrowd": 0,
                }
                | ({} if segment.score is None else {"score": segment.score})
            )
        return annotations

    def _check_categories(self, category_ids: Sequence[int]) -> None:
        needed = 1 + max((segment.class_id for segment in self), default=-1)
        if len(category_ids) < needed:
            raise ValueError(
                f"`category_ids` has {len(category_ids)} ids, and the segments are of {needed} classes or more: give "
                "one id for each class, in the order of the vocabulary."
            )

    def to_supervision(self) -> Any:
        """As `supervision.Detections`, for its annotators, trackers and data sets.

        Returns:
            A detection for each segment that is seen: box, mask, class id, and score if the segments have scores;
            `data` has `class_name`, `is_thing`, `was_fused` and `is_other`.

        Raises:
            ImportError: supervision is not installed.
        """
        supervision = library("supervision", extra="formats", purpose="Making detections")
        segments = [segment for segment in self if segment.area]
        if not segments:
            return supervision.Detections.empty()
        boxes = np.array([segment.box for segment in segments], dtype=float)
        boxes[:, 2:] += boxes[:, :2]
        scores = [segment.score for segment in segments]
        flags = ("is_thing", "was_fused", "is_other")
        return supervision.Detections(
            xyxy=boxes,
            mask=np.stack([self.mask(segment) for segment in segments]),
            confidence=None if None in scores else np.array(scores),
            class_id=np.array([segment.class_id for segment in segments]),
            data={"class_name": np.array([segment.label for segment in segments])}
            | {name: np.array([getattr(segment, name) for segment in segments]) for name in flags},
        )

    def to_pandas(self) -> Any:
        """As a `pandas.DataFrame`: a row for each segment, with what [`Segment`] has; its box is in four columns,
        `left`, `top`, `width` and `height`.

        Raises:
            ImportError: pandas is not installed.
        """
        pandas = library("pandas", extra="formats", purpose="Making a table")
        names = [field.name for field in fields(Segment) if field.name != "box"]
        rows = [[*(getattr(segment, name) for name in names), *segment.box] for segment in self]
        return pandas.DataFrame(rows, columns=[*names, "left", "top", "width", "height"])
