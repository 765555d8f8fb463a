"""Attention between segments: image patches of different proposals look at each other less."""

import numpy as np
import pytest
import torch

from fisa.modeling_fisa.mask_attention import NO_SEGMENT, segment_attention_bias, segments_of_patches
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.modeling_fisa.plain_fisa import PlainFisa
from tests.models import tiny_model, tiny_segmentation_model


OBJECTNESS = torch.tensor([[0.9, 0.2, 0.7, 0.6], [0.3, 1.0, 0.8, 0.4]])
PENALISED = {"segment_attention_penalty": 1.3}


def assert_equals_plain(model, inputs, *, objectness=None):
    plain = PlainFisa(model.state_dict(), model.config)
    with torch.no_grad():
        found = model(**inputs, objectness=objectness).mask_embeds
    sizes = inputs.get("proposal_sizes", [None] * len(found))
    for index, embeds in enumerate(found):
        wanted = plain.mask_embeds(
            inputs["pixel_values"][index],
            inputs["mask_proposals"][index],
            inputs["class_embeds"],
            photo_size=sizes[index],
            objectness=None if objectness is None else objectness[index].tolist(),
        )
        np.testing.assert_allclose(embeds, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("objectness", [None, OBJECTNESS], ids=["ready proposals", "objectness"])
@pytest.mark.parametrize("penalty", [0.5, 4.0])
def test_mask_embeddings_equal_a_plain_loop(penalty, objectness, attention):
    model = tiny_model(segment_attention_penalty=penalty)
    model.set_attn_implementation(attention)
    assert_equals_plain(model, tiny_inputs(), objectness=objectness)


@pytest.mark.parametrize("mask_size", [(32, 32), (4, 4), (3, 5)], ids=str)
def test_mask_embeddings_at_any_mask_grid(mask_size):
    model = tiny_model(**PENALISED, vision={"num_hidden_layers": 2})
    assert_equals_plain(model, tiny_inputs(mask_size=mask_size), objectness=OBJECTNESS)


def test_the_padding_of_masks_claims_no_patch():
    sizes = torch.tensor([[13, 17], [7, 11]])
    assert_equals_plain(tiny_model(**PENALISED), {**tiny_inputs(), "proposal_sizes": sizes}, objectness=OBJECTNESS)


def test_a_patch_belongs_to_its_likeliest_proposal_or_to_none():
    left, right = torch.full((4, 4), -10.0), torch.full((4, 4), -10.0)
    left[:, :2], right[:, 2:] = 2.0, 3.0
    left[3], right[3] = -10.0, -10.0
    masks, options = torch.stack([left, right])[None], {"image_size": (4, 4), "patch_size": 1}
    certain = segments_of_patches(masks, torch.ones(1, 2), **options)
    assert certain.view(4, 4).tolist() == [[0, 0, 1, 1]] * 3 + [[NO_SEGMENT] * 4]
    assert torch.equal(segments_of_patches(masks > 0, torch.ones(1, 2), **options), certain)
    whole = torch.full((1, 1, 4, 4), 1.0)
    for objectness, segment in ((0.9, 2), (0.1, 0)):
        claims = torch.tensor([[0.5, 0.6, objectness]])
        assert segments_of_patches(torch.cat([masks, whole], 1), claims, **options)[0, 0] == segment


def test_the_class_token_is_left_alone():
    bias = segment_attention_bias(torch.tensor([[0, 0, -1]]), penalty=2.0, dtype=torch.float32)
    assert bias.tolist() == [[[[0, 0, 0, 0], [0, 0, 0, -2], [0, 0, 0, -2], [0, -2, -2, 0]]]]


@torch.no_grad()
def test_without_penalty_no_bit_changes_and_with_one_segment_none_does():
    inputs = tiny_inputs()
    with_zero = tiny_model(segment_attention_penalty=0.0)(**inputs, objectness=OBJECTNESS)
    before = tiny_model()(**inputs)
    for name in ("mask_embeds", "last_hidden_state"):
        assert torch.equal(with_zero[name], before[name])
    penalised = tiny_model(**PENALISED)
    assert not torch.allclose(penalised(**inputs).mask_embeds, before.mask_embeds, atol=1e-3)
    everything = {**inputs, "mask_proposals": torch.ones(2, 1, 4, 4)}
    torch.testing.assert_close(penalised(**everything).mask_embeds, tiny_model()(**everything).mask_embeds)


@torch.no_grad()
def test_photos_without_proposals_are_encoded_as_ever():
    inputs = {**tiny_inputs(), "mask_proposals": torch.zeros(2, 0, 1, 1)}
    found = tiny_model(**PENALISED)(**inputs).last_hidden_state
    assert torch.equal(found, tiny_model()(**inputs).last_hidden_state)


@torch.no_grad()
def test_a_photos_result_does_not_depend_on_its_batch():
    """One photo has fewer likely proposals than the other and keeps spare ones, which must claim no patch."""
    model = tiny_segmentation_model("eomt", **PENALISED)
    inputs = tiny_inputs()
    del inputs["mask_proposals"]
    inputs |= tiny_generator_inputs([(64, 64), (64, 64)], canvas=(64, 64))
    assert (model(**inputs).objectness >= 0.5).sum(1).tolist() == [3, 4]
    model.config.objectness_floor = 0.5
    together = model(**inputs)
    for index in range(2):
        alone = model(**{name: x if name == "class_embeds" else x[index : index + 1] for name, x in inputs.items()})
        for proposal, objectness in enumerate(alone.objectness[0]):
            same = (together.objectness[index] - objectness).abs().argmin()
            torch.testing.assert_close(together.mask_embeds[index, same], alone.mask_embeds[0, proposal])


@torch.no_grad()
def test_training_reads_as_inference_does():
    model, inputs = tiny_model(**PENALISED), tiny_inputs()
    read = model.eval()(**inputs, objectness=OBJECTNESS).mask_embeds
    assert torch.equal(model.train()(**inputs, objectness=OBJECTNESS).mask_embeds, read)
    assert not torch.allclose(tiny_model().train()(**inputs).mask_embeds, read, atol=1e-3)


# Segments of all proposals, handed on with some of them


def all_segments(inputs):
    return segments_of_patches(inputs["mask_proposals"], OBJECTNESS, image_size=(32, 32), patch_size=8)


@torch.no_grad()
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_some_proposals_with_the_segments_of_all_are_read_as_among_all(mode):
    model, inputs = getattr(tiny_model(**PENALISED), mode)(), tiny_inputs()
    among_all = model(**inputs, objectness=OBJECTNESS).mask_embeds
    some = inputs | {"mask_proposals": inputs["mask_proposals"][:, 1:3]}
    found = model(**some, patch_segments=all_segments(inputs)).mask_embeds
    torch.testing.assert_close(found, among_all[:, 1:3], atol=1e-6, rtol=0)
    assert not torch.allclose(model(**some, objectness=OBJECTNESS[:, 1:3]).mask_embeds, found, atol=1e-4)


@torch.no_grad()
def test_only_which_patches_share_a_segment_counts():
    model, inputs = tiny_model(**PENALISED), tiny_inputs()
    segments = all_segments(inputs)
    found = model(**inputs, patch_segments=segments).mask_embeds
    assert torch.equal(model(**inputs, patch_segments=7 - 3 * segments.to(torch.int32)).mask_embeds, found)
    without = {**inputs, "mask_proposals": torch.zeros(2, 0, 1, 1)}
    alone = model(**without, patch_segments=segments).last_hidden_state
    torch.testing.assert_close(alone, model(**inputs, patch_segments=segments).last_hidden_state)


@torch.no_grad()
def test_without_penalty_segments_are_not_read():
    model, inputs = tiny_model(), tiny_inputs()
    found = model(**inputs, patch_segments=all_segments(inputs)).mask_embeds
    assert torch.equal(found, model(**inputs).mask_embeds)


@pytest.mark.parametrize("shape, dtype", [((2, 4, 4), torch.long), ((1, 16), torch.long), ((2, 16), torch.float)])
def test_segments_that_do_not_fit_the_patches_are_refused(shape, dtype):
    with pytest.raises(ValueError, match=r"`patch_segments` has shape .* one integer per patch, \(2, 16\) for 4 x 4"):
        tiny_model(**PENALISED)(**tiny_inputs(), patch_segments=torch.zeros(shape, dtype=dtype))
