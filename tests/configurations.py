"""Tiny FISA configurations, one for each kind of mask generator and one for none, and inputs that fit them."""

from typing import Any

import torch
from transformers import (
    CLIPConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    EomtConfig,
    Mask2FormerConfig,
    MaskFormerConfig,
    MaskFormerDetrConfig,
    PreTrainedConfig,
    SwinConfig,
)

from fisa import FisaConfig


GENERATOR_KINDS = ("mask2former", "maskformer", "eomt")
NUM_KNOWN_CLASSES = 3
NUM_QUERIES = 5
PROJECTION_DIM = 20
END_TOKEN = 63


def tiny_text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=END_TOKEN + 1,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=16,
        projection_dim=PROJECTION_DIM,
        pad_token_id=0,
        bos_token_id=END_TOKEN - 1,
        eos_token_id=END_TOKEN,
    )


def tiny_vision_config(**options: Any) -> CLIPVisionConfig:
    """Images of 32 × 32 pixels, 4 × 4 patches, three layers of four heads."""
    return CLIPVisionConfig(
        **{
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": PROJECTION_DIM,
            **options,
        }
    )


def tiny_clip_config() -> CLIPConfig:
    return CLIPConfig(
        text_config=tiny_text_config(), vision_config=tiny_vision_config(), projection_dim=PROJECTION_DIM
    )


def tiny_swin_config() -> SwinConfig:
    return SwinConfig(
        image_size=64,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        drop_path_rate=0.5,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )


def tiny_generator_config(kind: str) -> PreTrainedConfig:
    """A mask generator of one of `GENERATOR_KINDS`: five queries, three classes, images of 64 × 64 pixels."""
    labels = {"id2label": {0: "cat", 1: "wall-other-merged", 2: "traffic light"}}
    if kind == "mask2former":
        return Mask2FormerConfig(
            backbone_config=tiny_swin_config(),
            feature_size=32,
            mask_feature_size=32,
            hidden_dim=32,
            encoder_feedforward_dim=16,
            dim_feedforward=16,
            encoder_layers=1,
            decoder_layers=2,
            num_attention_heads=2,
            num_queries=NUM_QUERIES,
            **labels,
        )
    if kind == "maskformer":
        decoder = MaskFormerDetrConfig(
            d_model=16,
            encoder_layers=0,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=16,
            decoder_ffn_dim=16,
            num_queries=NUM_QUERIES,
            dropout=0.5,
        )
        return MaskFormerConfig(
            backbone_config=tiny_swin_config(),
            decoder_config=decoder,
            fpn_feature_size=32,
            mask_feature_size=32,
            **labels,
        )
    return EomtConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        patch_size=16,
        num_blocks=1,
        num_upscale_blocks=1,
        num_queries=NUM_QUERIES,
        num_register_tokens=1,
        drop_path_rate=0.5,
        **labels,
    )


def tiny_config(generator: str | None = None, *, vision: dict[str, Any] | None = None, **options: Any) -> FisaConfig:
    """A FISA of about 50,000 parameters, with a mask generator of one of `GENERATOR_KINDS` or none."""
    return FisaConfig(
        **{
            "text_config": tiny_text_config(),
            "vision_config": tiny_vision_config(**(vision or {})),
            "mask_generator_config": None if generator is None else tiny_generator_config(generator),
            "projection_dim": PROJECTION_DIM,
            "seve_tokens": "both",
            "seve_width": 16,
            "seve_num_heads": 2,
            **options,
        }
    )


def tiny_inputs(
    *,
    batch_size: int = 2,
    num_proposals: int = 4,
    num_classes: int = 3,
    image_size: tuple[int, int] = (32, 32),
    mask_size: tuple[int, int] = (13, 17),
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Photos, ready proposals (mask logits that are positive on a random rectangle) and class texts."""
    random = torch.Generator().manual_seed(seed)
    pixel_values = torch.randn(batch_size, 3, *image_size, generator=random)
    class_embeds = torch.randn(num_classes, PROJECTION_DIM, generator=random)
    inside = []
    for length in mask_size:
        corners = torch.rand(2, batch_size, num_proposals, 1, generator=random) * length
        pixel = torch.arange(length) + 0.5
        inside.append((pixel > corners.amin(0)) & (pixel < corners.amax(0)))
    rectangles = inside[0].unsqueeze(-1) & inside[1].unsqueeze(-2)
    strength = 0.1 + torch.rand(rectangles.shape, generator=random)
    return {
        "pixel_values": pixel_values,
        "mask_proposals": torch.where(rectangles, strength, -strength),
        "class_embeds": class_embeds,
    }


def tiny_generator_inputs(
    photo_sizes: list[tuple[int, int]], *, canvas: tuple[int, int], seed: int = 0
) -> dict[str, torch.Tensor]:
    """Photos of these sizes, each in the top left corner of a canvas, and the mask that tells photo from canvas."""
    random = torch.Generator().manual_seed(seed)
    pixel_values = torch.zeros(len(photo_sizes), 3, *canvas)
    pixel_mask = torch.zeros(len(photo_sizes), *canvas, dtype=torch.bool)
    for index, (height, width) in enumerate(photo_sizes):
        pixel_values[index, :, :height, :width] = torch.randn(3, height, width, generator=random)
        pixel_mask[index, :height, :width] = True
    return {"mask_generator_pixel_values": pixel_values, "mask_generator_pixel_mask": pixel_mask}
