"""What all formats share: the look before training, skipping, choosing, fingerprints."""

import copy
import pickle
import shutil

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image

from fisa.data.formats import load_segmentation_dataset
from fisa.data.segmentation_datasets import StreamedSegmentationDataset, checked_record, size_of_photo
from tests.data.made_files import (
    HEIGHT,
    WIDTH,
    quarters,
    rewrite_json,
    write_coco_panoptic,
    write_photo,
    write_values,
    write_voc,
)
from tests.orientations import as_stored


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


def cut_photo_short(root):
    path = root / "val2017" / "000000000002.jpg"
    path.write_bytes(path.read_bytes()[:-200])


def cut_label_short(root):
    path = root / "annotations" / "panoptic_val2017" / "000000000002.png"
    path.write_bytes(path.read_bytes()[:-20])


def unlist_a_segment(root):
    rewrite_json(
        root / "annotations" / "panoptic_val2017.json",
        lambda content: content["annotations"][1]["segments_info"].pop(),
    )


def unknown_category(root):
    def change(content):
        content["annotations"][1]["segments_info"][0]["category_id"] = 999

    rewrite_json(root / "annotations" / "panoptic_val2017.json", change)


BROKEN = {
    remove_photo: ["000000000002.jpg", "no such file"],
    remove_label: ["000000000002.png", "no such file"],
    resize_photo: ["000000000002.jpg", "16 x 30", "16 x 12", "same size"],
    break_photo: ["000000000002.jpg"],
    cut_photo_short: ["000000000002.jpg"],
    cut_label_short: ["000000000002.png"],
    unlist_a_segment: ["000000000002.png", "300", "does not list"],
    unknown_category: ["000000000002.png", "999", "4 categories"],
}


@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_what_is_broken_is_named_before_training_or_left_out_with_a_count(tmp_path, damage, caplog):
    write_coco_panoptic(tmp_path, photos=3)
    damage(tmp_path)
    with pytest.raises(ValueError, match="--skip_broken") as caught:
        opened(tmp_path).check()
    assert [word for word in ["1 of 3", *BROKEN[damage]] if word not in str(caught.value)] == []
    kept = opened(tmp_path).check(skip_broken=True, purpose="training")
    said = ["1 of 3", *BROKEN[damage], "in the 2 training records"]
    assert [words for words in said if words not in caplog.text] == []
    assert [kept.image_id(index) for index in range(len(kept))] == ["1", "3"]
    assert kept[1]["image_id"] == "3"


@pytest.mark.parametrize("purpose", ["training", "validation"])
def test_categories_that_never_occur_are_told_to_who_trains_or_evaluates(tmp_path, caplog, purpose):
    write_photo(tmp_path / "images" / "one.jpg")
    write_values(tmp_path / "labels" / "one.png", quarters(0, 255, 255, 0))
    (tmp_path / "classes.txt").write_text("background\ncar\n")
    data = load_segmentation_dataset("label_maps", str(tmp_path), split="train")
    data.check()
    assert not caplog.text
    data.check(purpose=purpose)
    assert f"1 of 2 categories never occur in the 1 {purpose} records: car (1)" in caplog.text
    assert "0 and 255" in caplog.text


def test_a_stream_leaves_broken_records_out_when_it_meets_them(caplog):
    def record(row, index):
        if row["id"] == 1:
            raise ValueError(f"row {index}: broken")
        return row

    rows = datasets.Dataset.from_list([{"id": number} for number in range(3)]).to_iterable_dataset()
    stream = StreamedSegmentationDataset(rows, record, ())
    with pytest.raises(ValueError, match="row 1: broken"):
        list(stream.check())
    assert [row["id"] for row in stream.check(skip_broken=True)] == [0, 2]
    assert "1 of 2 records are left out so far. The last: row 1: broken" in caplog.text
    assert [row["id"] for row in stream.check(skip_broken=True).take(2)] == [0]


