"""Data as people have it: broken records, masks of 0 and 255, caches of other labels or cut short."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.roads.made_photos import SIDE, write_label_maps
from tests.roads.walking import walk


@pytest.fixture
def train(shipped, tmp_path):
    """Train for a step, in a fresh process; returns what it said."""

    def run(data, *flags, format="label_maps", status=0):
        return walk(
            "fisa-train", "--model", shipped, "--train_format", format, "--train_data", data, "--do_train",
            "--max_steps", 1, "--output_dir", tmp_path / "adapter", "--report_to", "none", "--use_cpu", "true", *flags,
            cwd=tmp_path, status=status,
        )  # fmt: skip

    return run


def test_a_class_that_no_pixel_has_is_told_before_training(tmp_path, train):
    printed = train(write_label_maps(tmp_path / "photos", values=(0, 255)))
    assert "1 of 2 categories never occur" in printed and "car (1)" in printed


def test_a_class_that_no_pixel_has_is_told_to_who_evaluates(tmp_path, shipped):
    data = write_label_maps(tmp_path / "photos", values=(0, 255))
    printed = walk(
        "fisa-train", "--model", shipped, "--eval_format", "label_maps", "--eval_data", data, "--do_eval",
        "--output_dir", "out", "--report_to", "none", "--use_cpu", "true", cwd=tmp_path, status=0,
    )  # fmt: skip
    assert "1 of 2 categories never occur in the 4 validation records: car (1)" in printed


def test_caches_follow_the_labels_and_mend_themselves(tmp_path, train):
    data, flags = write_label_maps(tmp_path / "photos"), ("--proposal_cache", tmp_path / "cache")
    train(data, *flags)
    (shard,) = (tmp_path / "cache").glob("*.safetensors")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:50])
    assert f"{shard}: it cannot be read" in train(data, *flags, "--output_dir", "again")
    assert shard.read_bytes() == whole
    for path in (data / "labels").iterdir():
        with Image.open(path) as label:
            swapped = Image.fromarray(1 - np.asarray(label))
        swapped.save(path)
    refusal = train(data, *flags, "--output_dir", "never", status=2)
    assert "proposal cache" in refusal and "data set" in refusal


def test_broken_records_stop_a_run_or_are_left_out(tmp_path, train):
    root = tmp_path / "coco"
    random = np.random.default_rng(0)
    (root / "annotations" / "panoptic").mkdir(parents=True)
    (root / "images").mkdir()
    images, annotations = [], []
    for number in range(5):
        photo = random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(photo).save(root / "images" / f"{number}.jpg")
        label = np.zeros((SIDE, SIDE, 3), np.uint8)
        label[..., 0] = np.arange(SIDE) // 48 + 1
        Image.fromarray(label).save(root / "annotations" / "panoptic" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": SIDE, "width": SIDE})
        segments = [{"id": id, "category_id": id, "iscrowd": 0} for id in (1, 2)]
        annotations.append({"image_id": number, "file_name": f"{number}.png", "segments_info": segments})
    annotations[1]["segments_info"] = annotations[1]["segments_info"][:1]
    annotations[3]["segments_info"][1]["id"] = "2"
    cut = root / "images" / "2.jpg"
    cut.write_bytes(cut.read_bytes()[:3000])
    categories = [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "car", "isthing": 1}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (root / "annotations" / "panoptic.json").write_text(json.dumps(content))
    refusal = train(root, format="coco_panoptic", status=2)
    assert "3 of 5 records cannot be used" in refusal and "1.png" in refusal and "2.jpg" in refusal
    assert "panoptic.json: annotations[3] segments_info[1]: 'id' must be a whole number" in refusal
    assert "3 of 5 records are left out" in train(root, "--skip_broken", "true", format="coco_panoptic")
