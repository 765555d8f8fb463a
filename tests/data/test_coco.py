"""COCO's formats: the real sample, files as COCO lays them, and pycocotools as the reference for outlines."""

import json
import os
from collections import Counter

import numpy as np
import pytest
from pycocotools import mask as reference
from pycocotools.coco import COCO

from fisa.data.categories import Category, vocabulary_of
from fisa.data.formats import load_segmentation_dataset
from fisa.data.segmentation_datasets import LabelProblem
from fisa.data.training_masks import segment_mask
from fisa.processing.files import name_fields
from tests.data.made_files import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    quarters,
    rewrite_json,
    write_coco_panoptic,
    write_photo,
)


# Panoptic


def test_the_real_sample(coco_sample):
    data = load_segmentation_dataset("coco_panoptic", str(coco_sample), split="validation").check()
    assert len(data) == 2 and len(data.categories) == 133
    assert sum(category.isthing for category in data.categories) == 80
    content = json.loads((coco_sample / "annotations" / "panoptic.json").read_text())
    for index, annotation in enumerate(content["annotations"]):
        record = data[index]
        assert record["image_id"] == str(annotation["image_id"])
        assert record["image"].mode == "RGB" and record["image"].size == record["label"].shape[::-1]
        areas = Counter(record["label"].ravel().tolist())
        assert {info["id"]: areas[info["id"]] for info in record["segments_info"]} == {
            info["id"]: info["area"] for info in annotation["segments_info"]
        }
        assert [info["iscrowd"] for info in record["segments_info"]] == [
            info["iscrowd"] for info in annotation["segments_info"]
        ]


@pytest.mark.parametrize("split", ["validation", "val2017"])
def test_cocos_own_layout(tmp_path, split):
    write_coco_panoptic(tmp_path)
    data = load_segmentation_dataset("coco_panoptic", str(tmp_path), split=split).check()
    record = data[1]
    assert record["image_id"] == "2"
    np.testing.assert_array_equal(record["label"], quarters(70_000, 5, 300, 0, dtype=np.int32))
    assert record["segments_info"] == [
        {"id": 70_000, "category_id": 1, "iscrowd": 0},
        {"id": 5, "category_id": 184, "iscrowd": 0},
        {"id": 300, "category_id": 1, "iscrowd": 1},
    ]
    assert data.unlabelled == "ignored"


def test_coco_names_become_plain_words():
    names = ["wall-other-merged", "wall-brick", "playing-field", "person", "door-stuff", "door", "person"]
    vocabulary = vocabulary_of([Category(number, name, True) for number, name in enumerate(names)])
    # "door" would be both the stuff's and the thing's, and two are called "person".
    assert [item.name for item in vocabulary] == [
        "wall", "wall brick", "playing field", "person", "door-stuff", "door", "person 6",
    ]  # fmt: skip


def test_a_photo_whose_name_is_not_utf8(tmp_path):
    """As `fisa-segment` names it, whose results are corrected and trained on."""
    annotations, name = write_coco_panoptic(tmp_path, photos=1), os.fsdecode(b"caf\xe9.jpg")
    [photo] = (tmp_path / "val2017").iterdir()
    try:
        photo.rename(photo.with_name(name))
    except OSError:
        pytest.skip("files have names of characters alone here")
    rewrite_json(annotations, lambda content: content["images"][0].update(name_fields("file_name", name)))
    load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017").check()


def test_the_sample_s_names_are_all_different_and_plain(coco_sample):
    data = load_segmentation_dataset("coco_panoptic", str(coco_sample), split="validation")
    names = [item.name for item in vocabulary_of(data.categories)]
    assert len(set(names)) == 133 and not any("-" in name or "merged" in name for name in names)


@pytest.mark.parametrize(
    "change, named",
    [
        (
            lambda content: content["annotations"][0]["segments_info"].pop(),
            ["000000000001.png", "300", "does not list", "same release"],
        ),
        (
            lambda content: content["annotations"][0]["segments_info"][0].update(id=9),
            ["000000000001.png", "70000", "[9]"],
        ),
    ],
    ids=["a segment is not listed", "another id is listed"],
)
def test_png_and_json_that_do_not_fit_are_named_when_read(tmp_path, change, named):
    rewrite_json(write_coco_panoptic(tmp_path), change)
    data = load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017")
    with pytest.raises(LabelProblem) as caught:
        data[0]
    assert [word for word in named if word not in str(caught.value)] == []


