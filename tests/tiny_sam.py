"""A tiny SAM with random weights."""

import torch
from transformers import SamConfig, SamModel, SamProcessor
from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil


SIDE = 64


def tiny_sam() -> tuple[SamModel, SamProcessor]:
    """The model, in evaluation mode, and its processor, which needs no torchvision."""
    attention = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    config = SamConfig(
        vision_config=attention
        | {
            "hidden_size": 16,
            "output_channels": 16,
            "image_size": SIDE,
            "patch_size": 8,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config=attention | {"hidden_size": 16, "iou_head_hidden_dim": 16, "iou_head_depth": 2},
    )
    torch.manual_seed(0)
    images = SamImageProcessorPil(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )
    return SamModel(config).eval(), SamProcessor(images)
