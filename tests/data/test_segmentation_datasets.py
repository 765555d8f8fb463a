"""What all formats share: the look before training, skipping, choosing, fingerprints."""

import copy
import pickle
import shutil

import numpy as np
import pytest
from PIL import ExifTags, Image

from fisa.data.formats import load_segmentation_dataset
from fisa.data.segmentation_datasets import checked_record, size_of_photo
from tests.data.made_files import HEIGHT, WIDTH, rewrite_json, write_coco_panoptic, write_photo


def opened(root):
    return load_segmentation_dataset("coco_panoptic", str(root), split="val2017")


def remove_photo(root):
    (root / "val2017" / "000000000002.jpg").unlink()


def remove_label(root):
    (root / "annotations" / "panoptic_val2017" / "000000000002.png").unlink()


def resize_photo(root):
    write_photo(root / "val2017" / "000000000002.jpg", size=(WIDTH, 30))


def break_photo(root):
    (root / "val2017" / "000000000002.jpg").write_bytes(b"not a photo")


def unknown_category(root):
    def change(content):
        content["annotations"][1]["segments_info"][0]["category_id"] = 999

    rewrite_json(root / "annotations" / "panoptic_val2017.json", change)


BROKEN = {
    remove_photo: ["000000000002.jpg", "no such file"],
    remove_label: ["000000000002.png", "no such file"],
    resize_photo: ["000000000002.jpg", "16 x 30", "16 x 12", "same size"],
    break_photo: ["000000000002.jpg"],
    unknown_category: ["000000000002.png", "999", "4 categories"],
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_what_is_broken_is_named_before_training_or_left_out_with_a_count(tmp_path, damage, caplog):
    write_coco_panoptic(tmp_path, photos=3)
    damage(tmp_path)
    with pytest.raises(ValueError, match="--skip_broken") as caught:
        opened(tmp_path).check()
    assert [word for word in ["1 of 3", *BROKEN[damage]] if word not in str(caught.value)] == []
    kept = opened(tmp_path).check(skip_broken=True)
    assert [kept.image_id(index) for index in range(len(kept))] == ["1", "3"]
    assert kept[1]["image_id"] == "3"


def test_of_many_broken_records_the_first_few_are_shown(tmp_path):
    write_coco_panoptic(tmp_path, photos=8)
    shutil.rmtree(tmp_path / "annotations" / "panoptic_val2017")
    with pytest.raises(ValueError, match="8 of 8") as caught:
        opened(tmp_path).check()
    assert str(caught.value).count("no such file") == 5 and "and 3 more" in str(caught.value)
    with pytest.raises(ValueError, match="no record left"):
        opened(tmp_path).check(skip_broken=True)


def test_a_whole_data_set_is_returned_as_it_is(tmp_path):
    write_coco_panoptic(tmp_path)
    data = opened(tmp_path)
    assert data.check() is data and data.check(skip_broken=True) is data


def test_parts_of_records_are_those_of_the_whole(tmp_path):
    write_coco_panoptic(tmp_path, photos=3)
    data = opened(tmp_path).select([2, 0])
    assert [data.image_id(index) for index in range(len(data))] == ["3", "1"]
    assert data.image(0).tobytes() == data[0]["image"].tobytes()
    assert data.segments_info(1) == data[1]["segments_info"]


def test_a_file_that_breaks_later_is_named_when_it_is_read(tmp_path):
    write_coco_panoptic(tmp_path)
    data = opened(tmp_path).check()
    (tmp_path / "annotations" / "panoptic_val2017" / "000000000001.png").write_bytes(b"")
    with pytest.raises(ValueError, match="000000000001.png"):
        data[0]


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    for name in ("here", "there"):
        write_coco_panoptic(tmp_path / name)
    fingerprint = opened(tmp_path / "here").fingerprint
    assert opened(tmp_path / "there").fingerprint == fingerprint
    assert opened(tmp_path / "here").select([0]).fingerprint != fingerprint
    write_photo(tmp_path / "there" / "val2017" / "000000000001.jpg", seed=9, size=(WIDTH, 40))
    assert opened(tmp_path / "there").fingerprint != fingerprint
    unknown_category(tmp_path / "here")
    assert opened(tmp_path / "here").fingerprint != fingerprint


def test_a_data_set_travels_to_other_processes(tmp_path):
    write_coco_panoptic(tmp_path)
    data = opened(tmp_path)
    for other in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert other[1]["segments_info"] == data[1]["segments_info"]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
def test_labels_lie_on_photos_as_exif_turns_them(tmp_path, orientation):
    write_coco_panoptic(tmp_path)
    path = tmp_path / "val2017" / "000000000002.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(path) as photo:
        stored = photo.convert("RGB")
    stored.save(path, exif=exif)  # the pixels as before, under another tag
    if orientation in (6, 8):
        with pytest.raises(ValueError, match="12 x 16"):
            opened(tmp_path).check()
        stored.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    data = opened(tmp_path)
    assert data.check() is data
    assert size_of_photo(path) == data.image(1).size == (WIDTH, HEIGHT)


def test_labels_of_a_photo_on_its_side_are_refused_with_the_likely_reason():
    with pytest.raises(ValueError, match="16 x 12 pixels and its label 12 x 16.*EXIF"):
        checked_record("1", Image.new("RGB", (16, 12)), np.zeros((16, 12), np.int32), [], categories=())
    with pytest.raises(ValueError, match="same size.$"):
        checked_record("1", Image.new("RGB", (16, 12)), np.zeros((16, 13), np.int32), [], categories=())
