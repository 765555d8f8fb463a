"""Lets Label Studio's and CVAT's own libraries read what `fisa-segment --format label-studio cvat` wrote.

Not one of the tests: those libraries want older versions of others than the package takes. `make test-importers` gives
them an environment of their own.
"""

import json
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from datumaro.components.dataset import Dataset
from label_studio_sdk.converter.brush import decode_rle
from label_studio_sdk.label_interface import LabelInterface
from PIL import Image


def main(folder: Path) -> None:
    """Raise an error where a library refuses a file of this folder of results, or reads other masks."""
    content = json.loads((folder / "panoptic.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    expected = {Path(entry["file_name"]).stem: _masks(folder, entry, names) for entry in content["annotations"]}
    assert sum(map(len, expected.values())), "nothing was found, so nothing is compared"
    _check("Label Studio", _read_by_label_studio(folder / "label_studio"), expected)
    _check("CVAT", _read_by_datumaro(folder / "cvat.zip"), expected)


def _check(reader: str, found: dict, expected: dict) -> None:
    assert found.keys() == expected.keys(), (reader, found.keys(), expected.keys())
    for photo, masks in expected.items():
        assert [label for label, _ in found[photo]] == [label for label, _ in masks], (reader, photo)
        for (label, mask), (_, other) in zip(masks, found[photo]):
            assert (mask == other).all(), (reader, photo, label)
    print(f"{reader}: {sum(map(len, expected.values()))} masks on {len(expected)} photos are the same")


def _masks(folder: Path, entry: dict, names: dict) -> list:
    colors = np.asarray(Image.open(folder / "panoptic" / entry["file_name"])).astype(int)
    ids = colors @ [1, 256, 65536]
    return [(names[info["category_id"]], ids == info["id"]) for info in entry["segments_info"]]


def _read_by_label_studio(folder: Path) -> dict:
    interface = LabelInterface((folder / "config.xml").read_text())
    found = {}
    for task in json.loads((folder / "tasks.json").read_text()):
        (prediction,) = task["predictions"]
        assert interface.validate_task({"data": task["data"]})
        assert not (errors := interface.validate_prediction(prediction, return_errors=True)), errors
        found[Path(task["data"]["image"]).stem] = [
            (
                region["value"]["brushlabels"][0],
                decode_rle(region["value"]["rle"]).reshape(
                    region["original_height"], region["original_width"], 4
                )[..., 3] == 255,
            )
            for region in prediction["result"]
        ]  # fmt: skip
    return found


def _read_by_datumaro(path: Path) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        zipfile.ZipFile(path).extractall(folder)
        data = Dataset.import_from(folder, "cvat")
        labels = data.get_label_cat_names()
        return {
            item.id: [(labels[annotation.label], annotation.image.astype(bool)) for annotation in item.annotations]
            for item in data
            if item.media.data.any()
        }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
