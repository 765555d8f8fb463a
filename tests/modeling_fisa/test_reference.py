"""The model equals an independent account of the method, `plain_fisa`, to float32's rounding."""

import numpy as np
import pytest
import torch

from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.modeling_fisa.plain_fisa import PlainFisa, plain_class_logits, plain_class_probabilities
from tests.models import tiny_model, tiny_segmentation_model


SEVE = [
    {"seve_layers": []},
    {"seve_layers": [0], "seve_tokens": "both"},
    {"seve_layers": [0], "seve_tokens": "image"},
    {"seve_layers": [0], "seve_tokens": "mask"},
    {"seve_layers": [0, 2], "seve_tokens": "both"},
    {"seve_layers": [2], "seve_tokens": "image"},
    {"seve_layers": [0, 2], "seve_tokens": "mask_keys"},
]


def assert_mask_embeds_equal_plain(model, inputs, **plain_options):
    plain = PlainFisa(model.state_dict(), model.config)
    with torch.no_grad():
        found = model(**inputs).mask_embeds
    sizes = inputs.get("proposal_sizes", [None] * len(found))
    for index, embeds in enumerate(found):
        wanted = plain.mask_embeds(
            inputs["pixel_values"][index],
            inputs["mask_proposals"][index],
            inputs.get("class_embeds"),
            photo_size=sizes[index],
            **plain_options,
        )
        np.testing.assert_allclose(embeds, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("seve", SEVE, ids=str)
def test_mask_embeddings_with_and_without_seve(seve, attention):
    model = tiny_model(**seve)
    model.set_attn_implementation(attention)
    assert_mask_embeds_equal_plain(model, tiny_inputs(batch_size=1, num_proposals=3))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("mask_size", [(32, 32), (4, 4), (13, 17), (3, 5), (1, 1)], ids=str)
def test_mask_embeddings_at_any_mask_grid_and_coverage_threshold(mask_size, threshold):
    model = tiny_model(mask_coverage_threshold=threshold, vision={"num_hidden_layers": 1})
    assert_mask_embeds_equal_plain(model, tiny_inputs(batch_size=1, num_proposals=6, mask_size=mask_size))


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_mask_embeddings_of_proposals_that_are_padded(threshold):
    model = tiny_model(mask_coverage_threshold=threshold)
    inputs = tiny_inputs(batch_size=3, num_proposals=2)
    assert_mask_embeds_equal_plain(model, {**inputs, "proposal_sizes": torch.tensor([[13, 17], [7, 17], [13, 3]])})


def test_mask_embeddings_at_half_coverage_exactly():
    """Every patch is covered by exactly τ = 0.5: none may be lost to rounding, none gained."""
    model = tiny_model(mask_coverage_threshold=0.5)
    stripes = torch.tensor([1.0, -1.0]).repeat(6).expand(1, 1, 12, 12)
    less = stripes.clone()
    less[..., :3, :3] = -1.0
    inputs = tiny_inputs(batch_size=1)
    assert_mask_embeds_equal_plain(model, {**inputs, "mask_proposals": torch.cat([stripes, less], dim=1)})


def test_mask_embeddings_when_patches_do_not_fill_the_photo():
    """CLIP leaves out the rest of a photo whose sides are no multiple of its patches; so must the coverage."""
    model = tiny_model(vision={"image_size": 36})
    inputs = tiny_inputs(batch_size=1, image_size=(36, 36), mask_size=(36, 36), num_proposals=5)
    inputs["mask_proposals"][0, 0] = -1.0
    inputs["mask_proposals"][0, 0, 24:32, 24:32] = 1.0
    assert_mask_embeds_equal_plain(model, inputs)


def plain_scores(model, inputs, outputs, class_of_prompt, *, objectness, index=0, **ensemble):
    """Logits and joint probabilities of each proposal of one photo, from the plain mask embeddings."""
    plain = PlainFisa(model.fisa.state_dict(), model.config)
    embeds = plain.mask_embeds(
        inputs["pixel_values"][index], outputs.masks_queries_logits[index], inputs["class_embeds"]
    )
    texts = np.asarray(inputs["class_embeds"], np.float64)
    logits, joint = [], []
    for proposal, embed in enumerate(embeds):
        logits.append(plain_class_logits(embed, texts, class_of_prompt, plain.weights["logit_scale"]))
        known = {key: value[proposal] if key == "known_logits" else value for key, value in ensemble.items()}
        probabilities = plain_class_probabilities(logits[-1], **known)
        joint.append([*(objectness[proposal] * probabilities), 1 - objectness[proposal]])
    return np.array(logits), np.array(joint)


@pytest.mark.parametrize("class_of_prompt", [[0, 1, 2, 3, 4], [0, 0, 1, 2, 2], [0, 0, 0, 0, 0]], ids=str)
def test_scores_with_synonyms_and_objectness(class_of_prompt):
    model = tiny_segmentation_model(seve_layers=[0, 1])
    inputs = tiny_inputs(batch_size=1, num_classes=5)
    objectness = torch.tensor([[0.9, 0.5, 1.0, 0.0]])
    with torch.no_grad():
        outputs = model(**inputs, objectness=objectness, prompt_class_ids=torch.tensor(class_of_prompt))
    logits, joint = plain_scores(model, inputs, outputs, class_of_prompt, objectness=objectness[0].tolist())
    np.testing.assert_allclose(outputs.logits_per_mask[0], logits, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(outputs.class_queries_logits[0].exp(), joint, atol=1e-5)
    certain = joint > 0
    found = outputs.class_queries_logits[0].numpy()
    np.testing.assert_allclose(found[certain], np.log(joint[certain]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("generator", ["mask2former", "maskformer", "eomt"])
@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_scores_in_geometric_ensemble_with_the_generator(generator, weight):
    model = tiny_segmentation_model(generator, ensemble_weight=weight)
    inputs = {key: tiny_inputs(batch_size=1, num_classes=4)[key] for key in ("pixel_values", "class_embeds")}
    photo = tiny_generator_inputs([(64, 64)], canvas=(64, 64))["mask_generator_pixel_values"]
    known_class_ids = [-1, 2, -1, 0]
    with torch.no_grad():
        outputs = model(**inputs, mask_generator_pixel_values=photo, generator_class_ids=torch.tensor(known_class_ids))
        known_logits = model.mask_generator(pixel_values=photo).class_queries_logits[0].double()
    objectness = 1 - known_logits.softmax(-1)[:, -1].numpy()
    _, joint = plain_scores(
        model,
        inputs,
        outputs,
        [0, 1, 2, 3],
        objectness=objectness,
        known_logits=known_logits[:, :-1].numpy(),
        known_class_ids=known_class_ids,
        weight=weight,
    )
    np.testing.assert_allclose(outputs.class_queries_logits[0], np.log(joint), atol=1e-5, rtol=1e-5)
