"""Label maps: ADE20K, Pascal Context, VOC, Cityscapes and plain folders, in files made as the originals are."""

import numpy as np
import pytest
from PIL import Image

from fisa.data.formats import DATASET_FORMATS, load_segmentation_dataset
from fisa.data.label_maps import CITYSCAPES_LABEL_IDS
from fisa.processing.class_lists import FIRST_IDS, class_list
from tests.data.made_files import (
    HEIGHT,
    WIDTH,
    quarters,
    write_ade20k,
    write_ade20k_full,
    write_cityscapes,
    write_context,
    write_photo,
    write_values,
    write_voc,
)


def classes_per_quarter(data, index=0):
    """Names of the classes at the four quarters' first pixels; `None` for void."""
    record = data[index]
    names = {category.id: category.name for category in data.categories}
    of_segment = {info["id"]: names[info["category_id"]] for info in record["segments_info"]}
    label = record["label"]
    height, width = (side // 2 for side in label.shape)
    quarters = [label[:height, :width], label[:height, width:], label[height:, :width], label[height:, width:]]
    assert all(len(np.unique(quarter)) == 1 for quarter in quarters)
    assert set(of_segment) == set(np.unique(label).tolist()) - {0}
    return [of_segment.get(int(quarter[0, 0])) for quarter in quarters]


def opened(format, root, *, split="validation", **options):
    return load_segmentation_dataset(format, str(root), split=split, **options).check()


# ADE20K


def test_ade20k_counts_from_1_and_ignores_0(tmp_path):
    write_ade20k(tmp_path, quarters(0, 1, 13, 150))
    data = opened("ade20k", tmp_path)
    assert classes_per_quarter(data) == [None, "wall", "person", "flag"]
    assert len(data.categories) == 150 and data[0]["image_id"] == "ADE_val_00000001"
    kinds = {category.name: category.isthing for category in data.categories}
    assert kinds["person"] and not kinds["wall"]


def test_ade20k_takes_names_from_its_own_list(tmp_path):
    write_photo(tmp_path / "images" / "training" / "a.jpg")
    write_values(tmp_path / "annotations" / "training" / "a.png", quarters(1, 2, 3, 4))
    rows = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        *(f"{i}\t0\t1\t1\t1\tname {i}, other {i}, name 1" for i in range(150)),
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    data = opened("ade20k", tmp_path, split="train")
    # "name 1" is the second class's name and no other's synonym.
    assert classes_per_quarter(data) == ["name 0", "name 1", "name 2", "name 3"]
    assert data.categories[0].synonyms == ("other 0",) and data.categories[1].synonyms == ("other 1",)


def test_ade20k_full_is_16_bit_tiff(tmp_path):
    write_ade20k_full(tmp_path, quarters(65535, 0, 11, 846, dtype=np.uint16))
    data = opened("ade20k_full", tmp_path)
    names = [category.name for category in data.categories]
    assert len(names) == 847
    assert classes_per_quarter(data) == [None, "wall", "person", names[846]]


# Pascal


def test_pascal_context_59_is_part_of_the_459_under_other_spellings(tmp_path):
    write_context(tmp_path, quarters(1, 2, 3, 4, dtype=np.uint16))
    data = opened("pascal_context_59", tmp_path)
    # An accordion is not among the frequent ones.
    assert classes_per_quarter(data) == [None, "aeroplane", "diningtable", "bedcloth"]
    kinds = {category.name: (category.isthing, category.synonyms) for category in data.categories}
    assert kinds["sky"][0] is False and kinds["aeroplane"] == (True, ("airplane",))


def test_pascal_context_459_has_them_all(tmp_path):
    write_context(tmp_path, quarters(0, 1, 3, 6, dtype=np.uint16))
    assert classes_per_quarter(opened("pascal_context_459", tmp_path)) == [None, "accordion", "table", "zebra"]


def test_pascal_context_without_its_lists_says_which_file_is_missing(tmp_path):
    write_context(tmp_path, quarters(1, 2, 3, 4))
    (tmp_path / "59_labels.txt").unlink()
    with pytest.raises(ValueError, match="59_labels.txt: no such file"):
        opened("pascal_context_59", tmp_path)
    (tmp_path / "pascalcontext_val.txt").unlink()
    with pytest.raises(ValueError, match="SegmentationContext/val.txt"):
        opened("pascal_context_459", tmp_path)


@pytest.fixture
def voc(tmp_path):
    return write_voc(tmp_path)


def test_voc_with_and_without_background(voc):
    assert classes_per_quarter(opened("voc_20", voc)) == [None, "aeroplane", None, "tv monitor"]
    background, plane, void, monitor = classes_per_quarter(opened("voc_21", voc))
    assert background == "background" and void is None and (plane, monitor) == ("aeroplane", "tv monitor")
    assert [len(opened(name, voc).categories) for name in ("voc_20", "voc_21")] == [20, 21]


def test_voc_takes_the_split_s_list_and_opens_from_either_folder(voc):
    data = opened("voc_20", voc / "VOC2012", split="val")
    assert [data.image_id(index) for index in range(len(data))] == ["2007_000042"]


# Cityscapes


def test_cityscapes_by_createPanopticImgs_rules(tmp_path):
    data = opened("cityscapes", write_cityscapes(tmp_path))
    record = data[0]
    assert record["image_id"] == "ulm_000000_000019" and len(data.categories) == 19
    found = {info["id"]: (info["category_id"], info["iscrowd"]) for info in record["segments_info"]}
    assert found == {26000: (26, 0), 26001: (26, 0), 26: (26, 1), 7: (7, 0), 23: (23, 0)}
    assert sorted(np.unique(record["label"]).tolist()) == [0, 7, 23, 26, 26000, 26001]
    kinds = {category.id: (category.name, category.isthing) for category in data.categories}
    assert kinds[26] == ("car", True) and kinds[7] == ("road", False) and kinds[24] == ("person", True)


@pytest.mark.parametrize("value", [34, 255, 34001])
def test_a_value_that_is_none_of_cityscapes_is_no_void(tmp_path, value):
    path = next(write_cityscapes(tmp_path).rglob("*_gtFine_instanceIds.png"))
    values = np.array(Image.open(path))
    values[0, 0] = value
    write_values(path, values)
    with pytest.raises(ValueError, match=f"{path.name}: holds the value {value}, which is of no class"):
        opened("cityscapes", tmp_path).check()


# Plain folders


def write_plain(root, values, *, classes="sky\ndog, puppy\n", split=""):
    write_photo(root / "images" / split / "one.jpg")
    write_values(root / "labels" / split / "one.png", values)
    (root / "classes.txt").write_text(classes)


def test_labels_without_a_photo_are_named(tmp_path, caplog):
    write_plain(tmp_path, quarters(0, 1, 1, 0))
    assert len(opened("label_maps", tmp_path)) == 1 and not caplog.text
    for name in ("two.png", "three.tif"):
        write_values(tmp_path / "labels" / name, quarters(0, 1, 1, 0))
    (tmp_path / "images" / "two.heic").write_bytes(b"")
    assert len(opened("label_maps", tmp_path)) == 1
    assert "2 labels in" in caplog.text and "left out: three.tif, two.png. Photos end in .jpg" in caplog.text


@pytest.mark.parametrize("split", ["", "train"])
def test_a_plain_folder_counts_from_0_and_ignores_255(tmp_path, split):
    write_plain(tmp_path, quarters(0, 1, 255, 0), split=split)
    data = opened("label_maps", tmp_path, split="train")
    assert classes_per_quarter(data) == ["sky", "dog", None, "sky"]
    assert data.categories[1].synonyms == ("puppy",)


def test_with_more_classes_than_that_255_is_one_of_them(tmp_path):
    names = "\n".join(f"class {number}" for number in range(300))
    write_plain(tmp_path, quarters(0, 255, 299, 65535, dtype=np.uint16), classes=names)
    data = opened("label_maps", tmp_path, split="train")
    assert classes_per_quarter(data) == ["class 0", "class 255", "class 299", None]


def test_a_class_named_underscore_is_no_label(tmp_path):
    write_plain(tmp_path, quarters(0, 1, 2, 255), classes="_\nsky\ndog\n")
    data = opened("label_maps", tmp_path, split="train")
    assert classes_per_quarter(data) == [None, "sky", "dog", None]
    assert [category.name for category in data.categories] == ["sky", "dog"]


def test_any_number_of_values_may_be_no_label(tmp_path):
    write_plain(tmp_path, quarters(0, 1, 2, 3), classes="_\nsky\n_\ndog\n_\n")
    data = opened("label_maps", tmp_path, split="train")
    assert classes_per_quarter(data) == [None, "sky", None, "dog"]
    assert [category.id for category in data.categories] == [1, 3]


def alpha_beside_values(values):
    return Image.merge("LA", (Image.fromarray(values), Image.new("L", (WIDTH, HEIGHT), 9)))


# Of a palette image the indices are the labels, whatever colours they stand for.
STORED = {
    "8 bits": (lambda values: Image.fromarray(values), "png"),
    "16 bits": (lambda values: Image.fromarray(values.astype(np.uint16)), "png"),
    "32 bits": (lambda values: Image.fromarray(values.astype(np.int32)), "tif"),
    "floating point": (lambda values: Image.fromarray(values.astype(np.float32)), "tif"),
    "1 bit": (lambda values: Image.fromarray(values.astype(bool)), "png"),
}
NO_MAPS = {
    "half a class": (lambda values: Image.fromarray(values / np.float32(2)), "tif", "holds 0.5"),
    "NaN": (lambda values: Image.fromarray(np.where(values == 1, np.nan, 0).astype(np.float32)), "tif", "holds nan"),
    "alpha": (alpha_beside_values, "png", "is a colour image .LA."),
    "CMYK": (lambda values: Image.new("CMYK", (WIDTH, HEIGHT)), "tif", "is a colour image .CMYK."),
    "RGBA": (lambda values: Image.new("RGBA", (WIDTH, HEIGHT)), "png", "is a colour image .RGBA."),
    "negative": (lambda values: Image.fromarray(values.astype(np.int32) - 1), "tif", "holds the values .-1."),
    "not an image": (None, "png", "cannot be read as an image"),
}


@pytest.mark.parametrize("stored", STORED)
def test_values_are_read_however_they_are_stored(tmp_path, stored):
    write_plain(tmp_path, quarters(0, 1, 1, 1))
    (tmp_path / "labels" / "one.png").unlink()
    make, ending = STORED[stored]
    make(quarters(0, 1, 1, 0)).save(tmp_path / "labels" / f"one.{ending}")
    assert classes_per_quarter(opened("label_maps", tmp_path)) == ["sky", "dog", "dog", "sky"]


@pytest.mark.parametrize("stored", NO_MAPS)
def test_what_is_no_label_map_is_named(tmp_path, stored):
    write_plain(tmp_path, quarters(0, 1, 1, 1))
    (tmp_path / "labels" / "one.png").unlink()
    make, ending, problem = NO_MAPS[stored]
    path = tmp_path / "labels" / f"one.{ending}"
    path.write_bytes(b"not an image") if make is None else make(quarters(0, 1, 1, 0)).save(path)
    with pytest.raises(ValueError, match=f"one.{ending}: {problem}"):
        opened("label_maps", tmp_path)


def test_classes_may_lie_elsewhere(tmp_path):
    write_plain(tmp_path, quarters(0, 1, 1, 1))
    other = tmp_path / "mine.txt"
    other.write_text("cloud\ncat\n")
    assert classes_per_quarter(opened("label_maps", tmp_path, classes=str(other))) == ["cloud", "cat", "cat", "cat"]


# What cannot be


def test_a_value_that_is_no_class_names_the_file_and_the_known_ones(tmp_path):
    write_plain(tmp_path, quarters(0, 1, 7, 9))
    with pytest.raises(ValueError, match=r"one.png: holds the values \[7, 9\].*0 to 1.*255"):
        opened("label_maps", tmp_path)


def test_a_colour_image_is_no_label_map(tmp_path):
    write_plain(tmp_path, quarters(0, 1, 1, 1))
    Image.new("RGB", (16, 12)).save(tmp_path / "labels" / "one.png")
    with pytest.raises(ValueError, match="one.png: is a colour image"):
        opened("label_maps", tmp_path)


def test_missing_folders_and_classes_are_named(tmp_path):
    with pytest.raises(ValueError, match="classes.txt: no such file"):
        opened("label_maps", tmp_path)
    (tmp_path / "classes.txt").write_text("sky\n")
    with pytest.raises(ValueError, match="images: no such folder"):
        opened("label_maps", tmp_path)
    with pytest.raises(ValueError, match="leftImg8bit/val: no"):
        opened("cityscapes", tmp_path)


@pytest.mark.parametrize("options, named", [({"streaming": True}, "--streaming"), ({"classes": "a.txt"}, "--classes")])
def test_options_that_a_format_does_not_take_are_refused(voc, options, named):
    with pytest.raises(ValueError, match=named):
        opened("voc_20", voc, **options)


def test_an_unknown_format_lists_those_there_are():
    with pytest.raises(ValueError, match="'coco'.*coco_panoptic.*cityscapes"):
        load_segmentation_dataset("coco", ".", split="train")
    assert len(DATASET_FORMATS) == 11


# Shipped class lists


@pytest.mark.parametrize("name", FIRST_IDS)
def test_a_shipped_list_is_as_long_as_its_name_says(name):
    classes = class_list(name)
    assert len(classes) == int(name.rpartition("_")[2])
    assert any(item.is_thing for item in classes)


def test_an_unknown_class_list_names_those_there_are():
    with pytest.raises(ValueError, match="'ade'.*ade20k_150"):
        class_list("ade")


def test_cityscapes_classes_have_the_label_ids_of_its_own_scripts():
    names = [item.name for item in class_list("cityscapes_19")]
    ids = dict(zip(names, CITYSCAPES_LABEL_IDS, strict=True))
    assert (ids["road"], ids["wall"], ids["pole"], ids["traffic light"], ids["sky"]) == (7, 12, 17, 19, 23)
    assert (ids["person"], ids["bus"], ids["train"], ids["bicycle"]) == (24, 28, 31, 33)


def test_photos_of_one_name_are_not_both_taken(tmp_path, caplog):
    for ending in ("jpg", "png"):
        write_photo(tmp_path / "images" / f"0.{ending}")
    write_values(tmp_path / "labels" / "0.png", quarters(0, 1, 0, 1))
    (tmp_path / "classes.txt").write_text("sky\ndog\n")
    data = load_segmentation_dataset("label_maps", str(tmp_path), split="train")
    with pytest.raises(ValueError, match="0: two records have this name"):
        data.check()
    assert len(data.check(skip_broken=True)) == 1


def test_numbers_before_classes_are_the_values(tmp_path):
    write_photo(tmp_path / "images" / "a.jpg")
    write_values(tmp_path / "labels" / "a.png", quarters(0, 1, 2, 255))
    classes = tmp_path / "classes.txt"
    classes.write_text("0: _\n1: sky\n2: dog\n")
    data = opened("label_maps", tmp_path)
    assert classes_per_quarter(data) == [None, "sky", "dog", None]
    classes.write_text("1: sky\n2: dog\n")
    with pytest.raises(ValueError, match="classes.txt.*counted from 0.*write _ for each value"):
        opened("label_maps", tmp_path)
