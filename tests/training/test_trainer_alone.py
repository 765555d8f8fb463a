"""FisaTrainer as any Trainer: with transformers' own arguments, and without an evaluator."""

import numpy as np
import pytest
import torch
from accelerate.utils.memory import release_memory
from PIL import Image
from transformers import TrainingArguments

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, get_simo_model
from fisa.miniature import miniature
from fisa.training.trainer import FisaTrainer, FisaTrainingArguments


class Photos(torch.utils.data.Dataset):
    """A photo and its mirror image, or other views, whose left and right halves are of two classes."""

    def __init__(self, processor, photo, *others):
        ids = torch.zeros(photo.height, photo.width, dtype=torch.int32)
        ids[:, photo.width // 2 :] = 1
        views = (photo, *(others or [photo.transpose(0)]))
        self.inputs = [processor(view, ids, return_tensors="pt") for view in views]

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {name: self.inputs[index][name][0] for name in ("pixel_values", "mask_labels", "class_labels")}


class Streamed(torch.utils.data.IterableDataset):
    """Any data, in turn."""

    def __init__(self, data):
        self.data = data

    def __iter__(self):
        return (self.data[index] for index in range(len(self.data)))


def collate(examples):
    batch = {name: [example[name] for example in examples] for name in ("mask_labels", "class_labels")}
    return batch | {"pixel_values": torch.stack([example["pixel_values"] for example in examples])}


@pytest.mark.parametrize("kind", [TrainingArguments, FisaTrainingArguments])
def test_trains_and_evaluates(checkpoint, photo, tmp_path, kind):
    model = FisaForUniversalSegmentation.from_pretrained(checkpoint)
    photos = Photos(FisaImageProcessor.from_pretrained(checkpoint), photo)
    args = kind(
        str(tmp_path), max_steps=6, learning_rate=1e-2, use_cpu=True, report_to="none", disable_tqdm=True, seed=0
    )
    trainer = FisaTrainer(
        get_simo_model(model), args, collate, train_dataset=photos, eval_dataset=photos, compute_metrics=None
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    assert trainer.args.learning_rate == 1e-2 and trainer.args.max_steps == 6
    trainer.save_model()
    trainer.create_model_card()
    assert (tmp_path / "adapter_model.safetensors").exists() and (tmp_path / "README.md").exists()


def test_plain_arguments_keep_their_values(checkpoint, tmp_path):
    plain = TrainingArguments(str(tmp_path), warmup_steps=7, weight_decay=0.25, use_cpu=True, report_to="none")
    trainer = FisaTrainer(get_simo_model(FisaForUniversalSegmentation.from_pretrained(checkpoint)), plain)
    changed = {name for name, value in plain.to_dict().items() if trainer.args.to_dict()[name] != value}
    assert changed == {"remove_unused_columns", "label_names"}


@pytest.fixture(scope="module")
def trained_steps(tmp_path_factory):
    """Runs training that changes nothing, and returns the loss and the length of the gradient of each step."""
    model, processor = miniature()
    model.set_vocabulary(processor, ["dog", "sky"])
    pixels = np.random.default_rng(0).integers(0, 256, (7, 48, 64, 3), dtype=np.uint8)
    data, simo_model = Photos(processor.image_processor, *map(Image.fromarray, pixels)), get_simo_model(model)

    def steps(batch_size, *, accumulated=1, photos=7, streamed=False, max_steps=2, bf16=False):
        args = FisaTrainingArguments(
            str(tmp_path_factory.mktemp("run")), max_steps=max_steps, learning_rate=0.0, logging_steps=1, seed=0,
            per_device_train_batch_size=batch_size, gradient_accumulation_steps=accumulated, max_grad_norm=1e9,
            save_strategy="no", use_cpu=True, report_to="none", disable_tqdm=True, bf16=bf16,
        )  # fmt: skip
        some = torch.utils.data.Subset(data, range(photos))
        trainer = FisaTrainer(simo_model, args, collate, train_dataset=Streamed(some) if streamed else some)
        trainer.train()
        return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]

    return steps


@pytest.mark.parametrize("parts, photos", [((2, 2), 7), ((1, 4), 7), ((3, 2), 4)], ids=str)
def test_all_photos_of_a_step_weigh_the_same(trained_steps, parts, photos):
    """Also where the last batch is smaller than the others, or the last step of a pass has fewer batches."""
    batch_size, accumulated = parts
    in_parts = trained_steps(batch_size, accumulated=accumulated, photos=photos)
    assert torch.tensor(in_parts).allclose(torch.tensor(trained_steps(4, photos=photos)), atol=1e-4)


def test_batches_left_over_at_the_end_of_a_stream_begin_the_next_pass(trained_steps):
    one, *_ = torch.tensor(trained_steps(1, streamed=True, max_steps=7)).T
    expected = [one[[0, 1, 2, 3]].mean(), one[[4, 5, 6, 0]].mean(), one[[1, 2, 3, 4]].mean()]
    four, _ = torch.tensor(trained_steps(1, accumulated=4, streamed=True, max_steps=3)).T
    assert four.allclose(torch.stack(expected), atol=1e-4)


def test_a_stream_that_is_not_enough_for_a_step_is_refused(trained_steps):
    with pytest.raises(ValueError, match="ends after 4 batches of the 5 of a step"):
        trained_steps(1, photos=4, accumulated=5, streamed=True)


def test_a_model_is_trained_in_the_precision_of_each_trainer_and_not_of_an_earlier_one(trained_steps):
    before = trained_steps(4)
    assert trained_steps(4, bf16=True) != before and trained_steps(4) == before
    with pytest.raises(ValueError, match="ends after"):  # in the middle of training
        trained_steps(1, photos=4, accumulated=5, streamed=True, bf16=True)
    assert trained_steps(4) == before


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_each_training_of_a_search_is_one_of_its_own(checkpoint, photo, tmp_path, share):
    """transformers' searches for hyper-parameters call one Trainer again and again, and drop its model in between."""
    photos = Photos(FisaImageProcessor.from_pretrained(checkpoint), photo)
    args = FisaTrainingArguments(
        str(tmp_path), max_steps=3, learning_rate=1e-2, start_share=share, save_strategy="no", use_cpu=True,
        report_to="none", disable_tqdm=True,
    )  # fmt: skip
    trainer = FisaTrainer(
        args=args,
        data_collator=collate,
        train_dataset=photos,
        model_init=lambda: get_simo_model(FisaForUniversalSegmentation.from_pretrained(checkpoint)),
    )

    def trained():
        trainer.train()
        return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}

    first, again = trained(), trained()
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    trainer.model_wrapped, trainer.model = release_memory(trainer.model_wrapped, trainer.model)
    assert all(torch.equal(weight, first[name]) for name, weight in trained().items())
