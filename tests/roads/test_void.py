"""Pixels that nothing is known of: what is predicted there is neither right nor wrong, by every metric."""

import json

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from fisa import FisaForUniversalSegmentation, FisaProcessor
from tests.evaluation.plain_metrics import plain_average_precision
from tests.roads.walking import walk


VOID = 255


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight painted scenes of several things each, of which one is the only class and all else is void."""
    folder = tmp_path_factory.mktemp("photos")
    pack = pytest.importorskip("fisa.studies.patchwork.dataset").PACK
    things = {entry["id"] for entry in json.loads((pack / "categories.json").read_text()) if entry["isthing"]}
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    (folder / "classes.txt").write_text("thing\n")
    for number, scene in enumerate(load_dataset(str(pack), split="train").select(range(8))):
        segment = next(info for info in scene["segments_info"] if info["category_id"] in things)
        scene["image"].save(folder / "images" / f"{number}.jpg")
        label = np.where(np.array(scene["label"]) == segment["id"], 0, VOID).astype(np.uint8)
        Image.fromarray(label).save(folder / "labels" / f"{number}.png")
    return folder


def instances(model, processor, path):
    """What transformers' own recipe finds on a photo, as a metric takes it."""
    photo = Image.open(path)
    inputs = processor(images=photo, text=["thing"], return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    (found,) = processor.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=[photo.size[::-1]])
    segments = found["segments_info"]
    return {
        "masks": [found["segmentation"].numpy() == segment["id"] for segment in segments],
        "category_ids": [0] * len(segments),
        "scores": [segment["score"] for segment in segments],
    }


def test_eight_pictures_that_are_void_but_for_one_thing(photos, shipped, tmp_path):
    walk(
        "fisa-train", "--model", shipped, "--eval_format", "label_maps", "--eval_data", photos, "--do_eval",
        "--output_dir", tmp_path / "results", "--use_cpu", "true", "--disable_tqdm", "true", "--report_to", "none",
        cwd=tmp_path,
    )  # fmt: skip
    report = json.loads((tmp_path / "results" / "metrics.json").read_text())
    model, processor = FisaForUniversalSegmentation.from_pretrained(shipped), FisaProcessor.from_pretrained(shipped)
    images, on_void = [], 0
    for path in sorted((photos / "images").iterdir()):
        with Image.open(photos / "labels" / f"{path.stem}.png") as label:
            ids = np.where(np.asarray(label) == 0, 1, 0)
        reference = {"segmentation": ids, "segments_info": [{"id": 1, "category_id": 0, "iscrowd": 0}]}
        images.append((instances(model.eval(), processor, path), reference))
        on_void += sum(not (mask & (ids > 0)).any() for mask in images[-1][0]["masks"])
    assert on_void > 8  # there is something to be mistaken about
    expected = np.mean([plain_average_precision(images, 0, threshold) for threshold in np.linspace(0.5, 0.95, 10)])
    assert report["instance"]["ap"] == pytest.approx(100 * expected, abs=1e-6)
    assert report["semantic"]["miou"] == 100
    assert report["panoptic"]["per_class"]["thing"]["fp"] == 0
