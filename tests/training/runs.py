"""Runs of `train.py` on a miniature and a few made photos."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

import fisa
from fisa.train import train_and_evaluate
from tests.ports import free_port


SOURCES = ("ground_truth", "generator", "cache")
EASILY_MATCHED = '{"proposal_matcher_iou": 0.05}'  # a random generator's proposals fit nothing well
WITH_SEGMENTS = '{"proposal_matcher_iou": 0.05, "segment_attention_penalty": 1.0}'


def run(output: Path, *, model: Path | None, data: Path | None, **options: Any) -> dict[str, Any]:
    """Run `train.py` with these flags; `True` stands for a flag alone. Returns the evaluation's report."""
    flags = {"model": model, "output_dir": output, "use_cpu": True, "disable_tqdm": "true", "report_to": "none"}
    if data is not None:
        flags |= {"train_format": "coco_panoptic", "train_data": data, "train_split": "train2017"}
    return train_and_evaluate(
        as_arguments({name: value for name, value in (flags | options).items() if value is not None})
    )


def as_arguments(options: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [] if value is True else [value]
        arguments += [f"--{name}", *map(str, values)]
    return arguments


def losses(output: Path) -> dict[int, float]:
    """The logged loss of each step."""
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    return {entry["step"]: entry["loss"] for entry in history if "loss" in entry}


def adapter(output: Path) -> dict[str, torch.Tensor]:
    """The weights that a run left."""
    return load_file(output / "adapter_model.safetensors")


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two adapters are the same bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def launch(*arguments: str, launcher_flags: list[str]) -> str:
    """Run `train.py` under accelerate's launcher, asking for two processes; returns what it says on standard error."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *launcher_flags, "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    command += ["--main_process_port", str(free_port())]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command += [str(Path(fisa.__file__).parent / "train.py"), *arguments]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr
