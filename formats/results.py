"""What all formats are written from: a folder's photos and their segmentations, one after the other."""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fisa.processing.coco_panoptic import numbered, rgb_to_panoptic
from fisa.processing.files import FileNames, name_of
from fisa.processing.photos import open_image
from fisa.processing.segmentation import Segmentation


@dataclass(frozen=True)
class LabelledPhoto:
    """A photo and what is on it.

    Args:
        id (`int`): unique among the results.
        name (`str`): unique among the results, and fit for a file's name.
        source (`str`): the photo's path or address.
        segmentation ([`Segmentation`]): upright; each `class_id` is a place in the results' categories.
        file (`Callable`): gives the photo as [`load_photo`] takes it; to be called once, in the photos' order.
        digest (`str`, *optional*): SHA-256 of the file that was segmented, in hexadecimal.
    """

    id: int
    name: str
    source: str
    segmentation: Segmentation
    file: Callable[[], Any]
    digest: str | None = None


class Results:
    """The results that `fisa-segment` or [`CocoPanopticWriter`] wrote: `panoptic.json` and the maps beside it.

    Iterating gives one [`LabelledPhoto`] after the other, and reads each map when its turn comes; `len` counts them.

    Args:
        annotations (`Path`): the JSON file. Its maps lie in a folder of the same name without the ending, and photos
            with relative paths where they lay for the command that wrote it.
        files (`Iterable`, *optional*): for sources that are neither paths nor addresses, pairs of a source and a
            function that gives its photo as [`load_photo`] takes it, in the order of the results; others may lie
            between them.
        left_out (`dict`, *optional*): takes, by their names, the sources of photos that a format cannot copy, and why;
            the format is written without them. Such a photo is an error if not given.
        timeout, max_download_bytes (*optional*): limits for photos from the web, as [`load_photo`] takes them.

    Raises:
        ValueError: the file is not COCO's panoptic JSON.

    Example:

    ```python
    >>> results = Results(Path("results/panoptic.json"))
    >>> [(photo.source, len(photo.segmentation)) for photo in results]
    [('photo.jpg', 2)]
    ```
    """

    def __init__(
        self,
        annotations: Path,
        *,
        files: Iterable[tuple[str, Callable[[], Any]]] | None = None,
        left_out: dict[str, tuple[str, str]] | None = None,
        timeout: float | None = None,
        max_download_bytes: int | None = None,
    ):
        self._files = files
        self.left_out = left_out
        self.download_limits = {"timeout": timeout, "max_download_bytes": max_download_bytes}
        self.maps = annotations.with_suffix("")
        content = json.loads(annotations.read_text(encoding="utf-8"))
        missing = {"images", "annotations", "categories"} - set(content)
        if missing:
            raise ValueError(f"{annotations} has no {', '.join(sorted(missing))}; COCO's panoptic JSON has all three.")
        self.categories: list[dict[str, Any]] = content["categories"]
        self._images = {image["id"]: image for image in content["images"]}
        self._annotations: list[dict[str, Any]] = content["annotations"]

    def __len__(self) -> int:
        return len(self._annotations)

    def __iter__(self) -> Iterator[LabelledPhoto]:
        files = None if self._files is None else iter(self._files)
        places = {category["id"]: place for place, category in enumerate(self.categories)}
        names = FileNames()
        for number, annotation in enumerate(self._annotations, start=1):
            with open_image(self.maps / annotation["file_name"]) as image:
                colors = np.asarray(image.convert("RGB"))
            infos = annotation["segments_info"]
            ids, _ = numbered(rgb_to_panoptic(colors), infos)
            segments = [places[info["category_id"]] for info in infos]
            file = self._images[annotation["image_id"]]
            source = name_of(file, "file_name")
            yield LabelledPhoto(
                number,
                names.give(Path(annotation["file_name"]).stem, of=annotation["file_name"]),
                source,
                Segmentation.from_map(
                    torch.from_numpy(ids),
                    labels=[self.categories[place]["name"] for place in segments],
                    class_ids=segments,
                    scores=[info.get("score") for info in infos],
                    are_things=[bool(self.categories[place]["isthing"]) for place in segments],
                ),
                partial(_file_of, source, files),
                file.get("sha256"),
            )


def _file_of(source: str, files: Iterator[tuple[str, Callable[[], Any]]] | None) -> Any:
    if files is None:
        return source
    for name, read in files:
        if name == source:
            return read()
    raise ValueError(f"{source} is no longer where it was.")
