"""What mask tokens add to CLIP: `python -m fisa.studies.benchmarks.mask_classification [--quick]`.

FISA's encoder with proposals and SEVE against transformers' plain CLIP image tower: same weights, same pixels, in
float32. Prints a JSON line for each architecture and number of proposals and classes.
"""

import argparse
import json

import torch
from transformers import CLIPVisionConfig

from fisa import FisaModel
from fisa.studies.benchmarks.measure import flops, machine, paired_medians
from fisa.studies.benchmarks.public_architectures import public_fisa


ARCHITECTURES = ("clip-vit-base-patch16", "clip-vit-large-patch14-336")
# Of 100 proposals some 30 are left where `objectness_floor` drops the unlikely ones.
CASES = ((100, 150), (300, 150), (100, 10_000), (30, 150))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.mask_classification", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="timings of each side (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="the smaller CLIP, one case, three rounds")
    options = parser.parse_args()
    architectures, cases, rounds = ARCHITECTURES, CASES, options.rounds
    if options.quick:
        architectures, cases, rounds = ARCHITECTURES[:1], CASES[:1], 3
    for architecture in architectures:
        for num_proposals, num_classes in cases:
            line = measure(architecture, num_proposals=num_proposals, num_classes=num_classes, rounds=rounds)
            print(json.dumps(line | machine()), flush=True)


@torch.no_grad()
def measure(architecture: str, *, num_proposals: int, num_classes: int, rounds: int) -> dict[str, object]:
    """Both sides' seconds and FLOPs for one photo, and FISA's FLOPs beside the least that masks can do with."""
    torch.manual_seed(0)
    config = public_fisa(architecture)
    model, side = FisaModel(config).eval(), config.vision_config.image_size
    pixels, texts = torch.randn(1, 3, side, side), torch.randn(num_classes, config.projection_dim)
    proposals = torch.randn(1, num_proposals, side // 4, side // 4)
    sides = {
        "clip": lambda: model.vision_model(pixels),
        "fisa": lambda: model(pixels, proposals, class_embeds=texts, output_image_tokens=False),
    }
    seconds = paired_medians(sides, rounds=rounds)
    counted = {name: flops(run) for name, run in sides.items()}
    floor = counted["clip"] + least_flops(config.vision_config, num_proposals=num_proposals)
    floor -= spared_flops(config.vision_config)
    return {
        "benchmark": "mask_classification",
        "architecture": architecture,
        "proposals": num_proposals,
        "classes": num_classes,
        "clip_seconds": seconds["clip"],
        "fisa_seconds": seconds["fisa"],
        "ratio": seconds["fisa"] / seconds["clip"],
        "flops_ratio": counted["fisa"] / counted["clip"],
        "flops_over_floor": counted["fisa"] / floor,
    }


def least_flops(config: CLIPVisionConfig, *, num_proposals: int) -> int:
    """What mask tokens cost beside an image stream that lends them keys and values, in all layers, without SEVE."""
    return num_proposals * config.num_hidden_layers * _flops_of_a_query(config)


def spared_flops(config: CLIPVisionConfig) -> int:
    """What CLIP's last layer spends on image tokens beyond their keys and values, which masks do not need."""
    return _num_tokens(config) * _flops_of_a_query(config)


def _flops_of_a_query(config: CLIPVisionConfig) -> int:
    """One token's query, attention, output projection and MLP in one layer; a multiply-add counts twice."""
    width = config.hidden_size
    return 2 * width * (2 * width + 2 * config.intermediate_size) + 2 * 2 * _num_tokens(config) * width


def _num_tokens(config: CLIPVisionConfig) -> int:
    return 1 + (config.image_size // config.patch_size) ** 2


if __name__ == "__main__":
    main()
