"""A few made photos, split as COCO splits its own, and the parts of a miniature as they would lie on the Hub."""

import pytest
from transformers import CLIPImageProcessor, CLIPProcessor, Mask2FormerImageProcessor

from fisa.miniature import IMAGE_SIZE, character_clip_tokenizer, miniature_clip, miniature_mask_generator
from tests.data.made_files import write_coco_panoptic


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Six photos to train on and three to evaluate."""
    root = tmp_path_factory.mktemp("photos")
    write_coco_panoptic(root, name="train2017", photos=6)
    write_coco_panoptic(root, name="val2017", photos=3)
    return root


@pytest.fixture(scope="session")
def parts_folder(tmp_path_factory):
    """Folders `clip` and `mask_generator`."""
    root = tmp_path_factory.mktemp("parts")
    tokenizer, side = character_clip_tokenizer(), {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    miniature_clip(tokenizer).save_pretrained(root / "clip")
    CLIPProcessor(CLIPImageProcessor(size=side, do_center_crop=False), tokenizer).save_pretrained(root / "clip")
    miniature_mask_generator().save_pretrained(root / "mask_generator")
    Mask2FormerImageProcessor(size={"shortest_edge": 96, "longest_edge": 160}).save_pretrained(root / "mask_generator")
    return root
