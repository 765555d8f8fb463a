"""A photo of 12 megapixels beside the model: `python -m fisa.studies.benchmarks.large_photo [--quick]`.

What one thread does before the model and after it: preparing both views, post-processing 100 proposals to 40 segments
or 5 at the photo's size, drawing them over the photo, and writing the map and the overlay picture, as JPEG and as PNG.
Beside the drawing supervision's `MaskAnnotator` and `LabelAnnotator` on the same segments, whose masks and names are
ready-made, with names where supervision puts them by default; with `opencv-python-headless` it is faster. Prints a
JSON line for each number of segments: medians of runs that took turns, in seconds of the processor.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import supervision
import torch
from PIL import Image
from scipy import ndimage

from fisa import FisaImageProcessor
from fisa.labelling.overlays import overlay_path, write_overlay
from fisa.processing.coco_panoptic import numbered, write_map
from fisa.processing.post_processing import segmentations
from fisa.processing.segmentation import Segmentation
from fisa.studies.benchmarks.measure import machine, paired_medians


WIDTH, HEIGHT, GRID = 4000, 3000, (204, 272)
PROPOSALS, CLASSES = 100, 150
PARTS = ("prepare", "post_process", "draw", "write_jpg")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.large_photo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timings of each part (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two rounds, 40 segments alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for segments in (40,) if options.quick else (40, 5):
        print(json.dumps(measure(segments, rounds=2 if options.quick else options.rounds) | machine()), flush=True)


def measure(segments: int, *, rounds: int) -> dict[str, Any]:
    """The seconds of each part, of all parts together, and of supervision's drawing."""
    photo, outputs = simulated_photo(), proposals(segments)
    processor = FisaImageProcessor(size={"height": 336, "width": 336})

    def segment() -> Segmentation:
        names = {number: f"word {number}" for number in range(CLASSES)}
        (found,) = segmentations(outputs, target_sizes=[(HEIGHT, WIDTH)], id2label=names)
        return found

    segmentation = segment()
    assert len(segmentation) == segments
    with tempfile.TemporaryDirectory() as place:
        sides = {
            "prepare": lambda: processor(photo, return_tensors="pt"),
            "post_process": segment,
            "draw": lambda: segmentation.plot(photo),
            "write_jpg": lambda: write(Path(place), photo, segmentation, format="jpg"),
            "write_png": lambda: write(Path(place), photo, segmentation, format="png"),
            "supervision": drawing_of_supervision(photo, segmentation),
        }
        seconds = paired_medians(sides, rounds=rounds, clock=time.process_time)
        sizes = {
            f"{format}_megabytes": overlay_path(Path(place), "photo", format).stat().st_size / 1e6
            for format in ("jpg", "png")
        }
    for format in ("jpg", "png"):  # which draw anew
        seconds[f"write_{format}"] -= seconds["draw"]
    return (
        {"benchmark": "large_photo", "megapixels": WIDTH * HEIGHT / 1e6, "segments": segments}
        | {f"{name}_seconds": value for name, value in seconds.items()}
        | {"seconds": sum(seconds[name] for name in PARTS)}
        | {"ratio": seconds["supervision"] / seconds["draw"]}
        | sizes
        | {"opencv": importlib.util.find_spec("cv2") is not None}
    )


def write(place: Path, photo: Image.Image, segmentation: Segmentation, *, format: Any) -> None:
    """The map and the overlay picture of a photo, as a folder of results has them."""
    ids, _ = numbered(**segmentation.to_panoptic(range(1, CLASSES + 1)))
    write_map(place / "photo.png", ids)
    write_overlay(overlay_path(place, "photo", format), photo, segmentation)


def drawing_of_supervision(photo: Image.Image, segmentation: Segmentation) -> Callable[[], Any]:
    """Filling and naming the segments by supervision's annotators."""
    detections = segmentation.to_supervision()
    names = [f"{segment.label} {segment.score:.2f}" for segment in segmentation]
    fill = supervision.MaskAnnotator(opacity=0.45)
    scale = supervision.calculate_optimal_text_scale(photo.size)
    name = supervision.LabelAnnotator(text_scale=scale)
    return lambda: name.annotate(fill.annotate(photo.copy(), detections), detections, labels=names)


def simulated_photo() -> Image.Image:
    """Smooth colours and grain."""
    random = np.random.default_rng(0)
    colors = random.integers(0, 255, (HEIGHT // 50, WIDTH // 50, 3)).astype(np.float32)
    smooth = ndimage.zoom(colors, (50, 50, 1), order=1)
    return Image.fromarray((smooth + random.normal(0, 6, smooth.shape)).clip(0, 255).astype(np.uint8))


def proposals(segments: int) -> SimpleNamespace:
    """As many cells with wavy borders as segments, each by a sure proposal; the other proposals are no objects."""
    random = np.random.default_rng(0)
    waves = ndimage.zoom(random.normal(0, 2.5, (2, GRID[0] // 12, GRID[1] // 16)), (1, 12, 16), order=1)
    places, centres = (
        np.mgrid[: GRID[0], : GRID[1]] + waves,
        random.random((segments, 2, 1, 1)) * np.array(GRID)[:, None, None],
    )
    distances = np.stack([np.hypot(*(places - centre)) for centre in centres])
    nearest, second = np.partition(distances, 1, axis=0)[:2]
    cells = np.where(distances == nearest, second - distances, nearest - distances)
    masks = cells[np.arange(PROPOSALS) % segments] + random.normal(0, 0.3, (PROPOSALS, *GRID))
    classes = random.normal(0, 1, (PROPOSALS, CLASSES + 1))
    classes[np.arange(PROPOSALS), random.integers(CLASSES, size=PROPOSALS)] += 8
    classes[:, -1] = np.where(np.arange(PROPOSALS) < segments, -5, 30)
    return SimpleNamespace(
        class_queries_logits=torch.tensor(classes[None]).float(),
        masks_queries_logits=torch.tensor(masks[None]).float(),
    )


if __name__ == "__main__":
    main()
