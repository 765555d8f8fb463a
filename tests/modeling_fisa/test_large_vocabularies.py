"""Vocabularies beyond what SEVE attends to: a sample guides the tokens, and all classes are scored."""

from types import SimpleNamespace

import pytest
import torch

from fisa.miniature import miniature
from fisa.modeling_fisa.modeling_fisa import SCORES_AT_A_TIME
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.models import tiny_model, tiny_segmentation_model


BOUND = 7
OPTIONS = {"seve_layers": [0, 1]}


def sample_of(texts: torch.Tensor, count: int) -> torch.Tensor:
    """The rows at even distances in the order of their sums, in the order that they are given in."""
    ranked = sorted(range(len(texts)), key=lambda row: texts[row].sum().item())
    kept = sorted(ranked[place * len(texts) // count] for place in range(count))
    return torch.stack([texts[row] for row in kept])


@pytest.mark.parametrize("num_classes", [1, BOUND - 1, BOUND])
@torch.no_grad()
def test_up_to_the_bound_nothing_changes_bit_for_bit(num_classes):
    inputs = tiny_inputs(num_classes=num_classes)
    wanted = tiny_segmentation_model(**OPTIONS)(**inputs)
    found = tiny_segmentation_model(**OPTIONS, seve_max_texts=BOUND)(**inputs)
    assert torch.equal(found.class_queries_logits, wanted.class_queries_logits)


@pytest.mark.parametrize("num_classes", [BOUND + 1, 3 * BOUND, 50])
@torch.no_grad()
def test_beyond_the_bound_tokens_see_the_sample_and_nothing_else(num_classes):
    inputs = tiny_inputs(num_classes=num_classes)
    sample = sample_of(inputs["class_embeds"], BOUND)
    assert len(sample) == BOUND
    wanted = tiny_model(**OPTIONS)(**{**inputs, "class_embeds": sample})
    found = tiny_model(**OPTIONS, seve_max_texts=BOUND)(**inputs)
    assert torch.equal(found.mask_embeds, wanted.mask_embeds)
    assert torch.equal(found.last_hidden_state, wanted.last_hidden_state)


@torch.no_grad()
def test_beyond_the_bound_every_class_is_scored():
    inputs = tiny_inputs(num_classes=50)
    model = tiny_segmentation_model(**OPTIONS, seve_max_texts=BOUND)
    outputs = model(**inputs)
    cosine = torch.cosine_similarity(outputs.mask_embeds[:, :, None], inputs["class_embeds"][None, None], dim=-1)
    torch.testing.assert_close(outputs.logits_per_mask, cosine * model.fisa.logit_scale.exp(), atol=1e-5, rtol=1e-5)
    assert torch.equal(outputs.class_embeds, inputs["class_embeds"].expand(2, -1, -1))


@torch.no_grad()
def test_beyond_the_bound_the_order_of_classes_does_not_matter():
    inputs = tiny_inputs(num_classes=50)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    model = tiny_segmentation_model(**OPTIONS, seve_max_texts=BOUND)
    wanted = model(**inputs).logits_per_mask[..., order]
    found = model(**{**inputs, "class_embeds": inputs["class_embeds"][order]}).logits_per_mask
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False], ids=["one vocabulary", "one per photo"])
@torch.no_grad()
def test_beyond_the_bound_a_photo_does_not_depend_on_its_batch(shared):
    inputs = tiny_inputs(num_classes=50)
    texts = inputs["class_embeds"]
    inputs["class_embeds"] = (
        texts if shared else torch.stack([texts, tiny_inputs(num_classes=50, seed=5)["class_embeds"]])
    )
    model = tiny_segmentation_model(**OPTIONS, seve_max_texts=BOUND)
    together = model(**inputs).class_queries_logits
    for index in range(2):
        single = {key: value[index : index + 1] for key, value in inputs.items()}
        single["class_embeds"] = texts if shared else inputs["class_embeds"][index]
        torch.testing.assert_close(model(**single).class_queries_logits[0], together[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_larger_samples_come_closer_to_all_texts():
    inputs = tiny_inputs(num_classes=4096)
    wanted = tiny_model(**OPTIONS)(**inputs).mask_embeds
    distances = []
    for bound in (4, 64, 1024, 4095):
        found = tiny_model(**OPTIONS, seve_max_texts=bound)(**inputs).mask_embeds
        distances.append(((found - wanted).norm() / wanted.norm()).item())
    assert distances == sorted(distances, reverse=True) and distances[-1] < 0.01, distances


def test_gradients_reach_the_sampled_texts_alone():
    inputs = tiny_inputs(num_classes=50)
    texts = inputs["class_embeds"].requires_grad_()
    tiny_model(**OPTIONS, seve_max_texts=BOUND)(**inputs).mask_embeds.square().sum().backward()
    reached = texts.detach()[texts.grad.any(dim=-1)]
    assert torch.equal(reached, sample_of(texts.detach(), BOUND))


@torch.no_grad()
def test_scores_of_twenty_thousand_prompts_equal_those_one_by_one():
    inputs = tiny_inputs(batch_size=1, num_classes=20_000)
    class_ids = torch.arange(20_000) // 2
    model = tiny_segmentation_model()
    outputs = model(**inputs, prompt_class_ids=class_ids)
    cosine = torch.cosine_similarity(outputs.mask_embeds[0][:, None], inputs["class_embeds"], dim=-1)
    wanted = (cosine * model.fisa.logit_scale.exp()).view(4, 10_000, 2).amax(dim=-1)
    torch.testing.assert_close(outputs.logits_per_mask[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "opinion", [{}, {"kind_weight": 1.0, "ensemble_weight": 0.4}], ids=["CLIP alone", "with opinion"]
)
def test_a_few_proposals_at_a_time_are_scored_as_all_at_once(opinion):
    """Of so many classes, the four proposals of each of two photos do not fit into one part."""
    num_classes = 40_000
    model = tiny_segmentation_model("mask2former", **opinion)
    inputs = tiny_generator_inputs([(64, 64)] * 2, canvas=(64, 64)) | {
        **{name: tiny_inputs(num_classes=num_classes)[name] for name in ("pixel_values", "class_embeds")},
        "class_is_thing": torch.arange(num_classes) % 2 == 0,
        "generator_class_ids": torch.arange(num_classes) % 3 - 1,
    }
    at_once = model(**inputs).class_queries_logits  # whoever wants gradients gets them of everything
    at_once.mean().backward()
    assert SCORES_AT_A_TIME // (2 * num_classes) < at_once.shape[1]
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).class_queries_logits, at_once, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_own_class_for_each_prompt_may_be_said_or_left_out():
    inputs = tiny_inputs(num_classes=50)
    model = tiny_segmentation_model()
    wanted = model(**inputs).logits_per_mask
    assert torch.equal(model(**inputs, prompt_class_ids=torch.arange(50)).logits_per_mask, wanted)
    order = torch.arange(50).flip(0)
    assert torch.equal(model(**inputs, prompt_class_ids=order).logits_per_mask, wanted.flip(-1))


def test_names_that_are_one_once_cut_off_are_refused_however_far_apart():
    model, processor = miniature()
    long = "long " * 40
    others = [f"thing {number}" for number in range(5)]
    with pytest.raises(ValueError, match="are the same to CLIP"):
        model.encode_vocabulary(processor, [long + "dog", *others, long + "cat"], batch_size=2)
    with pytest.raises(ValueError, match="are the same to CLIP"):
        model.set_vocabulary(
            processor, {"dog": [long + "dog"], **{name: [] for name in others}, "cat": [long + "cat"]}
        )
    with pytest.warns(UserWarning, match="lose their end"):
        model.encode_vocabulary(processor, [long + "dog", *others, "a cat " + long], batch_size=2)


def test_comparing_a_hundred_thousand_short_names_tokenises_none(monkeypatch):
    _, processor = miniature()
    monkeypatch.setattr(processor, "tokenizer", SimpleNamespace(model_max_length=77))  # which cannot be called
    processor.refuse_equal_prompts([f"thing {number}" for number in range(100_000)])
