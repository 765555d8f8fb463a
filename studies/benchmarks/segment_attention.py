"""What `segment_attention_penalty` costs: `python -m fisa.studies.benchmarks.segment_attention [--rounds N]`.

The same encoder on the same photo and proposals, with a penalty and without, in turn. Prints a JSON line for each size
of model.
"""

import argparse
import json
import time

import torch

from fisa import FisaModel
from fisa.pretrained.patchwork import CHECKPOINT
from fisa.studies.benchmarks.measure import machine, paired_medians
from fisa.studies.benchmarks.public_architectures import public_fisa


NUM_PROPOSALS, NUM_CLASSES = 100, 150
ARCHITECTURES = ("patchwork", "clip-vit-base-patch16", "clip-vit-large-patch14-336")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.segment_attention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="timings of each side (%(default)s)")
    parser.add_argument("--architectures", nargs="+", choices=ARCHITECTURES, default=list(ARCHITECTURES))
    options = parser.parse_args()
    for architecture in options.architectures:
        print(json.dumps(measure(architecture, rounds=options.rounds) | machine()), flush=True)


@torch.no_grad()
def measure(architecture: str, *, rounds: int) -> dict[str, object]:
    """Both sides' CPU seconds for one photo."""
    torch.manual_seed(0)
    if architecture == "patchwork":
        model = FisaModel.from_pretrained(CHECKPOINT).eval()
    else:
        model = FisaModel(public_fisa(architecture)).eval()
    config = model.config
    side = config.image_tower.image_size
    photo = {
        "pixel_values": torch.randn(1, 3, side, side),
        "mask_proposals": torch.randn(1, NUM_PROPOSALS, side // 4, side // 4),
        "objectness": torch.rand(1, NUM_PROPOSALS),
        "class_embeds": torch.randn(NUM_CLASSES, config.projection_dim),
    }

    def encode(penalty: float) -> None:
        config.segment_attention_penalty = penalty  # read at each call
        model(**photo, output_image_tokens=False)

    sides = {"without": lambda: encode(0.0), "with": lambda: encode(1.0)}
    seconds = paired_medians(sides, rounds=rounds, clock=time.process_time)
    return {
        "benchmark": "segment_attention",
        "architecture": architecture,
        "cpu_seconds_without": seconds["without"],
        "cpu_seconds_with": seconds["with"],
        "ratio": seconds["with"] / seconds["without"],
    }


if __name__ == "__main__":
    main()
