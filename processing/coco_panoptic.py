"""COCO's panoptic format: a PNG with segment ids for colours, and an entry of JSON for each segment."""

import json
import os
import shutil
import struct
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

import numpy as np
from transformers.utils import logging

from fisa.processing.class_names import quoted
from fisa.processing.files import FileNames, name_fields, write_whole, written_whole
from fisa.processing.regions import Runs, areas_and_boxes


logger = logging.get_logger(__name__)

LARGEST_ID = 256**3 - 1
PNG_UP, PNG_RGB = 2, 2  # the number of a filter, and that of a colour type
# What a writer has aside beside PNGs: the list of its own, and that of an earlier one whose place they take.
LIST, EARLIER = "list.json", "earlier.json"


def panoptic_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Write segment ids as colours, id = R + 256 G + 256² B.

    Args:
        ids: (H, W) integers from 0 (void) to 256³ − 1; CPU tensors will do.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: for ids that three bytes cannot hold, such as the −1 of an instance map's background.

    Example:

    ```python
    >>> panoptic_to_rgb(np.array([[0, 258]])).tolist()
    [[[0, 0, 0], [2, 1, 0]]]
    ```
    """
    ids = np.asarray(ids)
    _largest(ids)
    colors = np.ascontiguousarray(ids, dtype="<u4").view(np.uint8).reshape(*ids.shape, 4)
    return np.ascontiguousarray(colors[..., :3])


def rgb_to_panoptic(rgb: np.ndarray) -> np.ndarray:
    """Read segment ids back from colours: the inverse of `panoptic_to_rgb`.

    Args:
        rgb: (H, W, 3) uint8; a PIL image of mode RGB will do.

    Returns:
        (H, W) int32.

    Example:

    ```python
    >>> rgb_to_panoptic(np.array([[[0, 0, 0], [2, 1, 0]]], np.uint8)).tolist()
    [[0, 258]]
    ```
    """
    return np.asarray(rgb).astype(np.int32) @ np.array([1, 256, 256**2], dtype=np.int32)


def segments_info(ids: np.ndarray, category_ids: Mapping[int, int] | Sequence[int]) -> list[dict[str, Any]]:
    """Describe the segments of a map as COCO's panoptic JSON does.

    Args:
        ids: (H, W) integers, 0 for void.
        category_ids: the category of each segment id; a sequence holds those of 1, 2, 3, ….

    Returns:
        For each id in the map, in ascending order, `{"id", "category_id", "area", "bbox", "iscrowd"}`, the area in
        pixels and the box as [left, top, width, height].

    Raises:
        ValueError: if an id of the map has no category.

    Example:

    ```python
    >>> segments_info(np.array([[0, 1, 1]]), [17])
    [{'id': 1, 'category_id': 17, 'area': 2, 'bbox': [1, 0, 2, 1], 'iscrowd': 0}]
    ```
    """
    if not isinstance(category_ids, Mapping):
        category_ids = dict(enumerate(category_ids, start=1))
    ids = np.asarray(ids)
    runs = Runs.of(ids)
    present, places = np.unique(runs.values, return_inverse=True)
    areas, boxes = areas_and_boxes(runs, places, count=len(present), width=ids.shape[1])
    segments = []
    for segment_id, area, box in zip(present.tolist(), areas.tolist(), boxes.tolist()):
        if segment_id == 0:
            continue
        if segment_id not in category_ids:
            raise ValueError(f"The map holds segment {segment_id}, but categories are given for {list(category_ids)}.")
        segments.append(_info(segment_id, category_ids[segment_id], area, box))
    return segments


def numbered(
    segmentation: np.ndarray, segments_info: Sequence[Mapping[str, Any]]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Number segments from 1, since COCO's ids must fit into three bytes, and describe them.

    Args:
        segmentation: (H, W) integers, the `id` of each pixel's segment.
        segments_info: dictionaries with `id` and `category_id` and, if there are any, `iscrowd` and `score`.

    Returns:
        The (H, W) int32 map, 0 for void, the same array if it was numbered so; and what [`segments_info`] says of it,
        with the scores.

    Example:

    ```python
    >>> numbered(np.array([[-1, 9]]), [{"id": 9, "category_id": 17, "score": 0.5}])[1]
    [{'id': 1, 'category_id': 17, 'area': 1, 'bbox': [1, 0, 1, 1], 'iscrowd': 0, 'score': 0.5}]
    ```
    """
    runs = Runs.of(segmentation)
    present, places = np.unique(runs.values, return_inverse=True)
    number_of = {segment["id"]: number for number, segment in enumerate(segments_info, start=1)}
    numbers = np.array([number_of.get(segment_id, 0) for segment_id in present.tolist()], dtype=np.int32)[places]
    # Most maps are numbered so already.
    are_as_wanted = np.array_equal(numbers, runs.values)
    ids = segmentation if are_as_wanted else np.repeat(numbers, runs.lengths).reshape(segmentation.shape)
    areas, boxes = areas_and_boxes(runs, numbers, count=len(segments_info) + 1, width=segmentation.shape[1])
    infos = []
    for number, segment in enumerate(segments_info, start=1):
        if areas[number]:
            info = _info(number, segment["category_id"], int(areas[number]), boxes[number].tolist())
            info["iscrowd"] = int(segment.get("iscrowd", 0))
            infos.append(info | ({"score": segment["score"]} if "score" in segment else {}))
    return ids.astype(np.int32, copy=False), infos


