"""FisaTrainer as any Trainer: with transformers' own arguments, and without an evaluator."""

import pytest
import torch
from transformers import TrainingArguments

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, get_simo_model
from fisa.training.trainer import FisaTrainer, FisaTrainingArguments


class Photos(torch.utils.data.Dataset):
    """Two photos whose left and right halves are of two classes."""

    def __init__(self, processor, photo):
        ids = torch.zeros(photo.height, photo.width, dtype=torch.int32)
        ids[:, photo.width // 2 :] = 1
        self.inputs = [processor(view, ids, return_tensors="pt") for view in (photo, photo.transpose(0))]

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return {name: self.inputs[index][name][0] for name in ("pixel_values", "mask_labels", "class_labels")}


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
