"""Data sets in the forms of the Hub: parquet files written by `datasets` itself, read whole and as a stream."""

import io
import json

import datasets
import numpy as np
import pytest
from PIL import ExifTags, Image

from fisa.data.categories import Category
from fisa.data.formats import load_segmentation_dataset
from fisa.data.hub_datasets import HubDataset, RowReader
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.processing.coco_panoptic import panoptic_to_rgb
from tests.data.made_files import CATEGORIES, HEIGHT, WIDTH, quarters


SEGMENTS = [
    {"id": 70_000, "category_id": 1, "iscrowd": 0, "area": 48, "bbox": [0, 0, 8, 6]},
    {"id": 5, "category_id": 184, "iscrowd": 0, "area": 48, "bbox": [8, 0, 8, 6]},
    {"id": 300, "category_id": 1, "iscrowd": 1, "area": 48, "bbox": [0, 6, 8, 6]},
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def photo(seed=0, size=(WIDTH, HEIGHT)):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def saved(rows, folder, features):
    folder.mkdir(exist_ok=True)
    table = datasets.Dataset.from_list(rows, features=datasets.Features(features))
    table.to_parquet(folder / "validation.parquet")
    return str(folder)


def panoptic(folder, *, segments=SEGMENTS, size=(WIDTH, HEIGHT), names=None, rows=3):
    """The columns of COCO panoptic on the Hub."""
    category = datasets.Value("int64") if names is None else datasets.ClassLabel(names=names)
    features = {
        "image": datasets.Image(),
        "label": datasets.Image(),
        "segments_info": [
            {
                "id": datasets.Value("int64"), "category_id": category, "iscrowd": datasets.Value("int64"),
                "area": datasets.Value("int64"), "bbox": [datasets.Value("int64")],
            }
        ],
        "image_id": datasets.Value("int64"),
    }  # fmt: skip
    label = Image.fromarray(panoptic_to_rgb(quarters(70_000, 5, 300, 0, dtype=np.int32)))
    entries = [
        {"image": photo(n, size), "label": label, "segments_info": segments, "image_id": 100 + n} for n in range(rows)
    ]
    return saved(entries, folder, features)


def semantic(folder, *, column="annotation", values=(0, 1, 2, 255)):
    """The columns of SceneParse150 and of Segments.ai's exports."""
    features = {"image": datasets.Image(), column: datasets.Image()}
    return saved([{"image": photo(), column: Image.fromarray(quarters(*values))}], folder, features)


def test_photos_that_exif_turns_are_named(tmp_path, caplog):
    stored, exif = io.BytesIO(), Image.Exif()
    exif[ExifTags.Base.Orientation] = 3
    photo().save(stored, "JPEG", exif=exif)
    row = {"image": {"bytes": stored.getvalue(), "path": None}, "label": Image.fromarray(quarters(1, 1, 2, 2))}
    names = tmp_path / "names.txt"
    names.write_text("tree\nsky\n_\n")
    folder = saved([row], tmp_path / "data", {"image": datasets.Image(), "label": datasets.Image()})
    load_segmentation_dataset("hub", folder, split="validation", classes=str(names)).check()
    assert "EXIF turns 1 of 1 photos: 0." in caplog.text


@pytest.fixture
def classes(tmp_path):
    path = tmp_path / "categories.json"
    path.write_text(json.dumps({"categories": CATEGORIES}))
    return str(path)


def records(data):
    return list(data) if isinstance(data, StreamedSegmentationDataset) else [data[i] for i in range(len(data))]


@pytest.mark.parametrize("streaming", [False, True])
def test_panoptic_columns(tmp_path, classes, streaming):
    source = panoptic(tmp_path / "data")
    data = load_segmentation_dataset("hub", source, split="validation", classes=classes, streaming=streaming)
    assert isinstance(data, StreamedSegmentationDataset if streaming else SegmentationDataset)
    assert [category.id for category in data.categories] == [1, 3, 184, 187]
    found = records(data)
    assert [record["image_id"] for record in found] == ["100", "101", "102"]
    for number, record in enumerate(found):
        np.testing.assert_array_equal(np.asarray(record["image"]), np.asarray(photo(number)))
        np.testing.assert_array_equal(record["label"], quarters(70_000, 5, 300, 0, dtype=np.int32))
        assert record["segments_info"] == [
            {"id": 70_000, "category_id": 1, "iscrowd": 0},
            {"id": 5, "category_id": 184, "iscrowd": 0},
            {"id": 300, "category_id": 1, "iscrowd": 1},
        ]
    assert len(records(data)) == 3  # a stream starts anew
    if streaming:
        assert [record["image_id"] for record in data.take(2)] == ["100", "101"]


def test_parts_of_a_row_are_those_of_the_record(tmp_path, classes):
    data = load_segmentation_dataset("hub", panoptic(tmp_path / "data"), split="validation", classes=classes)
    chosen = data.check().select([2, 1])
    assert chosen.image_id(0) == "102" and len(chosen) == 2
    assert chosen.image(0).tobytes() == chosen[0]["image"].tobytes()
    assert chosen.segments_info(1) == chosen[1]["segments_info"]
    assert chosen.fingerprint != data.fingerprint


@pytest.mark.parametrize("format", ["numpy", "torch", "arrow", "pandas"])
def test_rows_of_any_format_make_the_same_records(tmp_path, format):
    rows = datasets.Dataset.from_parquet(f"{panoptic(tmp_path / 'set')}/validation.parquet")
    categories = tuple(Category(entry["id"], entry["name"], isthing=True) for entry in CATEGORIES)
    reader = RowReader(categories, "label", is_panoptic=True)
    plain, formatted = HubDataset(rows, reader).check(), HubDataset(rows.with_format(format), reader).check()
    for index in range(len(rows)):
        wanted, found = plain[index], formatted[index]
        assert np.array_equal(found["label"], wanted["label"]) and np.array_equal(found["image"], wanted["image"])
        assert np.array_equal(found["image"], photo(index))
        assert found["segments_info"] == wanted["segments_info"] == formatted.segments_info(index)
        assert formatted.photo_digest(index) == plain.photo_digest(index)
    assert formatted.photo_sizes() == plain.photo_sizes() and formatted.fingerprint == plain.fingerprint


def test_the_fingerprint_follows_the_content_and_not_the_place(tmp_path, classes):
    def opened(name, **options):
        source = panoptic(tmp_path / name, **options)
        return load_segmentation_dataset("hub", source, split="validation", classes=classes)

    here = opened("here")
    assert opened("there").fingerprint == here.fingerprint
    assert opened("other", segments=SEGMENTS[:2]).fingerprint != here.fingerprint


def test_class_labels_name_the_categories(tmp_path):
    segments = [info | {"category_id": place} for place, info in enumerate(SEGMENTS)]
    source = panoptic(tmp_path / "data", segments=segments, names=["person", "tree", "crowd"])
    data = load_segmentation_dataset("hub", source, split="validation")
    assert [(category.id, category.name) for category in data.categories] == [(0, "person"), (1, "tree"), (2, "crowd")]
    assert [info["category_id"] for info in data[0]["segments_info"]] == [0, 1, 2]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("column", ["annotation", "label", "mask"])
def test_semantic_columns_with_a_shipped_class_list(tmp_path, column, streaming):
    source = semantic(tmp_path / "data", column=column)
    data = load_segmentation_dataset("hub", source, split="validation", classes="ade20k_150", streaming=streaming)
    [record] = records(data)
    names = {category.id: category.name for category in data.categories}
    # In SceneParse 0 is no label and 1 the first class.
    assert [names[info["category_id"]] for info in record["segments_info"]] == ["wall", "building"]
    np.testing.assert_array_equal(record["label"], quarters(0, 1, 2, 0))


def test_semantic_columns_with_a_file_of_classes(tmp_path):
    (tmp_path / "classes.txt").write_text("_\nwall\nsky\n")
    data = load_segmentation_dataset(
        "hub", semantic(tmp_path / "data"), split="validation", classes=str(tmp_path / "classes.txt")
    )
    assert [category.name for category in data.categories] == ["wall", "sky"]
    assert [info["category_id"] for info in data.check()[0]["segments_info"]] == [1, 2]
    assert data.segments_info(0) == data[0]["segments_info"]


# What cannot be


def test_categories_that_are_not_named_are_asked_for(tmp_path):
    with pytest.raises(ValueError, match="--classes.*ade20k_150"):
        load_segmentation_dataset("hub", panoptic(tmp_path / "data"), split="validation")


def test_columns_that_are_not_there_are_named_with_those_that_are(tmp_path):
    features = {"picture": datasets.Image()}
    source = saved([{"picture": photo()}], tmp_path / "data", features)
    with pytest.raises(ValueError, match="found the columns picture.*`image`"):
        load_segmentation_dataset("hub", source, split="validation", classes="voc_20")


@pytest.mark.parametrize(
    "options, named",
    [
        ({"segments": SEGMENTS[:2]}, ["row 0", "300"]),
        ({"segments": [info | {"category_id": 999} for info in SEGMENTS]}, ["row 0", "999", "--classes"]),
        ({"size": (30, 20)}, ["row 0", "30 x 20", "16 x 12"]),
    ],
    ids=["not listed", "unknown category", "sizes differ"],
)
def test_broken_rows_are_named_before_training_or_left_out(tmp_path, classes, options, named):
    source = panoptic(tmp_path / "data", rows=1, **options)
    data = load_segmentation_dataset("hub", source, split="validation", classes=classes)
    with pytest.raises(ValueError) as caught:
        data.check()
    assert [word for word in [*named, "--skip_broken"] if word not in str(caught.value)] == []


def test_a_value_that_is_no_class_names_its_row(tmp_path):
    source = semantic(tmp_path / "data", values=(0, 1, 2, 200))
    data = load_segmentation_dataset("hub", source, split="validation", classes="ade20k_150")
    with pytest.raises(ValueError, match=r"row 0.*\[200\]"):
        data.check()


@pytest.mark.parametrize(
    "segments, named",
    [
        (None, "segments_info must be a list"),
        ([SEGMENTS[0] | {"id": None}, *SEGMENTS[1:]], r"segments_info\[0\]: lacks the field 'id'"),
        ([*SEGMENTS, SEGMENTS[1]], r"segments_info\[3\]: 'id' must be unique"),
        ([SEGMENTS[0] | {"iscrowd": 7}, *SEGMENTS[1:]], r"segments_info\[0\]: 'iscrowd' must be 0 or 1"),
    ],
    ids=["none", "no id", "an id twice", "neither crowd nor not"],
)
def test_a_malformed_row_is_named_or_left_out(tmp_path, classes, segments, named):
    whole = datasets.Dataset.from_parquet(panoptic(tmp_path / "whole") + "/validation.parquet")
    rows = whole.to_list()
    rows[1]["segments_info"] = segments
    source = saved(rows, tmp_path / "data", whole.features)
    data = load_segmentation_dataset("hub", source, split="validation", classes=classes)
    with pytest.raises(ValueError, match=f"1 of 3 records(.|\n)*row 1: {named}"):
        data.check()
    assert [record["image_id"] for record in records(data.check(skip_broken=True))] == ["100", "102"]
