"""A labeller's rows: equal to the pipeline's own results, whatever the batch, and all there when memory runs out."""

import io
import pickle

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import fisa
from fisa.labelling import Labeller
from fisa.processing.coco_panoptic import rgb_to_panoptic


OPTIONS = {"labels": "house, tree [stuff], grass [stuff]", "threshold": 0.0}


@pytest.fixture(scope="module")
def photos(photo):
    return [photo, photo.rotate(90, expand=True), photo.resize((200, 300)), photo.crop((50, 60, 400, 300)), photo]


@pytest.fixture
def segmenter(checkpoint):
    return pipeline("image-segmentation", model=str(checkpoint), pipeline_class=fisa.FisaPipeline)


@pytest.fixture
def alone(segmenter, photos):
    """The same by the pipeline, one photo at a time."""
    options = {"candidate_labels": OPTIONS["labels"], "threshold": 0.0, "return_type": "segmentation"}
    return [segmenter(photo, **options) for photo in photos]


def assert_same(row_label, row_segments, segmentation):
    ids = rgb_to_panoptic(Image.open(io.BytesIO(row_label)))
    assert np.array_equal(ids, segmentation.ids)
    kept = [segment for segment in segmentation if segment.area]
    assert [(info["category_id"], info["score"], info["area"]) for info in row_segments] == [
        (segment.class_id + 1, segment.score, segment.area) for segment in kept
    ]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_rows_are_those_of_the_pipeline(checkpoint, photos, alone, batch_size):
    labeller = Labeller(checkpoint, batch_size=batch_size, **OPTIONS)
    rows = labeller({"image": [*photos, b"no photo"], "number": list(range(6))})
    assert rows["number"] == list(range(6))
    for label, segments, segmentation in zip(rows["label"], rows["segments_info"], alone):
        assert_same(label, segments, segmentation)
    assert rows["label"][5] is None and rows["segments_info"][5] == [] and "cannot be read" in rows["problem"][5]
    assert rows["problem"][:5] == [None] * 5


def test_a_data_set_is_mapped_with_a_pickled_labeller(checkpoint, photos, alone, tmp_path):
    for number, photo in enumerate(photos):
        photo.save(tmp_path / f"{number}.png")
    labeller = pickle.loads(pickle.dumps(Labeller(str(checkpoint), **OPTIONS)))
    data = datasets.Dataset.from_dict({"image": [str(tmp_path / f"{number}.png") for number in range(len(photos))]})
    for column in (data, data.cast_column("image", datasets.Image())):
        rows = column.map(labeller, batched=True, batch_size=2)
        for row, segmentation in zip(rows, alone, strict=True):
            assert_same(row["label"], row["segments_info"], segmentation)
        assert rows.cast_column("label", datasets.Image())[1]["label"].size == photos[1].size


def test_what_a_data_set_begins_with_is_no_matter(checkpoint, photo, tmp_path):
    photo.save(tmp_path / "good.png")
    good, bad = str(tmp_path / "good.png"), str(tmp_path / "missing.png")
    labeller = Labeller(str(checkpoint), **OPTIONS)
    nothing = Labeller(str(checkpoint), labels=OPTIONS["labels"], threshold=1.0)
    for paths in ([good, good, bad], [bad, bad, good]):
        rows = datasets.Dataset.from_dict({"image": paths, "number": [0, 1, 2]})
        labelled = rows.map(labeller, batched=True, batch_size=2, remove_columns="image")
        assert set(labelled.column_names) == {"number", "label", "segments_info", "problem"}
        for path, row in zip(paths, labelled, strict=True):
            assert (path == bad) == (row["label"] is None) == (row["problem"] is not None)
            assert bool(row["segments_info"]) == (path == good)
        empty = rows.map(nothing, batched=True, batch_size=2)
        assert empty.features["segments_info"] == labelled.features["segments_info"]
        assert empty[:]["segments_info"] == [[], [], []]


