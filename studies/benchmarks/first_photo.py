"""The first own photo by a preset: `python -m fisa.studies.benchmarks.first_photo [PRESET ...]`.

Parts of random weights at the public shapes lie in folders of their names, and `fisa-segment` runs in a fresh process,
as a person would start it: once as the first time, when the words that compete are encoded, and then as every time
after. Prints a JSON line for each preset: processor seconds from the start to the end, and the most memory that was
resident.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fisa.pretrained.presets import PRESETS, Preset
from fisa.studies.benchmarks.measure import machine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.first_photo", description=__doc__)
    parser.add_argument("presets", nargs="*", default=[*PRESETS])
    parser.add_argument("--rounds", type=int, default=3, help="runs after the first (%(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in the processes that are measured
    for name in options.presets:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(first_photo(Path(folder), name, rounds=options.rounds)), flush=True)


def first_photo(folder: Path, name: str, *, rounds: int) -> dict[str, object]:
    """The first run and the median of those after it, on one thread."""
    write_parts(folder, PRESETS[name])
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / "photo.jpg")
    runs = [segment(folder, name) for _ in range(1 + rounds)]
    return machine() | {
        "benchmark": "first_photo",
        "preset": name,
        "first_cpu_seconds": runs[0][0],
        "cpu_seconds": statistics.median(seconds for seconds, _ in runs[1:]),
        "gib": max(gib for _, gib in runs),
        "photo": "640 x 480",
    }


def write_parts(folder: Path, preset: Preset) -> None:
    """In a process of its own: a child's peak of memory begins with what its parent has."""
    shapes = [part.rpartition("/")[2] for part in preset]
    command = ["-m", "fisa.studies.benchmarks.public_architectures", "written", "--clip", shapes[0]]
    subprocess.run([sys.executable, *command, "--mask-generator", shapes[1]], cwd=folder, check=True)
    for part, written in zip(preset, ("clip", "mask_generator")):
        (folder / part).parent.mkdir(parents=True)
        (folder / "written" / written).rename(folder / part)


def segment(folder: Path, name: str) -> tuple[float, float]:
    """Processor seconds and GiB of one run of `fisa-segment`."""
    words = ("--labels", "dog, frisbee, grass", "--overwrite", "--quiet")
    command = [sys.executable, "-m", "fisa.commands.segment", "photo.jpg", "--model", name, *words]
    kept = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    child = subprocess.Popen(command, cwd=folder, env=os.environ | kept)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{command} ended with {os.waitstatus_to_exitcode(status)}.")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


if __name__ == "__main__":
    main()
