"""Proposals from each kind of mask generator: frozen, and for each photo the same in any company."""

import numpy as np
import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from fisa.modeling_fisa.mask_generation import generate_proposals, ready_proposals
from tests.configurations import GENERATOR_KINDS, NUM_KNOWN_CLASSES, NUM_QUERIES, tiny_generator_inputs, tiny_inputs
from tests.models import tiny_segmentation_model


# Sides that are multiples of 32, of 4, and of nothing in particular; two photos of one size with another between them.
PHOTO_SIZES = [(64, 48), (57, 64), (64, 48), (36, 50)]


@pytest.fixture(params=GENERATOR_KINDS)
def model(request):
    return tiny_segmentation_model(request.param)


def segmentation_inputs(photo_sizes, *, canvas=(64, 64)):
    inputs = tiny_inputs(batch_size=len(photo_sizes))
    del inputs["mask_proposals"]
    return {**inputs, **tiny_generator_inputs(photo_sizes, canvas=canvas)}


def photo(inputs, index):
    return {key: value if key == "class_embeds" else value[index : index + 1] for key, value in inputs.items()}


def masks_on_photo(outputs, index):
    masks = outputs.masks_queries_logits[index]
    height, width = masks.shape[-2:] if outputs.proposal_sizes is None else outputs.proposal_sizes[index].tolist()
    return masks[:, :height, :width]


def assert_photo_is_the_same(found, found_index, wanted, wanted_index):
    for name in ("class_queries_logits", "objectness", "logits_per_mask", "mask_embeds"):
        torch.testing.assert_close(found[name][found_index], wanted[name][wanted_index], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(
        masks_on_photo(found, found_index), masks_on_photo(wanted, wanted_index), atol=1e-4, rtol=1e-4
    )


@torch.no_grad()
def test_each_photo_of_a_batch_is_as_it_is_alone(model):
    inputs = segmentation_inputs(PHOTO_SIZES)
    batch = model(**inputs)
    for index in range(len(PHOTO_SIZES)):
        assert_photo_is_the_same(batch, index, model(**photo(inputs, index)), 0)


@torch.no_grad()
def test_order_of_a_batch_is_kept(model):
    inputs = segmentation_inputs(PHOTO_SIZES)
    order = [2, 3, 0, 1]
    shuffled = {key: value if key == "class_embeds" else value[order] for key, value in inputs.items()}
    batch, found = model(**inputs), model(**shuffled)
    for place, index in enumerate(order):
        assert_photo_is_the_same(found, place, batch, index)


@pytest.mark.parametrize("generator", ["mask2former", "maskformer"])
@torch.no_grad()
def test_size_of_the_canvas_does_not_matter(generator):
    model = tiny_segmentation_model(generator)
    found = model(**segmentation_inputs(PHOTO_SIZES, canvas=(96, 160)))
    wanted = model(**segmentation_inputs(PHOTO_SIZES))
    for index in range(len(PHOTO_SIZES)):
        assert_photo_is_the_same(found, index, wanted, index)


@torch.no_grad()
def test_a_mask_generator_sees_the_bare_photo(model):
    """What lies on the canvas beside the photo is nothing to it, or, with EoMT, part of what it is made for."""
    inputs = segmentation_inputs([(64, 48)])
    cut = inputs["mask_generator_pixel_values"]
    if model.config.mask_generator_config.model_type != "eomt":
        cut = cut[..., :48]
    wanted = model.mask_generator(pixel_values=cut)
    outputs = model(**inputs)
    columns = wanted.masks_queries_logits.shape[-1] * 48 // cut.shape[-1]
    torch.testing.assert_close(masks_on_photo(outputs, 0), wanted.masks_queries_logits[0, ..., :columns])
    torch.testing.assert_close(outputs.objectness, 1 - wanted.class_queries_logits.softmax(-1)[..., -1])


@torch.no_grad()
def test_photos_of_one_size_run_together():
    model = tiny_segmentation_model("mask2former")
    batches = []
    model.mask_generator.register_forward_hook(
        lambda module, args, kwargs, output: batches.append(tuple(kwargs["pixel_values"].shape)), with_kwargs=True
    )
    model(**segmentation_inputs(PHOTO_SIZES))
    assert sorted(batches) == [(1, 3, 36, 50), (1, 3, 57, 64), (2, 3, 64, 48)]


@torch.no_grad()
def test_a_photo_that_fills_the_canvas_needs_no_pixel_mask(model):
    inputs = segmentation_inputs([(64, 64)] * 2)
    without = {key: value for key, value in inputs.items() if key != "mask_generator_pixel_mask"}
    found, wanted = model(**inputs), model(**without)
    for index in range(2):
        assert_photo_is_the_same(found, index, wanted, index)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.uint8, torch.float32], ids=str)
