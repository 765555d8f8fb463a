"""Training examples: vocabularies of each photo's own, drawn by seed, pass and photo alone; and batches."""

import datasets
import numpy as np
import pytest
import torch

from fisa.data.augmentation import Augmentation
from fisa.data.segmentation_datasets import StreamedSegmentationDataset
from fisa.data.training_examples import (
    StreamedTrainingExamples,
    TrainingCollator,
    VocabularySampler,
    log_frequencies,
)
from fisa.miniature import miniature
from fisa.modeling_fisa.loss_fisa import IGNORED
from tests.data.training import made_data, training_parts


# Class 0 has one name, class 1 three, class 2 two, class 3 one.
NAMES = [0, 1, 1, 1, 2, 2, 3]


@pytest.fixture(scope="module")
def parts():
    return miniature()


def drawn(present, seed=0):
    return VocabularySampler(NAMES).draw(np.array(present, np.int64), np.random.default_rng(seed))


# Vocabularies


def test_a_vocabulary_starts_with_the_photo_s_classes_and_has_each_class_once():
    for seed in range(20):
        classes, names = drawn([2, 0], seed)
        assert classes[:2].tolist() == [2, 0] and sorted(classes.tolist()) == [0, 1, 2, 3]
        assert [NAMES[name] for name in names] == classes.tolist()


def test_every_other_class_and_every_name_gets_its_turn():
    draws = [drawn([0], seed) for seed in range(200)]
    assert {classes[1] for classes, _ in draws} == {1, 2, 3}
    assert {name for _, names in draws for name in names.tolist()} == set(range(len(NAMES)))


def test_a_photo_without_classes_has_a_vocabulary_too():
    assert sorted(drawn([])[0].tolist()) == [0, 1, 2, 3]


# Examples


@pytest.mark.parametrize("source", ["ground_truth", "generator"])
def test_an_example_depends_on_seed_pass_and_photo_alone(tmp_path, parts, source):
    augmentation = Augmentation(flip=True, crop=0.5, color=0.4)
    data = made_data(tmp_path)

    def example(index, *, epoch=0, seed=0, before=()):
        examples, _ = training_parts(*parts, data, source=source, augmentation=augmentation, seed=seed)
        for other in before:
            examples[other]
        examples.set_epoch(epoch)
        return examples[index]

    def same(one, other):
        return one.keys() == other.keys() and all(
            torch.equal(one[name], other[name]) if isinstance(one[name], torch.Tensor) else one[name] == other[name]
            for name in one
        )

    assert same(example(1), example(1, before=[0, 0, 1]))
    assert not same(example(1), example(0))
    assert not same(example(1), example(1, epoch=1))
    assert not same(example(1), example(1, seed=1))


def test_labels_point_at_the_names_of_their_classes(tmp_path, parts):
    examples, collator = training_parts(*parts, made_data(tmp_path), source="ground_truth", vocabulary_size=2)
    example = examples[0]
    # Person and tree are on the photo (a crowd of people teaches nothing); names are in the categories' order.
    assert example["num_present"] == 2
    assert [example["prompt_ids"][label].item() for label in example["class_labels"]] == [0, 2]
    batch = collator([example])
    assert torch.equal(batch["class_embeds"][0], collator.prompt_embeds[example["prompt_ids"][:2]])


def test_a_vocabulary_has_the_size_asked_for_and_never_lacks_a_class_that_is_there(tmp_path, parts):
    for size, expected in ((1, 2), (3, 3), (100, 4)):
        examples, collator = training_parts(*parts, made_data(tmp_path / str(size)), source="ground_truth",
                                            vocabulary_size=size)  # fmt: skip
        assert collator([examples[0], examples[1]])["class_embeds"].shape[:2] == (2, expected)


# Batches


def hand_made(count, *, num_present=1):
    return {
        "pixel_values": torch.zeros(3, 8, 8),
        "mask_proposals": torch.ones(count, 2, 2, dtype=torch.bool),
        "class_labels": torch.arange(count),
        "prompt_ids": torch.arange(4),
        "num_present": num_present,
    }


def test_photos_of_different_numbers_of_masks_are_padded_with_masks_that_teach_nothing():
    collator = TrainingCollator(torch.eye(4), vocabulary_size=3)
    batch = collator([hand_made(2), hand_made(0), hand_made(3)])
    assert batch["class_labels"].tolist() == [[0, 1, IGNORED], [IGNORED] * 3, [0, 1, 2]]
    assert batch["mask_proposals"].flatten(2).any(-1).tolist() == [[True, True, False], [False] * 3, [True] * 3]


def test_a_batch_without_any_mask_still_has_a_place_for_one():
    batch = TrainingCollator(torch.eye(4), vocabulary_size=3)([hand_made(0)])
    assert batch["mask_proposals"].shape == (1, 1, 2, 2) and batch["class_labels"].tolist() == [[IGNORED]]


@pytest.mark.parametrize("source", ["ground_truth", "generator"])
def test_a_batch_is_what_forward_takes(tmp_path, parts, source):
    examples, collator = training_parts(*parts, made_data(tmp_path), source=source)
    model, _ = parts
    with torch.no_grad():
        loss = model(**collator([examples[0], examples[1]])).loss
    assert loss.ndim == 0 and loss.isfinite()


def test_a_photo_s_loss_does_not_depend_on_its_neighbours(tmp_path, parts):
    examples, collator = training_parts(*parts, made_data(tmp_path, photos=3), source="ground_truth")
    model, _ = parts
    with torch.no_grad():
        together = model(**collator([examples[i] for i in range(3)])).loss
        alone = torch.stack([model(**collator([examples[i]])).loss for i in range(3)]).mean()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_a_stream_gives_the_same_examples(tmp_path, parts):
    data = made_data(tmp_path)
    examples, _ = training_parts(*parts, data, source="ground_truth", augmentation=Augmentation(flip=True))
    rows = datasets.Dataset.from_dict({"place": range(len(data))}).to_iterable_dataset()
    stream = StreamedSegmentationDataset(rows, lambda row, index: data[row["place"]], data.categories)
    streamed = StreamedTrainingExamples(stream, examples.maker)
    for whole in (examples, streamed):
        whole.set_epoch(2)
    for index, example in enumerate(streamed):
        assert all(
            torch.equal(torch.as_tensor(example[name]), torch.as_tensor(examples[index][name])) for name in example
        )
    assert index == 1


# Frequencies


def test_frequencies_are_those_of_the_segments_and_nothing_has_none(tmp_path):
    data = made_data(tmp_path)
    class_indices = {category.id: index for index, category in enumerate(data.categories)}
    counts = [1] * len(class_indices)  # none at all would have a logarithm of minus infinity
    for record in data:
        for segment in record["segments_info"]:
            if not segment["iscrowd"]:
                counts[class_indices[segment["category_id"]]] += 1
    assert max(counts) > min(counts)
    expected = torch.tensor(counts) / sum(counts)
    torch.testing.assert_close(log_frequencies(data, class_indices).exp(), expected)


def test_each_name_of_a_batch_has_its_class_prior():
    prompt_embeds, priors = torch.eye(4), torch.randn(4)
    batch = TrainingCollator(prompt_embeds, vocabulary_size=3, log_priors=priors)([hand_made(2), hand_made(1)])
    for embeds, found in zip(batch["class_embeds"], batch["class_log_priors"]):
        assert torch.equal(embeds @ priors, found)
