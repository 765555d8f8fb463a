"""How time and memory grow with the vocabulary: `python -m fisa.studies.benchmarks.vocabulary_scale [--quick]`.

From ten class names to a hundred thousand, each point in a process of its own. Prints a JSON line for each stage and
size. `peak_mib` is by how much the process grew beyond what ten names had needed; `texts_mib` and `logits_mib` are
what the text embeddings and one `(proposals, classes + 1)` matrix of scores take by themselves, in float32.

- `encode`, `read`: names to embeddings with the text tower of the shipped miniature, all of them, written to a text
  cache; and the same in another process that finds the cache.
- `encode_base`: a few names with a text tower of CLIP ViT-B/16's shape. A hundred thousand would take hours here.
- `forward`: one photo and 100 ready proposals, CLIP ViT-B/16's shape, random weights, the vocabulary stored.
- `panoptic`, `instance`, `semantic`: post-processing of random scores and smooth masks to 480 × 640 pixels.
- `config`: the stored vocabulary to `config.json` and back.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaProcessor, Vocabulary
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.pretrained import patchwork
from fisa.studies.benchmarks.measure import highest_memory, machine
from fisa.studies.benchmarks.public_architectures import public_fisa
from fisa.studies.patchwork.words import WORDS


SIZES = (10, 100, 1_000, 10_000, 100_000)
PROPOSALS, MASK_SIDE, PHOTO_SIZE = 100, 56, (480, 640)
NAMES_FOR_BASE = 64
MIB = 2**20


def main() -> None:
    """Measure every stage at every size and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.vocabulary_scale", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to ten thousand names")
    parser.add_argument("--stage", choices=STAGES, help=argparse.SUPPRESS)
    parser.add_argument("--names", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage:
        print(json.dumps(STAGES[options.stage](options.names, options.folder)))
        return
    for size in SIZES[:-1] if options.quick else SIZES:
        with tempfile.TemporaryDirectory() as folder:
            for stage in STAGES:
                if stage != "encode_base" or size == SIZES[0]:
                    line = in_own_process(stage, names=size, folder=folder)
                    print(json.dumps({"benchmark": "vocabulary_scale", "stage": stage} | line | machine()), flush=True)


def in_own_process(stage: str, *, names: int, folder: str) -> dict[str, Any]:
    """What a stage finds in a process that has done nothing else."""
    module = [sys.executable, "-m", "fisa.studies.benchmarks.vocabulary_scale"]
    arguments = ["--stage", stage, "--names", str(names), "--folder", folder]
    done = subprocess.run([*module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def class_names(count: int) -> list[str]:
    """Invented names of three words, all different."""
    words = [word.name for word in WORDS]
    return [" ".join(parts) for parts in islice(product(words, repeat=3), count)]


@contextmanager
def growth(line: dict[str, Any]) -> Iterator[None]:
    """Note by how many MiB the process' highest memory grows."""
    before = highest_memory()
    yield
    line["peak_mib"] = round((highest_memory() - before) / MIB, 1)


def seconds_of(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def encode(names: int, folder: Path) -> dict[str, Any]:
    """All names through the shipped text tower, or from the files that a first run left."""
    model, processor = patchwork.load()
    line = {"names": names, "tower": "2 layers of 128", "texts_mib": _mib(names * model.config.projection_dim)}
    model.encode_vocabulary(processor, [f"warm {name}" for name in class_names(256)])
    vocabulary = Vocabulary.parse(class_names(names))
    with growth(line):
        seconds = seconds_of(lambda: model.encode_vocabulary(processor, vocabulary, text_cache=folder / "texts"))
    files = sum(path.stat().st_size for path in (folder / "texts").rglob("*.safetensors"))
    return line | {"seconds": seconds, "seconds_a_name": seconds / names, "file_mib": round(files / MIB, 1)}


def encode_base(names: int, folder: Path) -> dict[str, Any]:
    """A few names through a text tower as large as CLIP ViT-B/16's, tokenised as the shipped model does."""
    processor = FisaProcessor.from_pretrained(patchwork.CHECKPOINT)
    config, tokenizer = public_fisa("clip-vit-base-patch16"), processor.tokenizer
    config.text_config.eos_token_id, config.text_config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model = FisaForUniversalSegmentation(config).eval()
    words = class_names(2 * NAMES_FOR_BASE)
    model.encode_vocabulary(processor, words[:NAMES_FOR_BASE])
    seconds = seconds_of(lambda: model.encode_vocabulary(processor, words[NAMES_FOR_BASE:]))
    length = processor.tokenize(words[NAMES_FOR_BASE:])["input_ids"].shape[-1]
    return {
        "names": NAMES_FOR_BASE,
        "tower": "12 layers of 512",
        "tokens": length,
        "seconds_a_name": seconds / NAMES_FOR_BASE,
    }


@torch.no_grad()
def forward(names: int, folder: Path) -> dict[str, Any]:
    """One photo with a stored vocabulary."""
    torch.manual_seed(0)
    model = FisaForUniversalSegmentation(public_fisa("clip-vit-base-patch16")).eval()
    inputs = {
        "pixel_values": torch.randn(1, 3, 224, 224),
        "mask_proposals": _smooth_masks(),
        "objectness": torch.rand(1, PROPOSALS),
    }
    _store(model, SIZES[0])
    for _ in range(2):
        model(**inputs)
    _store(model, names)
    line = {
        "names": names,
        "texts_mib": _mib(names * model.config.projection_dim),
        "logits_mib": _mib(PROPOSALS * (names + 1)),
    }
    with growth(line):
        seconds = [seconds_of(lambda: model(**inputs)) for _ in range(5)]
    return line | {"seconds": statistics.median(seconds)}


def post_process(subtask: str) -> Callable[[int, Path], dict[str, Any]]:
    """The stage that makes maps of one photo's scores."""

    def measure(names: int, folder: Path) -> dict[str, Any]:
        torch.manual_seed(0)
        processor = FisaProcessor.from_pretrained(patchwork.CHECKPOINT)
        run = getattr(processor, f"post_process_{subtask}_segmentation")
        run(_outputs(SIZES[0]), target_sizes=[PHOTO_SIZE])
        outputs = _outputs(names)
        line = {"names": names, "logits_mib": _mib(PROPOSALS * (names + 1))}
        with growth(line):
            seconds = [seconds_of(lambda: run(outputs, target_sizes=[PHOTO_SIZE])) for _ in range(3)]
        return line | {"seconds": statistics.median(seconds)}

    return measure


def config(names: int, folder: Path) -> dict[str, Any]:
    """A stored vocabulary to a file and back."""
    stored = FisaConfig()
    vocabulary = Vocabulary.parse(class_names(names))
    stored.store_vocabulary(vocabulary.to_config())
    saving = seconds_of(lambda: stored.save_pretrained(folder))
    loading = seconds_of(lambda: FisaConfig.from_pretrained(folder))
    size = (folder / "config.json").stat().st_size
    return {
        "names": names,
        "parse_seconds": seconds_of(lambda: Vocabulary.parse(class_names(names))),
        "save_seconds": saving,
        "load_seconds": loading,
        "file_mib": round(size / MIB, 1),
    }


STAGES: dict[str, Callable[[int, Path], dict[str, Any]]] = {
    "encode": encode,
    "read": encode,
    "encode_base": encode_base,
    "forward": forward,
    "panoptic": post_process("panoptic"),
    "instance": post_process("instance"),
    "semantic": post_process("semantic"),
    "config": config,
}


def _store(model: FisaForUniversalSegmentation, names: int) -> None:
    model.config.store_vocabulary(Vocabulary.parse(class_names(names)).to_config())
    texts = torch.randn(names, model.config.projection_dim)
    model.fisa.class_embeds = nn.functional.normalize(texts, dim=-1, out=texts)


def _outputs(names: int) -> FisaOutput:
    """Scores of which a few classes stand out for each proposal, as a trained model's do."""
    logits = torch.empty(1, PROPOSALS, names + 1)
    for row in logits[0]:
        row.normal_().mul_(3)
    return FisaOutput(
        class_queries_logits=logits.sub_(logits.logsumexp(-1, keepdim=True)),
        masks_queries_logits=_smooth_masks(),
        class_is_thing=torch.arange(names).remainder(2).bool()[None],
    )


def _smooth_masks() -> torch.Tensor:
    coarse = torch.randn(1, PROPOSALS, 5, 5) * 5 - 2
    return nn.functional.interpolate(coarse, size=(MASK_SIDE, MASK_SIDE), mode="bilinear")


def _mib(numbers: int) -> float:
    return round(4 * numbers / MIB, 1)


if __name__ == "__main__":
    main()
