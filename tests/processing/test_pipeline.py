"""The stock pipeline with the stored vocabulary, and FisaPipeline with one of the call's own."""

import base64
import http.server
import io

import datasets
import numpy as np
import pytest
import torch
from PIL import ExifTags
from transformers import ImageSegmentationPipeline, pipeline
from transformers.pipelines.pt_utils import KeyDataset
from transformers.utils import logging

import fisa
from fisa.miniature import miniature
from fisa.pretrained import patchwork
from fisa.processing.photos import load_photo
from tests.quiet import raising_on_any_warning


@pytest.fixture(scope="module")
def segmenter(checkpoint):
    return pipeline("open-vocabulary-image-segmentation", model=str(checkpoint), device="cpu")


def same(first: list[dict], second: list[dict]) -> bool:
    return len(first) == len(second) and all(
        a["label"] == b["label"] and a["score"] == b["score"] and np.array_equal(a["mask"], b["mask"])
        for a, b in zip(first, second)
    )


@pytest.mark.parametrize("subtask", [None, "panoptic", "instance", "semantic"])
def test_stock_pipeline_uses_the_stored_vocabulary(checkpoint, photo, subtask):
    stock = pipeline("image-segmentation", model=str(checkpoint), device="cpu")
    segments = stock(photo, threshold=0.0, overlap_mask_area_threshold=0.0, subtask=subtask)
    assert segments
    assert {segment["label"] for segment in segments} <= {"dog", "sky", "car"}
    assert all(segment["mask"].size == photo.size for segment in segments)


def test_stock_pipeline_takes_all_arguments_of_its_own(checkpoint, photo):
    made = {"device": "cpu", "dtype": "float32", "revision": "main", "trust_remote_code": False, "model_kwargs": {}}
    stock = pipeline("image-segmentation", model=str(checkpoint), batch_size=1, threshold=0.0, **made)
    settings = {"threshold": 0.0, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.0}
    named = {"subtask": "panoptic", "timeout": 9, "num_workers": 0, "batch_size": 1, "candidate_labels": None}
    assert stock(photo, **settings, **named)
    assert same(stock(photo, **settings), stock(photo, **settings, **named))


def test_stock_pipeline_leaves_arguments_to_a_class_that_sorts_them(checkpoint, photo):
    """In the way that transformers documents for pipelines of one's own."""

    class Largest(ImageSegmentationPipeline):
        def _sanitize_parameters(self, **given):
            preprocess, forward, postprocess = super()._sanitize_parameters(**given)
            return preprocess, forward, postprocess | {name: given[name] for name in given if name == "most"}

        def postprocess(self, outputs, most=None, **settings):
            return super().postprocess(outputs, **settings)[:most]

    largest = pipeline("image-segmentation", model=str(checkpoint), pipeline_class=Largest, device="cpu")
    settings = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    assert same(largest(photo, most=1, **settings), largest(photo, **settings)[:1])


def test_stock_pipeline_of_other_models_drops_what_it_dropped(parts_folder, photo):
    stock = pipeline("image-segmentation", model=str(parts_folder / "mask_generator"), device="cpu")
    assert same(stock(photo, threshold=0.0), stock(photo, threshold=0.0, candidate_labels=["dog"]))


def test_stock_pipeline_calls_void_what_stored_others_win(tmp_path):
    model, processor = patchwork.load()
    model.set_vocabulary(processor, "bird, fish, pizza", others="water [stuff], brick wall [stuff], sunglasses")
    for part in (model, processor):
        part.save_pretrained(tmp_path)
    stock, ours = (
        pipeline(task, model=str(tmp_path), device="cpu")
        for task in ("image-segmentation", "open-vocabulary-image-segmentation")
    )
    photo = str(patchwork.SCENES / "easy.jpg")
    found = {segment["label"]: segment for segment in stock(photo, subtask="semantic")}
    void = np.asarray(found.pop("void")["mask"]) > 0
    expected = ours(photo, subtask="semantic")
    assert found.keys() == {"bird", "fish"} and same(list(found.values()), expected)
    assert np.array_equal(void, ~np.any([np.asarray(segment["mask"]) > 0 for segment in expected], axis=0))
    assert stock.model.config.id2label == {0: "bird", 1: "fish", 2: "pizza"}
    with pytest.raises(KeyError, match="3"):
        stock.model.config.id2label[3]


