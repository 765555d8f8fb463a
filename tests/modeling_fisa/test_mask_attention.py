"""Which patches a mask token may see: coverage and the attention bias made from it."""

from fractions import Fraction

import pytest
import torch

from fisa.modeling_fisa.mask_attention import mask_attention_bias, patch_coverage
from tests.configurations import tiny_inputs
from tests.models import tiny_model


INF = float("inf")


def coverage_of(masks, grid):
    """Coverage of the patches of a photo that these fill in `grid` rows and columns."""
    return patch_coverage(masks, image_size=(16 * grid[0], 16 * grid[1]), patch_size=16)


@pytest.mark.parametrize("mask_size", [(8, 8), (5, 7), (3, 2), (1, 1), (40, 24)], ids=str)
@pytest.mark.parametrize("image_size", [(32, 32), (16, 24), (8, 8), (61, 43)], ids=str)
def test_a_full_mask_covers_every_patch_fully(mask_size, image_size):
    coverage = patch_coverage(torch.ones(1, 1, *mask_size), image_size=image_size, patch_size=8)
    assert coverage.shape == (1, 1, (image_size[0] // 8) * (image_size[1] // 8))
    torch.testing.assert_close(coverage, torch.ones_like(coverage))


def test_pixels_that_belong_to_no_patch_cover_none():
    """Two patches of 8 pixels in a photo of 20: the last four are left out, as by CLIP's convolution."""
    mask = -torch.ones(1, 1, 20, 20)
    mask[..., 16:] = 1.0
    mask[..., 16:, :] = 1.0
    assert not patch_coverage(mask, image_size=(20, 20), patch_size=8).any()
    mask[..., 8:16, 8:16] = 1.0
    assert patch_coverage(mask, image_size=(20, 20), patch_size=8).flatten().tolist() == [0, 0, 0, 1]


def test_patches_count_row_by_row():
    mask = -torch.ones(1, 1, 4, 6)
    mask[..., 0:2, 4:6] = 1.0
    assert coverage_of(mask, (2, 3))[0, 0].tolist() == [0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize("logit, covered", [(1e-30, 1.0), (0.0, 0.0), (-1e-30, 0.0), (INF, 1.0), (-INF, 0.0)])
def test_a_pixel_is_covered_where_its_logit_is_positive(logit, covered):
    assert coverage_of(torch.full((1, 1, 2, 2), logit), (1, 1)).item() == covered


@pytest.mark.parametrize("width", [3, 7, 11, 24, 37, 640])
def test_one_pixel_is_shared_between_the_patches_that_it_straddles(width):
    """Five patches over `width` pixels, and one pixel of them covered at a time."""
    masks = torch.eye(width).unsqueeze(1).unsqueeze(0) - 0.5
    coverage = coverage_of(masks, (1, 5))[0]
    for pixel in range(width):
        for patch in range(5):
            left, right = Fraction(patch * width, 5), Fraction((patch + 1) * width, 5)
            overlap = max(Fraction(0), min(right, pixel + 1) - max(left, pixel))
            assert coverage[pixel, patch].item() == pytest.approx(float(overlap / (right - left)), abs=1e-6)


def almost_half_covered() -> torch.Tensor:
    """Masks for two patches of 32 × 32 mask pixels: 511 of 1024 pixels inside, and all of them."""
    masks = -torch.ones(1, 1, 32, 64)
    masks[..., :, 32:] = 1.0
    masks[..., :15, :32] = 1.0
    masks[..., 15, :31] = 1.0
    return masks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_half_precision_masks_lose_no_pixel(dtype):
    coverage = coverage_of(almost_half_covered().to(dtype), (1, 2))
    assert coverage.dtype == torch.float32
    assert coverage[0, 0].tolist() == [511 / 1024, 1.0]


@torch.no_grad()
def test_autocast_loses_no_pixel():
    model = tiny_model(mask_coverage_threshold=0.5)
    model.set_attn_implementation("eager")
    inputs = tiny_inputs(batch_size=1, image_size=(8, 16)) | {"mask_proposals": almost_half_covered()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = model(**inputs, output_attentions=True).mask_attentions[0]
    assert (weights > 0).all(dim=1).flatten().tolist() == [True, False, True]


@pytest.mark.parametrize(
    "threshold, coverage, seen",
    [
        (0.0, [0.0, 1e-4, 0.5, 1.0], [1, 2, 3]),
        (0.5, [0.0, 0.49, 0.5, 1.0], [2, 3]),
        (0.5, [0.0, 0.1, 0.3, 0.2], [2]),
        (0.5, [0.3, 0.1, 0.3, 0.2], [0, 2]),
        (1.0, [0.0, 0.99, 1.0, 1.0], [2, 3]),
        (1.0, [1e-4, 0.0, 0.0, 0.0], [0]),
        (0.0, [0.0, 0.0, 0.0, 0.0], []),
        (0.5, [0.0, 0.0, 0.0, 0.0], []),
    ],
)
def test_a_mask_token_sees_the_class_token_and_the_covered_patches(threshold, coverage, seen):
    bias = mask_attention_bias(torch.tensor([[coverage]]), threshold=threshold, dtype=torch.float32)
    assert bias.shape == (1, 1, 1, 5)
    assert bias.flatten().tolist() == [0.0] + [0.0 if patch in seen else -INF for patch in range(4)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_bias_has_the_type_of_the_scores(dtype):
    assert mask_attention_bias(torch.rand(1, 2, 4), threshold=0.5, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_clips_attention_dropout_acts_in_training_alone(attention):
    model = tiny_model(seve_layers=[], vision={"attention_dropout": 0.5})
    model.set_attn_implementation(attention)
    inputs = tiny_inputs()
    with torch.no_grad():
        wanted = tiny_model(seve_layers=[])(**inputs).mask_embeds
        torch.testing.assert_close(model(**inputs).mask_embeds, wanted, atol=1e-5, rtol=1e-5)
        model.train()
        assert not torch.allclose(model(**inputs).mask_embeds, model(**inputs).mask_embeds, atol=1e-3)
