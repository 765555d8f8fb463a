"""A small FISA with random weights, made from transformers' real classes, for tests and trials without a checkpoint.
Its answers mean nothing, but have the form of a real model's.

`python -m fisa.miniature FOLDER` saves one.
"""

from typing import Any

import torch
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SwinConfig,
)

from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.one_line_parser import OneLineParser
from fisa.processing.processing_fisa import FisaProcessor


IMAGE_SIZE, PATCH_SIZE = 96, 8


def character_clip_tokenizer(*, model_max_length: int = 77) -> CLIPTokenizer:
    """CLIP's tokenizer without merges: one token per character, of another set for the last character of a word.

    Ids are in the order of CLIP's own vocabulary: the 256 byte characters, the same at the end of a word, start, end.
    It needs no files and spells every word.
    """
    characters = sorted(ByteLevel.alphabet())
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=model_max_length)


def miniature_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A CLIP of two narrow towers."""
    tower = {"num_hidden_layers": 4, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 128}
    return CLIPModel(
        CLIPConfig(
            text_config=tower
            | {
                "vocab_size": len(tokenizer),
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
            },
            vision_config=tower | {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE},
            projection_dim=64,
            logit_scale_init_value=4.6052,  # a trained CLIP's temperature, 100
        )
    )


def miniature_mask_generator() -> Mask2FormerForUniversalSegmentation:
    """A Mask2Former on the smallest of Swin backbones."""
    backbone: dict[str, Any] = {
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }
    return Mask2FormerForUniversalSegmentation(
        Mask2FormerConfig(
            backbone_config=SwinConfig(**backbone),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=64,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            dim_feedforward=64,
            num_queries=20,
        )
    )


def miniature(*, seed: int = 0, **config_options: Any) -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """The model and its processor; the same seed gives the same weights.

    Args:
        seed (`int`): of the random weights.
        config_options: fields of [`FisaConfig`]. By default `others="auto"` means none, for random texts would win and
            lose by chance.

    Example:

    ```python
    >>> model, processor = miniature(seed=1)
    >>> model.config.vision_config.patch_size
    8
    ```
    """
    tokenizer = character_clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
            miniature_clip(tokenizer), miniature_mask_generator(), **({"default_others": []} | config_options)
        )
    image_processor = FisaImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        mask_generator_size={"shortest_edge": 192, "longest_edge": 320},
        overlap_mask_area_threshold=0.0,  # random masks overlap everywhere
    )
    return model, FisaProcessor(image_processor=image_processor, tokenizer=tokenizer)


def main() -> None:
    """Save a miniature."""
    parser = OneLineParser(prog="python -m fisa.miniature", description="Save a small FISA, random weights.")
    parser.add_argument("folder")
    options = parser.parse_args()
    for part in miniature():
        part.save_pretrained(options.folder)


if __name__ == "__main__":
    main()
