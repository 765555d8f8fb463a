"""What lower precision and compilation buy, and what they change: `python -m fisa.benchmarks.precision [--quick]`.

Speed: the image tower of CLIP ViT-B/16 at its public shape, random weights, in PyTorch (float32, bfloat16 autocast,
compiled) and in ONNX Runtime (float32, weights and activations of 8 bits). Labels: the shipped model on shipped
scenes, as share of the pixels that keep the class they have in float32. Prints a JSON line for each way.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import CLIPVisionModel

from fisa import FisaProcessor, export
from fisa.benchmarks.measure import machine, paired_medians
from fisa.benchmarks.public_architectures import PUBLIC_CLIPS
from fisa.patchwork import checkpoint as patchwork
from fisa.patchwork.dataset import load_patchwork


ARCHITECTURE = "clip-vit-base-patch16"
PHOTOS_AT_A_TIME = 12


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.benchmarks.precision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="timings of each way (%(default)s)")
    parser.add_argument("--scenes", type=int, default=120, help="scenes whose labels are compared (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds, twelve scenes")
    options = parser.parse_args()
    rounds, scenes = (3, 12) if options.quick else (options.rounds, options.scenes)
    with tempfile.TemporaryDirectory() as folder:
        seconds, agreement = speeds(Path(folder), rounds=rounds), agreements(Path(folder), num_scenes=scenes)
    for way, value in seconds.items():
        found = {"way": way, "seconds": value, "ratio": seconds["float32"] / value, "agreement": agreement.get(way)}
        found |= {"float32_seconds": seconds["float32"], "onnxruntime": onnxruntime.__version__}
        print(json.dumps({"benchmark": "precision", "architecture": ARCHITECTURE} | found | machine()), flush=True)


@torch.no_grad()
def speeds(folder: Path, *, rounds: int) -> dict[str, float]:
    """Median seconds a photo of the image tower by each way."""
    torch.manual_seed(0)
    config = PUBLIC_CLIPS[ARCHITECTURE].vision_config
    tower = CLIPVisionModel(config).eval()
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    compiled = torch.compile(tower)
    graph = folder / "tower.onnx"
    torch.onnx.export(tower, (pixels,), dynamo=True, verbose=False).save(graph)
    return paired_medians(
        {
            "float32": lambda: tower(pixels),
            "bfloat16": lambda: in_bfloat16(tower)(pixels),
            "compiled": lambda: compiled(pixels),
            "compiled bfloat16": lambda: in_bfloat16(compiled)(pixels),
            "onnx": _session(graph, pixels),
            "onnx int8": _session(of_eight_bits(graph), pixels),
        },
        rounds=rounds,
    )


def in_bfloat16(model: Callable[..., Any]) -> Callable[..., Any]:
    """A model under autocast."""

    def run(*arguments: Any, **named_arguments: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(*arguments, **named_arguments)

    return run


def of_eight_bits(graph: Path) -> Path:
    """A graph of which matrix products have weights of 8 bits, and activations that are rounded as they come."""
    path = graph.with_name(f"{graph.stem}_int8.onnx")
    # ONNX Runtime's CPU convolutions of 8 bits want more than dynamic ranges.
    quantize_dynamic(graph, path, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    return path


def _session(path: Path, pixels: torch.Tensor) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options)
    inputs = {session.get_inputs()[0].name: pixels.numpy()}
    return lambda: session.run(None, inputs)


@torch.no_grad()
def agreements(folder: Path, *, num_scenes: int) -> dict[str, float]:
    """Share of the pixels whose class is what it is in float32."""
    model, processor = patchwork.load()
    scenes = load_patchwork("validation").select(range(num_scenes))["image"]
    path = export.save(export.export_program(model, processor), model, processor, folder)
    ways = {"float32": model, "bfloat16": in_bfloat16(model), "onnx": export.load_graph(path)}
    ways["onnx int8"] = export.load_graph(of_eight_bits(path))
    maps = {way: _maps(run, processor, scenes) for way, run in ways.items()}
    return {way: (labels == maps["float32"]).float().mean().item() for way, labels in maps.items()}


def _maps(run: Callable[..., Any], processor: FisaProcessor, scenes: list[Any]) -> torch.Tensor:
    """The class of each pixel, `(num_scenes, H, W)`."""
    maps = []
    for start in range(0, len(scenes), PHOTOS_AT_A_TIME):
        photos = scenes[start : start + PHOTOS_AT_A_TIME]
        outputs = run(**processor(images=photos, return_tensors="pt"))
        sizes = [(photo.height, photo.width) for photo in photos]
        maps += processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    return torch.stack(maps)


if __name__ == "__main__":
    main()
