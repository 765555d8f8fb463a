"""Makes the checkpoint that ships: Patchwork's CLIP and mask generator as one FISA model.

`python -m fisa.studies.patchwork.checkpoint CLIP_FOLDER GENERATOR_FOLDER` puts the pre-trained parts together; then
`python train.py recipes/patchwork.yaml` trains the adapter and, with `--adapter FOLDER` instead of the parts, it
is put beside them.
"""

import argparse
import json
from pathlib import Path

import torch
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from transformers import AutoTokenizer

from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_VOCABULARY
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.pretrained.patchwork import ADAPTER, CHECKPOINT
from fisa.processing.files import write_whole
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
    # The better of SEVE's two readings here; width and heads are those of the other one. The last layer is a little
    # better than the first.
    "seve_tokens": "mask_keys",
    "seve_layers": [5],
    "seve_width": 128,
    "seve_num_heads": 4,
    # The text tower has read no other words. They compete whatever vocabulary is stored.
    "default_others": vocabulary().to_config(),
}
OBJECTNESS_THRESHOLD = 0.4
"""In PQ a proposal pays from half of the PQ on, and objectness is calibrated: on validation better than 0.5."""


def assemble(clip: Path, mask_generator: Path) -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """A FISA model of pre-trained parts, which stores all words of Patchwork, and its processor.

    Args:
        clip, mask_generator: folders that [`~fisa.studies.patchwork.pretrain`] wrote.
    """
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, mask_generator, **SETTINGS).eval()
    size, canvas, close = ({"height": side, "width": side} for side in (IMAGE_SIZE, CANVAS, CLOSE_UP.side))
    processor = FisaProcessor(
        image_processor=FisaImageProcessor(
            size=size, mask_generator_size=canvas, zoom_size=close, threshold=OBJECTNESS_THRESHOLD
        ),
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


def save_adapter(trained: Path, folder: Path) -> None:
    """Save an adapter that `train.py` wrote without the words of its training, of which the model knows more, and
    without the name of its base, beside which it lies."""
    folder.mkdir(exist_ok=True)
    config = json.loads((trained / CONFIG_NAME).read_text(encoding="utf-8")) | {"base_model_name_or_path": None}
    write_whole(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
    weights = load_file(trained / SAFETENSORS_WEIGHTS_NAME)
    its_words = (f"{ADAPTER_VOCABULARY}.class_embeds", f"{ADAPTER_VOCABULARY}.classes")
    kept = {name: weight for name, weight in weights.items() if not name.endswith(its_words)}
    write_whole(folder / SAFETENSORS_WEIGHTS_NAME, save_tensors(kept, metadata={"format": "pt"}))


def main() -> None:
    """Put pre-trained parts together, or a trained adapter beside them, and save them."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.checkpoint", description=main.__doc__)
    parser.add_argument("parts", nargs="*", type=Path, metavar="FOLDER", help="of CLIP and of the mask generator")
    parser.add_argument("--adapter", type=Path, metavar="FOLDER", help="of the trained adapter, instead of parts")
    parser.add_argument("--output", type=Path, default=CHECKPOINT)
    options = parser.parse_args()
    if options.adapter is None and len(options.parts) != 2:
        parser.error("name the folders of CLIP and of the mask generator, or --adapter")
    if options.adapter is not None:
        save_adapter(options.adapter, options.output / ADAPTER.name)
    else:
        save(*assemble(*options.parts), options.output)


if __name__ == "__main__":
    main()
