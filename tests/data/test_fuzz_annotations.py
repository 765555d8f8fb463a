"""Annotations with anything wrong in them: used rightly, or refused in one sentence that names the file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fisa.data.formats import load_segmentation_dataset
from fisa.data.segmentation_datasets import SegmentationDataset
from tests.damaged_json import CHANGES, SCALARS, VALUES, changed
from tests.data.made_files import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    quarters,
    write_coco_panoptic,
    write_photo,
    write_values,
)
from tests.memory import taking_less_than


def use(format: str, root, file: str, **options) -> None:
    """Read all there is, or all that is not broken. Whatever else than a sentence with the file or the image comes out
    of it is a fault."""
    try:
        data = load_segmentation_dataset(format, str(root), split="validation", **options)
        data = whole_records(data)
    except ValueError as error:
        message = str(error)
        assert file in message or "image " in message or f"{root}/" in message, message
        return
    for index in range(len(data)):
        record = data[index]
        assert record["label"].shape == record["image"].size[::-1]
        ids = {segment["id"] for segment in record["segments_info"]}
        assert set(np.unique(record["label"]).tolist()) - {0} <= ids


def whole_records(data: SegmentationDataset) -> SegmentationDataset:
    """The data set, or what `--skip_broken` leaves of it."""
    try:
        return data.check()
    except ValueError as error:
        try:
            return data.check(skip_broken=True)
        except ValueError as none_left:
            assert "no record left" in str(none_left)
            raise error from None


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    with taking_less_than(1_000):
        yield


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    root = tmp_path_factory.mktemp("panoptic")
    path = write_coco_panoptic(root)
    return root, path, json.loads(path.read_text())


@pytest.fixture(scope="module")
def instances(tmp_path_factory):
    root = tmp_path_factory.mktemp("instances")
    write_photo(root / "val2017" / "7.jpg")
    (root / "annotations").mkdir()
    segmentations = [
        [[1, 1, 13, 1, 1, 10]],
        [[0, 0, 4, 0, 4, 4, 0, 4], [10, 6, 15.5, 6, 15.5, 11, 10, 11]],
        {"size": [HEIGHT, WIDTH], "counts": [100, 20, 72]},
        {"size": [HEIGHT, WIDTH], "counts": "01<000000000000000000000T1"},
    ]
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
            for number, segmentation in enumerate(segmentations)
        ],
        "categories": CATEGORIES,
    }
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content))
    return root, path, content


@given(changes=CHANGES)
def test_fuzz_panoptic_annotations(panoptic, changes):
    root, path, content = panoptic
    path.write_text(json.dumps(changed(content, changes)))
    use("coco_panoptic", root, path.name)


@given(changes=CHANGES)
def test_fuzz_instance_annotations(instances, changes):
    root, path, content = instances
    path.write_text(json.dumps(changed(content, changes)))
    use("coco_instances", root, path.name)


@given(segmentation=VALUES | st.lists(st.lists(st.integers(-30, 30) | st.floats(width=32), max_size=12), max_size=3))
def test_fuzz_outlines(instances, segmentation):
    root, path, content = instances
    annotation = content["annotations"][0] | {"segmentation": segmentation}
    path.write_text(json.dumps(content | {"annotations": [annotation]}))
    use("coco_instances", root, path.name)


@given(counts=st.text(max_size=30) | st.lists(st.integers(-2, 200), max_size=6), size=st.none() | st.lists(SCALARS))
def test_fuzz_run_lengths(instances, counts, size):
    root, path, content = instances
    segmentation = {"size": [HEIGHT, WIDTH] if size is None else size, "counts": counts}
    annotation = content["annotations"][0] | {"segmentation": segmentation}
    path.write_text(json.dumps(content | {"annotations": [annotation]}))
    use("coco_instances", root, path.name)


@given(start=st.integers(0, 10_000), stop=st.integers(0, 10_000), content=st.binary(max_size=8))
def test_fuzz_bytes_of_json_files(panoptic, start, stop, content):
    root, path, whole = panoptic
    whole = json.dumps(whole).encode()
    path.write_bytes(whole[: start % len(whole)] + content + whole[stop % len(whole) :])
    use("coco_panoptic", root, path.name)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    root = tmp_path_factory.mktemp("plain")
    write_photo(root / "images" / "one.jpg")
    write_values(root / "labels" / "one.png", quarters(0, 1, 1, 255))
    return root


@given(text=st.text(st.sampled_from("ab_,#[]\n\r\t \ufeff\0é{}\"'thingsuf"), max_size=40))
def test_fuzz_classes_txt(plain, text):
    (plain / "classes.txt").write_text(text, encoding="utf-8")
    use("label_maps", plain, "classes.txt")


@given(content=VALUES)
def test_fuzz_classes_json(plain, content):
    path = plain / "mine.json"
    path.write_text(json.dumps(content))
    use("label_maps", plain, "mine.json", classes=str(path))


@given(content=st.binary(max_size=60), cut=st.integers(0, 200), tail=st.integers(0, 200))
def test_fuzz_label_images(plain, content, cut, tail):
    path = plain / "labels" / "one.png"
    (plain / "classes.txt").write_text("a\nb\n")
    write_values(path, quarters(0, 1, 1, 255))
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + content + whole[tail:])
    use("label_maps", plain, "one.png")
