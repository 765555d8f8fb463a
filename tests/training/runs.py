"""Runs of `train.py` on a miniature and a few made photos."""

import json
from pathlib import Path
from typing import Any

from fisa.train import main


def run(output: Path, *, model: Path | None, data: Path | None, **options: Any) -> dict[str, Any]:
    """Run `train.py` with these flags; `True` stands for a flag alone. Returns the evaluation's report."""
    flags = {"model": model, "output_dir": output, "use_cpu": True, "disable_tqdm": "true", "report_to": "none"}
    if data is not None:
        flags |= {"train_format": "coco_panoptic", "train_data": data, "train_split": "train2017"}
    return main(as_arguments({name: value for name, value in (flags | options).items() if value is not None}))


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
