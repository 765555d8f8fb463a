"""The generator's deformable attention, summed at once, beside transformers' own, which samples and then sums."""

import copy

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoderEncoderMultiscaleDeformableAttention as TransformersAttention,
)

from fisa.acceleration.deformable_attention import SummedDeformableAttention, sum_samples_at_once
from tests.models import tiny_segmentation_model


SHAPES = [(3, 5), (6, 9), (12, 17)]
NUM_CELLS = sum(height * width for height, width in SHAPES)


@pytest.fixture
def attentions():
    torch.manual_seed(0)
    theirs = TransformersAttention(embed_dim=32, num_heads=4, n_levels=3, n_points=4).eval()
    ours = sum_samples_at_once(torch.nn.ModuleList([copy.deepcopy(theirs)]))[0]
    return ours, theirs


def inputs(*, batch_size=2, spread=1.0):
    """Queries whose references lie on the photo, for `spread` 1, or as far beyond it as on it, for 2 and more."""
    torch.manual_seed(1)
    references = (torch.rand(batch_size, NUM_CELLS, 3, 2) - 0.5) * spread + 0.5
    return {
        "hidden_states": torch.randn(batch_size, NUM_CELLS, 32),
        "encoder_hidden_states": torch.randn(batch_size, NUM_CELLS, 32),
        "position_embeddings": torch.randn(batch_size, NUM_CELLS, 32),
        "attention_mask": torch.rand(batch_size, NUM_CELLS) < 0.2,
        "reference_points": references,
        "spatial_shapes_list": SHAPES,
    }


@torch.no_grad()
@pytest.mark.parametrize("spread", [0.0, 1.0, 2.0, 50.0])
@pytest.mark.parametrize("offsets", [0.1, 3.0])
def test_sums_are_those_of_transformers(attentions, spread, offsets):
    for attention in attentions:
        attention.sampling_offsets.weight.normal_(std=offsets, generator=torch.Generator().manual_seed(2))
    (found, weights), (wanted, wanted_weights) = (attention(**inputs(spread=spread)) for attention in attentions)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(weights, wanted_weights)


@torch.no_grad()
def test_in_bfloat16_positions_stay_exact(attentions):
    ours, theirs = attentions
    call = inputs()
    wanted, _ = theirs(**call)
    half = {
        name: value.bfloat16() if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in call.items()
    }
    found, _ = ours.bfloat16()(**half)
    in_transformers, _ = theirs.bfloat16()(**half)
    assert (found - wanted).abs().mean() <= (in_transformers - wanted).abs().mean()


@torch.no_grad()
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_stays_none(attentions, value):
    ours, _ = attentions
    call = inputs()
    call["hidden_states"][0, 5] = value
    found, _ = ours(**call)
    assert found[0, 5].isnan().all()
    assert not found[1].isnan().any() and not found[0, 6:].isnan().any()


def test_gradients_are_those_of_transformers(attentions):
    for attention in attentions:
        attention(**inputs())[0].square().sum().backward()
    for found, wanted in zip(*(attention.parameters() for attention in attentions)):
        assert torch.equal(found.grad, wanted.grad)


@torch.no_grad()
def test_a_whole_generator_finds_the_same_masks():
    generator = tiny_segmentation_model("mask2former").mask_generator
    theirs = type(generator)(generator.config).eval()
    theirs.load_state_dict(generator.state_dict())
    assert any(isinstance(module, SummedDeformableAttention) for module in generator.modules())
    assert not any(isinstance(module, SummedDeformableAttention) for module in theirs.modules())
    pixels = torch.randn(2, 3, 57, 64)
    found, wanted = generator(pixels), theirs(pixels)
    torch.testing.assert_close(found.masks_queries_logits, wanted.masks_queries_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.class_queries_logits, wanted.class_queries_logits, atol=1e-4, rtol=1e-4)
