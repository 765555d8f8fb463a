"""The losses of the pre-training that shipped, from the logs in `docs/pretraining`:
`python -m fisa.studies.patchwork.losses FILE`."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


LOGS = Path(__file__).parents[2] / "docs" / "pretraining"
CLIP = ("clip", "clip_hands", "clip_hands_scenes", "clip_deep")
GENERATOR = (
    "generator_96",
    "generator_144",
    "generator_192",
    "generator_sharp",
    "generator_256",
    "generator_enlarged",
)


def losses() -> Figure:
    """CLIP's runs one after the other, and the generator's beside them."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    _draw(left, CLIP, title="CLIP")
    _draw(right, GENERATOR, title="Mask generator")
    return figure


def _draw(axes: Axes, runs: Sequence[str], *, title: str) -> None:
    before = 0
    for run in runs:
        lines = map(json.loads, (LOGS / f"{run}.jsonl").read_text(encoding="utf-8").splitlines())
        steps, values = zip(*[(before + line["step"], line["loss"]) for line in lines if "loss" in line])
        axes.plot(steps, values, label=run)
        before = steps[-1]
    axes.set(title=title, xlabel="step", ylabel="loss")
    axes.grid(alpha=0.3)
    axes.legend()


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.losses", description=__doc__)
    parser.add_argument("file", type=Path)
    losses().savefig(parser.parse_args().file, dpi=100)


if __name__ == "__main__":
    main()
