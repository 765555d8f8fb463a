"""How fast exported graphs are beside the model: `python -m fisa.studies.benchmarks.exports [--quick]`.

The shipped model with its own words on shipped scenes, eager, by ONNX Runtime and by `torch.export`, taking turns.
Prints a JSON line for each batch size; peak memory is that of the whole process, the export included. `--public`
compares the model with ONNX Runtime, in float32 and of eight bits, at the shapes of CLIP ViT-B/16 and Mask2Former with
Swin-T, weights at random.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime
import torch

from fisa import export
from fisa.pretrained import patchwork
from fisa.studies.benchmarks.end_to_end import inputs, model_and_processor
from fisa.studies.benchmarks.measure import highest_memory, machine, paired_medians
from fisa.studies.patchwork.dataset import load_patchwork


BATCH_SIZES = (1, 8)


def main() -> None:
    """Export, measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.exports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="timings of each side (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="single photos, seven rounds")
    parser.add_argument("--public", action="store_true", help="public shapes, one photo of noise, seven rounds")
    options = parser.parse_args()
    if options.public:
        print(json.dumps({"benchmark": "exports_public"} | at_public_shapes() | machine()))
        return
    batch_sizes, rounds = ((1,), 7) if options.quick else (BATCH_SIZES, options.rounds)
    model, processor = patchwork.load()
    scenes = load_patchwork("validation").select(range(max(batch_sizes)))["image"]
    sides = {"eager": torch.no_grad()(model.forward)}
    with tempfile.TemporaryDirectory() as folder:
        program = export.export_program(model, processor)
        for file_format in export.FILES:
            path = export.save(program, model, processor, Path(folder), file_format=file_format)
            sides[file_format] = export.load_graph(path)
    for batch_size in batch_sizes:
        photos = processor(images=scenes[:batch_size], zoom=0, return_tensors="pt")
        print(json.dumps(measure(sides, photos, rounds=rounds) | machine()), flush=True)


def at_public_shapes() -> dict[str, object]:
    """Seconds of a photo, eager and of both graphs."""
    model, processor = model_and_processor()
    call = inputs()
    with tempfile.TemporaryDirectory() as folder:
        path = export.save(export.export_program(model, processor), model, processor, folder)
        rounded = path.with_stem("rounded")
        export.round_to_eight_bits(path, rounded)
        sides = {
            "eager": torch.no_grad()(model.forward),
            "onnx": export.load_graph(path),
            "onnx_int8": export.load_graph(rounded),
        }
        seconds = paired_medians({name: lambda run=run: run(**call) for name, run in sides.items()}, rounds=7)
    return {f"{name}_seconds": value for name, value in seconds.items()}


def measure(
    sides: Mapping[str, Callable[..., object]], photos: Mapping[str, torch.Tensor], *, rounds: int
) -> dict[str, object]:
    """Each side's median seconds per batch, those of the graphs also as shares of eager's, and the largest difference
    of a logit."""
    seconds = paired_medians({name: lambda run=run: run(**photos) for name, run in sides.items()}, rounds=rounds)
    logits = {name: run(**photos).class_queries_logits for name, run in sides.items()}
    graphs = [name for name in sides if name != "eager"]
    return {
        "benchmark": "exports",
        "photos": len(photos["pixel_values"]),
        **{f"{name}_seconds": value for name, value in seconds.items()},
        **{f"{name}_ratio": seconds[name] / seconds["eager"] for name in graphs},
        **{f"{name}_difference": (logits[name] - logits["eager"]).abs().max().item() for name in graphs},
        "peak_gib": highest_memory() / 2**30,
        "onnxruntime": onnxruntime.__version__,
    }


if __name__ == "__main__":
    main()