def test_an_annotation_of_an_unknown_image_is_refused(tmp_path):
    rewrite_json(write_coco_panoptic(tmp_path), lambda content: content["images"].pop(0))
    with pytest.raises(ValueError, match=r"annotations\[0\]: is for image 1, which is not among its images"):
        load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017").check()


def test_images_without_an_annotation_are_named(tmp_path, caplog):
    rewrite_json(write_coco_panoptic(tmp_path, photos=3), lambda content: content["annotations"].pop(1))
    assert len(load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017").check()) == 2
    assert "1 images have no annotation and are left out: 2." in caplog.text


def image_without_a_name(content):
    del content["images"][1]["file_name"]


def annotation_that_is_no_object(content):
    content["annotations"][1] = "000000000002.png"


def annotation_without_an_image(content):
    del content["annotations"][1]["image_id"]


def two_annotations_of_an_image(content):
    content["annotations"].append(content["annotations"][1])


def two_images_of_an_id(content):
    content["images"].append(content["images"][1] | {"file_name": "000000000001.jpg"})


def segment_of_a_wrong_id(content):
    content["annotations"][1]["segments_info"][2]["id"] = "300"


def segments_of_the_same_id(content):
    content["annotations"][1]["segments_info"][2]["id"] = 5


MALFORMED = {
    image_without_a_name: ["images[1]: lacks the field 'file_name'"],
    annotation_that_is_no_object: ["annotations[1]: must be an object with fields"],
    annotation_without_an_image: ["annotations[1]: lacks the field 'image_id'"],
    two_annotations_of_an_image: ["annotations[3]: 'image_id' must be unique", "annotations[1]"],
    two_images_of_an_id: ["images[3]: 'id' must be unique", "images[1]"],
    segment_of_a_wrong_id: ["annotations[1] segments_info[2]: 'id' must be a whole number"],
    segments_of_the_same_id: ["annotations[1] segments_info[2]: 'id' must be unique"],
}


@pytest.mark.parametrize("damage", MALFORMED, ids=lambda damage: damage.__name__)
def test_a_malformed_entry_breaks_its_record_alone(tmp_path, damage, caplog):
    rewrite_json(write_coco_panoptic(tmp_path, photos=3), damage)
    data = load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017")
    with pytest.raises(ValueError, match="1 of 3 records") as caught:
        data.check()
    named = ["panoptic_val2017.json", *MALFORMED[damage]]
    assert [words for words in named if words not in str(caught.value)] == []
    kept = data.check(skip_broken=True)
    assert "1 of 3 records are left out" in caplog.text and named[1] in caplog.text
    assert [kept[index]["image_id"] for index in range(len(kept))] == ["1", "3"]


def test_a_json_file_that_is_none_is_named(tmp_path):
    write_coco_panoptic(tmp_path).write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="panoptic_val2017.json: cannot be read as JSON"):
        load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017")


def test_a_name_that_comes_twice_in_one_object_of_json_is_named(tmp_path):
    file = write_coco_panoptic(tmp_path)
    file.write_text(file.read_text().replace('"file_name"', '"file_name": "7.png", "file_name"', 1))
    with pytest.raises(ValueError, match='panoptic_val2017.json: cannot be read as JSON: "file_name" comes twice'):
        load_segmentation_dataset("coco_panoptic", str(tmp_path), split="val2017")


@pytest.mark.parametrize("kind", ["panoptic", "instances"])
def test_a_folder_without_annotations_says_what_was_looked_for(tmp_path, kind):
    with pytest.raises(ValueError, match=f"{kind}_val2017.json.*{kind}.json.*split"):
        load_segmentation_dataset(f"coco_{kind}", str(tmp_path), split="validation")


# Instances

TRIANGLE = [1, 1, 13, 1, 1, 10]
TWO_PARTS = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 6, 15.5, 6, 15.5, 11, 10, 11]]
INSIDE = [2, 2, 5, 2, 5, 5, 2, 5]


