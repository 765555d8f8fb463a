"""The samples that an evaluation keeps for inspection: a few photos with ground truth and prediction."""

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fisa.processing.coco_panoptic import CocoPanopticWriter, remove_unfinished, rgb_to_panoptic, written_maps
from fisa.processing.files import FileNames, write_whole
from fisa.processing.photos import open_image
from fisa.processing.segmentation import Segmentation


class SampleWriter:
    """Keeps the first few photos of an evaluation: `photos/`, `truth.json` and `prediction.json` in one folder.
    Those of an earlier evaluation stay until it is closed.

    Args:
        folder (`Path`): where the samples are written.
        categories (`Sequence[Mapping[str, Any]]`): dictionaries of `id`, `name` and `isthing`.
        limit (`int`, defaults to 8): how many photos are kept.

    Example:

    ```python
    >>> writer = SampleWriter(Path("samples"), categories)
    >>> writer.add("1", photo, segmentation.to_panoptic([0, 1]), reference)
    >>> writer.close()
    >>> sorted(path.name for path in Path("samples").iterdir())
    ['photos', 'prediction', 'prediction.json', 'truth', 'truth.json']
    ```
    """

    def __init__(self, folder: Path, categories: Sequence[Mapping[str, Any]], *, limit: int = 8):
        self.folder, self.limit = folder, limit
        self.photos: dict[str, bytes] = {}
        self._names = FileNames()
        for name in ("truth.json", "prediction.json"):
            remove_unfinished(folder / name)
        self.truth = CocoPanopticWriter(folder / "truth.json", categories)
        self.prediction = CocoPanopticWriter(folder / "prediction.json", categories)

    def add(
        self, image_id: str, photo: Image.Image, prediction: Mapping[str, Any], reference: Mapping[str, Any]
    ) -> None:
        """Keep a photo, unless the limit is reached.

        Prediction and reference are dictionaries of `segmentation` (H, W) and `segments_info`, which has the `id` and
        the `category_id` of each segment.
        """
        if len(self.truth.entries) >= self.limit:
            return
        stem = self._names.give(image_id, of=image_id)
        for files, segments in ((self.prediction, prediction), (self.truth, reference)):
            files.add(
                image_id,
                file_name=f"photos/{stem}.jpg",
                segmentation=segments["segmentation"],
                segments_info=segments["segments_info"],
                stem=stem,
            )
        content = io.BytesIO()
        photo.save(content, format="JPEG", quality=90)
        self.photos[stem] = content.getvalue()

    def close(self) -> None:
        """Put the files in the place of those of an earlier evaluation."""
        folder = self.folder / "photos"
        folder.mkdir(exist_ok=True)
        # Photos go before the lists that name them, and come after those.
        for files in (self.truth, self.prediction):
            for name in written_maps(files.path):
                (folder / name).with_suffix(".jpg").unlink(missing_ok=True)
        for files in (self.truth, self.prediction):
            files.close()
        for stem, content in self.photos.items():
            write_whole(folder / f"{stem}.jpg", content)


@dataclass(frozen=True)
class Sample:
    """One photo as [`SampleWriter`] kept it."""

    image_id: str
    photo: Image.Image
    truth: Segmentation
    prediction: Segmentation


def read_samples(folder: Path) -> Iterator[Sample]:
    """The photos that [`SampleWriter`] kept in a folder.

    Example:

    ```python
    >>> writer = SampleWriter(Path("samples"), categories)
    >>> writer.add("1", photo, segmentation.to_panoptic([0, 1]), reference)
    >>> writer.close()
    >>> [(sample.image_id, sample.photo.size) for sample in read_samples(Path("samples"))]
    [('1', (640, 480))]
    ```
    """
    truth, prediction = (_segmentations(folder / f"{name}.json") for name in ("truth", "prediction"))
    for image_id, (stem, segmentation) in truth.items():
        photo = open_image(folder / "photos" / f"{stem}.jpg").convert("RGB")
        yield Sample(image_id, photo, segmentation, prediction[image_id][1])


def _segmentations(path: Path) -> dict[str, tuple[str, Segmentation]]:
    """The file name (without its ending) and the segmentation of each image, by image id."""
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    segmentations = {}
    for annotation in content["annotations"]:
        with open_image(path.with_suffix("") / annotation["file_name"]) as image:
            stored = rgb_to_panoptic(image)
        ids = np.zeros_like(stored)
        for number, info in enumerate(annotation["segments_info"], start=1):
            ids[stored == info["id"]] = number
        segmentations[annotation["image_id"]] = (
            Path(annotation["file_name"]).stem,
            Segmentation.from_map(
                torch.from_numpy(ids), labels=[names[info["category_id"]] for info in annotation["segments_info"]]
            ),
        )
    return segmentations
