"""What zoom is worth in Patchwork, and what it costs: `python -m fisa.studies.benchmarks.zoom`.

The model that ships, fine-tuned and frozen, on the scenes that ship, with more and more proposals read a second time.
Prints a JSON line for each: PQ and mIoU in percent, and the CPU seconds of a scene from picture to panoptic map.
`--public` times a photo at the public shapes instead, weights at random.
"""

import argparse
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor
from fisa.data.hub_datasets import hub
from fisa.pretrained import patchwork
from fisa.studies.benchmarks.measure import flops, machine, paired_medians
from fisa.studies.benchmarks.public_architectures import public_fisa
from fisa.studies.benchmarks.table import LINES
from fisa.studies.patchwork.dataset import PACK
from fisa.training.evaluator import Evaluator


STOPS = (0, 4, 8, 24)  # the shipped generator makes 24 proposals
PUBLIC_STOPS = (0, 1)  # each window costs the same
MODELS = ("fine-tuned", "frozen")
SPLITS = ("validation", "validation_shifted")
NUM_PROPOSALS, NUM_CLASSES = 100, 150
ARCHITECTURE = "clip-vit-large-patch14-336"


def main() -> None:
    """Measure and print; or draw what was measured."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.zoom", description=__doc__)
    parser.add_argument("--public", action="store_true", help=f"{ARCHITECTURE} with {NUM_PROPOSALS} proposals")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--splits", nargs="+", choices=SPLITS, default=list(SPLITS))
    parser.add_argument("--rounds", type=int, default=5, help="timings of each stop (%(default)s)")
    parser.add_argument("--figure", type=Path, help="draw the lines that are kept, and measure nothing")
    options = parser.parse_args()
    if options.figure is not None:
        kept = map(json.loads, LINES.read_text(encoding="utf-8").splitlines())
        draw([line for line in kept if line["benchmark"] == "zoom" and "pq" in line]).savefig(options.figure, dpi=110)
        return
    lines = (
        public_costs(rounds=options.rounds)
        if options.public
        else patchwork_dial(options.models, options.splits, rounds=options.rounds)
    )
    for line in lines:
        print(json.dumps({"benchmark": "zoom"} | line | machine()), flush=True)


def patchwork_dial(models: Sequence[str], splits: Sequence[str], *, rounds: int) -> Iterator[dict[str, Any]]:
    """Quality and cost at each stop. The cost does not depend on the weights and is measured once."""
    seconds: dict[str, float] = {}
    for name in models:
        model, processor = patchwork.load(adapted=name == "fine-tuned")
        for split in splits:
            evaluator = evaluator_of(split, processor)
            seconds = seconds or scene_seconds(model, processor, evaluator, rounds=rounds)
            for zoom in STOPS:
                processor.image_processor.zoom = zoom
                report = evaluator.evaluate(model, evaluator.loader(batch_size=24, num_workers=0))
                yield {
                    "model": name,
                    "split": split,
                    "zoom": zoom,
                    "pq": report["panoptic"]["all"]["pq"],
                    "miou": report["semantic"]["miou"],
                    "cpu_seconds": seconds[str(zoom)],
                    "ratio": seconds[str(zoom)] / seconds["0"],
                }


def evaluator_of(split: str, processor: FisaProcessor) -> Evaluator:
    """For the shipped scenes of a split, without mask AP, which would take most of the time."""
    data = hub(str(PACK), split=split, classes=str(PACK / "categories.json"), streaming=False)
    evaluator = Evaluator(data, processor, name=split)
    evaluator.tasks.remove("instance")
    return evaluator


def scene_seconds(
    model: FisaForUniversalSegmentation, processor: FisaProcessor, evaluator: Evaluator, *, rounds: int
) -> dict[str, float]:
    """CPU seconds of one scene at each stop, the mean over eight scenes."""
    scenes = [evaluator.data[index]["image"] for index in range(8)]

    @torch.no_grad()
    def segment(zoom: int) -> None:
        for scene in scenes:
            outputs = model(**processor(images=scene, zoom=zoom, return_tensors="pt"))
            processor.post_process_segmentation(outputs, target_sizes=[scene.size[::-1]])

    sides = {str(zoom): partial(segment, zoom) for zoom in STOPS}
    seconds = paired_medians(sides, rounds=rounds, clock=time.process_time)
    return {name: value / len(scenes) for name, value in seconds.items()}


@torch.no_grad()
def public_costs(*, rounds: int) -> Iterator[dict[str, Any]]:
    """A photo of 640 × 480 with ready proposals on small parts of it: CLIP alone, which zoom repeats."""
    torch.manual_seed(0)
    model = FisaForUniversalSegmentation(public_fisa(ARCHITECTURE)).eval()
    size = {"height": model.config.image_tower.image_size, "width": model.config.image_tower.image_size}
    images = FisaImageProcessor(size=size, zoom_size=size, mask_generator_size=None)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    masks = torch.zeros(1, NUM_PROPOSALS, 120, 160, dtype=torch.bool)
    for index, mask in enumerate(masks[0]):
        row, column = divmod(index, 10)
        mask[12 * row : 12 * row + 20, 16 * column : 16 * column + 20] = True
    texts = torch.randn(NUM_CLASSES, model.config.projection_dim)

    def classify(zoom: int) -> None:
        model(**images(photo, zoom=zoom, return_tensors="pt"), mask_proposals=masks, class_embeds=texts)

    sides = {str(zoom): partial(classify, zoom) for zoom in PUBLIC_STOPS}
    seconds = paired_medians(sides, rounds=rounds, clock=time.process_time)
    once, again = flops(partial(classify, 0)), flops(partial(classify, 1))
    for zoom in PUBLIC_STOPS:
        yield {
            "architecture": ARCHITECTURE,
            "proposals": NUM_PROPOSALS,
            "zoom": zoom,
            "cpu_seconds": seconds[str(zoom)],
            "ratio": seconds[str(zoom)] / seconds["0"],
            "flops_ratio": (once + zoom * (again - once)) / once,
        }


def draw(lines: Sequence[Mapping[str, Any]]) -> Figure:
    """PQ against the cost of a scene, one curve for each model and split."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for split, colour in zip(SPLITS, ("tab:blue", "tab:orange")):
        for model, style in zip(MODELS, ("-", "--")):
            curve = [line for line in lines if (line["split"], line["model"]) == (split, model)]
            ratios, scores = ([line[name] for line in curve] for name in ("ratio", "pq"))
            axes.plot(ratios, scores, style, color=colour, marker="o", label=f"{split}, {model}")
            if model == "fine-tuned":
                for line in curve:
                    place = (line["ratio"], line["pq"])
                    axes.annotate(str(line["zoom"]), place, xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set(xlabel="CPU time of a scene, × that without zoom", ylabel="PQ")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    return figure


if __name__ == "__main__":
    main()
