"""The generator's opinion of things and stuff: which generators have one, what it does to classes, and what it must
leave alone."""

import numpy as np
import pytest
import torch

from fisa.modeling_fisa.class_kinds import generator_kinds, kinds_for_generator, weigh_by_kind
from fisa.pretrained import patchwork
from fisa.processing.class_lists import class_list
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.modeling_fisa.plain_fisa import plain_kind_weighting
from tests.models import tiny_segmentation_model


# As Mask2Former's own code names some of ADE20K's classes, other than by the first name of the released list.
ADE20K_SPELLINGS = ["road, route", "window ", "rug", "tub", "rail", "base, pedestal, stand", "tv", "plane", "falls"]
MIXED = [True, False, True]


@pytest.mark.parametrize(
    "name, things, stuff", [("coco_133", 80, 53), ("ade20k_150", 100, 50), ("cityscapes_19", 8, 11)]
)
def test_generators_of_published_labels_know_their_kinds(name, things, stuff):
    classes = class_list(name)
    kinds = generator_kinds(dict(enumerate(classes.names)))
    assert kinds == [int(item.is_thing) for item in classes]
    assert (sum(kinds), len(kinds) - sum(kinds)) == (things, stuff)
    shuffled = [*reversed(classes.names)]  # by name, not by place
    assert generator_kinds(dict(enumerate(shuffled))) == kinds[::-1]


def test_labels_are_known_by_any_published_spelling():
    assert generator_kinds(dict(enumerate(ADE20K_SPELLINGS))) == [0, 1, 0, 1, 1, 0, 1, 1, 0]
    assert generator_kinds({0: "Thing", 1: "stuff"}) == [1, 0]


@pytest.mark.parametrize(
    "labels",
    [["LABEL_0", "LABEL_1"], ["cat", "wall", "gizmo"], ["cat", "dog"], ["wall-other-merged"], []],
    ids=["unnamed", "a strange one among them", "things alone", "stuff alone", "none"],
)
def test_other_generators_have_no_opinion(labels):
    assert generator_kinds(dict(enumerate(labels))) is None


def test_a_mapping_says_what_names_do_not():
    labels = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert generator_kinds(labels, MIXED) == [1, 0, 1]
    assert generator_kinds({0: "thing", 1: "stuff"}, [False, True]) == [0, 1]
    with pytest.raises(ValueError, match="2 entries and the mask generator 3 labels"):
        generator_kinds(labels, [True, False])


@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("ensemble", [0.0, 0.4])
@pytest.mark.parametrize("generator", ["mask2former", "maskformer", "eomt"])
@torch.no_grad()
def test_scores_equal_a_plain_loop(generator, ensemble, weight):
    model = tiny_segmentation_model(generator, ensemble_weight=ensemble, kind_weight=weight)
    inputs = {key: tiny_inputs(batch_size=1, num_classes=5)[key] for key in ("pixel_values", "class_embeds")}
    inputs["mask_generator_pixel_values"] = tiny_generator_inputs([(64, 64)], canvas=(64, 64))[
        "mask_generator_pixel_values"
    ]
    inputs["generator_class_ids"] = torch.tensor([-1, 2, -1, 0, -1])
    kinds = [1, 0, -1, 1, 0]
    found = model(**inputs, class_kinds=torch.tensor(kinds))
    known = model.mask_generator(pixel_values=inputs["mask_generator_pixel_values"]).class_queries_logits[0]
    model.config.kind_weight = 0.0
    before = model(**inputs, class_kinds=torch.tensor(kinds)).class_queries_logits[0].double().softmax(-1).numpy()
    for proposal, (scores, logits) in enumerate(zip(before, known.double().numpy())):
        objectness = 1 - scores[-1]
        wanted = objectness * plain_kind_weighting(
            scores[:-1] / objectness, logits[:-1], label_is_thing=MIXED, class_kinds=kinds, weight=weight
        )
        joint = found.class_queries_logits[0, proposal].double().exp().numpy()
        np.testing.assert_allclose(joint, [*wanted, scores[-1]], atol=1e-6, rtol=1e-4)


def weighed(probabilities, thing, kinds):
    logits = torch.tensor([thing, 1 - thing]).log()[None, None]
    log_probs = torch.tensor(probabilities).log()[None, None]
    options = {"label_kinds": [1, 0], "class_kinds": torch.tensor(kinds), "weight": 1.0}
    return weigh_by_kind(log_probs, logits, **options)[0, 0].exp()


def test_a_certain_opinion_leaves_the_classes_of_its_kind_and_the_unknown_in_their_ratio():
    torch.testing.assert_close(weighed([0.2, 0.3, 0.5], 1 - 1e-7, [1, -1, 0]), torch.tensor([0.4, 0.6, 0.0]))
    torch.testing.assert_close(weighed([0.2, 0.3, 0.5], 1e-7, [1, -1, 0]), torch.tensor([0.0, 0.375, 0.625]))


@pytest.mark.parametrize("thing", [0.01, 0.3, 0.5, 0.99])
def test_a_class_of_unknown_kind_never_loses_to_another(thing):
    found = weighed([0.2, 0.3, 0.5], thing, [1, -1, 0])
    for other, ratio in ((0, 0.3 / 0.2), (2, 0.3 / 0.5)):
        assert found[1] / found[other] >= ratio * (1 - 1e-6)


