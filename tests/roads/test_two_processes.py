"""A plain Trainer of the plain model: two processes and gradient checkpointing give the weights of one process."""

import random

import pytest
import torch
from safetensors.torch import load_file

from tests.roads.walking import walk


# Two photos per step, whatever the number of processes.
TRAIN = """
import sys
import torch
import fisa
from transformers import Trainer, TrainingArguments

folder, output, processes = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Photos(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        random = torch.Generator().manual_seed(index)
        return {
            "pixel_values": torch.randn(3, 96, 96, generator=random),
            "mask_proposals": torch.rand(4, 24, 24, generator=random) - 0.5,
            "class_labels": torch.randint(0, 200, (4,), generator=random),
        }

args = TrainingArguments(
    output,
    max_steps=2,
    per_device_train_batch_size=2 // processes,
    learning_rate=1e-3,
    optim="sgd",
    use_cpu=True,
    report_to="none",
    disable_tqdm=True,
    activation_checkpointing=processes == 2,
    remove_unused_columns=False,
    save_strategy="no",
    seed=0,
)
trainer = Trainer(model=fisa.FisaForUniversalSegmentation.from_pretrained(folder), args=args, train_dataset=Photos())
trainer.train()
trainer.save_model(output)
"""


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "train_plainly.py"
    path.write_text(TRAIN)
    return path


def test_two_processes_with_gradient_checkpointing(shipped, script, tmp_path):
    walk("python", script, shipped, tmp_path / "one", 1, cwd=tmp_path)
    port = random.Random(str(tmp_path)).randrange(20000, 30000)
    launcher = ("python", "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", port)
    walk(*launcher, script, shipped, tmp_path / "two", 2, cwd=tmp_path)
    before = load_file(shipped / "model.safetensors")
    alone, together = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    changed = [name for name in before if not torch.equal(before[name], alone[name])]
    assert any("vision_model" in name for name in changed) and not any("mask_generator" in name for name in changed)
    for name, weights in alone.items():
        torch.testing.assert_close(together[name], weights, atol=1e-5, rtol=1e-4)