@torch.no_grad()
def test_pixel_mask_may_be_of_any_type(dtype):
    model = tiny_segmentation_model("mask2former")
    inputs = segmentation_inputs(PHOTO_SIZES)
    found = model(**{**inputs, "mask_generator_pixel_mask": inputs["mask_generator_pixel_mask"].to(dtype)})
    assert torch.equal(found.class_queries_logits, model(**inputs).class_queries_logits)


@torch.no_grad()
def test_masks_beyond_the_photo_are_outside():
    outputs = tiny_segmentation_model("mask2former")(**segmentation_inputs(PHOTO_SIZES))
    for masks, (height, width) in zip(outputs.masks_queries_logits, outputs.proposal_sizes.tolist()):
        assert (masks[:, height:] < 0).all() and (masks[..., width:] < 0).all()
    assert outputs.proposal_sizes.dtype == torch.int64
    assert outputs.masks_queries_logits.shape[-2:] == tuple(outputs.proposal_sizes.amax(0).tolist())


@torch.no_grad()
def test_eomts_photo_sizes_are_in_mask_pixels():
    """A canvas of 64 pixels is a mask of 8: the photo's share of it, to the nearest mask pixel and never none."""
    outputs = tiny_segmentation_model("eomt")(**segmentation_inputs([(64, 64), (64, 29), (3, 64)]))
    assert outputs.masks_queries_logits.shape == (3, NUM_QUERIES, 8, 8)
    assert outputs.proposal_sizes.tolist() == [[8, 8], [8, 4], [1, 8]]


@torch.no_grad()
def test_proposals_carry_the_generators_opinion_without_its_no_object_class(model):
    photos = tiny_generator_inputs([(64, 64)], canvas=(64, 64))["mask_generator_pixel_values"]
    proposals = generate_proposals(model.mask_generator, photos, pixel_mask=None)
    logits = model.mask_generator(pixel_values=photos).class_queries_logits
    assert proposals.class_logits.shape == (1, NUM_QUERIES, NUM_KNOWN_CLASSES)
    torch.testing.assert_close(proposals.class_logits, logits[..., :-1])
    torch.testing.assert_close(proposals.objectness, 1 - logits.softmax(-1)[..., -1])


@torch.no_grad()
def test_objectness_keeps_its_digits_where_objects_are_unlikely():
    generator = tiny_segmentation_model("eomt").mask_generator
    doubt = torch.tensor([-20.0, -21.0, -30.0, 0.0])
    generator.class_predictor.weight.zero_()
    generator.class_predictor.bias.copy_(doubt)
    objectness = generate_proposals(generator, torch.zeros(1, 3, 64, 64), pixel_mask=None).objectness
    wanted = doubt.double().softmax(-1)[:-1].sum()
    torch.testing.assert_close(objectness, wanted.float().expand(1, NUM_QUERIES), rtol=1e-5, atol=0)


# Frozen


def test_the_mask_generator_stays_in_evaluation_mode_and_deterministic_under_train(model):
    """With drop path and dropout of a half, one random number drawn would show."""
    inputs = segmentation_inputs(PHOTO_SIZES)
    with torch.no_grad():
        wanted = model(**inputs)
    model.train()
    assert model.training and model.fisa.training
    assert not any(module.training for module in model.mask_generator.modules())
    for _ in range(2):
        found = model(**inputs)
        assert torch.equal(found.masks_queries_logits, wanted.masks_queries_logits)
        assert torch.equal(found.objectness, wanted.objectness)
    assert not model.eval().training


@torch.no_grad()
def test_drop_path_and_dropout_would_show(model):
    generator, photos = model.mask_generator.train(), torch.randn(1, 3, 64, 64)
    runs = [generator(pixel_values=photos).masks_queries_logits for _ in range(10)]
    assert any(not torch.equal(run, runs[0]) for run in runs)


