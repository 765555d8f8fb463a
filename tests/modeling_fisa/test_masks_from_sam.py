"""Masks from transformers' own mask-generation pipeline, named by a model without a mask generator."""

import pytest
import torch
from transformers import SamConfig, SamModel, pipeline

from fisa import FisaForUniversalSegmentation
from fisa.miniature import character_clip_tokenizer, miniature, miniature_clip


pytest.importorskip("torchvision", reason="SAM's mask generation needs torchvision", exc_type=ImportError)


@pytest.fixture(scope="module")
def sam():
    """The mask-generation pipeline of a tiny SAM with random weights."""
    from transformers import SamImageProcessor

    attention = {"num_hidden_layers": 1, "num_attention_heads": 2, "mlp_dim": 32}
    config = SamConfig(
        vision_config=attention
        | {
            "hidden_size": 16,
            "output_channels": 16,
            "image_size": 64,
            "patch_size": 8,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config=attention | {"hidden_size": 16, "iou_head_hidden_dim": 16, "iou_head_depth": 2},
    )
    torch.manual_seed(0)
    processor = SamImageProcessor(size={"longest_edge": 64}, pad_size={"height": 64, "width": 64})
    return pipeline("mask-generation", model=SamModel(config).eval(), image_processor=processor, device="cpu")


def test_masks_of_the_mask_generation_pipeline_are_named(sam, photo):
    found = sam(photo, points_per_crop=3, pred_iou_thresh=-10.0, stability_score_thresh=-1.0, crops_nms_thresh=1.0)
    masks = torch.stack(found["masks"])[None]
    assert masks.dtype == torch.bool and masks.shape[-2:] == (photo.height, photo.width)

    tokenizer = character_clip_tokenizer()
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(miniature_clip(tokenizer))
    _, processor = miniature()
    inputs = processor(images=photo, text="house, tree", return_tensors="pt")
    with torch.no_grad():
        outputs = model(**inputs, mask_proposals=masks)
    assert outputs.class_queries_logits.shape == (1, masks.shape[1], 3)

    target_sizes = [(photo.height, photo.width)]
    thresholds = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
    result = processor.post_process_panoptic_segmentation(outputs, target_sizes=target_sizes, **thresholds)[0]
    assert torch.equal(result["segmentation"] > 0, masks[0].any(0))
