"""Label names at loading: other than the folder's own they become its vocabulary, encoded by its own tokenizer."""

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForUniversalSegmentation

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaProcessor


def names_of(folder):
    return FisaConfig.from_pretrained(folder).id2label


def other_names(folder, *, same_number):
    return {index: f"class {index}" for index in range(len(names_of(folder)) - (not same_number))}


def as_argument(names, argument):
    return {argument: names if argument == "id2label" else {name: index for index, name in names.items()}}


@pytest.fixture(scope="module")
def processor(checkpoint):
    return FisaProcessor.from_pretrained(checkpoint)


def set_by_hand(checkpoint, processor, names):
    model = FisaForUniversalSegmentation.from_pretrained(checkpoint)
    model.set_vocabulary(processor, [names[index] for index in sorted(names)])
    return model


@pytest.mark.parametrize("loader", [FisaForUniversalSegmentation, AutoModelForUniversalSegmentation, AutoModel])
@pytest.mark.parametrize("argument", ["id2label", "label2id"])
@pytest.mark.parametrize("same_number", [True, False])
def test_other_names_are_encoded_and_stored(checkpoint, processor, loader, argument, same_number, tmp_path):
    names = other_names(checkpoint, same_number=same_number)
    model = loader.from_pretrained(checkpoint, **as_argument(names, argument), ignore_mismatched_sizes=True)
    expected = set_by_hand(checkpoint, processor, names)
    model.save_pretrained(tmp_path)
    for loaded in (model, loader.from_pretrained(tmp_path)):
        assert loaded.config.vocabulary == expected.config.vocabulary
        assert (loaded.config.id2label, loaded.config.label2id) == (names, {n: i for i, n in names.items()})
        assert torch.equal(getattr(loaded, "fisa", loaded).class_embeds, expected.fisa.class_embeds)


@pytest.mark.parametrize("same_number", [True, False])
def test_a_config_of_other_names_is_followed(checkpoint, processor, same_number):
    names = other_names(checkpoint, same_number=same_number)
    config = AutoConfig.from_pretrained(checkpoint, id2label=names)
    model = FisaForUniversalSegmentation.from_pretrained(checkpoint, config=config)
    assert model.config.id2label == config.id2label == names
    assert torch.equal(model.fisa.class_embeds, set_by_hand(checkpoint, processor, names).fisa.class_embeds)


def test_the_stored_names_keep_their_synonyms(checkpoint):
    stored = FisaForUniversalSegmentation.from_pretrained(checkpoint)
    names = {str(index): name for index, name in names_of(checkpoint).items()}
    model = FisaForUniversalSegmentation.from_pretrained(checkpoint, id2label=names)
    assert model.config.vocabulary == stored.config.vocabulary
    assert torch.equal(model.fisa.class_embeds, stored.fisa.class_embeds)


@pytest.mark.parametrize("loader", [FisaForUniversalSegmentation, AutoModelForUniversalSegmentation, AutoConfig])
@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"id2label": {1: "sky", 2: "road"}}, "must count from 0 to 1"),
        ({"num_labels": 77}, "name the classes with `id2label`"),
        ({"num_labels": 77, "id2label": {0: "sky", 1: "road"}}, "name the classes with `id2label`"),
    ],
)
def test_numbers_that_name_no_class_are_refused(checkpoint, loader, arguments, message):
    with pytest.raises(ValueError, match=message):
        loader.from_pretrained(checkpoint, **arguments)


@pytest.mark.parametrize("loader", [FisaForUniversalSegmentation, AutoModelForUniversalSegmentation])
def test_marks_behind_the_names_are_read(checkpoint, loader):
    model = loader.from_pretrained(checkpoint, id2label={0: "lamp", 1: "curtain [stuff]", 2: "grass [thing]"})
    assert model.config.id2label == {0: "lamp", 1: "curtain", 2: "grass"}
    assert model.config.is_thing == [True, False, True]
    stored = FisaForUniversalSegmentation.from_pretrained(checkpoint)
    again = {index: f"{name} [stuff]" for index, name in names_of(checkpoint).items()}
    marked = loader.from_pretrained(checkpoint, id2label=again)
    assert marked.config.synonyms == stored.config.synonyms and not any(marked.config.is_thing)
    assert torch.equal(marked.fisa.class_embeds, stored.fisa.class_embeds)
    with pytest.raises(ValueError, match=r"\[thing\] or \[stuff\]"):
        loader.from_pretrained(checkpoint, id2label={0: "lamp [stuf]"})


def test_a_folder_without_its_tokenizer_says_what_to_save(checkpoint, tmp_path):
    FisaForUniversalSegmentation.from_pretrained(checkpoint).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"processor\.save_pretrained\(folder\)"):
        FisaForUniversalSegmentation.from_pretrained(tmp_path, id2label={0: "sky"})
