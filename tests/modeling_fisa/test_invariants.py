"""What must hold of any FISA whatever its weights: its tie to CLIP, its symmetries, its probabilities."""

import copy

import pytest
import torch
from transformers import CLIPModel

from fisa import FisaConfig, FisaModel
from tests.configurations import tiny_clip_config, tiny_config, tiny_inputs
from tests.models import randomise, tiny_model, tiny_segmentation_model


@pytest.fixture
def clip() -> CLIPModel:
    return randomise(CLIPModel(tiny_clip_config())).eval()


def fisa_of(clip: CLIPModel, **options) -> FisaModel:
    """The untrained FISA of a CLIP, through a checkpoint's keys alone."""
    config = FisaConfig(
        text_config=clip.config.text_config,
        vision_config=clip.config.vision_config,
        projection_dim=clip.config.projection_dim,
        **{"seve_width": 16, "seve_num_heads": 2, **options},
    )
    return FisaModel.from_pretrained(None, config=config, state_dict=clip.state_dict()).eval()


# 32 × 32 is what this CLIP was made for; the others stand for 336 → 640 and for photos that are not square.
@pytest.mark.parametrize("image_size", [(32, 32), (64, 64), (24, 40), (16, 48), (61, 35)], ids=str)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_a_proposal_of_the_whole_image_is_clips_image_embedding(clip, image_size, attention):
    model = fisa_of(clip, seve_layers=[])
    model.set_attn_implementation(attention)
    inputs = tiny_inputs(image_size=image_size)
    everything = torch.ones(2, 3, 7, 5, dtype=torch.bool)
    found = model(inputs["pixel_values"], everything).mask_embeds
    wanted = clip.get_image_features(inputs["pixel_values"], interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(found, wanted.unsqueeze(1).expand_as(found), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("image_size", [(32, 32), (24, 40)], ids=str)
@torch.no_grad()
def test_the_image_stream_is_clips_own(clip, image_size):
    inputs = tiny_inputs(image_size=image_size)
    model = fisa_of(clip, seve_layers=[])
    outputs = model(**inputs, output_hidden_states=True)
    wanted = clip.vision_model(inputs["pixel_values"], interpolate_pos_encoding=True, output_hidden_states=True)
    for found, states in zip(outputs.hidden_states, wanted.hidden_states, strict=True):
        torch.testing.assert_close(found, states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.last_hidden_state, wanted.last_hidden_state, atol=1e-5, rtol=1e-5)
    features = clip.get_image_features(inputs["pixel_values"], interpolate_pos_encoding=True).pooler_output
    torch.testing.assert_close(
        model.get_image_features(inputs["pixel_values"]).pooler_output, features, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_mask_tokens_never_change_the_image_tokens():
    model = tiny_model(seve_layers=[0, 1])
    inputs = tiny_inputs()
    first = model(**inputs).last_hidden_state
    others = tiny_inputs(seed=5, num_proposals=9)["mask_proposals"]
    assert torch.equal(model(**{**inputs, "mask_proposals": others}).last_hidden_state, first)


@torch.no_grad()
def test_masks_do_not_need_the_last_layers_image_tokens():
    model, inputs = tiny_model(seve_layers=[0]), tiny_inputs()
    whole, masks = model(**inputs), model(**inputs, output_image_tokens=False)
    assert torch.equal(masks.mask_embeds, whole.mask_embeds) and masks.last_hidden_state is None
    asked = model(**inputs, output_image_tokens=False, output_hidden_states=True)
    assert torch.equal(asked.hidden_states[-1], whole.last_hidden_state)


@pytest.mark.parametrize("tokens", ["both", "image", "mask", "mask_keys"])
@pytest.mark.parametrize("layers", [[0], [0, 2]], ids=str)
@torch.no_grad()
def test_untrained_seve_changes_nothing_bit_for_bit(clip, layers, tokens):
    inputs = tiny_inputs()
    without = fisa_of(clip, seve_layers=[])(**inputs)
    untrained = fisa_of(clip, seve_layers=layers, seve_tokens=tokens)(**inputs)
    assert torch.equal(untrained.mask_embeds, without.mask_embeds)
    assert torch.equal(untrained.last_hidden_state, without.last_hidden_state)


@torch.no_grad()
def test_trained_seve_reads_the_class_texts():
    model = tiny_model(seve_layers=[0])
    inputs = tiny_inputs()
    other_texts = tiny_inputs(seed=5)["class_embeds"]
    assert not torch.allclose(
        model(**inputs).mask_embeds, model(**{**inputs, "class_embeds": other_texts}).mask_embeds, atol=1e-3
    )


@pytest.mark.parametrize("layers", [[], [0, 1]], ids=["without SEVE", "with SEVE"])
@torch.no_grad()
def test_permuting_proposals_permutes_the_outputs(layers):
    model = tiny_segmentation_model(seve_layers=layers)
    inputs = {**tiny_inputs(num_proposals=5), "objectness": torch.rand(2, 5)}
    order = torch.tensor([3, 0, 4, 1, 2])
    permuted = {key: inputs[key][:, order] for key in ("mask_proposals", "objectness")}
    wanted, found = model(**inputs), model(**{**inputs, **permuted})
    for name in ("class_queries_logits", "masks_queries_logits", "objectness", "logits_per_mask", "mask_embeds"):
        torch.testing.assert_close(found[name], wanted[name][:, order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [[], [0, 1]], ids=["without SEVE", "with SEVE"])
@torch.no_grad()
def test_permuting_classes_permutes_the_scores(layers):
    model = tiny_segmentation_model(seve_layers=layers)
    inputs = {**tiny_inputs(num_classes=5), "objectness": torch.rand(2, 4)}
    order = torch.tensor([3, 0, 4, 1, 2])
    wanted = model(**inputs)
    found = model(**{**inputs, "class_embeds": inputs["class_embeds"][order]})
    torch.testing.assert_close(found.logits_per_mask, wanted.logits_per_mask[..., order], atol=1e-5, rtol=1e-5)
    with_none = torch.cat([order, torch.tensor([5])])
    torch.testing.assert_close(
        found.class_queries_logits, wanted.class_queries_logits[..., with_none], atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_order_of_prompts_does_not_matter_when_their_class_ids_follow():
    model = tiny_segmentation_model()
    inputs = tiny_inputs(num_classes=5)
    class_ids, order = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([4, 1, 2, 0, 3])
    wanted = model(**inputs, prompt_class_ids=class_ids)
    found = model(**{**inputs, "class_embeds": inputs["class_embeds"][order]}, prompt_class_ids=class_ids[order])
    torch.testing.assert_close(found.class_queries_logits, wanted.class_queries_logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_adding_a_class_leaves_the_other_logits_alone_without_seve():
    model = tiny_segmentation_model(seve_layers=[])
    inputs = tiny_inputs(num_classes=5)
    fewer = model(**{**inputs, "class_embeds": inputs["class_embeds"][:4]})
    torch.testing.assert_close(model(**inputs).logits_per_mask[..., :4], fewer.logits_per_mask, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_synonym_can_only_raise_its_class():
    model = tiny_segmentation_model(seve_layers=[])
    inputs = tiny_inputs(num_classes=5)
    single = model(**{**inputs, "class_embeds": inputs["class_embeds"][:4]}).logits_per_mask
    doubled = model(**inputs, prompt_class_ids=torch.tensor([0, 1, 2, 3, 3])).logits_per_mask
    torch.testing.assert_close(doubled[..., :3], single[..., :3], atol=1e-6, rtol=1e-6)
    assert (doubled[..., 3] >= single[..., 3] - 1e-6).all() and (doubled[..., 3] > single[..., 3] + 1e-3).any()


@torch.no_grad()
def test_length_of_class_texts_does_not_matter_without_seve():
    model = tiny_segmentation_model(seve_layers=[])
    inputs = tiny_inputs()
    longer = {**inputs, "class_embeds": inputs["class_embeds"] * torch.tensor([[2.0], [0.5], [7.0]])}
    torch.testing.assert_close(
        model(**longer).class_queries_logits, model(**inputs).class_queries_logits, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_softmax_gives_objectness_times_class_probability_and_sums_to_one():
    model = tiny_segmentation_model()
    objectness = torch.tensor([[0.0, 1e-6, 0.5, 1.0], [0.3, 0.999999, 1.0, 0.25]])
    outputs = model(**tiny_inputs(), objectness=objectness)
    joint = outputs.class_queries_logits.softmax(dim=-1)
    wanted = objectness.unsqueeze(-1) * outputs.logits_per_mask.softmax(dim=-1)
    torch.testing.assert_close(joint[..., :-1], wanted)
    torch.testing.assert_close(joint[..., -1], 1 - objectness, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(outputs.class_queries_logits.exp().sum(dim=-1), torch.ones(2, 4))


@torch.no_grad()
def test_texts_of_its_own_for_each_photo_are_read_photo_by_photo():
    model = tiny_segmentation_model()
    inputs = tiny_inputs()
    texts = torch.stack([inputs["class_embeds"], tiny_inputs(seed=5)["class_embeds"]])
    together = model(**{**inputs, "class_embeds": texts})
    for index in range(2):
        single = {key: value[index : index + 1] for key, value in inputs.items()} | {"class_embeds": texts[index]}
        torch.testing.assert_close(
            model(**single).class_queries_logits[0], together.class_queries_logits[index], atol=1e-5, rtol=1e-5
        )


@torch.no_grad()
def test_padding_beyond_the_photo_is_never_looked_at():
    model = tiny_model(mask_coverage_threshold=0.5)
    inputs = tiny_inputs(batch_size=1)
    sizes = torch.tensor([[9, 11]])
    wanted = model(**inputs, proposal_sizes=sizes).mask_embeds
    garbage = inputs["mask_proposals"].clone()
    garbage[..., 9:, :] = 5.0
    garbage[..., 11:] = -5.0
    assert torch.equal(model(**{**inputs, "mask_proposals": garbage}, proposal_sizes=sizes).mask_embeds, wanted)
    cut = {**inputs, "mask_proposals": inputs["mask_proposals"][..., :9, :11]}
    torch.testing.assert_close(model(**cut).mask_embeds, wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_mask_enlarged_without_loss_is_the_same_mask():
    model = tiny_model(mask_coverage_threshold=0.5)
    inputs = tiny_inputs()
    enlarged = inputs["mask_proposals"].repeat_interleave(3, dim=-1).repeat_interleave(2, dim=-2)
    torch.testing.assert_close(
        model(**{**inputs, "mask_proposals": enlarged}).mask_embeds, model(**inputs).mask_embeds, atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_using_a_model_does_not_change_it():
    model = tiny_segmentation_model("eomt")
    before = copy.deepcopy(model.state_dict())
    inputs = tiny_inputs()
    model(**inputs)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.config.to_dict() == tiny_config("eomt").to_dict() | {"dtype": model.config.dtype}
