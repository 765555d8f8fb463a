"""What the recipes cost: `python -m fisa.studies.benchmarks.recipe_cost CLIP MASK_GENERATOR`.

Counts floating-point operations over real runs with random numbers for photos, and from them estimates hours at
assumed speeds: by default half of what an NVIDIA A100 can do in float32, a quarter in bfloat16. PyTorch's counter sees
matrix products, convolutions and attention; not the sampling in the generator's deformable attention, which is small
beside them. Reading photos and the metrics come on top.
"""

import argparse
import time
from collections.abc import Callable

import torch

from fisa import FisaForUniversalSegmentation, get_simo_model
from fisa.studies.benchmarks.measure import flops


COCO_PHOTO = 800, 1088  # a photo of 480 × 640 pixels as the generator sees it
MASKS_IN_TRAINING, CLASSES_IN_TRAINING = 20, 64
TRAINING_PHOTOS, CACHED_VIEWS = 20_000 * 16, 2 * 118_287
EVALUATION_PHOTOS = {
    "COCO val2017": 5000, "ADE20K": 2000, "Pascal Context": 5105, "Pascal VOC": 1449, "Cityscapes": 500,
}  # fmt: skip


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.recipe_cost", description=__doc__)
    parser.add_argument("clip", help="folder of a CLIP; benchmarks.public_architectures makes one")
    parser.add_argument("mask_generator", help="folder of a mask generator")
    parser.add_argument("--float32", type=float, default=10, help="TFLOP/s assumed in float32 (%(default)s)")
    parser.add_argument("--bfloat16", type=float, default=80, help="TFLOP/s assumed in bfloat16 (%(default)s)")
    options = parser.parse_args()
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(options.clip, options.mask_generator).eval()
    generator = counted("the generator, per photo", lambda: generate(model))
    classifier = counted("the classifier, 200 proposals and 847 classes, per photo", lambda: classify(model))
    adapted = get_simo_model(model)
    kept: list[int] = []
    training = counted("a training step, per photo", lambda: kept.append(train(adapted)))
    adapter, _ = adapted.get_nb_trainable_parameters()
    print(f"{kept[0] / 2**30:8.2f} GiB kept for the backward pass in float32, per photo")
    print(f"{4 * adapter / 1e6:8.0f} MB of adapter, and {12 * adapter / 1e9:.2f} GB of gradients and Adam's state")

    float32, bfloat16 = 3600e12 * options.float32, 3600e12 * options.bfloat16  # operations an hour
    print(f"Estimates at {options.float32:g} TFLOP/s in float32 and {options.bfloat16:g} in bfloat16:")
    print(f"{CACHED_VIEWS * generator / float32:8.1f} h to fill the cache of COCO train2017, both views (float32)")
    print(f"{TRAINING_PHOTOS * training / bfloat16:8.1f} h to train on {TRAINING_PHOTOS:,} photos (bfloat16)")
    for name, photos in EVALUATION_PHOTOS.items():
        print(f"{photos * (generator + classifier) / float32:8.2f} h to run the model over {name} (float32)")


def counted(name: str, work: Callable[[], object]) -> int:
    """Floating-point operations of one run; prints them and the seconds it took."""
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    operations = flops(work)  # apart: counting takes attention to pieces, which costs time and memory
    print(f"{operations / 1e12:8.2f} TFLOP, {seconds:6.1f} s here: {name}", flush=True)
    return operations


@torch.no_grad()
def generate(model: FisaForUniversalSegmentation) -> None:
    model.mask_generator(torch.randn(1, 3, *COCO_PHOTO))


@torch.no_grad()
def classify(model: FisaForUniversalSegmentation) -> None:
    model(**photo(model.config), mask_proposals=torch.randn(1, 200, 120, 160), class_embeds=texts(model.config, 847))


def train(model: torch.nn.Module) -> int:
    """One photo forward and back; returns the bytes that were kept between."""
    config = model.get_base_model().config
    labels = torch.randint(CLASSES_IN_TRAINING, (1, MASKS_IN_TRAINING))
    side = config.vision_config.image_size // config.vision_config.patch_size
    seen = torch.rand(1, MASKS_IN_TRAINING, side, side) < 0.2
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(
            **photo(config),
            mask_proposals=seen,
            class_embeds=texts(config, CLASSES_IN_TRAINING)[None],
            class_labels=labels,
        ).loss
    loss.backward()
    return sum(kept.values())


def photo(config) -> dict[str, torch.Tensor]:
    side = config.vision_config.image_size
    return {"pixel_values": torch.randn(1, 3, side, side)}


def texts(config, count: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(count, config.projection_dim), dim=-1)


if __name__ == "__main__":
    main()
