"""Masks and classes for training: those of transformers' Mask2Former for the same maps."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Mask2FormerImageProcessorPil

from fisa import FisaImageProcessor


SIZE = {"height": 24, "width": 32}
PHOTO = np.random.default_rng(0).integers(0, 255, (30, 44, 3), dtype=np.uint8)
IDS = np.random.default_rng(1).choice([0, 1, 2, 7, 255], (5, 11)).repeat(6, 0).repeat(4, 1)
CLASSES = {0: 0, 1: 4, 2: 4, 7: 2, 255: 1}


@pytest.fixture(scope="module")
def processor():
    return FisaImageProcessor(size=SIZE, mask_generator_size=None)


def of_mask2former(maps, classes, **settings):
    theirs = Mask2FormerImageProcessorPil(size=SIZE, size_divisor=0, **settings)
    return theirs([PHOTO] * len(maps), maps, classes, return_tensors="pt")


@pytest.mark.parametrize(
    "settings", [{}, {"ignore_index": 255}, {"do_reduce_labels": True, "ignore_index": 255}, {"ignore_index": 7}]
)
@pytest.mark.parametrize("classes", [CLASSES, None, [CLASSES, {0: 1, 1: 1, 2: 3, 7: 5, 255: 2}]])
def test_equals_mask2former(processor, settings, classes):
    maps = [IDS, IDS[::-1].copy()]
    ours = processor([PHOTO, PHOTO], maps, classes, return_tensors="pt", **settings)
    theirs = of_mask2former(maps, classes, **settings)
    for name in ("mask_labels", "class_labels"):
        for own, their in zip(ours[name], theirs[name], strict=True):
            assert torch.equal(own, their) and own.dtype == their.dtype


def test_settings_at_loading_are_those_of_the_call(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = FisaImageProcessor.from_pretrained(tmp_path, do_resize=True, do_reduce_labels=True, reduce_labels=True)
    by_call = processor(PHOTO, IDS, CLASSES, do_reduce_labels=True)
    assert loaded.do_reduce_labels
    np.testing.assert_array_equal(loaded(PHOTO, IDS, CLASSES)["class_labels"][0], by_call["class_labels"][0])
    assert by_call["class_labels"][0].tolist() == [3, 3, 1, 0]


def test_no_id_is_lost_to_background(processor):
    ids = np.full((30, 44), 256)
    ids[:15] = 0
    labels = processor(PHOTO, ids, {0: 0, 256: 3}, do_reduce_labels=True)
    assert labels["class_labels"][0].tolist() == [2]
    assert labels["mask_labels"][0][0].mean() == 0.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_maps_are_turned_with_their_photos(processor, orientation):
    """The photo is its own map: what is bright upright is in the mask."""
    held = Image.fromarray((IDS == 1).astype(np.uint8) * 255).convert("RGB")
    ids = (np.asarray(held)[..., 0] > 0).astype(int)
    exif = held.getexif()
    exif[274] = orientation
    held.info["exif"] = exif.tobytes()
    inputs = processor(held, ids, resample=Image.Resampling.NEAREST, do_normalize=False)
    np.testing.assert_array_equal(inputs["mask_labels"][0][1], inputs["pixel_values"][0, 0] > 0.5)


@pytest.mark.parametrize(
    "maps, classes, message",
    [
        ([IDS, IDS], None, "1 images and 2 segmentation maps"),
        ([IDS.T], None, "44 x 30 pixels and its image 30 x 44"),
        ([IDS], {0: 0, 1: 1, 2: 2}, "no class for the ids 7, 255"),
        ([IDS / 2], None, "integers"),
    ],
)
def test_maps_that_do_not_fit_are_named(processor, maps, classes, message):
    with pytest.raises(ValueError, match=message):
        processor([PHOTO], maps, classes)


def test_photos_are_not_left_at_their_own_size(processor):
    with pytest.raises(ValueError, match="`do_resize` is False"):
        processor(PHOTO, do_resize=False)


def test_the_view_of_the_generator_made_of_clips():
    """Where CLIP's view is as large as the photo, nothing is lost."""
    processor = FisaImageProcessor(size={"height": 30, "width": 44}, mask_generator_size={"height": 64, "width": 96})
    inputs = processor([PHOTO, PHOTO[::-1].copy()], return_tensors="pt")
    view = processor.mask_generator_view(inputs["pixel_values"])
    assert set(view) == {"mask_generator_pixel_values", "mask_generator_pixel_mask"}
    for name, values in view.items():
        assert torch.equal(values, inputs[name])