def test_stock_pipeline_takes_batches_of_photos_of_different_sizes(checkpoint, photo):
    stock = pipeline("image-segmentation", model=str(checkpoint), device="cpu")
    photos = [photo, photo.crop((0, 0, 200, 470)), photo.resize((90, 30))]
    options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    together = stock(photos, batch_size=3, **options)
    for alone, batched in zip([stock(item, **options) for item in photos], together, strict=True):
        assert [segment["label"] for segment in alone] == [segment["label"] for segment in batched]
        assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(alone, batched))


def test_stock_pipeline_says_nothing_of_an_unsupported_model(checkpoint, caplog):
    logging.enable_propagation()
    try:
        pipeline("image-segmentation", model=str(checkpoint), device="cpu")
    finally:
        logging.disable_propagation()
    assert "not supported" not in caplog.text


def test_pipeline_class_and_task_are_the_same(checkpoint, photo, segmenter):
    by_class = pipeline("image-segmentation", model=str(checkpoint), pipeline_class=fisa.FisaPipeline, device="cpu")
    options = {"candidate_labels": "house, tree", "threshold": 0.0}
    assert same(by_class(photo, **options), segmenter(photo, **options))


@pytest.mark.parametrize(
    "labels",
    [["house", "tree"], "house, tree", {"house": ["hut"], "tree": []}, [fisa.Class("house"), {"name": "tree"}]],
    ids=["list", "string", "synonyms", "classes"],
)
def test_labels_of_every_form_name_the_segments(segmenter, photo, labels):
    segments = segmenter(photo, candidate_labels=labels, threshold=0.0, overlap_mask_area_threshold=0.0)
    assert segments
    assert {segment["label"] for segment in segments} <= {"house", "tree"}


@pytest.mark.parametrize("form", [list, iter, np.array], ids=["list", "iterator", "array"])
def test_others_of_every_form_compete_for_all_photos(segmenter, photo, form):
    others = form(["tree [stuff]", "pump"])
    options = {"candidate_labels": "house", "include_others": True, "threshold": 0.0}
    wanted = segmenter(photo, others="tree [stuff], pump", **options)
    assert same(segmenter([photo, photo], others=others, **options)[1], wanted)


@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
def test_segmentation_instead_of_masks(segmenter, photo, subtask):
    options = {"candidate_labels": "house, tree", "threshold": 0.0, "subtask": subtask}
    segmentation = segmenter(photo, return_type="segmentation", **options)
    assert segmentation.size == photo.size and len(segmentation)
    assert same(segmentation.to_segments(), segmenter(photo, **options))
    with pytest.raises(ValueError, match="'masks'.*segments, segmentation"):
        segmenter(photo, return_type="masks")


