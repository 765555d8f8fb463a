"""Fills a proposal cache: runs the frozen generator over a data set once, matches, packs."""

import time
from collections.abc import Mapping
from itertools import chain, islice
from typing import Any

import torch
from accelerate import PartialState
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers.utils import logging

from fisa.data.augmentation import PhotoChange
from fisa.data.proposal_cache import MatchedProposals, ProposalCache, fingerprint
from fisa.data.segmentation_datasets import SegmentationDataset
from fisa.data.training_masks import GroundTruthMasks, patch_grid
from fisa.modeling_fisa.mask_attention import attended_patches, patch_coverage, segments_of_patches
from fisa.modeling_fisa.mask_generation import MaskProposals, generate_proposals
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.proposal_matching import UNMATCHED, match_proposals
from fisa.processing.files import remove_leftovers
from fisa.processing.processing_fisa import FisaProcessor


logger = logging.get_logger(__name__)

VIEWS = (PhotoChange(), PhotoChange(flipped=True))


def cached_proposals(
    folder: str,
    data: SegmentationDataset,
    *,
    model: FisaForUniversalSegmentation,
    processor: FisaProcessor,
    flips: bool,
    num_workers: int = 0,
) -> ProposalCache:
    """The proposal cache of a data set, filled where it is not yet.

    Safe to call from several processes at once, which share the work out, and to be killed at any moment.

    Args:
        folder: where it lies.
        data: the photos, cached in their order.
        model: has the generator, and says how proposals are matched and which patches they cover.
        processor: prepares the photos, by its settings.
        flips: whether mirrored photos are cached too.
        num_workers: processes that read and prepare photos.

    Raises:
        StaleCacheError: the folder holds a cache of another generator, data set or setting.
    """
    state = PartialState()
    grid = patch_grid(model.config, image_size=_image_size(processor))
    with state.main_process_first():  # who writes what the cache is made from; the others compare
        cache = ProposalCache(
            folder,
            key=cache_key(data, model=model, processor=processor),
            num_photos=len(data),
            grid=grid,
            views=1 + flips,
            has_patch_segments=model.config.segment_attention_penalty > 0,
        )
    missing = cache.missing_shards()
    state.wait_for_everyone()  # all share out the same list: nobody writes while another still looks
    started = time.perf_counter()
    own_shards = missing[state.process_index :: state.num_processes]
    indices = {shard: _views_of(cache, shard) for shard in own_shards}
    views = _Views(data, processor, num_views=cache.views)
    # One loader for all shards: its workers go on reading while a shard is written.
    loader = DataLoader(views, batch_size=None, sampler=[*chain(*indices.values())], num_workers=num_workers)
    bar = tqdm(loader, desc="caching proposals", unit="view", disable=not own_shards or not state.is_main_process)
    matched = (_matched(item["inputs"], item["truth"], model=model) for item in bar)
    for shard in own_shards:
        cache.write_shard(shard, [*islice(matched, len(indices[shard]))])
    next(matched, None)  # nothing is left: ends the loader and its bar
    state.wait_for_everyone()
    if state.is_main_process:
        remove_leftovers(cache.folder)
        num_bytes = cache.num_bytes()
        speed = ""
        if missing:
            num_views = sum(len(_views_of(cache, shard)) for shard in missing)
            speed = f", {num_views / (time.perf_counter() - started):.2f} views per second"
        per_view = num_bytes / max(len(data) * cache.views, 1)
        tqdm.write(
            f"Proposal cache {cache.folder}: {len(data)} photos x {cache.views} views, "
            f"{num_bytes:,} bytes, {per_view:,.0f} per view{speed}"
        )
    return cache


