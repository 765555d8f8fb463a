"""The stored vocabulary follows the active adapter; an adapter knows the weights that it was trained on."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from fisa import FisaForUniversalSegmentation, SimoConfig, get_simo_model
from fisa.miniature import miniature
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_VOCABULARY
from fisa.modeling_fisa.simo import simo_target_modules


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of a model that stores one word."""
    folder = tmp_path_factory.mktemp("base")
    model, processor = miniature()
    model.set_vocabulary(processor, "water")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def processor():
    return miniature()[1]


def loaded(folder, **options):
    return FisaForUniversalSegmentation.from_pretrained(folder, **options)


def words(model):
    """The stored words, whose embeddings are checked to be theirs."""
    config = model.config
    assert len(model.fisa.class_embeds) == config.num_prompts
    return list(config.id2label.values())


@pytest.fixture
def two_adapters(base, processor):
    """Two low-rank adapters, "one" with words of its own and "two" without."""
    model = loaded(base)
    leaves = simo_target_modules(model.config, SimoConfig(), norms=False)
    switched = get_peft_model(model, LoraConfig(target_modules=leaves, r=2), adapter_name="one")
    model.set_vocabulary(processor, "dog, cat")
    switched.add_adapter("two", LoraConfig(target_modules=leaves, r=2))
    return switched


def test_an_adapter_without_words_of_its_own_answers_with_the_bases(two_adapters):
    assert words(two_adapters.get_base_model()) == ["dog", "cat"]
    two_adapters.set_adapter("two")
    assert words(two_adapters.get_base_model()) == ["water"]
    two_adapters.set_adapter("one")
    assert words(two_adapters.get_base_model()) == ["dog", "cat"]


def test_adapters_of_different_words_are_not_active_together_until_they_share_them(two_adapters, processor):
    tuner, model = two_adapters.base_model, two_adapters.get_base_model()
    with pytest.raises(ValueError, match=r'"one" \("dog", "cat"\) and "two" \("water"\) have different vocabularies'):
        tuner.set_adapter(["one", "two"])
    assert two_adapters.active_adapters == ["one"] and words(model) == ["dog", "cat"]
    two_adapters.set_adapter("two")
    model.set_vocabulary(processor, "dog, cat")
    tuner.set_adapter(["one", "two"])
    assert words(model) == ["dog", "cat"]


def test_the_merged_model_has_the_words_of_the_adapter_that_was_merged(two_adapters):
    merged = two_adapters.merge_and_unload(adapter_names=["two"])
    assert words(merged) == ["water"] and not hasattr(merged, "peft_config")


def test_a_copy_has_words_of_its_own(two_adapters, processor):
    copied = copy.deepcopy(two_adapters)
    copied.get_base_model().set_vocabulary(processor, "pig")
    assert words(copied.get_base_model()) == ["pig"]
    assert words(two_adapters.get_base_model()) == ["dog", "cat"]


def test_a_base_without_words_has_none_again_when_adapters_are_disabled(processor):
    model, _ = miniature()
    switched = get_simo_model(model)
    model.set_vocabulary(processor, "dog")
    with switched.disable_adapter():
        assert model.fisa.class_embeds is None and not model.config.num_prompts
    assert words(model) == ["dog"]


@pytest.mark.parametrize("trained_in", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loaded_in", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_base_in_another_precision_is_known_again(base, processor, tmp_path, caplog, trained_in, loaded_in):
    model = loaded(base, dtype=trained_in)
    switched = get_simo_model(model)
    model.set_vocabulary(processor, "dog")
    switched.save_pretrained(tmp_path)
    caplog.clear()
    again = PeftModel.from_pretrained(loaded(base, dtype=loaded_in), tmp_path).get_base_model()
    assert words(again) == ["dog"] and again.fisa.class_embeds.dtype == loaded_in
    assert "trained on" not in caplog.text


@pytest.mark.parametrize("way", ["peft", "transformers"])
def test_a_base_with_other_weights_is_told_by_the_adapters_name(base, tmp_path, caplog, way):
    get_simo_model(loaded(base)).save_pretrained(tmp_path)
    changed = loaded(base)
    with torch.no_grad():
        changed.fisa.vision_model.encoder.layers[0].self_attn.k_proj.weight.mul_(1.01)
    if way == "peft":
        PeftModel.from_pretrained(changed, tmp_path, adapter_name="mine")
    else:
        changed.load_adapter(str(tmp_path), adapter_name="mine")
    assert 'not those that the adapter "mine" was trained on' in caplog.text


ROADS = ["peft", "load_adapter"]


def load_onto(folder, adapter, road):
    model = loaded(folder)
    if road == "peft":
        return PeftModel.from_pretrained(model, adapter).get_base_model()
    model.load_adapter(str(adapter))
    return model


@pytest.mark.parametrize("road", ROADS)
@pytest.mark.parametrize("layers, lacks", [([], "the base lacks"), ([1], "the base lacks"), ([0, 1], "adapter lacks")])
def test_an_adapter_on_a_base_of_other_layers_is_refused(base, tmp_path, road, layers, lacks):
    get_simo_model(loaded(base), SimoConfig()).save_pretrained(tmp_path / "adapter")
    miniature(seve_layers=layers)[0].save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=rf"does not fit the base .*other: .*{lacks} .*trained on another base"):
        load_onto(tmp_path / "other", tmp_path / "adapter", road)


@pytest.mark.parametrize("road", ROADS)
def test_an_adapter_that_says_nothing_of_its_words_is_told(base, tmp_path, caplog, road):
    get_simo_model(loaded(base), SimoConfig()).save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    assert words(load_onto(base, tmp_path, road)) == ["water"] and "does not say which words" not in caplog.text
    save_file({name: tensor for name, tensor in load_file(file).items() if ADAPTER_VOCABULARY not in name}, file)
    assert words(load_onto(base, tmp_path, road)) == ["water"]
    assert 'answers with the base\'s: "water".' in caplog.text
