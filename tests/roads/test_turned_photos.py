"""Results lie on the pixels that the caller holds, whatever EXIF says of them, and the model sees photos upright."""

import io
import warnings

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import AutoProcessor, pipeline

import fisa
from fisa.export import export_program, load_graph, save
from fisa.visualization import draw_segments, paint_segments
from tests.orientations import as_stored
from tests.quiet import raising_on_any_warning


WORDS = ["bird", "fish", "water [stuff]", "brick wall [stuff]"]
ORIENTATIONS = range(1, 9)


def held(upright: Image.Image, orientation: int) -> Image.Image:
    """The photo as `Image.open` hands it over."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(as_stored(np.asarray(upright), orientation))).save(file, "PNG", exif=exif)
    return Image.open(file)


@pytest.fixture(scope="module")
def upright(scene):
    """A scene that is wider than high."""
    return scene.crop((0, 0, scene.width, scene.height * 2 // 3))


@pytest.fixture(scope="module")
def segmenter(saved):
    return pipeline("image-segmentation", model=str(saved), pipeline_class=fisa.FisaPipeline)


@pytest.fixture(scope="module")
def processor(saved):
    return AutoProcessor.from_pretrained(saved)


def maps(processor, model, photo: Image.Image, text: list[str] | None = WORDS) -> list[np.ndarray]:
    """Semantic, panoptic and instance maps, by the recipe of transformers' documentation."""
    inputs = processor(images=photo, text=text, return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs)
    sizes = [photo.size[::-1]]
    (semantic,) = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    (panoptic,) = processor.post_process_panoptic_segmentation(outputs, target_sizes=sizes, threshold=0.0)
    (instances,) = processor.post_process_instance_segmentation(outputs, target_sizes=sizes, threshold=0.0)
    return [found.numpy() for found in (semantic, panoptic["segmentation"], instances["segmentation"])]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_recipe_of_transformers(processor, segmenter, upright, orientation):
    wanted = maps(processor, segmenter.model, upright)
    with raising_on_any_warning():
        found = maps(processor, segmenter.model, held(upright, orientation))
    for upright_map, stored_map in zip(wanted, found, strict=True):
        assert len(np.unique(upright_map)) > 1
        np.testing.assert_array_equal(stored_map, as_stored(upright_map, orientation))


def test_a_batch_of_all_orientations(processor, segmenter, upright):
    photos = [held(upright, orientation) for orientation in ORIENTATIONS]
    with torch.no_grad():
        outputs = segmenter.model(**processor(images=photos, text=WORDS, return_tensors="pt"))
    sizes = [photo.size[::-1] for photo in photos]
    found = processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    own_sizes = processor.post_process_semantic_segmentation(outputs)
    for orientation, full, small in zip(ORIENTATIONS, found, own_sizes, strict=True):
        np.testing.assert_array_equal(full, as_stored(found[0].numpy(), orientation))
        np.testing.assert_array_equal(small, as_stored(own_sizes[0].numpy(), orientation))


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("subtask", ["panoptic", "semantic"])
def test_pipeline(segmenter, upright, subtask, batch_size):
    options = {"candidate_labels": WORDS, "subtask": subtask, "threshold": 0.0}
    wanted = segmenter(upright, **options)
    photos = [held(upright, orientation) for orientation in ORIENTATIONS]
    for orientation, photo, found in zip(
        ORIENTATIONS, photos, segmenter(photos, batch_size=batch_size, **options), strict=True
    ):
        assert [segment["label"] for segment in found] == [segment["label"] for segment in wanted]
        for segment, reference in zip(found, wanted):
            assert segment["mask"].size == photo.size
            differing = np.asarray(segment["mask"]) != as_stored(np.asarray(reference["mask"]), orientation)
            assert differing.mean() < 1e-3  # batches round differently


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_files_are_seen_as_viewers_show_them(segmenter, processor, upright, orientation, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(held(upright, orientation).fp.getvalue())
    options = {"candidate_labels": WORDS, "threshold": 0.0}
    wanted = segmenter(upright, **options)
    for file in (path, str(path), path.as_uri(), path.read_bytes()):
        for segment, reference in zip(segmenter(file, **options), wanted, strict=True):
            np.testing.assert_array_equal(segment["mask"], reference["mask"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inputs = processor(images=path, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], processor(images=upright, return_tensors="pt")["pixel_values"])
    assert "photo_orientation" not in inputs
    named = [f"EXIF orientation {orientation}" in str(item.message) for item in caught]
    assert named == ([] if orientation == 1 else [True])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_pictures_of_the_results(segmenter, upright, orientation):
    """The segments' colours lie on the caller's pixels too."""
    options = {"candidate_labels": WORDS, "subtask": "semantic"}
    photo = held(upright, orientation)
    plain = [{"label": "", "score": None, "mask": segment["mask"]} for segment in segmenter(photo, **options)]
    wanted = [{"label": "", "score": None, "mask": segment["mask"]} for segment in segmenter(upright, **options)]
    found = np.asarray(paint_segments(photo, plain)).astype(int)
    stored = as_stored(np.asarray(paint_segments(upright, wanted)), orientation).astype(int)
    assert found.shape == stored.shape
    assert (np.abs(found - stored).max(axis=-1) > 8).mean() < 0.01  # outlines and labels are not drawn symmetrically


@pytest.mark.parametrize("orientation", [3, 6])
def test_pictures_on_the_photo_as_another_holds_it(segmenter, upright, orientation, tmp_path):
    photo, path = held(upright, orientation), tmp_path / "photo.png"
    path.write_bytes(photo.fp.getvalue())
    for segmented in (photo, path, np.asarray(photo)):
        found = segmenter(segmented, candidate_labels=WORDS, threshold=0.0, return_type="segmentation")
        for other in (photo, path, np.asarray(photo)) if segmented is photo else (photo,):
            np.testing.assert_array_equal(found.plot(other), found.plot())
            np.testing.assert_array_equal(draw_segments(other, found), found.plot())
            np.testing.assert_array_equal(paint_segments(other, found), found.plot(legend=False))


@pytest.mark.large  # half a minute for tracing
def test_exported_graphs_hand_the_orientation_on(segmenter, upright, tmp_path):
    program = export_program(segmenter.model, segmenter.processor)
    graph = load_graph(save(program, segmenter.model, segmenter.processor, tmp_path, file_format="torch"))
    own_processor = AutoProcessor.from_pretrained(tmp_path)
    wanted, found = (maps(own_processor, graph, photo, None) for photo in (upright, held(upright, 6)))
    for upright_map, stored_map in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(stored_map, as_stored(upright_map, 6))
