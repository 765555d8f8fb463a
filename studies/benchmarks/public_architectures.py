"""The architectures of the public checkpoints that FISA is made of, and weights for them made on the spot:
`python -m fisa.studies.benchmarks.public_architectures FOLDER` writes `clip/` and `mask_generator/`.
"""

import argparse
from pathlib import Path

import torch
from transformers import (
    AutoModelForUniversalSegmentation,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    EomtConfig,
    Mask2FormerConfig,
    Mask2FormerImageProcessor,
    MaskFormerConfig,
    SwinConfig,
)

from fisa import FisaConfig
from fisa.miniature import character_clip_tokenizer


def public_clip(*, width: int, text_width: int, patch_size: int, image_size: int) -> CLIPConfig:
    return CLIPConfig(
        text_config={
            "hidden_size": text_width,
            "intermediate_size": 4 * text_width,
            "num_attention_heads": text_width // 64,
            "projection_dim": text_width,
            "eos_token_id": 2,
        },
        vision_config={
            "hidden_size": width,
            "intermediate_size": 4 * width,
            "num_hidden_layers": 12 if width == 768 else 24,
            "num_attention_heads": width // 64,
            "patch_size": patch_size,
            "image_size": image_size,
            "projection_dim": text_width,
        },
        projection_dim=text_width,
    )


def public_swin(embed_dim: int, depths: list[int], heads: int, window: int) -> SwinConfig:
    return SwinConfig(
        embed_dim=embed_dim,
        depths=depths,
        num_heads=[heads, 2 * heads, 4 * heads, 8 * heads],
        window_size=window,
        drop_path_rate=0.3,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


SWIN_TINY = public_swin(96, [2, 2, 6, 2], 3, 7)
SWIN_BASE = public_swin(128, [2, 2, 18, 2], 4, 12)
SWIN_LARGE = public_swin(192, [2, 2, 18, 2], 6, 12)
PUBLIC_CLIPS = {
    "clip-vit-base-patch16": public_clip(width=768, text_width=512, patch_size=16, image_size=224),
    "clip-vit-large-patch14": public_clip(width=1024, text_width=768, patch_size=14, image_size=224),
    "clip-vit-large-patch14-336": public_clip(width=1024, text_width=768, patch_size=14, image_size=336),
}
PUBLIC_GENERATORS = {
    "mask2former-swin-tiny-coco-panoptic": Mask2FormerConfig(backbone_config=SWIN_TINY, num_labels=133),
    "mask2former-swin-large-coco-panoptic": Mask2FormerConfig(
        backbone_config=SWIN_LARGE, num_queries=200, num_labels=133
    ),
    "maskformer-swin-base-coco": MaskFormerConfig(backbone_config=SWIN_BASE, num_labels=133),
    "coco_panoptic_eomt_large_640": EomtConfig(num_labels=133),
}


def public_fisa(clip: str, mask_generator: str | None = None) -> FisaConfig:
    """FISA of a public CLIP and mask generator, named as in `PUBLIC_CLIPS` and `PUBLIC_GENERATORS`; without a
    generator if none is named."""
    config = PUBLIC_CLIPS[clip]
    return FisaConfig(
        text_config=config.text_config,
        vision_config=config.vision_config,
        projection_dim=config.projection_dim,
        mask_generator_config=None if mask_generator is None else PUBLIC_GENERATORS[mask_generator],
    )


def main() -> None:
    """Write a CLIP and a mask generator as their public checkpoints lie on the Hub."""
    parser = argparse.ArgumentParser(
        prog="python -m fisa.studies.benchmarks.public_architectures", description=main.__doc__
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clip", choices=PUBLIC_CLIPS, default="clip-vit-large-patch14-336")
    parser.add_argument("--mask-generator", choices=PUBLIC_GENERATORS, default="mask2former-swin-large-coco-panoptic")
    options = parser.parse_args()
    torch.manual_seed(0)
    config, tokenizer = PUBLIC_CLIPS[options.clip], character_clip_tokenizer()
    config.text_config.update(
        {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id, "pad_token_id": 0}
    )
    CLIPModel(config).save_pretrained(options.folder / "clip")
    side = config.vision_config.image_size
    photos = CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    CLIPProcessor(photos, tokenizer).save_pretrained(options.folder / "clip")
    generator = AutoModelForUniversalSegmentation.from_config(PUBLIC_GENERATORS[options.mask_generator])
    generator.save_pretrained(options.folder / "mask_generator")
    Mask2FormerImageProcessor(size={"shortest_edge": 800, "longest_edge": 1333}, size_divisor=32).save_pretrained(
        options.folder / "mask_generator"
    )


if __name__ == "__main__":
    main()