@pytest.mark.parametrize("kinds", [[-1, -1, -1], [1, 1, 1], [0, 0, 0]])
def test_classes_of_one_kind_keep_their_probabilities(kinds):
    torch.testing.assert_close(weighed([0.2, 0.3, 0.5], 0.9, kinds), torch.tensor([0.2, 0.3, 0.5]))


def generator_call(model, **options):
    inputs = tiny_inputs(batch_size=1)
    del inputs["mask_proposals"]
    return model(**inputs, **tiny_generator_inputs([(64, 64)], canvas=(64, 64)), **options)


@torch.no_grad()
def test_what_changes_nothing_changes_no_bit():
    kinds = torch.tensor([1, 0, 1])
    without = generator_call(tiny_segmentation_model("eomt", kind_weight=0.0), class_kinds=kinds).class_queries_logits
    model = tiny_segmentation_model("eomt")
    assert not torch.equal(generator_call(model, class_kinds=kinds).class_queries_logits, without)
    assert torch.equal(generator_call(model).class_queries_logits, without)  # classes without kinds
    model.mask_generator.config.id2label = {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert torch.equal(generator_call(model, class_kinds=kinds).class_queries_logits, without)
    model.config.generator_is_thing = MIXED
    assert not torch.equal(generator_call(model, class_kinds=kinds).class_queries_logits, without)


@torch.no_grad()
def test_ready_proposals_have_no_opinion():
    inputs, kinds = tiny_inputs(), torch.tensor([1, 0, 1])
    model = tiny_segmentation_model("eomt")
    found = model(**inputs, class_kinds=kinds).class_queries_logits
    assert torch.equal(found, model(**inputs).class_queries_logits)


@torch.no_grad()
def test_kinds_that_a_caller_gives_as_booleans_are_knowledge():
    model, is_thing = tiny_segmentation_model("eomt"), torch.tensor([True, False, True])
    found = generator_call(model, class_is_thing=is_thing).class_queries_logits
    assert torch.equal(found, generator_call(model, class_kinds=is_thing.long()).class_queries_logits)


def test_the_loss_is_that_of_the_classifier_alone():
    truth = {"mask_labels": [torch.ones(1, 16, 16)], "class_labels": [torch.tensor([0])]}
    losses = [
        generator_call(
            tiny_segmentation_model("eomt", kind_weight=weight, proposal_matcher_iou=0.0),
            class_kinds=torch.tensor([1, 0, 1]),
            **truth,
        ).loss
        for weight in (0.0, 1.0)
    ]
    assert losses[0] > 0 and torch.equal(*losses)


# Words


@pytest.fixture(scope="module")
def shipped():
    return patchwork.load(adapted=False)


@torch.no_grad()
def test_words_without_marks_are_not_taken_for_things(shipped):
    """Here "carpet" is stuff, but no built-in stuff word: unmarked, it must not lose its masks to "bear"."""
    model, processor = shipped
    assert processor.parse_vocabulary("bear, carpet, sky, dog [thing], curtain [stuff]").kinds == [-1, -1, 0, 1, 0]
    photo = processor(images=patchwork.SCENES / "easy.jpg", return_tensors="pt")
    unmarked = model(**photo, **model.encode_vocabulary(processor, "bear, carpet"))
    model.config.kind_weight = 0.0
    without = model(**photo, **model.encode_vocabulary(processor, "bear, carpet"))
    model.config.kind_weight = 1.0
    torch.testing.assert_close(unmarked.class_queries_logits, without.class_queries_logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prompts_encoded_words_and_the_stored_vocabulary_agree(shipped):
    model, processor = shipped
    words = ["bear", "grass", "carpet [stuff]", "panda [thing]"]
    photo = processor(images=patchwork.SCENES / "easy.jpg", return_tensors="pt")
    encoded = model(**photo, **model.encode_vocabulary(processor, words)).class_queries_logits
    prompts = model(**photo, **processor(text=words, return_tensors="pt")).class_queries_logits
    torch.testing.assert_close(prompts, encoded, atol=1e-4, rtol=1e-4)
    model, _ = patchwork.load(adapted=False)
    model.set_vocabulary(processor, words)
    torch.testing.assert_close(model(**photo).class_queries_logits, encoded, atol=1e-4, rtol=1e-4)


def test_the_kind_of_a_class_that_the_generator_knows_is_its_own_labels(shipped):
    """A generator that learned doors as stuff sees stuff in a door, whatever the vocabulary says."""
    _, processor = shipped
    labels = tiny_segmentation_model("eomt").mask_generator.config.id2label
    stated = processor.parse_vocabulary(["wall [thing]", "cat", "carpet [stuff]", "gizmo"]).kinds
    names = [["wall"], ["cat"], ["carpet"], ["gizmo"]]
    kinds = kinds_for_generator(stated, names, labels=labels, label_kinds=generator_kinds(labels))
    assert kinds == [0, 1, 0, -1]


def test_what_is_known_of_kinds_is_saved_with_the_vocabulary(shipped, tmp_path):
    model, processor = patchwork.load(adapted=False)
    assert set(model.config.kinds) == {0, 1}  # Patchwork's own words are all known
    model.set_vocabulary(processor, "dog, cat [thing], grass")
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert loaded.config.kinds == [-1, 1, 0]
    assert [entry["kind_is_known"] for entry in loaded.config.vocabulary] == [False, True, True]
    assert type(model).from_pretrained(tmp_path, id2label={0: "grass", 1: "bear"}).config.kinds == [-1, -1]