def cache_key(
    data: SegmentationDataset, *, model: FisaForUniversalSegmentation, processor: FisaProcessor
) -> dict[str, Any]:
    """What the matched proposals depend on, under names that a person understands."""
    config, images = model.config, processor.image_processor
    settings = images.to_dict()
    generator_settings = {
        name: settings[name] for name in sorted(settings) if name.startswith("mask_generator_") or "rescale" in name
    }
    key = {
        "data set": data.fingerprint,
        "unlabelled pixels": data.unlabelled,
        "mask generator": fingerprint(model.mask_generator),
        "image processor": generator_settings | {"size": dict(images.size)},
        "mask_coverage_threshold": config.mask_coverage_threshold,
        "patch_size": config.image_tower.patch_size,
        "proposal_matcher": [config.proposal_matcher, config.proposal_matcher_iou],
    }
    return key | ({"objectness_floor": config.objectness_floor} if config.objectness_floor else {})


class _Views(Dataset):
    """The views of the photos, prepared for the generator, with their ground truth."""

    def __init__(self, data: SegmentationDataset, processor: FisaProcessor, *, num_views: int):
        self.data, self.images, self.num_views = data, processor.image_processor, num_views
        # Matching does not look at classes: any index but `IGNORED` will do.
        self.class_indices = {category.id: 0 for category in data.categories}

    def __len__(self) -> int:
        return len(self.data) * self.num_views

    def __getitem__(self, index: int) -> dict[str, Any]:
        record, change = self.data[index // self.num_views], VIEWS[index % self.num_views]
        inputs = self.images(change.photo(record["image"]), return_tensors="pt", zoom=0)
        truth = GroundTruthMasks.from_record(record, self.class_indices, unlabelled=self.data.unlabelled).changed(
            change
        )
        return {"inputs": inputs, "truth": truth}


def _views_of(cache: ProposalCache, shard: int) -> range:
    """Indices of a shard's views."""
    photos = cache.photos_of(shard)
    return range(photos.start * cache.views, photos.stop * cache.views)


@torch.no_grad()
def _matched(
    inputs: Mapping[str, torch.Tensor], truth: GroundTruthMasks, *, model: FisaForUniversalSegmentation
) -> MatchedProposals:
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    proposals = generate_proposals(
        model.mask_generator,
        inputs["mask_generator_pixel_values"],
        pixel_mask=inputs["mask_generator_pixel_mask"],
    ).likely(floor=model.config.objectness_floor)
    matched = match_to_truth(proposals, truth, model=model)
    height, width = inputs["pixel_values"].shape[-2:]
    view: dict[str, Any] = {
        "image_size": (height, width),
        "patch_size": model.config.image_tower.patch_size,
        "proposal_sizes": proposals.sizes,
    }
    coverage = patch_coverage(proposals.mask_logits, **view)
    seen = attended_patches(coverage, threshold=model.config.mask_coverage_threshold)[0]
    segments = None
    if model.config.segment_attention_penalty:
        segments = segments_of_patches(proposals.mask_logits, proposals.claims(), **view)[0].cpu().numpy()
    kept = matched != UNMATCHED
    if proposals.is_spare is not None:
        kept &= ~proposals.is_spare[0]
    return MatchedProposals(seen[kept].cpu().numpy(), truth.segment_ids[matched[kept].cpu().numpy()], segments)


def match_to_truth(
    proposals: MaskProposals, truth: GroundTruthMasks, *, model: FisaForUniversalSegmentation
) -> torch.Tensor:
    """Index of the ground-truth mask of each proposal of a single photo, or `UNMATCHED`: `(Q,)` int64."""
    device = proposals.mask_logits.device
    return match_proposals(
        proposals.mask_logits[0],
        torch.from_numpy(truth.masks.copy()).to(device),
        torch.from_numpy(truth.labels).to(device),
        size=None if proposals.sizes is None else tuple(proposals.sizes[0].tolist()),
        matcher=model.config.proposal_matcher,
        iou_threshold=model.config.proposal_matcher_iou,
    )


def _image_size(processor: FisaProcessor) -> tuple[int, int]:
    size = processor.image_processor.size
    return size["height"], size["width"]
