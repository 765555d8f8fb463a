"""Questions that are refused, and answers as people see them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from fisa import FisaPipeline
from fisa.page.answers import LARGEST_PHOTO, LONGEST_NAME, Answer, Question, Refused, answer
from fisa.pretrained import patchwork
from fisa.processing.segmentation import Segmentation
from fisa.processing.vocabulary import Vocabulary


SCENE = str(patchwork.SCENES / "easy.jpg")
WORDS = "bird, fish, water [stuff], pizza"


@pytest.fixture(scope="module")
def segmenter():
    model, processor = patchwork.load()
    return pipeline("image-segmentation", model, processor=processor, pipeline_class=FisaPipeline)


def question(photo: str | None = SCENE, words: str = WORDS, **settings) -> Question:
    return Question(photo, words, **({"subtask": "panoptic", "threshold": 0.4, "zoom": 0} | settings))


def test_an_answer_is_the_pipelines(segmenter):
    found = answer(segmenter, question(zoom=8))
    wanted = segmenter(SCENE, candidate_labels=WORDS, threshold=0.4, zoom=8, return_type="segmentation")
    assert torch.equal(found.segmentation.ids, wanted.ids) and found.segmentation.segments == wanted.segments
    assert found.segmentation.not_found == ("pizza",)
    assert [row[0] for row in found.rows()] == ["water", "bird", "fish"]


def test_words_that_a_task_leaves_out_are_named(segmenter):
    assert answer(segmenter, question()).missing() == ["pizza"]
    found = answer(segmenter, question(subtask="instance"))
    assert found.missing() == ["pizza", "water (instances are of things alone)"]


@pytest.mark.parametrize("shown_side", [384, 96])
def test_a_click_names_the_segment_under_it(segmenter, shown_side):
    found = answer(segmenter, question())
    places, factor = found.places((shown_side, shown_side)), 384 // shown_side
    for y in range(0, shown_side, 7):
        for x in range(0, shown_side, 7):
            segment = places.at(x, y)
            assert (segment.id if segment else 0) == found.segmentation.ids[y * factor, x * factor]
    assert places.at(-1, 5) is None and places.at(5, 10_000) is None


@pytest.mark.parametrize("size, shown", [((3, 4000), (1, 1600)), ((4000, 3), (1600, 1)), ((1, 6000), (1, 1600))])
def test_a_click_on_a_very_long_photo(size, shown):
    axis, lengthwise = np.argmax(size), np.arange(max(size)) // 1000 + 1
    ids = np.broadcast_to(lengthwise[:, None] if axis else lengthwise, size[::-1])
    labels = [str(number) for number in range(1, ids.max() + 1)]
    segmentation = Segmentation.from_map(torch.from_numpy(ids.copy()), labels=labels)
    places = Answer(segmentation, Vocabulary.parse(labels)).places(shown)
    for number in range(1, ids.max() + 1):
        click = [0, 0]
        click[axis] = (number * 1000 - 500) * shown[axis] // size[axis]
        assert places.at(*click).id == number


def test_a_large_photo_is_kept_small(segmenter, tmp_path):
    photo = tmp_path / "large.png"
    Image.open(SCENE).resize((4000, 3000)).save(photo)
    found = answer(segmenter, question(str(photo)))
    places = found.places((1600, 1200))
    assert places.segmentation.ids.numel() * places.segmentation.ids.element_size() < 8 * 2**20
    assert places.segmentation.photo is None
    for segment in found.segmentation:
        y, x = (int(place) for place in np.argwhere(found.segmentation.mask(segment))[segment.area // 2])
        assert places.at(int(x * 0.4), int(y * 0.4)) is not None


@pytest.mark.parametrize(
    "words, said",
    [
        ("", "No words to look for: name at least one thing"),
        (" ,\n", "No words to look for"),
        ("a" * (LONGEST_NAME + 1), f"A name has {LONGEST_NAME + 1} characters"),
        (", ".join(f"word {number}" for number in range(1001)), "There are 1,001 names; the page takes 1,000"),
        ("dog, " * 500_000, "The words have 2,500,000 characters; the page takes 200,000"),
        ("dog, dog", "Keep each name once"),
        ("dog,,cat", "Name or remove it"),
    ],
)
def test_words_that_are_refused(segmenter, words, said):
    with pytest.raises(Refused, match=said):
        answer(segmenter, question(words=words))


def _write_text(path):
    path.write_text("no picture")


def _write_part(path):
    path.write_bytes((patchwork.SCENES / "easy.jpg").read_bytes()[:5000])


def _write_nothing(path):
    path.touch()


def _write_unknown_pixels(path):
    with Image.open(SCENE) as scene:
        scene.save(path, "DDS")
    content = bytearray(path.read_bytes())
    content[80:88] = b"\4\0\0\0none"  # DDS's flag for a code of four letters, and one that is none
    path.write_bytes(content)


@pytest.mark.parametrize(
    "write, said",
    [
        (_write_text, "not a picture that can be read: choose a JPEG, PNG or WebP"),
        (_write_nothing, "not a picture that can be read"),
        (_write_unknown_pixels, "not a picture that can be read"),
        (_write_part, "truncated"),
    ],
)
def test_files_that_are_refused(segmenter, tmp_path, write, said):
    write(tmp_path / "photo.jpg")
    with pytest.raises(Refused, match=said):
        answer(segmenter, question(str(tmp_path / "photo.jpg")))


def test_no_photo_and_one_that_is_gone_are_refused(segmenter, tmp_path):
    with pytest.raises(Refused, match="No photo: upload one"):
        answer(segmenter, question(None))
    with pytest.raises(Refused, match="choose it again"):
        answer(segmenter, question(str(tmp_path / "gone.jpg")))


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_read(segmenter, tmp_path):
    side = int(LARGEST_PHOTO**0.5) + 1
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with pytest.raises(Refused, match="pixels; it may have 50,000,000"):
        answer(segmenter, question(str(tmp_path / "huge.png")))
