"""What a proposal cache holds: the generator's own losses and gradients, in a few kilobytes per photo."""

import numpy as np
import pytest
import torch

from fisa.data.augmentation import Augmentation
from fisa.data.formats import load_segmentation_dataset
from fisa.data.proposal_cache import PHOTOS_PER_SHARD, MatchedProposals, ProposalCache
from fisa.miniature import miniature
from fisa.modeling_fisa.loss_fisa import IGNORED
from tests.data.training import made_data, training_parts
from tests.models import randomise


@pytest.mark.parametrize("matcher", ["iou", "hungarian"])
@pytest.mark.parametrize("flip", [False, True])
def test_the_loss_is_that_of_the_generator_in_the_loop(tmp_path, flip, matcher):
    model, processor = miniature(proposal_matcher=matcher, proposal_matcher_iou=0.05)
    randomise(model.fisa, seed=3)
    model.eval()
    data = made_data(tmp_path / "data", photos=4)
    augmentation = Augmentation(flip=flip)
    losses = {}
    for source in ("generator", "cache"):
        examples, collator = training_parts(
            model, processor, data, source=source, cache=tmp_path / "cache", augmentation=augmentation
        )
        with torch.no_grad():
            losses[source] = torch.stack([model(**collator([examples[index]])).loss for index in range(len(data))])
    assert (losses["generator"] > 0).any()
    torch.testing.assert_close(losses["cache"], losses["generator"], atol=1e-5, rtol=0)


def test_the_real_photos_too(tmp_path, coco_sample, parts):
    data = load_segmentation_dataset("coco_panoptic", str(coco_sample), split="validation")
    model, processor = parts
    losses = {}
    for source in ("generator", "cache"):
        examples, collator = training_parts(*parts, data, source=source, cache=tmp_path / "cache", vocabulary_size=64)
        with torch.no_grad():
            losses[source] = model(**collator([examples[0], examples[1]])).loss
    assert losses["generator"] > 0
    torch.testing.assert_close(losses["cache"], losses["generator"], atol=1e-5, rtol=0)


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return loss.detach(), {name: weight.grad.clone() for name, weight in trained}


@pytest.mark.parametrize("options", [{}, {"objectness_floor": 0.69}, {"proposal_matcher": "hungarian"}], ids=str)
@pytest.mark.parametrize("flip", [False, True])
def test_where_segments_are_read_loss_and_gradients_are_still_the_generator_s(tmp_path, flip, options):
    """Of a batch, in which photos have different numbers of matched proposals."""
    model, processor = miniature(**{"proposal_matcher_iou": 0.1, "segment_attention_penalty": 1.0} | options)
    randomise(model.fisa, seed=3)
    model.train()
    data = made_data(tmp_path / "data", photos=4)
    batches = {}
    for source in ("generator", "cache"):
        examples, collator = training_parts(
            model, processor, data, source=source, cache=tmp_path / "cache", augmentation=Augmentation(flip=flip)
        )
        batches[source] = collator([examples[index] for index in range(len(data))])
    assert len({int((labels != IGNORED).sum()) for labels in batches["cache"]["class_labels"]}) > 1
    (wanted, gradients), (found, cached) = (loss_and_gradients(model, batch) for batch in batches.values())
    assert wanted > 0
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    image_query = "fisa.vision_model.encoder.layers.0.self_attn.q_proj.weight"
    assert gradients[image_query].any()
    for name, gradient in gradients.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-5, rtol=1e-3)
    segments = batches["cache"].pop("patch_segments")  # it is these that do it
    assert segments.shape == (4, 144) and all(len(photo.unique()) > 1 for photo in segments)
    _, without = loss_and_gradients(model, batches["cache"])
    assert not torch.allclose(without[image_query], gradients[image_query], atol=1e-5, rtol=1e-3)


def test_gradients_are_those_of_the_generator_in_the_loop(tmp_path, parts):
    model, _ = parts
    data = made_data(tmp_path / "data")
    gradients = []
    for source in ("generator", "cache"):
        examples, collator = training_parts(*parts, data, source=source, cache=tmp_path / "cache")
        model.zero_grad()
        model(**collator([examples[0], examples[1]])).loss.backward()
        query = model.fisa.mask_encoder.layers[0].mask_attention.query_proj.weight
        gradients.append(query.grad.clone())
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-6, rtol=1e-4)


def test_no_generator_and_no_label_map_is_needed_to_train_from_it(tmp_path, parts):
    data = made_data(tmp_path / "data")
    examples, _ = training_parts(*parts, data, source="cache", cache=tmp_path / "cache")
    for path in (tmp_path / "data" / "annotations" / "panoptic_val2017").iterdir():
        path.unlink()
    example = examples[1]
    assert "mask_generator_pixel_values" not in example and "mask_proposals" in example


def test_at_most_ten_kilobytes_a_photo_at_336_pixels_and_100_proposals(tmp_path):
    """24 x 24 patches, every proposal matched: more than any photo has."""
    cache = ProposalCache(tmp_path, key={}, num_photos=PHOTOS_PER_SHARD, grid=(24, 24), views=1)
    random = np.random.default_rng(0)
    views = [
        MatchedProposals(random.random((100, 576)) < 0.5, np.arange(100, dtype=np.int64))
        for _ in range(PHOTOS_PER_SHARD)
    ]
    cache.write_shard(0, views)
    assert cache.num_bytes() / PHOTOS_PER_SHARD <= 10_000
    seen, segment_ids = cache.proposals(7, flipped=False)
    assert torch.equal(seen.flatten(1), torch.from_numpy(views[7].seen)) and segment_ids.tolist() == list(range(100))


def test_photos_without_any_match_are_cached_as_such(tmp_path, parts):
    model, processor = miniature(proposal_matcher_iou=0.99)
    data = made_data(tmp_path / "data")
    examples, collator = training_parts(model, processor, data, source="cache", cache=tmp_path / "cache")
    batch = collator([examples[0], examples[1]])
    assert not batch["mask_proposals"].any() and model(**batch).loss == 0
