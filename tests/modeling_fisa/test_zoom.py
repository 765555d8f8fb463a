"""Zoom: proposals read a second time in windows of the photo, against a plain loop of crops."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from fisa import FisaImageProcessor
from fisa.miniature import miniature
from fisa.modeling_fisa.mask_attention import patch_coverage
from fisa.modeling_fisa.zoom import WINDOWS_AT_A_TIME
from tests.modeling_fisa.plain_fisa import covered_fraction
from tests.models import tiny_segmentation_model


PATCH = 8
WINDOW = 24  # CLIP sees windows of 3 × 3 patches, and 4 × 4 of the whole photo
PROCESSOR = FisaImageProcessor(
    size={"height": 32, "width": 32}, zoom_size={"height": WINDOW, "width": WINDOW}, mask_generator_size=None
)


def noise(height: int, width: int, *, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def proposals(*boxes: tuple[int, int, int, int], grid: tuple[int, int] = (20, 30)) -> torch.Tensor:
    """Mask logits `(1, Q, h, w)`, positive in boxes of top, left, bottom and right."""
    masks = torch.full((1, len(boxes), *grid), -1.0)
    for mask, (top, left, bottom, right) in zip(masks[0], boxes):
        mask[top:bottom, left:right] = 1.0
    return masks


BOXES = [
    (4, 5, 9, 11),  # in the middle
    (0, 0, 3, 5),  # in a corner
    (14, 24, 20, 30),  # in the opposite one
    (7, 12, 8, 13),  # one pixel
    (0, 3, 20, 6),  # as high as the photo, and narrow
    (5, 5, 5, 5),  # empty
    (0, 0, 20, 30),  # the whole photo
    (2, 1, 18, 28),  # nearly
    (10, 8, 13, 13),
]
OBJECTNESS = [0.5, 0.9, 0.3, 0.7, 0.6, 0.99, 0.8, 0.8, 0.1]


def inputs_of(photos: list[Image.Image], masks: torch.Tensor, **settings) -> dict:
    random = torch.Generator().manual_seed(3)
    return {
        **PROCESSOR(photos, return_tensors="pt", **settings),
        "mask_proposals": masks.expand(len(photos), -1, -1, -1),
        "objectness": torch.tensor([OBJECTNESS[: masks.shape[1]]]).expand(len(photos), -1),
        "class_embeds": torch.randn(6, 20, generator=random),
    }


def plain_window(mask: torch.Tensor, photo: Image.Image) -> tuple[int, int, int, int]:
    """Left, top, width and height of the window around a mask, in pixels of the photo."""
    inside = [
        (row, column) for row in range(mask.shape[0]) for column in range(mask.shape[1]) if mask[row, column] > 0
    ]
    rows, columns = zip(*inside)
    scales = photo.width / mask.shape[1], photo.height / mask.shape[0]
    borders = [(min(places) * scale, (max(places) + 1) * scale) for places, scale in zip((columns, rows), scales)]
    side = max(1, round(1.2 * max(far - near for near, far in borders)))
    window = []
    for (near, far), length in zip(borders, photo.size):
        span = min(side, length)
        window.append((min(max(round((near + far - span) / 2), 0), length - span), span))
    (left, width), (top, height) = window
    return left, top, width, height


def plain_zoom(model, photo: Image.Image, masks: torch.Tensor, inputs: dict, *, zoom: int) -> torch.Tensor:
    """Log-probabilities of each proposal `(Q, C)`, one crop at a time."""
    class_embeds, objectness = inputs["class_embeds"], inputs["objectness"][0].tolist()
    whole = PROCESSOR(photo, return_tensors="pt")["pixel_values"]
    scene = {"mask_proposals": masks, "objectness": inputs["objectness"]}
    first = model(whole, **scene, class_embeds=class_embeds).logits_per_mask[0].log_softmax(-1)
    small = []
    for index, mask in enumerate(masks[0]):
        if (mask > 0).any():
            _, _, width, height = plain_window(mask, photo)
            if (
                width * height < 0.5 * photo.width * photo.height
                and objectness[index] >= model.config.objectness_floor
            ):
                small.append(index)
    result = first.clone()
    for index in sorted(small, key=lambda index: -objectness[index])[:zoom]:
        mask = masks[0, index]
        left, top, width, height = plain_window(mask, photo)
        crop = photo.crop((left, top, left + width, top + height))
        pixels = PROCESSOR(crop, return_tensors="pt", size={"height": WINDOW, "width": WINDOW})["pixel_values"]
        # Each pixel of the photo has the mask's pixels in small squares, so that the crop cuts the mask exactly.
        fine = (mask > 0).repeat_interleave(photo.height, 0).repeat_interleave(photo.width, 1)
        fine = fine.unflatten(0, (photo.height, -1)).unflatten(2, (photo.width, -1))
        cut = fine[top : top + height, :, left : left + width].flatten(2, 3).flatten(0, 1)
        # Without other proposals there are no segments that attention could keep apart.
        cut = {"mask_proposals": cut[None, None], "objectness": torch.zeros(1, 1)}
        again = model(pixels, **cut, class_embeds=class_embeds).logits_per_mask[0, 0]
        result[index] = ((first[index] + again.log_softmax(-1)) / 2).log_softmax(-1)
    return result


def log_probs(outputs) -> torch.Tensor:
    """Of the classes alone, whatever the objectness."""
    return outputs.class_queries_logits[..., :-1].log_softmax(-1)


@pytest.mark.parametrize("size", [(40, 60), (61, 47), (10, 150)])
@pytest.mark.parametrize("zoom", [1, 3, 100])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
@torch.no_grad()
def test_equals_a_loop_over_crops(size, zoom, threshold):
    model = tiny_segmentation_model(mask_coverage_threshold=threshold)
    photo, masks = noise(*size), proposals(*BOXES)
    inputs = inputs_of([photo], masks, zoom=zoom)
    expected = plain_zoom(model, photo, masks, inputs, zoom=zoom)
    torch.testing.assert_close(log_probs(model(**inputs))[0], expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(log_probs(model(**inputs_of([photo], masks)))[0], expected, atol=1e-3)


@pytest.mark.parametrize("option", [{"objectness_floor": 0.55}, {"segment_attention_penalty": 1.0}])
@torch.no_grad()
def test_equals_the_loop_with_a_floor_and_between_segments(option):
    model = tiny_segmentation_model(**option)
    photo, masks = noise(40, 60), proposals(*BOXES)
    inputs = inputs_of([photo], masks, zoom=100)
    expected = plain_zoom(model, photo, masks, inputs, zoom=100)
    torch.testing.assert_close(log_probs(model(**inputs))[0], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_patch_is_covered_as_fractions_say():
    """Masks and windows whose borders meet nowhere: the plain cut above, once more by exact fractions."""
    mask = torch.rand(7, 11, generator=torch.Generator().manual_seed(0)) > 0.4
    window, photo_size = (3, 5, 17, 13), (29, 31)  # top, left, height, width
    coverage = patch_coverage(
        mask[None, None].float(),
        image_size=(WINDOW, WINDOW),
        patch_size=PATCH,
        windows=torch.tensor([[window[:2], window[2:], photo_size]]),
    )
    fine = mask.repeat_interleave(29, 0).repeat_interleave(31, 1)
    rows, columns = (slice(window[i] * n, (window[i] + window[i + 2]) * n) for i, n in ((0, 7), (1, 11)))
    share = (Fraction(PATCH, WINDOW),) * 2
    expected = [
        float(covered_fraction(fine[rows, columns], row, column, share)) for row in range(3) for column in range(3)
    ]
    torch.testing.assert_close(coverage[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


@torch.no_grad()
def test_a_batch_equals_its_photos_alone():
    """More windows than are read at a time, of photos of several sizes, each with words of its own."""
    model = tiny_segmentation_model(mask_coverage_threshold=0.5)
    photos = [noise(*size, seed=seed) for seed, size in enumerate([(40, 60), (64, 32), (33, 90)])]
    inputs = inputs_of(photos, proposals(*BOXES), zoom=100)
    inputs["class_embeds"] = torch.randn(3, 6, 20, generator=torch.Generator().manual_seed(1))
    together = model(**inputs).class_queries_logits
    assert 3 * 6 > WINDOWS_AT_A_TIME
    for index, photo in enumerate(photos):
        one = inputs_of([photo], proposals(*BOXES), zoom=100) | {"class_embeds": inputs["class_embeds"][index]}
        torch.testing.assert_close(model(**one).class_queries_logits[0], together[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_photos_of_a_batch_may_differ_in_zoom():
    model, masks = tiny_segmentation_model(), proposals(*BOXES)
    photos = [noise(40, 60), noise(40, 60)]
    inputs = inputs_of(photos, masks, zoom=3)
    outputs = model(**inputs | {"zoom": torch.tensor([0, 3])}).class_queries_logits
    assert torch.equal(outputs[0], model(**inputs_of(photos, masks)).class_queries_logits[0])
    torch.testing.assert_close(outputs[1], model(**inputs).class_queries_logits[1], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_is_read_once_stays_bit_for_bit():
    model, photo = tiny_segmentation_model(), noise(40, 60)
    once = model(**inputs_of([photo], proposals(*BOXES)))
    zoomed = model(**inputs_of([photo], proposals(*BOXES), zoom=2))
    same = (once.class_queries_logits == zoomed.class_queries_logits).all(-1)[0].tolist()
    assert same == [index not in (1, 3) for index in range(len(BOXES))]  # the likeliest that are small
    for name in ("masks_queries_logits", "objectness", "logits_per_mask", "mask_embeds"):
        assert torch.equal(once[name], zoomed[name])
    assert "photos" not in PROCESSOR(photo, zoom=0)
    large = [(0, 0, 20, 30), (2, 1, 18, 28), (5, 5, 5, 5)]
    none_small = model(**inputs_of([photo], proposals(*large), zoom=3))
    assert torch.equal(
        none_small.class_queries_logits, model(**inputs_of([photo], proposals(*large))).class_queries_logits
    )


@torch.no_grad()
def test_what_lies_beyond_the_photo_is_no_part_of_a_mask():
    """A generator's canvas is larger than the photo; masks may be positive there."""
    model = tiny_segmentation_model("eomt")
    processor = FisaImageProcessor.from_dict(
        PROCESSOR.to_dict() | {"mask_generator_size": {"shortest_edge": 40, "longest_edge": 64}, "zoom": 5}
    )
    photos, texts = [noise(40, 60), noise(60, 30)], torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    inputs = processor(photos, return_tensors="pt")
    outputs = model(**inputs, class_embeds=texts)
    assert outputs.proposal_sizes is not None
    for index, photo in enumerate(photos):
        height, width = outputs.proposal_sizes[index].tolist()
        masks = outputs.masks_queries_logits[index : index + 1, :, :height, :width]
        alone = {"mask_proposals": masks, "objectness": outputs.objectness[index : index + 1], "class_embeds": texts}
        cut = model(**processor(photo, return_tensors="pt", mask_generator_size=None), **alone)
        torch.testing.assert_close(log_probs(cut)[0], log_probs(outputs)[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_turned_photos_are_read_upright():
    model, masks = tiny_segmentation_model(), proposals(*BOXES)
    turned = noise(60, 40)
    turned.getexif()[ExifTags.Base.Orientation] = 6
    upright = turned.transpose(Image.Transpose.ROTATE_270)
    upright.info = {}
    (photo,) = PROCESSOR(turned, zoom=1)["photos"]
    assert photo.size == (40, 60)
    outputs = [model(**inputs_of([image], masks, zoom=100)) for image in (turned, upright)]
    assert torch.equal(*(log_probs(output) for output in outputs))


@torch.no_grad()
def test_half_precision_stays_close():
    model, photo = tiny_segmentation_model(), noise(40, 60)
    inputs = inputs_of([photo], proposals(*BOXES), zoom=100)
    exact = log_probs(model(**inputs)).exp()
    model.config.classifier_dtype = "bfloat16"
    assert (log_probs(model(**inputs)).exp() - exact).abs().max() < 0.1
    model.config.classifier_dtype = None
    halved = {
        name: value.bfloat16() if name in ("pixel_values", "class_embeds") else value for name, value in inputs.items()
    }
    assert (log_probs(model.bfloat16()(**halved)).exp() - exact).abs().max() < 0.1


def test_what_is_missing_is_said():
    model, photo = tiny_segmentation_model(), noise(40, 60)
    inputs = inputs_of([photo], proposals(*BOXES), zoom=4)
    with pytest.raises(ValueError, match="call the processor with `zoom=`"):
        model(**inputs_of([photo], proposals(*BOXES)), zoom=4)
    with pytest.raises(ValueError, match="2 photos and `pixel_values` 1"):
        model(**inputs | {"photos": inputs["photos"] * 2, "zoom": 4})
    with pytest.raises(ValueError, match="24 x 20 .* multiples of 8"):
        model(**inputs_of([photo], proposals(*BOXES), zoom=4, zoom_size={"height": 24, "width": 20}))
    with pytest.raises(ValueError, match="`zoom` is -1"):
        PROCESSOR(photo, zoom=-1)


def test_the_processor_keeps_its_setting(tmp_path):
    _, processor = miniature()
    processor.image_processor.zoom = 7
    processor.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    inputs = loaded(images=[noise(40, 60), noise(30, 30)], return_tensors="pt")
    assert inputs["zoom"].tolist() == [7, 7] and [photo.size for photo in inputs["photos"]] == [(40, 60), (30, 30)]
    assert "photos" not in loaded(images=noise(40, 60), zoom=0)
