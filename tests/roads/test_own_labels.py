"""Label names at loading: the folder's own are fine, others are refused with the way to store them."""

import pytest
from transformers import AutoConfig, AutoModelForUniversalSegmentation

from fisa import FisaConfig, FisaForUniversalSegmentation


def names_of(folder):
    return FisaConfig.from_pretrained(folder).id2label


@pytest.mark.parametrize("loader", [FisaForUniversalSegmentation, AutoModelForUniversalSegmentation, AutoConfig])
@pytest.mark.parametrize("argument", ["id2label", "label2id"])
@pytest.mark.parametrize("same_number", [True, False])
def test_other_names_are_refused(checkpoint, loader, argument, same_number):
    names = [f"class {index}" for index in range(len(names_of(checkpoint)) - (not same_number))]
    pairs = dict(enumerate(names)) if argument == "id2label" else {name: index for index, name in enumerate(names)}
    with pytest.raises(ValueError, match=r"model\.set_vocabulary\(processor"):
        loader.from_pretrained(checkpoint, **{argument: pairs}, ignore_mismatched_sizes=True)


def test_the_stored_names_are_taken(checkpoint):
    names = names_of(checkpoint)
    model = FisaForUniversalSegmentation.from_pretrained(checkpoint, id2label={str(i): n for i, n in names.items()})
    assert {int(index): name for index, name in model.config.id2label.items()} == names