def instance(id, segmentation, *, category_id=1, iscrowd=0):
    return {
        "id": id, "image_id": 7, "category_id": category_id, "iscrowd": iscrowd,
        "segmentation": segmentation, "area": 1.0, "bbox": [0, 0, 1, 1],
    }  # fmt: skip


def write_instances(root, annotations):
    write_photo(root / "val2017" / "7.jpg")
    (root / "annotations").mkdir()
    path = root / "annotations" / "instances_val2017.json"
    images = [{"id": 7, "file_name": "7.jpg", "height": HEIGHT, "width": WIDTH}]
    things = [category for category in CATEGORIES if category["isthing"]]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": things}))
    return path


def run_lengths(*, compressed):
    crowd = np.asfortranarray(quarters(0, 0, 0, 1))
    if not compressed:
        flat = crowd.T.ravel()
        edges = np.flatnonzero(np.diff(flat)) + 1
        return {"size": [HEIGHT, WIDTH], "counts": np.diff([0, *edges, flat.size]).tolist()}
    rle = reference.encode(crowd)
    return rle | {"counts": rle["counts"].decode()}


def test_masks_are_those_of_pycocotools(tmp_path):
    path = write_instances(
        tmp_path,
        [
            instance(900_000_000_000, [TRIANGLE]),
            instance(2, TWO_PARTS, category_id=3),
            instance(3, run_lengths(compressed=False), iscrowd=1),
            instance(4, run_lengths(compressed=True), category_id=3),
        ],
    )
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation").check()
    record = data[0]
    theirs = COCO(path)
    expected = [theirs.annToMask(annotation) for annotation in theirs.loadAnns(theirs.getAnnIds(imgIds=7))]
    assert [(info["category_id"], info["iscrowd"]) for info in record["segments_info"]] == [
        (1, 0), (3, 0), (1, 1), (3, 0)
    ]  # fmt: skip
    for info, mask in zip(record["segments_info"], expected, strict=True):
        np.testing.assert_array_equal(segment_mask(info, record["label"]), mask.astype(bool))
    assert data.unlabelled == "background"


def test_a_polygon_that_reaches_a_little_beyond_its_photo_is_cut_off(tmp_path):
    write_instances(tmp_path, [instance(1, [[10, -1, 18, -1, 18, 6, 10, 6]])])
    record = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")[0]
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:6, 10:] = True
    np.testing.assert_array_equal(record["label"] > 0, expected)


def test_of_instances_that_overlap_the_smaller_is_on_top_and_both_stay_whole(tmp_path):
    write_instances(tmp_path, [instance(1, [INSIDE]), instance(2, [TRIANGLE])])
    record = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")[0]
    small, large = (segment_mask(info, record["label"]) for info in record["segments_info"])
    assert (small & large).any() and small.sum() < large.sum()
    np.testing.assert_array_equal(record["label"], np.where(small, 1, np.where(large, 2, 0)))


@pytest.mark.parametrize("brushed", [1, 2, 3])
def test_objects_that_are_marked_as_crowds_are_told(tmp_path, caplog, brushed):
    """CVAT writes masks that were drawn with a brush as crowds, and outlines as objects."""
    outlines = [instance(number, [TRIANGLE]) for number in range(3 - brushed)]
    masks = [instance(3 + number, run_lengths(compressed=False), iscrowd=1) for number in range(brushed)]
    write_instances(tmp_path, outlines + masks)
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    said = f"(iscrowd 1) in the 1 validation records, and count neither in PQ nor in mask AP: person ({brushed} of 3)"
    data.check(purpose="validation")
    assert (said in caplog.text) == (brushed > 1)
    if brushed == 3:
        with pytest.raises(
            ValueError, match="nothing to learn from the 1 training records: all 3 segments are .*CVAT"
        ):
            data.check(purpose="training")
    else:
        data.check(purpose="training")
        assert ("teach nothing: person (2 of 3)" in caplog.text) == (brushed > 1)


def test_records_without_any_segment_are_not_trained_on(tmp_path):
    write_instances(tmp_path, [])
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    data.check(purpose="validation")
    with pytest.raises(ValueError, match="none of them has a segment"):
        data.check(purpose="training")