def panoptic_png(ids: np.ndarray) -> bytes:
    """Write segment ids as a PNG file, in the colours of [`panoptic_to_rgb`].

    It is smaller than Pillow's and takes a third of the time: each row of a map is best told by what differs from the
    row above, which is little. Pillow tries four other ways on each row.

    Args:
        ids: (H, W) integers from 0 (void) to 256³ − 1.

    Returns:
        The content of the file.

    Raises:
        ValueError: as for [`panoptic_to_rgb`].

    Example:

    ```python
    >>> import io
    >>> from PIL import Image

    >>> Image.open(io.BytesIO(panoptic_png(np.array([[0, 258]])))).getpixel((1, 0))
    (2, 1, 0)
    ```
    """
    most = _largest(ids)
    height, width = ids.shape
    lines = np.zeros((height, 1 + 3 * width), dtype=np.uint8)
    lines[:, 0] = PNG_UP
    for byte in range(3):
        if most >> 8 * byte:  # of few segments green and blue are 0
            plane = (ids >> 8 * byte).astype(np.uint8)
            plane[1:] -= plane[:-1].copy()
            lines[:, 1 + byte :: 3] = plane
    compressor = zlib.compressobj(strategy=zlib.Z_RLE)  # other repetitions are rare
    header = struct.pack(">IIBBBBB", width, height, 8, PNG_RGB, 0, 0, 0)
    content = compressor.compress(lines.data) + compressor.flush()
    chunks = {b"IHDR": header, b"IDAT": content, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )


def write_map(path: Path, ids: np.ndarray) -> None:
    """Write a map of segment ids as COCO's PNG, complete or absent."""
    write_whole(path, panoptic_png(ids))


def write_annotations(
    path: Path,
    *,
    images: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any]],
    categories: Iterable[Mapping[str, Any]],
) -> None:
    """Write COCO's panoptic JSON, complete or absent, one entry at a time: a million do not fill the memory.

    Args:
        path: of the file.
        images, annotations: entries as COCO has them.
        categories: dictionaries of `id`, `name` and `isthing`.
    """
    # COCO's own files have 0 and 1, not false and true.
    categories = (dict(category) | {"isthing": int(category["isthing"])} for category in categories)
    lists = {"images": images, "annotations": annotations, "categories": categories}
    with written_whole(path) as aside, open(aside, "w", encoding="utf-8") as file:
        for number, (name, entries) in enumerate(lists.items()):
            file.write(f"{',' if number else '{'}\n {json.dumps(name)}: [")
            separator = "\n"
            for entry in entries:
                file.write(separator + indent(json.dumps(entry, indent=1), "  "))
                separator = ",\n"
            file.write("]" if separator == "\n" else "\n ]")
        file.write("\n}\n")


