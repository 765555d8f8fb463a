"""Makes the checkpoint that ships: Patchwork's CLIP and mask generator as one FISA model.

`python -m fisa.studies.patchwork.checkpoint CLIP_FOLDER GENERATOR_FOLDER` puts the pre-trained parts together.
"""

import argparse
from pathlib import Path

import torch
from transformers import AutoTokenizer

from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.pretrained.patchwork import CHECKPOINT
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.processing_fisa import FisaProcessor
from fisa.studies.patchwork.clip_pretraining import CLOSE_UP, IMAGE_SIZE
from fisa.studies.patchwork.generator_pretraining import CANVAS
from fisa.studies.patchwork.words import vocabulary


SETTINGS = {
    # Patches of 8 pixels are coarse beside things of 30: a patch counts where the thing fills half of it.
    "mask_coverage_threshold": 0.5,
    # The better of 0, 1 and 2 on validation.
    "segment_attention_penalty": 1.0,
    # The better of SEVE's two readings here; width and heads are those of the other one.
    "seve_tokens": "mask_keys",
    "seve_layers": [0],
    "seve_width": 128,
    "seve_num_heads": 4,
    # The text tower has read no other words. They compete whatever vocabulary is stored.
    "default_others": vocabulary().to_config(),
}


def assemble(clip: Path, mask_generator: Path) -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """A FISA model of pre-trained parts, which stores all words of Patchwork, and its processor.

    Args:
        clip, mask_generator: folders that [`~fisa.studies.patchwork.pretrain`] wrote.
    """
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, mask_generator, **SETTINGS).eval()
    size, canvas, close = ({"height": side, "width": side} for side in (IMAGE_SIZE, CANVAS, CLOSE_UP.side))
    processor = FisaProcessor(
        image_processor=FisaImageProcessor(size=size, mask_generator_size=canvas, zoom_size=close),
        tokenizer=AutoTokenizer.from_pretrained(clip),
    )
    model.set_vocabulary(processor, vocabulary())
    return model, processor


def save(model: FisaForUniversalSegmentation, processor: FisaProcessor, folder: Path) -> None:
    """Save a model in half precision, to be loaded in single: half the bytes."""
    model.half().save_pretrained(folder)
    model.config.dtype = torch.float32
    model.config.mask_generator_config._name_or_path = ""  # a folder of this machine
    model.config.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Put pre-trained parts together and save them."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.checkpoint", description=main.__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("mask_generator", type=Path)
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    save(*assemble(options.clip, options.mask_generator), options.output)


if __name__ == "__main__":
    main()