@pytest.mark.parametrize("good_ones", [(0, 1), (2,)])
def test_a_data_set_of_any_format_and_a_stream_have_the_same_rows(checkpoint, photo, tmp_path, good_ones):
    photo.save(tmp_path / "good.png")
    paths = [str(tmp_path / ("good.png" if number in good_ones else "missing.png")) for number in range(3)]
    rows = datasets.Dataset.from_dict({"image": paths, "number": [0, 1, 2]})
    stream = rows.to_iterable_dataset()
    labeller = Labeller(str(checkpoint), **OPTIONS)

    def labelled(rows):
        return rows.map(labeller, batched=True, batch_size=2)

    wanted = labelled(rows)
    assert [row["label"] is not None for row in wanted] == [number in good_ones for number in range(3)]
    for format in ("numpy", "torch", "pandas", "arrow"):
        found = labelled(rows.with_format(format)).with_format(None)
        assert found[:] == wanted[:], format
        for column in ("label", "segments_info", "problem"):
            assert found.features[column] == wanted.features[column], format
    assert list(labelled(stream)) == list(labelled(stream.with_format("torch")).with_format(None)) == list(wanted)
    labelled(stream.with_format("arrow")).to_parquet(tmp_path / "labelled.parquet")  # which needs one type for all
    assert datasets.Dataset.from_parquet(str(tmp_path / "labelled.parquet"), cache_dir=tmp_path)[:] == wanted[:]


@pytest.mark.parametrize("kinds", [("RGB", "L", "RGB", "L"), ("RGB", "RGB", "L", "RGBA")])
def test_photos_that_numpy_holds_as_arrays_of_several_sizes_stay_photos(checkpoint, photo, kinds):
    photos = [photo.resize((60 + 20 * (number % 3), 50)).convert(kind) for number, kind in enumerate(kinds)]
    rows = datasets.Dataset.from_dict({"image": photos}, datasets.Features(image=datasets.Image()))
    labeller = Labeller(str(checkpoint), **OPTIONS)
    found, wanted = (
        photos.map(labeller, batched=True, batch_size=2).with_format(None)
        for photos in (rows.with_format("numpy"), rows)
    )
    for column in ("label", "segments_info", "problem"):
        assert found[:][column] == wanted[:][column]
    for kept, photo in zip(found["image"], photos, strict=True):
        assert np.array_equal(kept, photo)


@pytest.mark.parametrize(
    ("rows", "error", "says"),
    [
        ({"image": "photo.jpg"}, TypeError, "batched=True"),
        ({"image": None}, TypeError, "batched=True"),
        ({"img": ["photo.jpg"]}, ValueError, "no column image"),
    ],
)
def test_what_is_no_batch_is_refused(checkpoint, rows, error, says):
    with pytest.raises(error, match=says):
        Labeller(str(checkpoint), **OPTIONS)(rows)


class TooLittleMemory:
    """A pipeline that fails with more photos in a call than fit."""

    def __init__(self, segmenter, fit):
        self.segmenter, self.fit, self.sizes = segmenter, fit, []

    def __call__(self, photos, **options):
        size = len(photos) if isinstance(photos, list) else 1
        self.sizes.append(size)
        if size > self.fit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return self.segmenter(photos, **options)

    def __getattr__(self, name):
        return getattr(self.segmenter, name)


@pytest.mark.parametrize(("fit", "sizes"), [(8, [4, 4]), (3, [4, 2, 2, 2]), (1, [4, 2, 1, 1, 1, 1, 1])])
def test_a_stack_that_does_not_fit_is_halved_and_nothing_is_lost(segmenter, photos, alone, fit, sizes):
    labeller = Labeller(segmenter, **OPTIONS)
    labeller.__dict__["pipeline"] = limited = TooLittleMemory(segmenter, fit)
    labeller.room.calls, labeller.room.stack = 1, 4  # as on a device that stacks
    results = labeller.label(photos)
    assert limited.sizes == sizes
    for (photo, found), segmentation, given in zip(results, alone, photos, strict=True):
        assert photo.size == given.size
        assert (found.ids == segmentation.ids).float().mean() > 0.999  # a stack rounds otherwise
        assert [segment.label for segment in found] == [segment.label for segment in segmentation]


