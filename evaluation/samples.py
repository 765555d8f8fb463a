"""What an evaluation leaves for people and for other tools: segmentations as COCO panoptic files, and a few photos
with their ground truth and prediction side by side."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fisa.processing.coco_panoptic import panoptic_to_rgb, rgb_to_panoptic, segments_info


class PanopticFiles:
    """Writes segmentations in COCO's panoptic format: `NAME.json` and one PNG per image in `NAME/`.

    Args:
        path: of the JSON file; the folder beside it has its name.
        categories: dictionaries of `id`, `name` and `isthing`.
    """

    def __init__(self, path: Path, categories: Sequence[Mapping[str, Any]]):
        self.path, self.categories = path, categories
        self.annotations: list[dict[str, Any]] = []
        path.with_suffix("").mkdir(parents=True, exist_ok=True)

    def add(self, image_id: str, *, segmentation: np.ndarray, segments_info: list[dict[str, Any]]) -> None:
        """Write one image's PNG and keep its entry; `segmentation` `(H, W)` holds segment ids, 0 for void."""
        name = f"{image_id.replace('/', '_')}.png"
        # New ids: they must fit into three bytes, and the old ones need not.
        ids = np.zeros(segmentation.shape, np.int32)
        for number, segment in enumerate(segments_info, start=1):
            ids[segmentation == segment["id"]] = number
        Image.fromarray(panoptic_to_rgb(ids)).save(self.path.with_suffix("") / name)
        self.annotations.append(
            {"image_id": image_id, "file_name": name, "segments_info": _described(ids, segments_info)}
        )

    def close(self, annotations: list[dict[str, Any]] | None = None) -> None:
        """Write the JSON file.

        Args:
            annotations: entries from all processes that have written PNGs; by default this process's own.
        """
        annotations = sorted(annotations or self.annotations, key=lambda annotation: annotation["image_id"])
        images = [{"id": a["image_id"], "file_name": a["file_name"]} for a in annotations]
        content = {"images": images, "annotations": annotations, "categories": list(self.categories)}
        self.path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class SampleWriter:
    """Keeps the first few images of an evaluation: `photos/`, `truth.json` and `prediction.json` in one folder.

    Args:
        folder: where they go.
        categories: dictionaries of `id`, `name` and `isthing`.
        limit: how many are kept.
    """

    def __init__(self, folder: Path, categories: Sequence[Mapping[str, Any]], *, limit: int = 8):
        self.folder, self.limit = folder, limit
        (folder / "photos").mkdir(parents=True, exist_ok=True)
        self.truth = PanopticFiles(folder / "truth.json", categories)
        self.prediction = PanopticFiles(folder / "prediction.json", categories)

    def add(
        self, image_id: str, photo: Image.Image, prediction: Mapping[str, Any], reference: Mapping[str, Any]
    ) -> None:
        """Keep an image, unless there are enough."""
        if len(self.truth.annotations) >= self.limit:
            return
        photo.save(self.folder / "photos" / f"{image_id.replace('/', '_')}.jpg", quality=90)
        for files, segments in ((self.prediction, prediction), (self.truth, reference)):
            files.add(image_id, segmentation=segments["segmentation"], segments_info=segments["segments_info"])

    def close(self) -> None:
        """Write the JSON files."""
        self.truth.close()
        self.prediction.close()


@dataclass(frozen=True)
class Sample:
    """One image as [`SampleWriter`] kept it. `truth` and `prediction` are lists of segments as `draw_segments` takes
    them: `label`, and `mask`, an "L" image of the photo's size."""

    image_id: str
    photo: Image.Image
    truth: list[dict[str, Any]]
    prediction: list[dict[str, Any]]


def read_samples(folder: Path) -> Iterator[Sample]:
    """The images that [`SampleWriter`] kept in a folder."""
    truth, prediction = (_segments(folder / f"{name}.json") for name in ("truth", "prediction"))
    for image_id, segments in truth.items():
        photo = Image.open(folder / "photos" / f"{image_id.replace('/', '_')}.jpg").convert("RGB")
        yield Sample(image_id, photo, segments, prediction[image_id])


def _described(ids: np.ndarray, segments: list[dict[str, Any]]) -> list[dict[str, Any]]:
    infos = segments_info(ids, [segment["category_id"] for segment in segments])
    for info in infos:
        source = segments[info["id"] - 1]
        info |= {"iscrowd": int(source.get("iscrowd", 0))}
        if "score" in source:
            info["score"] = source["score"]
    return infos


def _segments(path: Path) -> dict[str, list[dict[str, Any]]]:
    content = json.loads(path.read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {}
    for annotation in content["annotations"]:
        ids = rgb_to_panoptic(Image.open(path.with_suffix("") / annotation["file_name"]))
        found[annotation["image_id"]] = [
            {"label": names[info["category_id"]], "mask": Image.fromarray((ids == info["id"]).astype(np.uint8) * 255)}
            for info in annotation["segments_info"]
        ]
    return found
