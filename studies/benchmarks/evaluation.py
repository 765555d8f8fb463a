"""What an evaluation costs beside the model: `python -m fisa.studies.benchmarks.evaluation [--quick]`.

Prints two JSON lines, in processor seconds. `evaluation_loop`: the share of the loop (reading, preparing,
post-processing, three metrics) that is not the model's, a CLIP ViT-B/16 behind a Mask2Former with Swin-T, on photos of
640 x 480 pixels. `panoptic_quality`: FISA's metric beside panopticapi's protocol in NumPy, and how far they differ.

The weights are random and find nothing, so the loop goes on with answers made of the truth: 100 masks, two dozen of
them objects, as a trained generator's are.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor
from fisa.evaluation.panoptic_quality import PanopticQuality
from fisa.miniature import character_clip_tokenizer
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.studies.benchmarks.measure import machine
from fisa.studies.benchmarks.public_architectures import public_fisa
from fisa.studies.benchmarks.simulated_photos import (
    CATEGORIES,
    SEGMENTS,
    simulated_prediction,
    simulated_segmentation,
    write_simulated_photos,
)
from fisa.training.evaluator import Evaluator


CLIP, GENERATOR = "clip-vit-base-patch16", "mask2former-swin-tiny-coco-panoptic"
OBJECTS = 24  # of a trained Mask2Former's 100 queries on a photo of COCO, above an objectness of 0.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.evaluation", description=__doc__)
    parser.add_argument("--photos", type=int, default=16, help="through the loop (%(default)s)")
    parser.add_argument("--images", type=int, default=5000, help="for panoptic quality (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two photos and 200 images")
    options = parser.parse_args()
    photos, images = (2, 200) if options.quick else (options.photos, options.images)
    processor = FisaProcessor(image_processor=FisaImageProcessor(), tokenizer=character_clip_tokenizer())
    line = evaluation_loop(FisaForUniversalSegmentation(public_fisa(CLIP, GENERATOR)).eval(), processor, photos=photos)
    print(json.dumps(line | {"architecture": f"{CLIP}, {GENERATOR}"} | machine()), flush=True)
    print(json.dumps(panoptic_quality(images=images) | machine()), flush=True)


def evaluation_loop(model: FisaForUniversalSegmentation, processor: FisaProcessor, *, photos: int) -> dict[str, Any]:
    """Seconds per photo of the loop, of the model in it, and of the rest."""
    with tempfile.TemporaryDirectory() as folder:
        data = write_simulated_photos(Path(folder), count=photos)
        answers = [made_of(data[index]["label"]) for index in range(photos)]
        evaluator = Evaluator(data, processor, name="simulated photos")
        # Once before it counts, for what a first run sets up.
        evaluator.evaluate(_Answering(None, answers), evaluator.loader(batch_size=1, num_workers=0))
        timed = _Answering(model, answers)
        started = time.process_time()
        evaluator.evaluate(timed, evaluator.loader(batch_size=1, num_workers=0))
        loop = time.process_time() - started
    return {
        "benchmark": "evaluation_loop",
        "photos": photos,
        "loop_cpu_seconds": loop / photos,
        "model_cpu_seconds": timed.cpu_seconds / photos,
        "other_cpu_seconds": (loop - timed.cpu_seconds) / photos,
        "other_share": 1 - timed.cpu_seconds / loop,
    }


class _Answering:
    """Runs the model and counts its time, and gives other answers, photo by photo. The vocabulary is encoded once for
    all photos and left out."""

    device = torch.device("cpu")

    def __init__(self, model: FisaForUniversalSegmentation | None, answers: Iterable[FisaOutput]):
        self.model, self.answers, self.cpu_seconds = model, iter(answers), 0.0

    def encode_vocabulary(self, *_: Any) -> dict[str, torch.Tensor]:
        width = 1 if self.model is None else self.model.config.projection_dim
        return {"class_embeds": torch.randn(len(CATEGORIES), width)}

    def __call__(self, **inputs: torch.Tensor) -> FisaOutput:
        if self.model is not None:
            started = time.process_time()
            self.model(**inputs)
            self.cpu_seconds += time.process_time() - started
        return next(self.answers)


def made_of(ids: np.ndarray, *, queries: int = 100, grid: tuple[int, int] = (200, 272)) -> FisaOutput:
    """What a trained model would answer: masks of the segments, several of each and a little off, and classes."""
    random = torch.Generator().manual_seed(0)
    masks = [np.roll(ids, query // SEGMENTS, (0, 1)) == query % SEGMENTS + 1 for query in range(queries)]
    inside = nn.functional.interpolate(
        torch.from_numpy(np.stack(masks)).float()[None], grid, mode="bilinear", antialias=True
    )
    logits = 3 * torch.randn(1, queries, len(CATEGORIES) + 1, generator=random)
    logits[..., -1] = torch.where(torch.arange(queries) < OBJECTS, -10.0, 16.0)
    return FisaOutput(
        class_queries_logits=logits,
        masks_queries_logits=16 * (inside - 0.5),
        class_is_thing=torch.tensor([[category.isthing for category in CATEGORIES]]),
    )


def panoptic_quality(*, images: int) -> dict[str, Any]:
    """Both sides' seconds per image, with maps in memory, and the largest difference of a category's PQ, in points."""
    metric = PanopticQuality(categories=[category.to_dict() for category in CATEGORIES])
    counts: dict[int, list[float]] = defaultdict(lambda: [0.0, 0, 0, 0])
    seconds: dict[str, list[float]] = {"fisa": [], "numpy": []}
    for prediction, truth in _pairs(images):
        started = time.process_time()
        metric.add(prediction=prediction, reference=truth)
        between = time.process_time()
        add_by_protocol(counts, prediction, truth)
        ended = time.process_time()
        seconds["fisa"].append(between - started)
        seconds["numpy"].append(ended - between)
    started = time.process_time()
    measured = metric.compute()["per_class"]
    total = {"fisa": sum(seconds["fisa"]) + time.process_time() - started, "numpy": sum(seconds["numpy"])}
    expected = {
        category.name: 100 * iou / (matched + wrong / 2 + missed / 2)
        for category in CATEGORIES
        for iou, matched, wrong, missed in [counts[category.id]]
        if matched + wrong + missed
    }
    return {
        "benchmark": "panoptic_quality",
        "images": images,
        **{f"{name}_cpu_seconds": value / images for name, value in total.items()},
        "times_faster": total["numpy"] / total["fisa"],
        "largest_difference": max(abs(measured[name]["pq"] - value) for name, value in expected.items()),
    }


def _pairs(count: int) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    random = np.random.default_rng(0)
    for _ in range(count):
        truth = simulated_segmentation(random)
        yield simulated_prediction(truth, random), truth


def add_by_protocol(counts: dict[int, list[float]], prediction: dict[str, Any], truth: dict[str, Any]) -> None:
    """panopticapi's `pq_compute_single_core` for one image, after the PNGs are read: for each category summed IoU,
    matches, false positives and false negatives."""
    true = {info["id"]: info for info in truth["segments_info"]}
    predicted = {info["id"]: info for info in prediction["segments_info"]}
    true_map, found_map = (side["segmentation"].astype(np.uint64) for side in (truth, prediction))
    areas = dict(zip(*(array.tolist() for array in np.unique(found_map, return_counts=True))))
    pairs, sizes = np.unique(true_map * 256**3 + found_map, return_counts=True)
    shared = {divmod(pair, 256**3): size for pair, size in zip(pairs.tolist(), sizes.tolist())}
    matched_true, matched_found = set(), set()
    for (i, j), size in shared.items():
        if i not in true or j not in predicted or true[i]["iscrowd"]:
            continue
        if true[i]["category_id"] != predicted[j]["category_id"]:
            continue
        iou = size / (areas[j] + true[i]["area"] - size - shared.get((0, j), 0))
        if iou > 0.5:
            counts[true[i]["category_id"]][0] += iou
            counts[true[i]["category_id"]][1] += 1
            matched_true.add(i)
            matched_found.add(j)
    crowds = {info["category_id"]: i for i, info in true.items() if info["iscrowd"]}
    for i, info in true.items():
        if i not in matched_true and not info["iscrowd"]:
            counts[info["category_id"]][3] += 1
    for j, info in predicted.items():
        excused = shared.get((0, j), 0) + shared.get((crowds.get(info["category_id"]), j), 0)
        if j not in matched_found and excused / areas[j] <= 0.5:
            counts[info["category_id"]][2] += 1


if __name__ == "__main__":
    main()
