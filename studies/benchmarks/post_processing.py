"""Post-processing against transformers': `python -m fisa.studies.benchmarks.post_processing [--quick]`.

Both sides turn the same 100 proposals into segmentations of 1080 × 1920 pixels from mask logits of a quarter of that,
by the closed-vocabulary rule, in one thread. Prints a JSON line for each task, kind of masks and number of classes:
seconds, the memory that each side takes beyond its inputs, and how many pixels differ where the mask logits have
transformers' own working size of 384 × 384. All others it resizes to that first, so that its maps are other maps.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import torch
import torch.nn.functional as F
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil

from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation, semantic_segmentation
from fisa.studies.benchmarks.measure import highest_memory, machine, paired_medians


SIZE, GRID, THEIR_GRID, NUM_PROPOSALS = (1080, 1920), (270, 480), (384, 384), 100
CASES = (("semantic", 150), ("semantic", 847), ("panoptic", 150), ("instance", 150))
QUICK_CASES = (("semantic", 150), ("panoptic", 150), ("instance", 150))
FEW, MANY = 150, 10_000  # MANY for ours alone: theirs would hold 80 GB


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.post_processing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timings of each side (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="150 classes, masks like segments, one round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in ("segments",) if options.quick else ("segments", "noise"):
        for task, num_classes in QUICK_CASES if options.quick else CASES:
            line = measure(task, num_classes=num_classes, kind=kind, rounds=1 if options.quick else options.rounds)
            print(json.dumps(line | machine()), flush=True)
        if not options.quick:
            print(json.dumps(growth(kind, rounds=options.rounds) | machine()), flush=True)


def measure(task: str, *, num_classes: int, kind: str, rounds: int) -> dict[str, object]:
    """Both sides' seconds and memory, and the pixels in which they differ."""
    outputs = proposals(num_classes=num_classes, kind=kind)
    runs = sides(task, outputs)
    memory = {name: in_fresh_process(extra_gigabytes, name, task, num_classes, kind) for name in runs}
    seconds = paired_medians(runs, rounds=rounds)
    line = {"benchmark": "post_processing", "task": task, "classes": num_classes, "masks": kind}
    line |= {f"{name}_seconds": value for name, value in seconds.items()}
    line |= {f"{name}_gigabytes": value for name, value in memory.items()}
    masks = F.interpolate(outputs.masks_queries_logits, size=THEIR_GRID, mode="bilinear")
    outputs = SimpleNamespace(**vars(outputs) | {"masks_queries_logits": masks})
    ours, theirs = (run() for run in sides(task, outputs).values())
    return line | {
        "ratio": seconds["theirs"] / seconds["ours"],
        "different_pixels": (ours != theirs).sum().item(),
        "pixels": ours.numel(),
    }


def growth(kind: str, *, rounds: int) -> dict[str, object]:
    """Our seconds for a semantic map of many classes beside few, and the memory that it takes."""
    runs = {size: sides("semantic", proposals(num_classes=size, kind=kind))["ours"] for size in (MANY, FEW)}
    memory = {size: in_fresh_process(extra_gigabytes, "ours", "semantic", size, kind) for size in runs}
    seconds = paired_medians(runs, rounds=rounds)
    return {
        "benchmark": "post_processing",
        "masks": kind,
        "classes": MANY,
        "fewer_classes": FEW,
        "seconds": seconds[MANY],
        "fewer_seconds": seconds[FEW],
        "growth": seconds[MANY] / seconds[FEW],
        "gigabytes": memory[MANY],
        "fewer_gigabytes": memory[FEW],
    }


def sides(task: str, outputs: SimpleNamespace) -> dict[str, Callable[[], torch.Tensor]]:
    """Ours and theirs: the map of the one photo."""
    sizes, theirs = [SIZE], Mask2FormerImageProcessorPil()
    if task == "semantic":
        return {
            "ours": lambda: semantic_segmentation(outputs, target_sizes=sizes)[0],
            "theirs": lambda: theirs.post_process_semantic_segmentation(outputs, target_sizes=sizes)[0],
        }
    # All proposals that are not "no object" take part, and segments are found in noise as well.
    options = {"target_sizes": sizes, "threshold": 0.0}
    if task == "instance":
        return {
            "ours": lambda: instance_segmentation(outputs, **options, rule="closed_vocabulary")[0]["segmentation"],
            "theirs": lambda: theirs.post_process_instance_segmentation(outputs, **options)[0]["segmentation"],
        }
    options |= {"label_ids_to_fuse": set(), "overlap_mask_area_threshold": 0.0}
    return {
        "ours": lambda: panoptic_segmentation(outputs, **options, rule="closed_vocabulary")[0]["segmentation"],
        "theirs": lambda: theirs.post_process_panoptic_segmentation(outputs, **options)[0]["segmentation"],
    }


def proposals(*, num_classes: int, kind: str) -> SimpleNamespace:
    """Random proposals: masks of smooth blobs ("segments"), or each point for itself ("noise")."""
    random = torch.Generator().manual_seed(0)
    if kind == "segments":
        blobs = 8 * torch.randn(1, NUM_PROPOSALS, 6, 6, generator=random) - 6
        masks = F.interpolate(blobs, size=GRID, mode="bicubic")
    else:
        masks = torch.randn(1, NUM_PROPOSALS, *GRID, generator=random)
    logits = 3 * torch.randn(1, NUM_PROPOSALS, num_classes + 1, generator=random)
    return SimpleNamespace(class_queries_logits=logits, masks_queries_logits=masks)


def in_fresh_process(run: Callable[..., float], *arguments: object) -> float:
    """What a function returns in a process of one thread that has done nothing else."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as fresh:
        return fresh.apply(run, arguments)


def extra_gigabytes(name: str, task: str, num_classes: int, kind: str) -> float:
    """How far one side's peak of resident memory lies above what its process had before, imports and inputs included.
    To be called in a fresh process: memory that was in use earlier would be in use again unseen."""
    run = sides(task, proposals(num_classes=num_classes, kind=kind))[name]
    before = psutil.Process().memory_info().rss / 2**30
    run()
    return highest_memory() / 2**30 - before


if __name__ == "__main__":
    main()