@pytest.mark.parametrize("name", ["../../secret.png", "/etc/passwd", "a/../../b.png"])
@pytest.mark.parametrize("kind", ["images", "annotations"])
def test_files_outside_of_the_data_set_are_refused_by_name(tmp_path, kind, name):
    path = write_coco_panoptic(tmp_path / "data")
    rewrite_json(path, lambda content: content[kind][1].update(file_name=name))
    with pytest.raises(ValueError, match=f"{kind}.1.: file_name must name a file inside .*{name}"):
        opened(tmp_path / "data").check()
    kept = opened(tmp_path / "data").check(skip_broken=True)
    assert [kept.image_id(index) for index in range(len(kept))] == ["1"]


@pytest.mark.parametrize("name", ["../2007_000033", "/etc/passwd"])
def test_so_are_those_of_a_list_of_names(tmp_path, name):
    (write_voc(tmp_path) / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").write_text(name)
    with pytest.raises(ValueError, match=f"val.txt: each line must name a file inside .*{name}"):
        load_segmentation_dataset("voc_20", str(tmp_path), split="validation")


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


@pytest.mark.parametrize("orientation", [1, 3, 4, 5, 6, 8, 9])
def test_labels_lie_on_photos_as_exif_turns_them(tmp_path, orientation, caplog):
    write_coco_panoptic(tmp_path)
    path = tmp_path / "val2017" / "000000000002.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with Image.open(path) as photo:
        stored = photo.convert("RGB")
    stored.save(path, exif=exif)  # the pixels as before, under another tag
    if orientation in (5, 6, 8):
        with pytest.raises(ValueError, match="12 x 16"):
            opened(tmp_path).check()
        stored.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif)
    data = opened(tmp_path)
    caplog.clear()
    assert data.check() is data
    warned = "EXIF turns 1 of 2 photos: 2." in caplog.text
    assert warned == (orientation not in (1, 9)), caplog.text
    assert size_of_photo(path) == data.image(1).size == (WIDTH, HEIGHT)


@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_label_with_an_orientation_of_its_own_lies_as_viewers_show_it(tmp_path, orientation, ending):
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\n")
    upright = quarters(0, 1, 2, 3)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    photo = np.stack([upright * 60] * 3, axis=-1)
    for kind, pixels in (("images", photo), ("labels", upright)):
        (tmp_path / kind).mkdir()
        stored = np.ascontiguousarray(as_stored(pixels, orientation))
        Image.fromarray(stored).save(tmp_path / kind / f"1.{ending}", exif=exif)
    record = load_segmentation_dataset("label_maps", str(tmp_path), split="train").check()[0]
    np.testing.assert_array_equal(record["label"], upright + 1)
    np.testing.assert_array_equal(np.asarray(record["image"])[..., 0], upright * 60)
    assert size_of_photo(tmp_path / "images" / f"1.{ending}") == (WIDTH, HEIGHT)


def test_labels_of_a_photo_on_its_side_are_refused_with_the_likely_reason():
    with pytest.raises(ValueError, match="16 x 12 pixels and its label 12 x 16.*EXIF"):
        checked_record("1", Image.new("RGB", (16, 12)), np.zeros((16, 12), np.int32), [], categories=())
    with pytest.raises(ValueError, match="same size.$"):
        checked_record("1", Image.new("RGB", (16, 12)), np.zeros((16, 13), np.int32), [], categories=())


def test_a_photo_with_two_labels_is_named_and_neither_is_taken(tmp_path):
    for number in range(2):
        write_photo(tmp_path / "images" / f"{number}.jpg", seed=number)
        write_values(tmp_path / "labels" / f"{number}.png", quarters(0, 1, 255, 0))
    write_values(tmp_path / "labels" / "1.tif", quarters(1, 1, 1, 1))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    data = load_segmentation_dataset("label_maps", str(tmp_path), split="train")
    with pytest.raises(ValueError, match="1.jpg: has several labels in .*, 1.png and 1.tif; keep one."):
        data.check()
    kept = data.check(skip_broken=True)
    assert [kept.image_id(index) for index in range(len(kept))] == ["0"]
