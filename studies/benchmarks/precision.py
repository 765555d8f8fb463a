"""What lower precision and compilation buy, and what they change:
`python -m fisa.studies.benchmarks.precision [--quick]`.

Speed: the two towers of CLIP ViT-B/16 at their public shape, random weights, one photo and 64 names, in PyTorch
(float32, bfloat16 autocast, compiled) and in ONNX Runtime (float32, weights and activations of 8 bits). Labels: the
shipped model on shipped scenes, as share of the pixels that keep the class they have in float32, with a tower alone in
bfloat16 (`classifier_dtype`) or of 8 bits, and with everything. Prints a JSON line for each tower and way, and one for
all labels.
"""

import argparse
import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn
from transformers import CLIPTextModel, CLIPVisionModel

from fisa import FisaModel, FisaProcessor, Vocabulary, export
from fisa.pretrained import patchwork
from fisa.studies.benchmarks.measure import machine, paired_medians
from fisa.studies.benchmarks.public_architectures import PUBLIC_CLIPS
from fisa.studies.patchwork.dataset import load_patchwork


ARCHITECTURE = "clip-vit-base-patch16"
NAMES, PHOTOS_AT_A_TIME = (64, 8), 12  # names and tokens of each


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.precision", description=__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="timings of each way (%(default)s)")
    parser.add_argument("--scenes", type=int, default=120, help="scenes whose labels are compared (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="three rounds, twelve scenes")
    options = parser.parse_args()
    rounds, scenes = (3, 12) if options.quick else (options.rounds, options.scenes)
    with tempfile.TemporaryDirectory() as folder:
        agreement = agreements(Path(folder), num_scenes=scenes)
        for tower, (model, call) in towers().items():
            seconds = speeds(model, call, graph=Path(folder) / f"{tower}.onnx", rounds=rounds)
            for way, value in seconds.items():
                line = {"tower": tower, "way": way, "seconds": value, "float32_seconds": seconds["float32"]}
                line |= {"ratio": seconds["float32"] / value, "agreement": agreement.get(f"{tower} {way}")}
                print(
                    json.dumps({"benchmark": "precision", "architecture": ARCHITECTURE} | line | machine()),
                    flush=True,
                )
    print(json.dumps({"benchmark": "precision_of_labels"} | agreement | machine()))


def towers() -> dict[str, tuple[nn.Module, dict[str, torch.Tensor]]]:
    """Both towers with random weights, and a photo and the names of a vocabulary as they take them."""
    torch.manual_seed(0)
    config = PUBLIC_CLIPS[ARCHITECTURE]
    side = config.vision_config.image_size
    return {
        "image": (CLIPVisionModel(config.vision_config).eval(), {"pixel_values": torch.randn(1, 3, side, side)}),
        "text": (CLIPTextModel(config.text_config).eval(), {"input_ids": torch.randint(3, 1000, NAMES)}),
    }


@torch.no_grad()
def speeds(tower: nn.Module, call: dict[str, torch.Tensor], *, graph: Path, rounds: int) -> dict[str, float]:
    """Median seconds of a call by each way."""
    compiled = torch.compile(tower)
    torch.onnx.export(tower, kwargs=call, dynamo=True, verbose=False).save(graph)
    onnx, int8 = session(graph), session(of_eight_bits(graph))
    return paired_medians(
        {
            "float32": lambda: tower(**call),
            "bfloat16": lambda: in_bfloat16(tower)(**call),
            "compiled": lambda: compiled(**call),
            "compiled bfloat16": lambda: in_bfloat16(compiled)(**call),
            "onnx": lambda: onnx(call),
            "onnx int8": lambda: int8(call),
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
    export.round_to_eight_bits(graph, path)
    return path


def session(path: Path) -> Callable[[dict[str, torch.Tensor]], np.ndarray]:
    """A graph, to be called for its first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    loaded = onnxruntime.InferenceSession(path, options)
    return lambda call: loaded.run(None, {name: value.numpy() for name, value in call.items()})[0]


class TextEmbeddings(nn.Module):
    """The part of a model that makes embeddings of tokens."""

    def __init__(self, model: FisaModel):
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.model.get_text_features(input_ids, attention_mask).pooler_output


@torch.no_grad()
def agreements(folder: Path, *, num_scenes: int) -> dict[str, float]:
    """Share of the pixels whose class is what it is in float32: with one tower in another precision, and all."""
    model, processor = patchwork.load()
    scenes = load_patchwork("validation").select(range(num_scenes))["image"]
    half, texts = copy.deepcopy(model), copy.deepcopy(model)
    half.config.classifier_dtype = "bfloat16"
    tokens = processor.tokenize(Vocabulary.parse(model.config.vocabulary).prompts())
    call = {name: values.flatten(0, 1) for name, values in tokens.items()}
    graph = folder / "texts.onnx"
    torch.onnx.export(TextEmbeddings(model.fisa), kwargs=call, dynamo=True, verbose=False).save(graph)
    embeds = torch.from_numpy(session(of_eight_bits(graph))(call))
    texts.fisa.class_embeds = nn.functional.normalize(embeds, dim=-1)
    path = export.save(export.export_program(model, processor), model, processor, folder)
    ways = {
        "float32": model,
        "image bfloat16": half,
        "all bfloat16": in_bfloat16(model),
        "text onnx int8": texts,
        "all onnx": export.load_graph(path),
        "all onnx int8": export.load_graph(of_eight_bits(path)),
    }
    maps = {way: _maps(run, processor, scenes) for way, run in ways.items()}
    return {way: (labels == maps["float32"]).float().mean().item() for way, labels in maps.items()}


def _maps(run: Callable[..., Any], processor: FisaProcessor, scenes: list[Any]) -> torch.Tensor:
    """The class of each pixel, `(num_scenes, H, W)`."""
    maps = []
    for start in range(0, len(scenes), PHOTOS_AT_A_TIME):
        photos = scenes[start : start + PHOTOS_AT_A_TIME]
        outputs = run(**processor(images=photos, zoom=0, return_tensors="pt"))
        sizes = [(photo.height, photo.width) for photo in photos]
        maps += processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
    return torch.stack(maps)


if __name__ == "__main__":
    main()