def test_encoded_labels_are_kept_where_the_call_says(segmenter, photo, tmp_path):
    options = {"candidate_labels": "house, tree, pond", "threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    wanted = segmenter(photo, text_cache=tmp_path, **options)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    assert same(segmenter(photo, **options), wanted)


def test_labels_of_one_call_never_leak_into_the_next(segmenter, photo):
    options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    before = segmenter(photo, **options)
    segmenter(photo, candidate_labels=["house", "tree", "sun", "meadow"], **options)
    assert same(segmenter(photo, **options), before)
    assert segmenter.model.config.id2label == {0: "dog", 1: "sky", 2: "car"}


def test_labels_of_the_pipeline_hold_until_a_call_brings_its_own(checkpoint, photo):
    options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    segmenter = pipeline(
        "open-vocabulary-image-segmentation", model=str(checkpoint), candidate_labels=["house"], device="cpu"
    )
    assert {segment["label"] for segment in segmenter(photo, **options)} == {"house"}
    assert {segment["label"] for segment in segmenter(photo, candidate_labels="tree", **options)} == {"tree"}
    assert {segment["label"] for segment in segmenter(photo, **options)} == {"house"}


def test_batches_and_lists_equal_single_photos(segmenter, photo):
    photos = [photo, photo.crop((0, 0, 200, 470)), photo.resize((90, 30))]
    options = {"candidate_labels": "house, tree", "threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    single = [segmenter(item, **options) for item in photos]
    for batch_size in (1, 2, 3):
        batched = segmenter(photos, batch_size=batch_size, **options)
        for alone, together in zip(single, batched, strict=True):
            assert [s["label"] for s in alone] == [s["label"] for s in together]
            assert all(np.array_equal(a["mask"], b["mask"]) for a, b in zip(alone, together))
            np.testing.assert_allclose([s["score"] for s in alone], [s["score"] for s in together], atol=1e-5)


def test_panoptic_masks_do_not_overlap_and_stuff_is_one_segment(segmenter, photo):
    segments = segmenter(
        photo, candidate_labels="sky [stuff], ground [stuff]", threshold=0.0, overlap_mask_area_threshold=0.0
    )
    assert np.sum([np.asarray(segment["mask"]) > 0 for segment in segments], axis=0).max() == 1
    labels = [segment["label"] for segment in segments]
    assert len(labels) == len(set(labels))


def test_semantic_masks_cover_the_photo_once(segmenter, photo):
    segments = segmenter(photo, candidate_labels="house, tree, sun", subtask="semantic")
    assert np.all(np.sum([np.asarray(segment["mask"]) > 0 for segment in segments], axis=0) == 1)
    assert all(segment["score"] is None for segment in segments)


def test_threshold_of_the_call_counts(segmenter, photo):
    objectness = segmenter.model(**segmenter.processor(images=photo, return_tensors="pt")).objectness
    just_above = min(1.0, objectness.max().item() + 1e-3)
    options = {"candidate_labels": "house, tree", "overlap_mask_area_threshold": 0.0}
    assert segmenter(photo, threshold=0.0, **options)
    assert segmenter(photo, threshold=just_above, **options) == []


def test_paths_are_read_right_side_up(segmenter, photo, tmp_path):
    turned = photo.transpose(2)  # by 90°, which the EXIF tag undoes
    exif = turned.getexif()
    exif[ExifTags.Base.Orientation] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    segments = segmenter(str(tmp_path / "turned.png"), candidate_labels="house", threshold=0.0)
    assert all(segment["mask"].size == photo.size for segment in segments)


def test_photos_in_every_wrapping(segmenter, photo, tmp_path):
    path = tmp_path / "photo.png"
    photo.save(path)
    content = path.read_bytes()
    text = base64.b64encode(content).decode()
    options = {"candidate_labels": "house, tree", "threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    wanted = segmenter(photo, **options)
    pixels = np.asarray(photo)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for alone in (path, str(path), path.as_uri(), content, io.BytesIO(content), text, f"data:image/png;base64,{text}"):
        assert same(segmenter(alone, **options), wanted)
    for alone in (pixels, tensor, {"bytes": content, "path": None}):
        assert same(segmenter(alone, **options), wanted)
    rows = datasets.Dataset.from_dict({"image": [str(path)] * 2}).cast_column("image", datasets.Image())
    objects = np.empty(2, object)
    objects[:] = [pixels, photo]
    several = {
        "list": [photo, path],
        "tuple": (content, pixels),
        "batch": np.stack([pixels, pixels]),
        "batch of several sizes": objects,
        "array of texts": np.array([str(path), str(path)]),
        "batch of tensors": torch.stack([tensor, tensor]),
        "generator": (item for item in (photo, text)),
        "column": rows["image"],
        "data set": rows,
        "streamed data set": rows.to_iterable_dataset(),
        "undecoded column": rows.cast_column("image", datasets.Image(decode=False))["image"],
        "KeyDataset": KeyDataset(rows, "image"),
    }
    for name, photos in several.items():
        for found, _ in zip(segmenter(photos, **options), range(2), strict=True):
            assert same(found, wanted), name
    assert segmenter([], **options) == segmenter((), **options) == []


def test_downloads_have_limits(segmenter):
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as silent:  # never answers
        url = f"http://127.0.0.1:{silent.server_port}/photo.png"
        with pytest.raises(ValueError, match=r"within 0\.3 seconds"):
            segmenter(url, timeout=0.3, max_download_bytes=1000)


def test_unknown_arguments_and_subtasks_are_refused(segmenter, photo):
    with pytest.raises(TypeError, match="labels.*candidate_labels"):
        segmenter(photo, labels=["dog"])
    with pytest.raises(ValueError, match="'panoptical'.*panoptic, instance, semantic"):
        segmenter(photo, subtask="panoptical")


@pytest.mark.parametrize("size", [(1, 1), (400, 20), (20, 400)], ids=["one pixel", "panorama", "tall"])
@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
def test_photos_of_extreme_shapes_are_segmented_in_silence(segmenter, photo, size, subtask):
    extreme = photo.resize(size)
    # Whatever the random masks are, one of them wins each pixel.
    all_thresholds = dict.fromkeys(("threshold", "mask_threshold", "overlap_mask_area_threshold"), 0.0)
    with raising_on_any_warning():
        outputs = segmenter.model(**segmenter.processor(images=extreme, text="house, tree", return_tensors="pt"))
        segments = segmenter(extreme, candidate_labels="house, tree", subtask=subtask, **all_thresholds)
    assert outputs.class_queries_logits.isfinite().all() and outputs.masks_queries_logits.isfinite().all()
    assert segments and all(segment["mask"].size == size for segment in segments)


@pytest.mark.parametrize("stock", [True, False])
def test_zoom_gives_photos_in_batches_what_it_gives_each(stock):
    processor = fisa.FisaProcessor.from_pretrained(patchwork.CHECKPOINT, zoom=4)
    arguments = {"image_processor": processor.image_processor} if stock else {"processor": processor}
    task = "image-segmentation" if stock else "open-vocabulary-image-segmentation"
    zooming = pipeline(task, model=str(patchwork.CHECKPOINT), device="cpu", **arguments)
    photo = load_photo(patchwork.SCENES / "easy.jpg")
    photos = [photo, photo.crop((0, 0, 300, 200)), photo.resize((90, 300))]
    together = zooming(photos, batch_size=3)
    for alone, batched in zip([zooming(item) for item in photos], together, strict=True):
        assert [segment["label"] for segment in alone] == [segment["label"] for segment in batched]
        assert [segment["score"] for segment in alone] == pytest.approx(
            [segment["score"] for segment in batched], abs=1e-4
        )


def test_zoom_of_a_call_takes_the_place_of_the_setting():
    task, scene = "open-vocabulary-image-segmentation", str(patchwork.SCENES / "shifted.jpg")
    plain = pipeline(task, model=str(patchwork.CHECKPOINT), device="cpu")
    processor = fisa.FisaProcessor.from_pretrained(patchwork.CHECKPOINT, zoom=4)
    zooming = pipeline(task, model=str(patchwork.CHECKPOINT), device="cpu", processor=processor)
    once, zoomed = plain(scene, zoom=0), plain(scene, zoom=4)
    assert [segment["score"] for segment in once] != [segment["score"] for segment in zoomed]
    assert same(zooming(scene), zoomed)
    assert same(zooming(scene, zoom=0), once)


class Photos(torch.utils.data.Dataset):
    def __init__(self, photos):
        self.photos = photos

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, index):
        return self.photos[index]


@pytest.mark.parametrize("collected", [list, tuple], ids=str)
def test_a_photo_that_cannot_be_read_is_named_by_its_place(segmenter, photo, collected):
    with pytest.raises(ValueError, match=r"^Image 1: 'missing\.png' cannot be read"):
        segmenter(collected([photo, "missing.png", photo]), candidate_labels=["dog"])
    with pytest.raises(ValueError, match=r"^Image 2: The file given as bytes cannot be read"):
        segmenter(collected([photo, photo, b"no photo"]), candidate_labels=["dog"])
    with pytest.raises(ValueError, match=r"^'missing\.png' cannot be read"):
        segmenter("missing.png", candidate_labels=["dog"])


@pytest.mark.parametrize("batch_size", [1, 2, 3])
@pytest.mark.parametrize("collected", [iter, Photos])
def test_an_iterator_goes_on_behind_a_photo_that_cannot_be_read(segmenter, photo, collected, batch_size):
    options = {"candidate_labels": ["dog"], "threshold": 0.0}
    photos = collected([photo, 7, photo.rotate(90)])
    answers = iter(segmenter(photos, batch_size=batch_size, zoom=2, **options))
    options["zoom"] = 2
    assert same(next(answers), segmenter(photo, **options))
    with pytest.raises(ValueError, match=r"^Image 1: .*found int"):
        next(answers)
    assert same(next(answers), segmenter(photo.rotate(90), **options))
    with pytest.raises(StopIteration):
        next(answers)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("before", [0, 3])
def test_photos_before_an_iterator_breaks_have_their_answers(segmenter, photo, before, workers):
    def broken():
        yield from [photo] * before
        raise ConnectionError("the share is gone")

    answers = iter(segmenter(broken(), batch_size=2, num_workers=workers, candidate_labels=["dog"]))
    expected = segmenter(photo, candidate_labels=["dog"])
    assert all(same(next(answers), expected) for _ in range(before))
    with pytest.raises(ConnectionError) as caught:
        next(answers)
    assert str(caught.value) == "the share is gone"
    with pytest.raises(StopIteration):
        next(answers)


class Two(Exception):
    """One that Python cannot make again of what it says: it takes two arguments."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_be_sent_from_a_worker_is_told(segmenter, photo):
    def broken():
        yield photo
        raise Two("the share", "the key are gone")

    answers = iter(segmenter(broken(), batch_size=2, num_workers=1, candidate_labels=["dog"]))
    assert same(next(answers), segmenter(photo, candidate_labels=["dog"]))
    with pytest.raises(RuntimeError) as caught:
        next(answers)
    assert str(caught.value) == "Two: the share and the key are gone"
    assert "in broken" in "".join(caught.value.__notes__)


@pytest.mark.parametrize("column", [None, "image"])
def test_a_data_set_goes_on_behind_a_photo_that_it_cannot_read(segmenter, photo, column):
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    files = [{"bytes": content, "path": None} for content in (buffer.getvalue(), b"no photo", buffer.getvalue())]
    rows = datasets.Dataset.from_dict({"image": files}, datasets.Features({"image": datasets.Image()}))
    answers = iter(segmenter(rows if column is None else rows[column], batch_size=2, candidate_labels=["dog"]))
    first = next(answers)
    with pytest.raises(ValueError, match="^Image 1: "):
        next(answers)
    assert same(next(answers), first)
    with pytest.raises(StopIteration):
        next(answers)


def test_a_torch_data_set_that_can_only_be_iterated(segmenter, photo):
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self):
            yield photo

        def __len__(self):
            return 1

    options = {"candidate_labels": ["dog"], "threshold": 0.0}
    (segments,) = segmenter(Stream(), **options)
    assert same(segments, segmenter(photo, **options))


def test_photos_of_a_batch_bear_the_names_that_they_were_seen_with(photo):
    model, processor = miniature()
    segmenter = fisa.FisaPipeline(model=model, processor=processor, threshold=0.0, return_type="segmentation")
    model.set_vocabulary(processor, "dog, cat")
    answers = iter(segmenter(iter([photo] * 3), batch_size=2))
    asked = [next(answers).asked]
    model.set_vocabulary(processor, "car, road [stuff]")
    asked += [answer.asked for answer in answers]
    assert asked == [("dog", "cat"), ("dog", "cat"), ("car", "road")]


@pytest.mark.parametrize("name", ["threshold", "mask_threshold", "overlap_mask_area_threshold", "min_score"])
@pytest.mark.parametrize("value", ["0.5", True, float("nan"), [0.5], 1.5])
def test_thresholds_that_are_no_numbers_are_refused(segmenter, photo, name, value):
    with pytest.raises(ValueError, match=rf"`{name}` is .*; .* must be a number in \[0, 1\]"):
        segmenter(photo, candidate_labels=["dog"], **{name: value})


@pytest.mark.parametrize("value", ["no", 0, 1, []])
def test_switches_that_are_neither_on_nor_off_are_refused(segmenter, photo, value):
    with pytest.raises(ValueError, match="`include_others` is .*; it must be True or False"):
        segmenter(photo, candidate_labels=["dog"], include_others=value)


@pytest.mark.parametrize("value", ["8", True, 2.5, -1])
def test_a_zoom_that_is_no_number_of_proposals_is_refused(segmenter, photo, value):
    with pytest.raises(ValueError, match="`zoom` is .*; it must be a whole number"):
        segmenter([photo, photo], candidate_labels=["dog"], zoom=value)


@pytest.mark.parametrize("number", [np.float64, np.float32, np.int64])
def test_thresholds_of_numpy_are_numbers(segmenter, photo, number):
    options = {"candidate_labels": ["dog"], "overlap_mask_area_threshold": 0.0}
    assert same(segmenter(photo, threshold=number(0), **options), segmenter(photo, threshold=0.0, **options))


@pytest.mark.parametrize("limit", ["timeout", "max_download_bytes"])
@pytest.mark.parametrize("value", ["5", 0, float("nan"), True])
def test_limits_of_downloads_that_are_no_numbers_are_refused(segmenter, limit, value):
    with pytest.raises(ValueError, match=rf"`{limit}` is .*; a limit must be a number greater than 0"):
        segmenter("http://127.0.0.1:9/photo.png", candidate_labels=["dog"], **{limit: value})
    with pytest.raises(ValueError, match=rf"`{limit}` is .*; a limit must be a number greater than 0"):
        segmenter("photo.png", candidate_labels=["dog"], **{limit: value})  # even where nothing is downloaded
