"""Settings of a finished configuration: checked on assignment, and the old value stays where one is refused."""

import copy
import pickle

import pytest

from fisa import FisaConfig
from fisa.miniature import miniature


@pytest.fixture(scope="module")
def stored():
    """A model and its processor that store dog and car."""
    model, processor = miniature()
    model.set_vocabulary(processor, {"dog": [], "car": ["automobile"]})
    return model, processor


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("objectness_floor", 2.0),
        ("ensemble_weight", float("nan")),
        ("mask_coverage_threshold", "half"),
        ("proposal_matcher", "nearest"),
        ("classifier_dtype", "float64"),
        ("seve_layers", [12]),
        ("seve_layers", [0, 0]),
        ("seve_width", 100),
        ("seve_num_heads", 0),
        ("seve_max_texts", 0),
        ("projection_dim", -1),
    ],
)
def test_a_wrong_value_is_refused_and_the_old_one_stays(name, value):
    config = FisaConfig()
    previous = getattr(config, name)
    with pytest.raises(Exception, match=name):
        setattr(config, name, value)
    assert getattr(config, name) == previous
    config.validate()


def test_a_misspelt_assignment_is_refused():
    with pytest.raises(TypeError, match="`seve_layer`; did you mean `seve_layers`"):
        FisaConfig().seve_layer = [0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id2label", {0: "cat", 1: "car"}),
        ("id2label", {0: "dog"}),
        ("label2id", {"cat": 0, "car": 1}),
        ("num_labels", 5),
        ("synonyms", [["puppy"], []]),
        ("synonyms", None),
        ("is_thing", [False, True]),
    ],
)
def test_the_vocabulary_is_changed_with_its_encoded_texts_alone(stored, name, value):
    model, _ = stored
    vocabulary = model.config.vocabulary
    with pytest.raises(ValueError, match=rf"`{name}` is a part of the vocabulary.*`model.set_vocabulary"):
        setattr(model.config, name, value)
    assert model.config.vocabulary == vocabulary
    setattr(model.config, name, copy.deepcopy(getattr(model.config, name)))  # what is there already is no change


def test_set_vocabulary_is_the_way(stored):
    model, processor = copy.deepcopy(stored)
    model.set_vocabulary(processor, ["sky"])
    assert model.config.id2label == {0: "sky"} and model.config.synonyms == [[]]
    assert len(model.fisa.class_embeds) == 1


def test_labels_of_a_config_without_a_vocabulary_are_free():
    config = FisaConfig()
    config.id2label = {0: "cat"}
    config.num_labels = 2
    assert len(config.id2label) == 2


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config))])
def test_copies_hold_the_same(stored, copied):
    config = stored[0].config
    assert copied(config).to_dict() == config.to_dict()