def test_the_mask_generator_gets_no_gradient_and_is_not_moved(model):
    before = {name: tensor.clone() for name, tensor in model.mask_generator.state_dict().items()}
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    outputs = model(**segmentation_inputs(PHOTO_SIZES))
    assert not outputs.masks_queries_logits.requires_grad and not outputs.objectness.requires_grad
    outputs.class_queries_logits.square().mean().backward()
    assert all(parameter.grad is None for parameter in model.mask_generator.parameters())
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.mask_generator.state_dict().items())


@torch.no_grad()
def test_a_mask_generator_may_run_in_another_type_than_clip():
    model = tiny_segmentation_model("mask2former")
    wanted = model(**segmentation_inputs(PHOTO_SIZES))
    model.mask_generator.bfloat16()
    found = model(**segmentation_inputs(PHOTO_SIZES))
    assert found.class_queries_logits.dtype == found.objectness.dtype == torch.float32
    torch.testing.assert_close(found.objectness, wanted.objectness, atol=0.05, rtol=0)


# Ready proposals from elsewhere


@torch.no_grad()
def test_sams_mask_generation_output_is_taken_image_by_image():
    """transformers' mask-generation pipeline gives, for an image, a list of Boolean arrays of the image's size."""
    model = tiny_segmentation_model()
    inputs = tiny_inputs(batch_size=1, mask_size=(37, 53))
    sam = {"masks": [np.asarray(mask) for mask in inputs["mask_proposals"][0] > 0], "scores": torch.rand(4)}
    found = model(
        **{**inputs, "mask_proposals": torch.tensor(np.stack(sam["masks"]))[None]}, objectness=sam["scores"][None]
    )
    wanted = model(**inputs, objectness=sam["scores"][None])
    assert torch.equal(found.class_queries_logits, wanted.class_queries_logits)


def test_ready_proposals_have_no_opinion_on_classes_and_span_the_photo():
    proposals = ready_proposals(torch.ones(1, 2, 3, 4, dtype=torch.bool), objectness=None)
    assert proposals.class_logits is None and proposals.sizes is None
    assert proposals.objectness.dtype == torch.float32


@torch.no_grad()
def test_ready_proposals_pass_by_the_ensemble():
    model = tiny_segmentation_model("eomt", ensemble_weight=0.5)
    inputs = tiny_inputs()
    wanted = model(**inputs)
    found = model(**inputs, generator_class_ids=torch.tensor([0, 1, 2]))
    assert torch.equal(found.class_queries_logits, wanted.class_queries_logits)


def test_a_generator_that_answers_otherwise_is_refused_by_what_it_gave():
    generator = SegformerForSemanticSegmentation(
        SegformerConfig(hidden_sizes=[8] * 4, num_attention_heads=[1] * 4, depths=[1] * 4, decoder_hidden_size=8)
    )
    with pytest.raises(ValueError, match="SemanticSegmenterOutput.*logits.*class_queries_logits"):
        generate_proposals(generator, torch.zeros(1, 3, 64, 64), pixel_mask=None)


@torch.no_grad()
def test_proposals_below_the_floor_are_left_out_and_the_others_stay_as_they_are(model):
    inputs = segmentation_inputs(PHOTO_SIZES)
    whole = model(**inputs)
    floor = whole.objectness.sort().values[:, -2].max().item()  # of one photo two stay, of others fewer
    counts = (whole.objectness >= floor).sum(dim=1)
    assert counts.max() == 2
    model.config.objectness_floor = floor
    found = model(**inputs)
    assert found.objectness.shape[1] == 2 < NUM_QUERIES
    for index, count in enumerate(counts.tolist()):
        likely = (whole.objectness[index] >= floor).nonzero().flatten()
        places = (found.objectness[index] >= floor).nonzero().flatten()
        assert len(places) == count
        for name in ("class_queries_logits", "logits_per_mask", "masks_queries_logits"):
            torch.testing.assert_close(found[name][index][places], whole[name][index][likely], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_where_nothing_reaches_the_floor_the_likeliest_proposal_is_left(model):
    inputs = segmentation_inputs(PHOTO_SIZES)
    whole = model(**inputs)
    model.config.objectness_floor = 1.0
    found = model(**inputs)
    assert found.objectness.shape == (len(PHOTO_SIZES), 1)
    torch.testing.assert_close(found.objectness[:, 0], whole.objectness.amax(dim=1))
