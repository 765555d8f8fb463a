"""Class texts: CLIP's embeddings of the prompts, averaged over templates, encoded once, stored with the model."""

import copy

import pytest
import torch
from torch import nn
from transformers import CLIPModel

from fisa import Class, FisaForUniversalSegmentation
from fisa.acceleration.class_texts import ClassTextCache
from fisa.miniature import miniature
from tests.configurations import END_TOKEN, tiny_clip_config, tiny_inputs
from tests.models import randomise, tiny_model, tiny_segmentation_model


WORDS = {"dog": [], "sky": ["clouds", "heaven"], "red car": []}


def tokens(*lengths: int, total: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts of these lengths, padded, and their attention mask."""
    random = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(1, END_TOKEN - 1, (len(lengths), total), generator=random)
    attention_mask = torch.zeros_like(input_ids)
    for row, length in enumerate(lengths):
        input_ids[row, length - 1 :] = END_TOKEN
        attention_mask[row, :length] = 1
    return input_ids, attention_mask


@pytest.mark.parametrize("end_token", [END_TOKEN, 2], ids=["new config", "old config"])
@torch.no_grad()
def test_text_features_are_clips_own(end_token):
    """Old CLIP configs call the end token 2, and CLIP then looks for the largest id."""
    config = tiny_clip_config()
    config.text_config.eos_token_id = end_token
    clip = randomise(CLIPModel(config)).eval()
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, seve_width=16).fisa
    input_ids, attention_mask = tokens(4, 9, 2)
    wanted = clip.get_text_features(input_ids, attention_mask).pooler_output
    assert torch.equal(model.get_text_features(input_ids, attention_mask).pooler_output, wanted)


@torch.no_grad()
def test_class_features_are_normalised_averaged_over_templates_and_normalised():
    model = tiny_model()
    input_ids, attention_mask = tokens(4, 9, 2, 5, 3, 7)
    found = model.get_class_features(input_ids.view(2, 3, 9), attention_mask.view(2, 3, 9))
    for name in range(2):
        total = torch.zeros_like(found[0])
        for template in range(3):
            row = 3 * name + template
            embed = model.get_text_features(input_ids[row : row + 1], attention_mask[row : row + 1]).pooler_output[0]
            total += embed / embed.norm()
        torch.testing.assert_close(found[name], total / total.norm(), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_one_template_may_leave_out_its_axis():
    model = tiny_model()
    input_ids, attention_mask = tokens(4, 9, 2)
    wanted = model.get_class_features(input_ids.unsqueeze(1), attention_mask.unsqueeze(1))
    assert torch.equal(model.get_class_features(input_ids, attention_mask), wanted)


@torch.no_grad()
def test_padding_of_prompts_does_not_matter():
    model = tiny_model()
    input_ids, attention_mask = tokens(4, 6)
    found = model.get_class_features(input_ids, attention_mask)
    torch.testing.assert_close(model.get_class_features(input_ids[:, :6]), found, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prompts_in_forward_equal_their_embeddings():
    model = tiny_segmentation_model(seve_layers=[0, 1])
    input_ids, attention_mask = tokens(4, 9, 2)
    inputs = tiny_inputs()
    embeds = model.fisa.get_class_features(input_ids, attention_mask)
    wanted = model(**{**inputs, "class_embeds": embeds})
    del inputs["class_embeds"]
    found = model(**inputs, input_ids=input_ids, attention_mask=attention_mask)
    assert torch.equal(found.class_queries_logits, wanted.class_queries_logits)
    assert torch.equal(found.class_embeds, wanted.class_embeds)


def test_gradients_reach_the_text_encoder_through_prompts():
    model = tiny_segmentation_model(seve_layers=[])
    model.fisa.text_model.requires_grad_(True)  # frozen unless asked for
    inputs = tiny_inputs()
    del inputs["class_embeds"]
    input_ids, attention_mask = tokens(4, 9, 2)
    model(**inputs, input_ids=input_ids, attention_mask=attention_mask).class_queries_logits.square().sum().backward()
    assert model.fisa.text_model.encoder.layers[0].mlp.fc1.weight.grad.any()


# With a processor


@pytest.fixture
def pair():
    return miniature()


class TextRuns:
    """Counts the prompts that go through the text encoder."""

    def __init__(self, model):
        self.prompts = 0
        model.fisa.text_model.register_forward_hook(self._count, with_kwargs=True)

    def _count(self, module, args, kwargs, output):
        self.prompts += len(kwargs["input_ids"])


@torch.no_grad()
def test_encoded_vocabulary_equals_prompts_given_to_forward(pair):
    model, processor = pair
    pixels = torch.randn(1, 3, 96, 96)
    masks = torch.rand(1, 3, 12, 12) > 0.5
    wanted = model(pixels, mask_proposals=masks, **processor(text=WORDS, return_tensors="pt"))
    found = model(pixels, mask_proposals=masks, **model.encode_vocabulary(processor, WORDS))
    torch.testing.assert_close(found.class_queries_logits, wanted.class_queries_logits, atol=1e-4, rtol=1e-4)
    assert torch.equal(found.class_is_thing, wanted.class_is_thing)
    assert found.class_is_thing.tolist() == [[True, False, True]]


@pytest.mark.parametrize("batch_size", [1, 3, 256])
def test_size_of_text_batches_does_not_matter(pair, batch_size):
    model, processor = pair
    wanted = model.encode_vocabulary(processor, WORDS)
    fresh, _ = miniature()
    found = fresh.encode_vocabulary(processor, WORDS, batch_size=batch_size)
    torch.testing.assert_close(found["class_embeds"], wanted["class_embeds"], atol=1e-5, rtol=1e-5)


def test_words_seen_before_are_not_encoded_again(pair):
    """Except one, by which the model finds out that its text encoder is as it was."""
    model, processor = pair
    words = [f"{number}" for number in range(5000)]
    runs = TextRuns(model)
    first = model.encode_vocabulary(processor, words)["class_embeds"]
    assert first.shape == (5000, 64) and first.isfinite().all()
    assert runs.prompts <= 5000 + 1
    before = runs.prompts
    second = model.encode_vocabulary(processor, ["one more", *reversed(words)])["class_embeds"]
    assert runs.prompts - before <= 1 + 1
    assert torch.equal(second[1:].flip(0), first)


def test_a_vocabulary_larger_than_the_cache_is_kept_until_the_next():
    encoded: list[str] = []

    def encode(names):
        encoded.extend(names)
        return torch.tensor([[float(name), 1.0] for name in names])

    def embed(names):
        """The embeddings, and how many names were encoded for them."""
        before = len(encoded)
        return cache.embed(names, encode, batch_size=7)[:, 0].tolist(), len(encoded) - before

    cache = ClassTextCache()
    cache.max_names = 100
    words, numbers = [f"{number}" for number in range(300)], list(range(300))
    assert embed(words) == (numbers, 300 + 1)
    assert embed(words[::-1]) == (numbers[::-1], 1)
    assert embed([*words[5:10], "300"]) == ([*numbers[5:10], 300], 1 + 1)
    assert embed(words[5:10]) == (numbers[5:10], 1)
    assert embed(words[:10]) == (numbers[:10], 1 + 5)


def test_a_copy_of_the_model_encodes_for_itself(pair):
    model, processor = pair
    wanted = model.encode_vocabulary(processor, WORDS)["class_embeds"]
    twin = copy.deepcopy(model)
    runs = TextRuns(twin)
    assert torch.equal(twin.encode_vocabulary(processor, WORDS)["class_embeds"], wanted)
    assert runs.prompts >= len(wanted)


def test_other_templates_are_other_prompts(pair):
    model, processor = pair
    plain = model.encode_vocabulary(processor, ["dog"])["class_embeds"]
    processor.prompt_templates = ("a drawing of a {}",)
    assert not torch.allclose(model.encode_vocabulary(processor, ["dog"])["class_embeds"], plain, atol=1e-3)


CHANGES = {
    "an optimiser's step": lambda weight: step(weight),
    "a copy in place": lambda weight: weight.detach().mul_(-1),
    "another tensor": lambda weight: setattr(weight, "data", -weight.data),
    "through .data, as PEFT merges": lambda weight: weight.data.mul_(-1),
}


def step(weight: nn.Parameter) -> None:
    weight.grad = weight.detach().clone()
    torch.optim.SGD([weight], lr=2.0).step()


@pytest.mark.parametrize("change", CHANGES)
def test_words_are_encoded_again_when_the_text_weights_changed(pair, change):
    model, processor = pair
    before = model.encode_vocabulary(processor, ["dog"])["class_embeds"]
    CHANGES[change](model.fisa.text_projection.weight)
    assert not torch.allclose(model.encode_vocabulary(processor, ["dog"])["class_embeds"], before, atol=1e-3)


def test_encoded_vocabulary_follows_the_models_type(pair):
    model, processor = pair
    wanted = model.encode_vocabulary(processor, WORDS)["class_embeds"]
    found = model.bfloat16().encode_vocabulary(processor, WORDS)["class_embeds"]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.05, rtol=0)


def test_a_vocabulary_can_be_encoded_in_inference_mode():
    with torch.inference_mode():
        model, processor = miniature()
        assert model.encode_vocabulary(processor, WORDS)["class_embeds"].isfinite().all()


# Stored with the model


@torch.no_grad()
def test_a_stored_vocabulary_is_used_when_none_is_given_and_not_otherwise(pair):
    model, processor = pair
    inputs = {"pixel_values": torch.randn(1, 3, 96, 96), "mask_proposals": torch.rand(1, 3, 12, 12) > 0.5}
    model.set_vocabulary(processor, WORDS)
    stored, given = model(**inputs), model(**inputs, **model.encode_vocabulary(processor, WORDS))
    assert torch.equal(stored.class_queries_logits, given.class_queries_logits)
    assert torch.equal(stored.class_is_thing, given.class_is_thing)
    other = model(**inputs, **model.encode_vocabulary(processor, ["grass", "road"]))
    assert other.class_queries_logits.shape == (1, 3, 3)
    assert other.class_is_thing.tolist() == [[False, False]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_a_stored_vocabulary_is_saved_with_the_model(pair, tmp_path, dtype):
    model, processor = pair
    model.to(dtype)
    model.set_vocabulary(processor, ["dog", Class("sky", synonyms=("clouds",), is_thing=False)])
    model.save_pretrained(tmp_path)
    loaded, report = FisaForUniversalSegmentation.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(report.values()), report
    assert loaded.config.id2label == {0: "dog", 1: "sky"} and loaded.config.num_labels == 2
    assert loaded.config.vocabulary == model.config.vocabulary
    assert torch.equal(loaded.fisa.class_embeds, model.fisa.class_embeds)
    inputs = {"pixel_values": torch.randn(1, 3, 96, 96), "mask_proposals": torch.rand(1, 3, 12, 12) > 0.5}
    assert torch.equal(loaded(**inputs).class_queries_logits, model(**inputs).class_queries_logits)


@torch.no_grad()
def test_a_stored_vocabulary_can_be_replaced_by_one_of_another_size(pair):
    model, processor = pair
    for words in (["dog", "sky", "grass"], ["car"], ["tree", "road"]):
        model.set_vocabulary(processor, words)
        assert model.config is model.fisa.config
        assert list(model.config.id2label.values()) == words
        masks = torch.rand(1, 3, 12, 12) > 0.5
        outputs = model(torch.randn(1, 3, 96, 96), mask_proposals=masks)
        assert outputs.class_queries_logits.shape == (1, 3, len(words) + 1)


def test_a_refused_vocabulary_leaves_the_stored_one_alone(pair):
    model, processor = pair
    model.set_vocabulary(processor, WORDS)
    before = model.config.vocabulary, model.fisa.class_embeds
    with pytest.raises(ValueError):
        model.set_vocabulary(processor, ["dog", "dog"])
    assert model.config.vocabulary == before[0] and model.fisa.class_embeds is before[1]


@torch.no_grad()
def test_classes_that_the_generator_knows_are_ensembled_given_or_stored():
    model, processor = miniature(ensemble_weight=0.7)
    model.mask_generator.config.id2label = {0: "sky-other-merged", 1: "cat"}
    inputs = {
        "pixel_values": torch.randn(1, 3, 96, 96),
        "mask_generator_pixel_values": torch.randn(1, 3, 64, 64),
    }
    encoded = dict(model.encode_vocabulary(processor, WORDS))
    assert encoded["generator_class_ids"].tolist() == [-1, 0, -1]
    given = model(**inputs, **encoded)
    model.set_vocabulary(processor, WORDS)
    assert torch.equal(model(**inputs).class_queries_logits, given.class_queries_logits)
    del encoded["generator_class_ids"]
    assert not torch.allclose(model(**inputs, **encoded).class_queries_logits, given.class_queries_logits, atol=1e-3)
