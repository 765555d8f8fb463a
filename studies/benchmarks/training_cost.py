"""What a training step costs: `python -m fisa.studies.benchmarks.training_cost [--quick]`.

One photo, prepared, forward, back and into AdamW, in float32, with the text embeddings computed before: SIMO with SEVE
from the proposal cache, the same with the generator in the loop, generator and classifier trained together, and full
fine-tuning of CLIP's image tower from the cache. Weights are random, architectures those of public checkpoints. Prints
a JSON line for these, and one for what each part of SIMO costs: image queries and SEVE in the first layer ask for
gradients through all of the image tower, mask queries alone do not.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fisa import (
    FisaConfig,
    FisaForUniversalSegmentation,
    FisaImageProcessor,
    FisaProcessor,
    SimoConfig,
    get_simo_model,
)
from fisa.data.augmentation import Augmentation
from fisa.data.proposal_cache import MatchedProposals, ProposalCache
from fisa.data.training_examples import ExampleMaker, TrainingCollator, VocabularySampler
from fisa.data.training_masks import CacheSource, GeneratorSource, MaskSource, patch_grid
from fisa.miniature import character_clip_tokenizer
from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.studies.benchmarks.measure import flops, machine, paired_medians, peak_bytes
from fisa.studies.benchmarks.public_architectures import public_fisa
from fisa.studies.benchmarks.recipe_cost import CLASSES_IN_TRAINING, COCO_PHOTO, MASKS_IN_TRAINING, texts
from fisa.studies.benchmarks.simulated_photos import CATEGORIES, simulated_photo, simulated_segmentation


ARCHITECTURES = ("clip-vit-base-patch16", "clip-vit-large-patch14-336")
GENERATORS = ("mask2former-swin-tiny-coco-panoptic", "mask2former-swin-large-coco-panoptic")
Loss = Callable[[], torch.Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.training_cost", description=__doc__)
    parser.add_argument("--clip", choices=ARCHITECTURES, default=ARCHITECTURES[1], help="(%(default)s)")
    parser.add_argument("--mask-generator", choices=GENERATORS, default=GENERATORS[0], help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="timings of each side (%(default)s)")
    parser.add_argument(
        "--quick", action="store_true", help="the smaller CLIP, a generator's view of 384 pixels, once"
    )
    options = parser.parse_args()
    clip, view, rounds = options.clip, COCO_PHOTO, options.rounds
    if options.quick:
        clip, view, rounds = ARCHITECTURES[0], (384, 384), 1
    torch.manual_seed(0)
    config = public_fisa(clip, options.mask_generator)
    model = FisaForUniversalSegmentation(config)
    with tempfile.TemporaryDirectory() as folder:
        photo = Photo(config, Path(folder), generator_view=view)
        about = {"clip": clip, "mask_generator": options.mask_generator, "generator_view": view}
        print(json.dumps(about | sides(model, photo, rounds=rounds) | machine()), flush=True)
        print(json.dumps(about | parts(model, photo) | machine()), flush=True)


class Photo:
    """A photo with its ground truth and its cached proposals, prepared anew for every step.

    Args:
        config: of the model.
        folder: for the cache.
        generator_view: height and width of the photo as the generator sees it.
    """

    def __init__(self, config: FisaConfig, folder: Path, *, generator_view: tuple[int, int]):
        random = np.random.default_rng(0)
        truth = simulated_segmentation(random)
        self.record = {
            "image": simulated_photo(truth, random),
            "label": truth["segmentation"],
            "segments_info": truth["segments_info"],
        }
        side = config.vision_config.image_size
        height, width = generator_view
        self.processor = FisaProcessor(
            image_processor=FisaImageProcessor(
                size={"height": side, "width": side}, mask_generator_size={"height": height, "width": width}
            ),
            tokenizer=character_clip_tokenizer(),
        )
        self.class_indices = {category.id: index for index, category in enumerate(CATEGORIES)}
        self.collate = TrainingCollator(texts(config, len(CATEGORIES)), vocabulary_size=CLASSES_IN_TRAINING)
        grid = patch_grid(config, image_size=(side, side))
        cache = ProposalCache(folder, key={}, num_photos=1, grid=grid, views=1)
        ids = [segment["id"] for segment in truth["segments_info"]]
        matched = MatchedProposals(
            seen=random.random((MASKS_IN_TRAINING, grid[0] * grid[1])) < 1 / len(ids),
            segment_ids=random.choice(ids, MASKS_IN_TRAINING),
        )
        cache.write_shard(0, [matched])
        self.cached = CacheSource(cache=cache, class_indices=self.class_indices)
        self.generated = GeneratorSource(class_indices=self.class_indices, unlabelled="ignored")

    def batch(self, masks: MaskSource) -> dict[str, Any]:
        """The photo as a batch of one."""
        maker = ExampleMaker(
            processor=self.processor,
            masks=masks,
            class_indices=self.class_indices,
            sampler=VocabularySampler(range(len(CATEGORIES))),
            augmentation=Augmentation(color=0.4),
            seed=0,
        )
        return self.collate([maker(self.record, index=0, epoch=0)])


class Step:
    """A training step of some parameters.

    Args:
        loss: makes the batch and runs the model.
        parameters: all of the model's; those that require gradients are trained.
    """

    def __init__(self, loss: Loss, parameters: Iterable[nn.Parameter]):
        self.loss = loss
        self.trained = [parameter for parameter in parameters if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained)

    def __call__(self) -> None:
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def described(self) -> dict[str, float]:
        """Counts, after a first step: the state of AdamW is there."""
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        return {
            "tflop": flops(self) / 1e12,
            "step_gib": peak_bytes(self) / 2**30,
            "adamw_gib": sum(value.nbytes for value in state) / 2**30,
            "trained_millions": sum(parameter.numel() for parameter in self.trained) / 1e6,
        }


def sides(model: FisaForUniversalSegmentation, photo: Photo, *, rounds: int) -> dict[str, Any]:
    """Seconds of the processor, FLOPs and memory of each way to train; the model is left as it was but for weights."""
    generator, adapted = model.mask_generator, get_simo_model(model).train()

    def together() -> torch.Tensor:
        batch = photo.batch(photo.generated)
        known = [labels != IGNORED for labels in batch["class_labels"]]
        generator.train()
        proposals = generator(
            pixel_values=batch.pop("mask_generator_pixel_values"),
            mask_labels=[masks[keep].float() for masks, keep in zip(batch["mask_labels"], known)],
            class_labels=[labels[keep] for labels, keep in zip(batch["class_labels"], known)],
        )
        generator.eval()
        batch.pop("mask_generator_pixel_mask")
        return proposals.loss + adapted(**batch, mask_proposals=proposals.masks_queries_logits.detach()).loss

    steps = {
        "cache": Step(lambda: adapted(**photo.batch(photo.cached)).loss, adapted.parameters()),
        "generator_in_loop": Step(lambda: adapted(**photo.batch(photo.generated)).loss, adapted.parameters()),
    }
    # PEFT has frozen all but its copies. In the loop the generator runs without gradients all the same.
    generator.requires_grad_(True)
    steps["together"] = Step(together, adapted.parameters())
    seconds = paired_medians(steps, rounds=rounds, clock=time.process_time)
    described = {name: step.described() for name, step in steps.items()}
    del steps
    generator.requires_grad_(False)
    adapted.unload()
    gc.collect()  # an optimiser's state is large, and what it optimised refers back to it

    model.fisa.vision_model.requires_grad_(True)
    model.fisa.mask_encoder.requires_grad_(True)
    full = {"full": Step(lambda: model(**photo.batch(photo.cached)).loss, model.parameters())}
    seconds |= paired_medians(full, rounds=rounds, clock=time.process_time)
    described["full"] = full["full"].described()
    model.requires_grad_(False)
    return {
        "benchmark": "training_cost",
        "weights_gib": sum(parameter.nbytes for parameter in model.parameters()) / 2**30,
        **{name: {"cpu_seconds": seconds[name]} | counts for name, counts in described.items()},
        **{
            f"{name}_over_cache": {
                "cpu_seconds": seconds[name] / seconds["cache"],
                "tflop": described[name]["tflop"] / described["cache"]["tflop"],
                "memory": _memory(described[name]) / _memory(described["cache"]),
            }
            for name in described
            if name != "cache"
        },
    }


def _memory(counts: dict[str, float]) -> float:
    """What training holds beside the weights."""
    return counts["step_gib"] + counts["adamw_gib"]


def parts(model: FisaForUniversalSegmentation, photo: Photo) -> dict[str, Any]:
    """FLOPs and memory of a step from the cache by what is trained, beside a forward pass alone."""
    forward = flops(lambda: torch.no_grad()(model)(**photo.batch(photo.cached))) / 1e12
    layers = model.config.vision_config.num_hidden_layers
    queries = tuple(range(layers // 2, layers - 1))
    choices = {
        "all": SimoConfig(),
        "without_seve": SimoConfig(semantic_guidance=False),
        "image_queries_of_the_last_half": SimoConfig(image_layers=queries, semantic_guidance=False),
        "mask_tokens_alone": SimoConfig(image_projections=(), semantic_guidance=False),
    }
    described = {}
    for name, config in choices.items():
        adapted = get_simo_model(model, config).train()
        step = Step(lambda run=adapted: run(**photo.batch(photo.cached)).loss, adapted.parameters())
        step()
        described[name] = step.described()
        described[name]["over_forward"] = described[name]["tflop"] / forward
        adapted.unload()
    return {"benchmark": "training_cost_by_part", "forward_tflop": forward} | described


if __name__ == "__main__":
    main()