def test_a_photo_too_large_for_the_memory_is_named(segmenter, photos):
    labeller = Labeller(segmenter, **OPTIONS)
    labeller.__dict__["pipeline"] = TooLittleMemory(segmenter, 0)
    with pytest.raises(ValueError, match="have label already.*rename or remove"):
        labeller({"image": photos[:2], "label": [0, 1]})
    rows = labeller({"image": photos[:2]})
    assert rows["problem"] == ["there is too little memory for this photo."] * 2


def test_words_that_the_model_stores_later_are_not_named_by_those_it_began_with(checkpoint, photo):
    segmenter = pipeline("image-segmentation", model=str(checkpoint), pipeline_class=fisa.FisaPipeline)
    labeller = Labeller(segmenter, threshold=0.0, batch_size=1)
    assert labeller({"image": [photo]})["problem"] == [None]
    segmenter.model.set_vocabulary(segmenter.processor, ["wall", "tree", "road"])
    (problem,) = labeller({"image": [photo]})["problem"]
    assert problem.startswith('The model stores other words by now than "dog", "sky", "car"')
    assert Labeller(segmenter, threshold=0.0, batch_size=1)({"image": [photo]})["problem"] == [None]


def test_what_the_pipeline_was_made_with_is_what_photos_are_labelled_with(checkpoint, photo, alone):
    """The words, the threshold and the rest: for segments, categories and settings alike."""

    def made_with(**arguments):
        return pipeline("image-segmentation", model=str(checkpoint), pipeline_class=fisa.FisaPipeline, **arguments)

    arguments = {"candidate_labels": OPTIONS["labels"], "threshold": 0.0, "include_others": True}
    labeller = Labeller(made_with(**arguments), batch_size=1)
    rows = labeller({"image": [photo]})
    assert_same(rows["label"][0], rows["segments_info"][0], alone[0])
    assert [category["name"] for category in labeller.categories] == ["house", "tree", "grass"]
    assert labeller.names_missing and labeller.settings() == Labeller(str(checkpoint), **OPTIONS).settings()
    for other in ({"candidate_labels": "house"}, {"threshold": 0.1}, {"others": None}, {"zoom": 2}):
        assert Labeller(made_with(**(arguments | other))).settings() != labeller.settings()
    assert Labeller(made_with(threshold=0.9), **OPTIONS).settings() == labeller.settings()


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"treshold": 0.3}, TypeError, "no option treshold; it takes labels, .*threshold"),
        ({"candidate_labels": "bird, fish"}, TypeError, "no option candidate_labels; it takes labels"),
        ({"include_others": True}, TypeError, "no option include_others"),
        ({"return_type": "segments"}, TypeError, "no option return_type"),
        ({"threshold": 3}, ValueError, "threshold"),
        ({"subtask": "all"}, ValueError, "subtask"),
    ],
)
def test_options_are_checked_before_the_model_is_loaded(options, error, says):
    with pytest.raises(error, match=says):
        Labeller("there is no such model", labels="house", **options)


def test_settings_tell_apart_all_that_results_depend_on(checkpoint, segmenter, tmp_path):
    settings = Labeller(segmenter, **OPTIONS).settings()
    assert Labeller(str(checkpoint), **OPTIONS, timeout=3).settings() == settings
    for other in ({"labels": "house"}, {"threshold": 0.1}, {"others": None}, {"zoom": 2}):
        assert Labeller(segmenter, **(OPTIONS | other)).settings() != settings
    words = tmp_path / "others.txt"
    words.write_text("cat\nwall [stuff]\n")
    by_file, by_list = (Labeller(segmenter, **OPTIONS, others=others) for others in (words, ["cat", "wall [stuff]"]))
    assert by_file.settings() == by_list.settings()
    words.write_text("cat\n")
    assert Labeller(segmenter, **OPTIONS, others=words).settings() != by_file.settings() == by_list.settings()
    weight = segmenter.model.fisa.visual_projection.weight
    weight.data += 1e-3
    assert Labeller(segmenter, **OPTIONS).settings()["model"] != settings["model"]
    weight.data -= 1e-3
