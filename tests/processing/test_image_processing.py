"""The two views of a photo: CLIP's and the mask generator's equal those of their own image processors."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, BatchFeature
from transformers.image_utils import PILImageResampling
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.eomt.image_processing_pil_eomt import EomtImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.maskformer.image_processing_pil_maskformer import MaskFormerImageProcessorPil

from fisa.processing.image_processing_fisa import FisaImageProcessor
from tests.memory import needs_peaks, taking_less_than
from tests.quiet import raising_on_any_warning


SMALL = {"shortest_edge": 64, "longest_edge": 110}
SIZES = [(60, 60), (48, 90), (90, 48), (33, 35), (500, 25), (25, 500), (1, 1), (2, 1), (64, 110), (300, 200)]


def photo_of(height: int, width: int, *, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def on_photo(inputs: BatchFeature, index: int = 0) -> np.ndarray:
    """The part of the canvas that the pixel mask says is the photo: (3, h, w)."""
    mask = inputs["mask_generator_pixel_mask"][index]
    height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
    assert mask[:height, :width].all() and mask.sum() == height * width
    return inputs["mask_generator_pixel_values"][index][:, :height, :width]


@pytest.mark.parametrize("side", [1, 30, 224, 500])
def test_clips_view_of_a_square_photo_is_clips_own(side):
    clip = CLIPImageProcessorPil()
    photo = photo_of(side, side)
    ours = FisaImageProcessor.from_clip_and_mask_generator(clip)(photo)["pixel_values"]
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, np.stack(clip(photo)["pixel_values"]), atol=1e-5)


def test_clips_view_is_the_whole_photo():
    pixels = np.zeros((40, 400, 3), np.uint8)
    pixels[:, :40], pixels[:, -40:] = (255, 0, 0), (0, 0, 255)
    view = FisaImageProcessor(image_mean=(0, 0, 0), image_std=(1, 1, 1))(pixels)["pixel_values"][0]
    assert view.shape == (3, 224, 224)
    assert view[0, :, :20].min() > 0.99 and view[2, :, -20:].min() > 0.99


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("generator_class", [Mask2FormerImageProcessorPil, MaskFormerImageProcessorPil])
@pytest.mark.parametrize(
    "options", [{"size": SMALL}, {"size": SMALL, "size_divisor": 0}, {"size": {"height": 70, "width": 50}}]
)
def test_the_generators_view_is_mask2formers_own(size, generator_class, options):
    generator = generator_class(**options)
    photo = photo_of(*size)
    ours = FisaImageProcessor.from_clip_and_mask_generator(CLIPImageProcessorPil(), generator)(photo)
    (theirs,) = generator(photo)["pixel_values"]
    np.testing.assert_allclose(on_photo(ours), theirs, atol=1e-5)
    canvas, mask = ours["mask_generator_pixel_values"][0], ours["mask_generator_pixel_mask"][0]
    assert canvas.dtype == np.float32 and mask.dtype == bool
    assert (canvas[:, ~mask] == 0).all()


@pytest.mark.parametrize("size", [*SIZES, (64, 67)])
@pytest.mark.parametrize("eomt_size", [{"shortest_edge": 64, "longest_edge": 64}, {"shortest_edge": 64}])
def test_the_generators_view_is_eomts_own(size, eomt_size):
    eomt = EomtImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    photo = photo_of(*size)
    processor = FisaImageProcessor.from_clip_and_mask_generator(
        CLIPImageProcessorPil(), EomtImageProcessorPil(size=eomt_size, do_pad=True)
    )
    ours = processor(photo)["mask_generator_pixel_values"][0]
    (theirs,) = eomt(photo)["pixel_values"]
    assert ours.shape == theirs.shape == (3, 64, 64)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_both_views_come_from_the_original_photo():
    photo = photo_of(300, 200)
    processor = FisaImageProcessor(mask_generator_size=SMALL, image_mean=(0, 0, 0), image_std=(1, 1, 1))
    expected = np.asarray(photo.resize((224, 224), PILImageResampling.BICUBIC)).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(processor(photo)["pixel_values"][0], expected, atol=1e-6)


def test_the_canvas_depends_on_the_settings_only():
    processor = FisaImageProcessor(mask_generator_size=SMALL, mask_generator_size_divisor=32)
    photos = [photo_of(*size, seed=index) for index, size in enumerate(SIZES)]
    batch = processor(photos, return_tensors="pt")
    assert batch["pixel_values"].shape == (len(SIZES), 3, 224, 224)
    assert batch["mask_generator_pixel_values"].shape == (len(SIZES), 3, 128, 128)
    assert batch["mask_generator_pixel_mask"].shape == (len(SIZES), 128, 128)
    assert batch["mask_generator_pixel_values"].dtype == batch["pixel_values"].dtype == torch.float32
    assert batch["mask_generator_pixel_mask"].dtype == torch.bool
    for index, photo in enumerate(photos):
        for name, value in processor(photo, return_tensors="pt").items():
            assert torch.equal(batch[name][index], value[0])


@pytest.mark.parametrize("size", [(1, 4000), (4000, 1), (1, 111), (50, 111), (64, 111), (63, 110), (65, 112)])
def test_extreme_shapes_stay_on_the_canvas(size):
    inputs = FisaImageProcessor(mask_generator_size=SMALL, mask_generator_size_divisor=1)(photo_of(*size))
    assert inputs["mask_generator_pixel_values"].shape == (1, 3, 110, 110)
    height, width = on_photo(inputs).shape[1:]
    assert min(height, width) >= 1 and max(height, width) <= 110


def test_a_panorama_keeps_its_shape():
    height, width = on_photo(FisaImageProcessor(mask_generator_size_divisor=1)(photo_of(40, 800))).shape[1:]
    assert (height, width) == (67, 1333)


def test_without_a_generator_there_is_one_view():
    assert set(FisaImageProcessor(mask_generator_size=None)(photo_of(5, 5))) == {"pixel_values"}
    assert set(FisaImageProcessor()(photo_of(5, 5), mask_generator_size=None)) == {"pixel_values"}


def test_settings_of_a_call_last_for_the_call():
    processor = FisaImageProcessor(mask_generator_size=SMALL)
    called = processor(photo_of(9, 9), size=32, do_normalize=False, mask_generator_size={"height": 20, "width": 30})
    assert called["pixel_values"].shape == (1, 3, 32, 32)
    assert 0 <= called["pixel_values"].min() and called["pixel_values"].max() <= 1
    assert called["mask_generator_pixel_values"].shape == (1, 3, 32, 32)
    assert processor(photo_of(9, 9))["pixel_values"].shape == (1, 3, 224, 224)


def test_pixels_can_stay_from_0_to_255():
    white = Image.new("RGB", (9, 9), "white")
    inputs = FisaImageProcessor(do_rescale=False, do_normalize=False, mask_generator_size=SMALL)(white)
    assert inputs["pixel_values"].dtype == np.float32 and (inputs["pixel_values"] == 255).all()


def test_copies_geometry_and_normalisation_from_folders(tmp_path):
    clip = CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    generator = Mask2FormerImageProcessorPil(
        size={"shortest_edge": 512, "longest_edge": 2048}, size_divisor=64, resample=3, image_mean=[0.1, 0.2, 0.3]
    )
    folders = tmp_path / "clip", str(tmp_path / "generator")
    clip.save_pretrained(folders[0])
    generator.save_pretrained(folders[1])
    processor = FisaImageProcessor.from_clip_and_mask_generator(*folders)
    assert processor.size == {"height": 336, "width": 336}
    assert processor.resample == PILImageResampling.BICUBIC
    assert processor.image_mean == tuple(clip.image_mean) and processor.image_std == tuple(clip.image_std)
    assert processor.mask_generator_size == {"shortest_edge": 512, "longest_edge": 2048}
    assert processor.mask_generator_size_divisor == 64
    assert processor.mask_generator_resample == PILImageResampling.BICUBIC
    assert processor.mask_generator_image_mean == (0.1, 0.2, 0.3)
    # Loaded for whichever backend is there, torchvision's or PIL's, they say the same.
    for loaded in ((clip, generator), map(AutoImageProcessor.from_pretrained, folders)):
        assert FisaImageProcessor.from_clip_and_mask_generator(*loaded).to_dict() == processor.to_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]},
        {"do_normalize": False},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
        {"image_mean": 0.5, "image_std": 0.5},
    ],
)
def test_other_conventions_of_the_generators_pixel_values_are_carried_over(options):
    generator = Mask2FormerImageProcessorPil(size=SMALL, **options)
    photo = photo_of(60, 80)
    ours = FisaImageProcessor.from_clip_and_mask_generator(CLIPImageProcessorPil(), generator)(photo)
    (theirs,) = generator(photo)["pixel_values"]
    np.testing.assert_allclose(on_photo(ours), theirs, atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"mask_generator_size": None, "size": 96, "threshold": 0.1, "resample": 2}])
def test_round_trips_through_json_and_a_folder(tmp_path, settings):
    processor = FisaImageProcessor(**settings)
    processor.save_pretrained(tmp_path)
    loaded = FisaImageProcessor.from_pretrained(tmp_path)
    assert (
        loaded.to_dict()
        == processor.to_dict()
        == FisaImageProcessor(**json.loads(processor.to_json_string())).to_dict()
    )
    for name, value in processor(photo_of(30, 50)).items():
        np.testing.assert_array_equal(loaded(photo_of(30, 50))[name], value)
    overridden = FisaImageProcessor.from_pretrained(tmp_path, mask_threshold=0.25)
    assert overridden.mask_threshold == 0.25 and overridden.backend == "pil"


@pytest.mark.parametrize(
    ("settings", "quote"),
    [
        ({"size": {"shortest_edge": 224}}, "'height', 'width'"),
        ({"size": 0}, "0"),
        ({"size": []}, "a pair of height and width"),
        ({"mask_generator_size": [3, 4, 5]}, "[3, 4, 5]"),
        ({"mask_generator_size": {"shortest_edge": 800}}, "'longest_edge', 'shortest_edge'"),
        ({"mask_generator_size": {"height": 3, "wide": 3}}, "wide"),
    ],
)
def test_refuses_sizes_that_say_too_little(settings, quote):
    with pytest.raises(ValueError) as error:
        FisaImageProcessor(**settings)
    assert quote in str(error.value)
    with pytest.raises(ValueError):
        FisaImageProcessor()(photo_of(3, 3), **settings)


def test_refuses_settings_that_it_does_not_have():
    with pytest.raises(TypeError, match="do_center_crop"):
        FisaImageProcessor()(photo_of(3, 3), do_center_crop=True)


def test_says_which_photo_is_wrong(tmp_path):
    with pytest.raises(ValueError, match=r"Image 1: .*absent\.jpg"):
        FisaImageProcessor()([photo_of(3, 3), str(tmp_path / "absent.jpg")])
    with pytest.raises(ValueError, match=r"Image 2: .*-1\.0"):
        FisaImageProcessor()([photo_of(3, 3), photo_of(3, 3), np.full((3, 3, 3), -1.0)])
    with pytest.raises(ValueError, match="no image"):
        FisaImageProcessor()([])


@needs_peaks
def test_50_megapixels_take_little_more_memory_than_one_photo(tmp_path):
    path = tmp_path / "large.jpg"
    Image.new("RGB", (8660, 5774), "green").save(path)
    with taking_less_than(350):  # of which the decoded photo is 200
        FisaImageProcessor()([path, path])


def test_without_rescaling_pixels_keep_the_scale_they_had(photo):
    processor = FisaImageProcessor(mask_generator_size=SMALL)
    pixels = np.asarray(photo)
    wanted = processor(photo, return_tensors="np")
    for array in (pixels / 255, (pixels / 255).astype(np.float32), torch.from_numpy(pixels.copy()) / 255):
        with raising_on_any_warning():
            found = processor(array, do_rescale=False, return_tensors="np")
        for name, values in wanted.items():
            np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)
    for array, white in ((pixels, 255), (pixels.astype(np.uint16) * 257, 65535)):
        with raising_on_any_warning():
            found = processor(array, do_rescale=False, do_normalize=False, return_tensors="np")
        plain = processor(photo, do_normalize=False, return_tensors="np")
        np.testing.assert_allclose(found["pixel_values"], plain["pixel_values"] * white, atol=1e-5 * white)


def test_mean_of_0_to_1_on_pixels_of_0_to_255_is_said(photo):
    processor = FisaImageProcessor(mask_generator_size=SMALL)
    with pytest.warns(UserWarning, match="do_rescale=False.*0 to 255"):
        processor(photo, do_rescale=False)
    settings = {"do_rescale": False, "mask_generator_size": None}
    with raising_on_any_warning():
        processor(photo, image_mean=[123.7, 116.3, 103.5], image_std=[58.4, 57.1, 57.4], **settings)
