"""`python -m fisa.studies.patchwork.pretrain clip|generator|objectness`: trains the parts of the checkpoint."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import (
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    HfArgumentParser,
    Mask2FormerForUniversalSegmentation,
    Trainer,
    TrainingArguments,
    set_seed,
)

from fisa.studies.patchwork.clip_pretraining import (
    IMAGE_SIZE,
    CaptionCollator,
    CaptionedPictures,
    ClipTrainer,
    deepened,
    new_clip,
    word_tokenizer,
    zero_shot_accuracy,
)
from fisa.studies.patchwork.dataset import HOME, SHIFTED, THIRD
from fisa.studies.patchwork.generator_pretraining import (
    CANVAS,
    MaskedPictures,
    calibrate_objectness,
    masks_and_kinds,
    new_generator,
    proposal_quality,
    reliability,
)
from fisa.studies.patchwork.glyphs import ARTISTS
from fisa.studies.patchwork.optimizer import MuonTrainer
from fisa.studies.patchwork.scenes import Painter
from fisa.studies.patchwork.words import SEEN


CHECKED_PICTURES = 2000
SHOWN = [artist.name for artist in ARTISTS.values() if artist.is_shown]
# Painters' seeds: nothing that is measured is painted by a painter that trained.
CLIP_SEED, GENERATOR_SEED, CHECK_SEED, CALIBRATION_SEED = 1000, 2000, 3000, 4000
CALIBRATION_PICTURES = 1000


@dataclass
class PretrainingArguments(TrainingArguments):
    """transformers' training arguments, with the settings that made the shipped checkpoint."""

    output_dir: str | None = field(default=None, metadata={"help": "Where checkpoints and logs go."})
    learning_rate: float = field(default=2e-3, metadata={"help": "At its peak."})
    weight_decay: float = field(default=0.05, metadata={"help": "Of AdamW."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Of AdamW."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Schedule of the learning rate."})
    warmup_steps: float = field(default=0.05, metadata={"help": "Share of the steps."})
    logging_steps: float = field(default=50, metadata={"help": "Steps between two logged losses."})
    save_steps: float = field(default=250, metadata={"help": "Steps between two checkpoints."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints that are kept."})
    report_to: None | str | list[str] = field(default="tensorboard", metadata={"help": "Where logs go."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay off."})
    start_from: str | None = field(default=None, metadata={"help": "Folder of an earlier run, for its weights."})
    start_share: float = field(
        default=0.0,
        metadata={"help": "Share of the weights that it started from in those that are saved (WiSE-FT)."},
    )
    portraits: float = field(
        default=1.0,
        metadata={
            "help": "Share of CLIP's pictures that show one thing; scenes whose captions name everything follow them."
        },
    )
    num_layers: int = field(default=4, metadata={"help": "Layers of CLIP's image tower."})
    canvas: int = field(default=CANVAS, metadata={"help": "Pixels per side that the generator sees of a scene."})
    use_cpu: bool = field(default=True, metadata={"help": "Made on a CPU, two cores of which were at hand."})


def main(arguments: list[str] | None = None) -> None:
    """Pre-train the part that the first argument names, and measure it."""
    part, *flags = sys.argv[1:] if arguments is None else arguments
    if part not in PARTS:
        raise SystemExit(f"Found {part!r}; the parts there are: {', '.join(PARTS)}.")
    (options,) = HfArgumentParser(PretrainingArguments, prog=f"pretrain {part}").parse_args_into_dataclasses(flags)
    set_seed(options.seed)
    PARTS[part](options)


def pretrain_clip(options: PretrainingArguments) -> None:
    """All words in captions, by all artists that CLIP is shown; no mask."""
    tokenizer = word_tokenizer()
    painters = [Painter(name, seed=CLIP_SEED + i) for i, name in enumerate(SHOWN)]
    batch = options.per_device_train_batch_size
    pictures = CaptionedPictures(
        painters, num_pictures=options.max_steps * batch, batch_size=batch, portraits=options.portraits
    )
    model = (
        CLIPModel.from_pretrained(options.start_from, dtype="float32") if options.start_from else new_clip(tokenizer)
    )
    if model.config.vision_config.num_hidden_layers < options.num_layers:
        model = deepened(model, num_layers=options.num_layers)
    trainer = ClipTrainer(model, options, train_dataset=pictures, data_collator=CaptionCollator(tokenizer))
    _train(trainer)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPProcessor(CLIPImageProcessor(size=size, do_center_crop=False), tokenizer).save_pretrained(options.output_dir)
    measured = {
        artist: zero_shot_accuracy(
            trainer.model, tokenizer, Painter(artist, seed=CHECK_SEED), num_pictures=CHECKED_PICTURES
        )
        for artist in ARTISTS
    }
    _report(options, {"top1": measured})


def pretrain_generator(options: PretrainingArguments) -> None:
    """Masks of seen words, by the home artist."""
    painter = Painter(HOME, seed=GENERATOR_SEED, things=SEEN, stuff=SEEN)
    num_pictures = options.max_steps * options.per_device_train_batch_size
    pictures = MaskedPictures(painter, num_pictures=num_pictures)
    model = new_generator()
    if options.start_from:
        start = Mask2FormerForUniversalSegmentation.from_pretrained(options.start_from, dtype="float32")
        # Parameters alone: a buffer holds what a proposal that fits nothing counts, which may have changed.
        model.load_state_dict(dict(start.named_parameters()), strict=False)
    collate = partial(masks_and_kinds, canvas=options.canvas)
    trainer = MuonTrainer(model, options, train_dataset=pictures, data_collator=collate)
    _train(trainer)
    _report(options, {"proposals": _by_artist(proposal_quality, trainer.model, options)})


def calibrate_generator(options: PretrainingArguments) -> None:
    """Objectness of the generator in `--start_from`, on other scenes of seen words than it was trained on."""
    model = Mask2FormerForUniversalSegmentation.from_pretrained(options.start_from, dtype="float32").eval()
    painter = Painter(HOME, seed=CALIBRATION_SEED, things=SEEN, stuff=SEEN)
    pictures = MaskedPictures(painter, num_pictures=CALIBRATION_PICTURES)
    slope, addend = calibrate_objectness(model, pictures, canvas=options.canvas)
    model.save_pretrained(options.output_dir)
    _report(
        options,
        {"slope": slope, "addend": addend}
        | {
            "reliability": _by_artist(reliability, model, options),
            "proposals": _by_artist(proposal_quality, model, options),
        },
    )


def _by_artist(
    measure: Callable[..., Any], model: Mask2FormerForUniversalSegmentation, options: PretrainingArguments
) -> dict[str, Any]:
    return {
        artist: measure(
            model.eval(), Painter(artist, seed=CHECK_SEED), num_pictures=CHECKED_PICTURES, canvas=options.canvas
        )
        for artist in (HOME, SHIFTED, THIRD)
    }


PARTS = {"clip": pretrain_clip, "generator": pretrain_generator, "objectness": calibrate_generator}


def _train(trainer: Trainer) -> None:
    resume, share = trainer.args.resume_from_checkpoint, trainer.args.start_share
    start = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train(resume_from_checkpoint=True if resume in ("true", "True") else resume)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            weight.lerp_(start[name], share)
    trainer.save_model()
    trainer.save_state()


def _report(options: PretrainingArguments, measured: dict) -> None:
    text = json.dumps(measured | {"pictures": CHECKED_PICTURES}, indent=1)
    (Path(options.output_dir) / "measured.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
