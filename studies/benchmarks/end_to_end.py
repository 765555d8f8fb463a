"""A photo from end to end: `python -m fisa.studies.benchmarks.end_to_end [--quick]`.

FISA with Mask2Former Swin-T at 384 pixels and CLIP ViT-B/16, random weights at the public shapes, in float32, against
its two parts run by themselves, and against what else transformers has for words of one's own (CLIPSeg, SAM 3). Prints
a JSON line for each.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, Sam3Config, Sam3Model

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor
from fisa.miniature import character_clip_tokenizer
from fisa.studies.benchmarks.measure import machine, paired_medians, peak_bytes
from fisa.studies.benchmarks.public_architectures import public_fisa


NAMES, MANY_NAMES = 150, 1500
CLIP_SIDE, GENERATOR_SIDE, CLIPSEG_SIDE = 224, 384, 352
PHOTO = 480, 640
NAMES_AT_A_TIME, TOKENS_OF_A_NAME = 10, 8


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.end_to_end", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="timings of each side (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="without CLIPSeg and SAM 3, two rounds")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    torch.manual_seed(0)
    model, _ = model_and_processor()
    measurements = [lambda: against_parts(model, rounds=rounds), lambda: over_names(model, rounds=rounds)]
    if not options.quick:
        measurements += [lambda: against_clipseg(model), lambda: against_sam3(model)]
    for measure in measurements:
        print(json.dumps({"benchmark": "end_to_end"} | measure() | machine()), flush=True)


def model_and_processor() -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """The model, which stores 150 names, and its processor."""
    sides = {"size": CLIP_SIDE, "mask_generator_size": GENERATOR_SIDE}
    processor = FisaProcessor(
        image_processor=FisaImageProcessor(**{k: {"height": v, "width": v} for k, v in sides.items()}),
        tokenizer=character_clip_tokenizer(),
    )
    config = public_fisa("clip-vit-base-patch16", "mask2former-swin-tiny-coco-panoptic")
    model = FisaForUniversalSegmentation(config).eval()
    model.set_vocabulary(processor, [f"thing {number}" for number in range(NAMES)])
    return model, processor


def inputs(*, num_names: int | None = None) -> dict[str, torch.Tensor]:
    """A photo of noise as the model takes it, with this many names encoded; by default the stored ones."""
    photo = {
        "pixel_values": torch.randn(1, 3, CLIP_SIDE, CLIP_SIDE),
        "mask_generator_pixel_values": torch.randn(1, 3, GENERATOR_SIDE, GENERATOR_SIDE),
    }
    if num_names is None:
        return photo
    return photo | {"class_embeds": torch.randn(num_names, 512), "prompt_class_ids": torch.arange(num_names)}


@torch.no_grad()
def against_parts(model: FisaForUniversalSegmentation, *, rounds: int) -> dict[str, object]:
    """The whole against plain CLIP and the generator, each alone: the generator as transformers runs it, and as it
    runs here, with its deformable attention summed at once."""
    photo = inputs()
    pixels = photo["mask_generator_pixel_values"]
    summed = model.mask_generator
    plain = type(summed)(summed.config).eval()
    plain.load_state_dict(summed.state_dict())
    sides = {
        "fisa": lambda: model(**photo),
        "generator": lambda: plain(pixels),
        "summed_generator": lambda: summed(pixels),
        "clip": lambda: model.fisa.vision_model(photo["pixel_values"]),
    }
    seconds = paired_medians(sides, rounds=rounds)
    line: dict[str, object] = {f"{name}_seconds": value for name, value in seconds.items()}
    for name in ("generator", "summed_generator"):
        line[f"over_{name}_and_clip"] = seconds["fisa"] / (seconds[name] + seconds["clip"])
    line["masks_differ_by"] = (
        (plain(pixels).masks_queries_logits - summed(pixels).masks_queries_logits).abs().max().item()
    )
    for name, generator in (("generator", plain), ("summed_generator", summed)):
        line[f"{name}_gib"] = peak_bytes(lambda run=generator: run(pixels)) / 2**30
    return {"case": "parts"} | line


@torch.no_grad()
def over_names(model: FisaForUniversalSegmentation, *, rounds: int) -> dict[str, object]:
    """Ten times the names, encoded before."""
    few, many = inputs(num_names=NAMES), inputs(num_names=MANY_NAMES)
    seconds = paired_medians({"few": lambda: model(**few), "many": lambda: model(**many)}, rounds=rounds)
    return {
        "case": f"{MANY_NAMES} names against {NAMES}",
        "seconds": seconds["many"],
        "fewer_seconds": seconds["few"],
        "ratio": seconds["many"] / seconds["few"],
    }


def write_album(folder: Path, photos: int) -> None:
    """Write this many photos, each of soft colours of its own."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(photos):
        coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        coarse.resize(PHOTO[::-1], Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


@torch.no_grad()
def against_clipseg(model: FisaForUniversalSegmentation) -> dict[str, object]:
    """150 names: CLIPSeg looks at the photo once for each."""
    clipseg = CLIPSegForImageSegmentation(CLIPSegConfig(vision_config={"patch_size": 16})).eval()
    pixels = torch.randn(1, 3, CLIPSEG_SIDE, CLIPSEG_SIDE).expand(NAMES_AT_A_TIME, -1, -1, -1)
    names = torch.randint(3, 1000, (NAMES_AT_A_TIME, TOKENS_OF_A_NAME))
    batches = range(NAMES // NAMES_AT_A_TIME)
    rival = {"clipseg": lambda: [clipseg(pixel_values=pixels, input_ids=names) for _ in batches]}
    return _against(model, rival) | {"case": f"CLIPSeg, {NAMES} names"}


@torch.no_grad()
def against_sam3(model: FisaForUniversalSegmentation) -> dict[str, object]:
    """One name for SAM 3, 150 for FISA."""
    config = Sam3Config()
    sam3 = Sam3Model(config).eval()
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    name = torch.randint(3, 1000, (1, TOKENS_OF_A_NAME))
    rival = {"sam3": lambda: sam3(pixel_values=pixels, input_ids=name, attention_mask=torch.ones_like(name))}
    return _against(model, rival) | {"case": f"SAM 3 with one name, FISA with {NAMES}"}


def _against(model: FisaForUniversalSegmentation, rival: dict) -> dict[str, object]:
    photo = inputs()
    seconds = paired_medians({"fisa": lambda: model(**photo)} | rival, rounds=1)
    (name,) = rival
    return {f"{side}_seconds": value for side, value in seconds.items()} | {"ratio": seconds[name] / seconds["fisa"]}


if __name__ == "__main__":
    main()
