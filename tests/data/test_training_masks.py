"""Training masks from the ground truth: which segments teach what, and which patches their tokens see."""

import numpy as np
import pytest
import torch

from fisa.data.augmentation import PhotoChange
from fisa.data.training_masks import (
    NO_SEGMENT,
    GeneratorSource,
    GroundTruthMasks,
    GroundTruthSource,
    patch_grid,
    patch_segments,
    seen_patches,
)
from fisa.modeling_fisa.loss_fisa import IGNORED
from tests.configurations import tiny_config, tiny_inputs
from tests.data.made_files import HEIGHT, WIDTH, quarters
from tests.models import tiny_segmentation_model


CLASS_INDICES = {1: 0, 3: 1, 184: 2}


def record(*, crowd=1):
    return {
        "label": quarters(70_000, 5, 300, 0, dtype=np.int32),
        "segments_info": [
            {"id": 70_000, "category_id": 1, "iscrowd": 0},
            {"id": 5, "category_id": 184, "iscrowd": 0},
            {"id": 300, "category_id": 1, "iscrowd": crowd},
        ],
    }


def truth(*, unlabelled="ignored", **options):
    return GroundTruthMasks.from_record(record(**options), CLASS_INDICES, unlabelled=unlabelled)


def test_void_and_crowds_are_masks_that_teach_nothing():
    found = truth()
    assert found.labels.tolist() == [0, 2, IGNORED, IGNORED]
    assert found.segment_ids.tolist() == [70_000, 5, 300, NO_SEGMENT]
    np.testing.assert_array_equal(found.masks.sum(axis=0), np.ones((HEIGHT, WIDTH)))
    teaching = found.teaching()
    assert teaching.segment_ids.tolist() == [70_000, 5] and len(teaching.masks) == 2


def test_what_instances_leave_free_is_background():
    found = truth(unlabelled="background")
    assert found.labels.tolist() == [0, 2, IGNORED]
    assert not found.masks[:, HEIGHT // 2 :, WIDTH // 2 :].any()


def test_a_change_moves_masks_and_drops_what_is_cropped_away():
    upper = truth().changed(PhotoChange(box=(0.0, 0.0, 1.0, 0.5), flipped=True))
    assert upper.segment_ids.tolist() == [70_000, 5]
    assert upper.masks.shape == (2, HEIGHT // 2, WIDTH)
    assert upper.masks[0, :, WIDTH // 2 :].all() and not upper.masks[0, :, : WIDTH // 2].any()


def test_ground_truth_tokens_see_the_patches_that_the_model_would_show_them():
    config = tiny_config()
    source = GroundTruthSource(config=config, class_indices=CLASS_INDICES, image_size=(32, 32), unlabelled="ignored")
    example = source(record(), PhotoChange(), index=0)
    assert example["class_labels"].tolist() == [0, 2]
    model, inputs = tiny_segmentation_model(), tiny_inputs(batch_size=1)
    with torch.no_grad():
        of_patches = model(**inputs | {"mask_proposals": example["mask_proposals"][None]})
        of_masks = model(**inputs | {"mask_proposals": torch.from_numpy(truth().teaching().masks)[None]})
    assert torch.equal(of_patches.logits_per_mask, of_masks.logits_per_mask)
    assert example["mask_proposals"][0].tolist() == [[True, True, False, False]] * 2 + [[False] * 4] * 2


def test_ground_truth_divides_the_photo_as_the_model_would_by_whole_masks():
    options = {"class_indices": CLASS_INDICES, "image_size": (32, 32), "unlabelled": "ignored"}
    model, whole, inputs = tiny_segmentation_model(segment_attention_penalty=1.3), truth(), tiny_inputs(batch_size=1)
    example = GroundTruthSource(config=model.config, **options)(record(), PhotoChange(), index=0)
    # Void and the crowd belong to none.
    assert example["patch_segments"].view(4, 4).tolist() == [[0, 0, 1, 1]] * 2 + [[-1] * 4] * 2
    assert "patch_segments" not in GroundTruthSource(config=tiny_config(), **options)(record(), PhotoChange(), index=0)
    model.train()
    texts, photos = inputs["class_embeds"], inputs["pixel_values"]
    of_patches = model(photos, class_embeds=texts, **{name: tensor[None] for name, tensor in example.items()}).loss
    masks, labels = torch.from_numpy(whole.masks), torch.from_numpy(whole.labels)
    of_masks = model(photos, class_embeds=texts, mask_labels=[masks], class_labels=[labels]).loss
    torch.testing.assert_close(of_patches, of_masks)


def test_a_photo_without_teaching_masks_is_one_segment():
    config = tiny_config(segment_attention_penalty=1.3)
    assert patch_segments(np.zeros((0, 12, 16), bool), config, image_size=(32, 32)).tolist() == [-1] * 16


def test_a_mask_smaller_than_a_patch_sees_the_patch_it_lies_in_most():
    mask = np.zeros((1, 32, 32), bool)
    mask[0, 9:11, 17:19] = True
    seen = seen_patches(mask, tiny_config(mask_coverage_threshold=0.5), image_size=(32, 32))
    assert seen[0].nonzero().tolist() == [[1, 2]]


def test_no_masks_see_nothing():
    assert seen_patches(np.zeros((0, 12, 16), bool), tiny_config(), image_size=(32, 32)).shape == (0, 4, 4)


def test_for_the_generator_whole_masks_are_kept():
    source = GeneratorSource(class_indices=CLASS_INDICES, unlabelled="ignored")
    example = source(record(), PhotoChange(flipped=True), index=0)
    assert example["mask_labels"].dtype == torch.bool and example["mask_labels"].shape == (4, HEIGHT, WIDTH)
    assert example["class_labels"].tolist() == [0, 2, IGNORED, IGNORED]
    assert example["mask_labels"][0, 0, -1] and not example["mask_labels"][0, 0, 0]


def test_patches_that_do_not_fill_the_photo_are_refused():
    with pytest.raises(ValueError, match=r"33 x 32 .*patches of 8.*--mask_source generator"):
        patch_grid(tiny_config(), image_size=(33, 32))
