"""Masks from transformers' own mask-generation pipeline, named by a model without a mask generator."""

import pytest
import torch
from transformers import pipeline

from fisa import FisaForUniversalSegmentation
from fisa.miniature import character_clip_tokenizer, miniature, miniature_clip
from tests.tiny_sam import SIDE, tiny_sam


pytest.importorskip("torchvision", reason="SAM's mask generation needs torchvision", exc_type=ImportError)


@pytest.fixture(scope="module")
def sam():
    """The mask-generation pipeline of a tiny SAM with random weights."""
    from transformers import SamImageProcessor

    model, _ = tiny_sam()
    processor = SamImageProcessor(size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE})
    return pipeline("mask-generation", model=model, image_processor=processor, device="cpu")


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