def test_an_image_without_instances_and_an_instance_without_pixels(tmp_path):
    write_instances(tmp_path, [instance(1, [[3, 3, 3, 3, 3, 3]])])
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation").check()
    assert data[0]["segments_info"] == [] and not data[0]["label"].any()


def test_run_lengths_of_another_image_size_are_named(tmp_path):
    write_instances(tmp_path, [instance(1, {"size": [9, 9], "counts": [81]})])
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    with pytest.raises(ValueError, match=r"\[9, 9\], but the image has \[12, 16\]"):
        data.check()


@pytest.mark.parametrize(
    "damage, named",
    [
        (
            lambda content: content["annotations"][1].pop("category_id"),
            "annotations[1]: lacks the field 'category_id'",
        ),
        (lambda content: content["images"][0].update(height="12"), "images[0]: 'height' must be a whole number"),
        (lambda content: content["annotations"][0].update(iscrowd=2), "annotations[0]: 'iscrowd' must be 0 or 1"),
        (
            lambda content: content["annotations"][0].update(segmentation=[]),
            "annotation 1: a segmentation is a list of polygons",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[[100, 2, 120, 2, 120, 9]]),
            "annotation 1: a polygon from (100, 2) to (120, 9) lies outside of the photo of 16 x 12 pixels",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[INSIDE, [10, 8, 15, 8, 15, 30]]),
            "annotation 1: a polygon from (10, 8) to (15, 30) lies outside of the photo",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[[2, 2, 2, 9, 24, 9, 24, 2]]),
            "annotation 1: a polygon from (2, 2) to (24, 9) lies outside of the photo of 16 x 12 pixels, or in part",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation=[[0.1, 0.1, 0.9, 0.1, 0.9, 0.8]]),
            "annotation 1: its polygons lie in the photo's first pixel",
        ),
    ],
    ids=[
        "no category", "a size in words", "neither crowd nor not", "a box alone", "outside", "mostly outside",
        "of a larger photo", "in shares of the photo",
    ],
)  # fmt: skip
def test_a_malformed_instance_breaks_its_image_and_no_other(tmp_path, damage, named, caplog):
    write_photo(tmp_path / "val2017" / "8.jpg")

    def change(content):
        damage(content)
        content["images"].append(content["images"][0] | {"id": 8, "file_name": "8.jpg", "height": HEIGHT})
        content["annotations"].append(instance(3, [TRIANGLE]) | {"image_id": 8})

    rewrite_json(write_instances(tmp_path, [instance(1, [INSIDE]), instance(2, [TRIANGLE])]), change)
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    with pytest.raises(ValueError, match="1 of 2 records") as caught:
        data.check()
    assert named in str(caught.value) and (
        "instances_val2017.json" in str(caught.value) or "image 7" in str(caught.value)
    )
    kept = data.check(skip_broken=True)
    assert named in caplog.text
    assert [kept[index]["image_id"] for index in range(len(kept))] == ["8"]


def test_an_instance_of_no_image_is_a_broken_record_of_its_own(tmp_path):
    stray = [instance(number, [INSIDE]) | {"image_id": 99} for number in (2, 3)]
    write_instances(tmp_path, [instance(1, [TRIANGLE]), *stray])
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    with pytest.raises(ValueError, match=r"1 of 2 records(.|\n)*annotations\[1\]: is for image 99"):
        data.check()
    assert len(data.check(skip_broken=True)) == 1


def test_half_a_surrogate_pair_in_the_json_is_refused(tmp_path):
    path = write_coco_panoptic(tmp_path)
    path.write_text(path.read_text().replace('"person"', '"per\\ud800son"', 1))
    assert "ud800" in path.read_text()
    with pytest.raises(ValueError, match=f"{path.name}.*surrogates not allowed"):
        load_segmentation_dataset("coco_panoptic", str(tmp_path), split="validation")


def test_annotations_without_an_image_are_refused(tmp_path):
    rewrite_json(write_coco_panoptic(tmp_path), lambda content: content.update(annotations=[]))
    with pytest.raises(ValueError, match="panoptic_val2017.json: no annotated image"):
        load_segmentation_dataset("coco_panoptic", str(tmp_path), split="validation")