def written_maps(path: Path) -> list[str]:
    """The PNGs that a JSON file of [`CocoPanopticWriter`] lists.

    Args:
        path: of the JSON file; it need not be there, and may be another program's, which has none.

    Returns:
        Their names. Those that lead into another folder are left out.

    Example:

    ```python
    >>> written_maps(Path("a-new-folder") / "panoptic.json")
    []
    ```
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [Path(annotation["file_name"]) for annotation in content["annotations"]]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    if content.keys() != {"images", "annotations", "categories"}:
        return []
    return [str(name) for name in names if name.name == str(name) and name.suffix == ".png"]


def remove_unfinished(path: Path) -> None:
    """Remove what a [`CocoPanopticWriter`] has left that was killed: the files aside, and those in place if it was
    just putting them there. What an earlier one has finished stays.

    Args:
        path: of the JSON file.

    Example:

    ```python
    >>> remove_unfinished(Path("a-new-folder") / "panoptic.json")
    ```
    """
    aside = _aside(path)
    if not path.exists():  # the first thing that goes when files are put in place
        _remove_maps(path, [*written_maps(aside / EARLIER), *written_maps(aside / LIST)])
    shutil.rmtree(aside, ignore_errors=True)


class CocoPanopticWriter:
    """Writes segmentations in COCO's panoptic format: `NAME.json`, and in the folder `NAME` beside it a PNG per photo.

    All files are written aside, into the folder `.NAME`, until [`CocoPanopticWriter.close`] puts them in the place of
    those that an earlier writer left. So a writer that is killed leaves the earlier ones; [`remove_unfinished`]
    removes its own. Several processes may write at once, one of which closes.

    Args:
        path (`Path`): of the JSON file; folders are made.
        categories (`Sequence[Mapping[str, Any]]`): dictionaries of `id`, `name` and `isthing`.

    Example:

    ```python
    >>> writer = CocoPanopticWriter(Path("panoptic.json"), categories)
    >>> writer.add(1, file_name="photo.jpg", **segmentation.to_panoptic([0, 1]))
    >>> writer.close()
    ```
    """

    def __init__(self, path: Path, categories: Sequence[Mapping[str, Any]]):
        self.path = path
        self.categories = list(categories)
        self.entries: list[dict[str, Any]] = []
        self._aside = _aside(path)
        self._aside.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        image_id: int | str,
        *,
        file_name: str,
        segmentation: np.ndarray,
        segments_info: Sequence[Mapping[str, Any]],
        stem: str | None = None,
    ) -> None:
        """Write the PNG of a photo and keep its entry.

        Args:
            image_id (`int` or `str`): the photo's, as `images` and `annotations` shall have it.
            file_name (`str`): the photo's file.
            segmentation (`np.ndarray`): (H, W) integers, the `id` of each pixel's segment.
            segments_info (`Sequence[Mapping[str, Any]]`):
                Dictionaries with `id` and `category_id` and, if there are any, `iscrowd` and `score`.
            stem (`str`, *optional*):
                What the PNG shall be called, without its ending; the `image_id` if not given. It gets its name on
                closing, when all photos of all processes are known: where several want the same, those behind the
                first have a digest behind it.
        """
        ids, infos = numbered(segmentation, segments_info)
        aside = f"{uuid.uuid4().hex}.png"
        write_map(self._aside / aside, ids)
        height, width = segmentation.shape
        image = {"id": image_id} | name_fields("file_name", file_name) | {"height": height, "width": width}
        wanted = str(image_id) if stem is None else stem
        self.entries.append({"image": image, "segments_info": infos, "wanted": wanted, "aside": aside})

    def close(self, entries: Iterable[Mapping[str, Any]] | None = None) -> None:
        """Write the JSON file, and put all files in the place of an earlier writer's: of other files in the folder
        those stay whose names are not needed.

        Args:
            entries (*optional*): those of all processes that have written PNGs; this one's own if not given.
        """
        entries = sorted(self.entries if entries is None else entries, key=lambda entry: entry["image"]["id"])
        image_ids = [entry["image"]["id"] for entry in entries]
        if twice := [image_id for image_id, times in Counter(image_ids).items() if times > 1]:
            logger.warning(f"{self.path} lists several photos by the same image_id: {quoted(twice)}.")
        stems = FileNames()
        names = [f"{stems.give(entry['wanted'], of=str(image_id))}.png" for entry, image_id in zip(entries, image_ids)]
        write_annotations(
            self._aside / LIST,
            images=(entry["image"] for entry in entries),
            annotations=(
                {"image_id": entry["image"]["id"], "file_name": name, "segments_info": entry["segments_info"]}
                for entry, name in zip(entries, names)
            ),
            categories=self.categories,
        )
        # At each moment all that lies in place is listed, there or aside.
        if self.path.exists():
            os.replace(self.path, self._aside / EARLIER)
        _remove_maps(self.path, written_maps(self._aside / EARLIER))
        folder = self.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        for entry, name in zip(entries, names):
            os.replace(self._aside / entry["aside"], folder / name)
        os.replace(self._aside / LIST, self.path)
        shutil.rmtree(self._aside)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.stem}")


def _remove_maps(path: Path, names: Iterable[str]) -> None:
    for name in names:
        (path.with_suffix("") / name).unlink(missing_ok=True)


def _info(segment_id: int, category_id: int, area: int, box: Sequence[int]) -> dict[str, Any]:
    return {"id": segment_id, "category_id": category_id, "area": area, "bbox": [*box], "iscrowd": 0}


def _largest(ids: np.ndarray) -> int:
    """The largest id of a map, 0 of an empty one, if COCO's PNG holds all of them."""
    least, most = int(ids.min(initial=0)), int(ids.max(initial=0))
    if not 0 <= least <= most <= LARGEST_ID:
        raise ValueError(f"ids go from {ids.min()} to {ids.max()}; COCO's PNG holds 0 to {LARGEST_ID}.")
    return most
