"""The vocabulary of a call: one value that is checked when it is made and unpacks into forward's arguments."""

from dataclasses import FrozenInstanceError

import pytest
import torch
from transformers import BatchFeature

from fisa.miniature import miniature
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary


TEXTS = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


def test_it_unpacks_into_what_was_given():
    vocabulary = EncodedVocabulary(TEXTS, torch.tensor([1, 0, 1]), class_is_thing=torch.tensor([True, False]))
    arguments = dict(**vocabulary)
    assert list(arguments) == ["class_embeds", "prompt_class_ids", "class_is_thing"]
    assert all(arguments[name] is getattr(vocabulary, name) for name in arguments)
    assert ({"pixel_values": TEXTS} | vocabulary).keys() == (vocabulary | {"pixel_values": TEXTS}).keys()
    assert (BatchFeature({"pixel_values": TEXTS}) | vocabulary).keys() == {"pixel_values", *arguments}
    assert vocabulary.num_classes == 2 and not vocabulary.one_prompt_per_class
    with pytest.raises(KeyError, match="generator_class_ids.*class_embeds, prompt_class_ids, class_is_thing"):
        vocabulary["generator_class_ids"]


@pytest.mark.parametrize("class_ids", [None, torch.arange(3)], ids=["left out", "in order"])
def test_prompts_may_be_the_classes(class_ids):
    vocabulary = EncodedVocabulary(TEXTS, class_ids)
    assert vocabulary.prompt_class_ids.tolist() == [0, 1, 2]
    assert vocabulary.num_classes == 3 and vocabulary.one_prompt_per_class


def test_classes_in_another_order_are_not_the_prompts():
    vocabulary = EncodedVocabulary(TEXTS, torch.tensor([0, 2, 1]))
    assert vocabulary.num_classes == 3 and not vocabulary.one_prompt_per_class


@pytest.mark.parametrize(
    ("class_ids", "is_thing", "message"),
    [
        ([0, 1], None, "2 entries for 3 prompts"),
        ([0, 2, 2], None, "name the classes 0, 2; .*each of 0 to 1"),
        ([0, 1, 1], [True] * 3, "name the classes 0, 1 and `class_is_thing` has 3 entries"),
        ([0, 1, 2], [True] * 2, "name the classes 0, 1, 2 and `class_is_thing` has 2 entries"),
        (None, [True] * 4, "name the classes 0, 1, 2 and `class_is_thing` has 4 entries"),
    ],
)
def test_prompts_and_classes_that_do_not_fit_are_refused(class_ids, is_thing, message):
    as_tensor = (None if values is None else torch.tensor(values) for values in (class_ids, is_thing))
    with pytest.raises(ValueError, match=message):
        EncodedVocabulary(TEXTS, *as_tensor)


def test_it_cannot_be_changed():
    vocabulary = EncodedVocabulary(TEXTS)
    with pytest.raises(FrozenInstanceError):
        vocabulary.prompt_class_ids = torch.tensor([0, 0, 0])


def test_a_models_vocabulary_is_one():
    model, processor = miniature()
    vocabulary = model.encode_vocabulary(processor, {"dog": ["puppy"], "sky [stuff]": []})
    assert vocabulary.prompt_class_ids.tolist() == [0, 0, 1] and vocabulary.class_is_thing.tolist() == [True, False]
    assert vocabulary.class_embeds.shape == (3, model.config.projection_dim)
