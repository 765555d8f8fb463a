"""The proposal cache: the generator's own losses, whatever happens while it is built, and never those of another."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from fisa.data.augmentation import Augmentation
from fisa.data.formats import load_segmentation_dataset
from fisa.data.proposal_cache import PHOTOS_PER_SHARD, MatchedProposals, ProposalCache, StaleCacheError
from fisa.data.proposal_caching import cached_proposals
from fisa.miniature import miniature
from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.processing.files import PARTIAL
from tests.data.made_files import CATEGORIES, HEIGHT, WIDTH, quarters, write_photo, write_values
from tests.data.training import made_data, training_parts
from tests.models import randomise


@pytest.fixture(scope="module")
def parts():
    model, processor = miniature(proposal_matcher_iou=0.05)  # a random generator's proposals fit nothing well
    return model.eval(), processor


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def build(folder, data, parts, **options):
    model, processor = parts
    return cached_proposals(str(folder), data, model=model, processor=processor, **{"flips": True} | options)


# What it holds


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


# Building


def test_a_cache_is_the_same_however_it_was_built(tmp_path, parts):
    data = made_data(tmp_path / "data", photos=PHOTOS_PER_SHARD + 3)
    build(tmp_path / "whole", data, parts)
    whole = files(tmp_path / "whole")
    assert len(whole) == 3
    # Broken off after the first shard, with half a file of the second; then continued.
    partly = tmp_path / "partly"
    build(partly, data, parts)
    (partly / "000001.safetensors").rename(partly / f"000001.safetensors.{'0' * 32}{PARTIAL}")
    first = (partly / "000000.safetensors").stat().st_mtime_ns
    build(partly, data, parts)
    assert (partly / "000000.safetensors").stat().st_mtime_ns == first  # not made again
    leftover = partly / f"000001.safetensors.{'0' * 32}{PARTIAL}"
    assert {name: content for name, content in files(partly).items() if name != leftover.name} == whole
    os.utime(leftover, (0, 0))
    build(partly, data, parts)
    assert files(partly) == whole


BUILD = """
import sys
from pathlib import Path
from fisa.data.formats import load_segmentation_dataset
from fisa.data.proposal_caching import cached_proposals
from fisa.miniature import miniature
from fisa.processing.files import PARTIAL
model, processor = miniature(proposal_matcher_iou=0.05)
data = load_segmentation_dataset("coco_panoptic", sys.argv[1], split="val2017")
cached_proposals(sys.argv[2], data, model=model.eval(), processor=processor, flips=True)
"""


def builder(data, folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(data), str(folder)], env=environment, stdout=subprocess.PIPE, text=True
    )


def test_a_build_that_is_killed_and_two_that_run_at_once_leave_the_same_cache(tmp_path, parts):
    data = made_data(tmp_path / "data", photos=2 * PHOTOS_PER_SHARD + 1)
    build(tmp_path / "whole", data, parts)
    folder = tmp_path / "killed"
    process = builder(tmp_path / "data", folder)
    deadline = time.monotonic() + 120
    while not (folder / "000000.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (folder / "000000.safetensors").exists() and len(list(folder.glob("*.safetensors"))) < 3
    both = [builder(tmp_path / "data", folder) for _ in range(2)]
    printed = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("65 photos x 2 views" in text and "views per second" in text for text in printed)
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink()
    assert files(folder) == files(tmp_path / "whole")


# Stale caches


def other_generator(data, model, processor):
    other, _ = miniature(seed=1, proposal_matcher_iou=0.05)
    return data, other, processor


def other_threshold(data, model, processor):
    other, _ = miniature(proposal_matcher_iou=0.05, mask_coverage_threshold=0.9)
    return data, other, processor


def other_matcher(data, model, processor):
    other, _ = miniature(proposal_matcher_iou=0.05, proposal_matcher="hungarian")
    return data, other, processor


def other_size(data, model, processor):
    _, other = miniature()
    other.image_processor.mask_generator_size = {"shortest_edge": 96, "longest_edge": 160}
    return data, model, other


def other_segments(data, model, processor):
    other, _ = miniature(proposal_matcher_iou=0.05, segment_attention_penalty=1.0)
    return data, other, processor


def other_floor(data, model, processor):
    other, _ = miniature(proposal_matcher_iou=0.05, objectness_floor=0.3)
    return data, other, processor


def fewer_photos(data, model, processor):
    return data.select([0]), model, processor


STALE = {
    other_generator: "mask generator",
    other_threshold: "mask_coverage_threshold",
    other_matcher: "proposal_matcher",
    other_size: "image processor",
    other_segments: "patch segments: nothing there, of all proposals now",
    other_floor: "objectness_floor: nothing there, 0.3 now",
    fewer_photos: "data set",
}


@pytest.mark.parametrize("change", STALE, ids=lambda change: change.__name__)
def test_a_cache_of_something_else_is_refused_by_name(tmp_path, parts, change):
    data = made_data(tmp_path / "data")
    build(tmp_path / "cache", data, parts)
    before = files(tmp_path / "cache")
    data, model, processor = change(data, *parts)
    with pytest.raises(StaleCacheError) as caught:
        build(tmp_path / "cache", data, (model.eval(), processor))
    assert STALE[change] in str(caught.value) and "--proposal_cache" in str(caught.value)
    assert files(tmp_path / "cache") == before


def test_one_with_segments_is_refused_where_none_are_read(tmp_path, parts):
    data = made_data(tmp_path / "data")
    model, processor = miniature(proposal_matcher_iou=0.05, segment_attention_penalty=0.5)
    cache = build(tmp_path / "cache", data, (model.eval(), processor))
    before = files(tmp_path / "cache")
    with pytest.raises(StaleCacheError, match="patch segments: of all proposals there, nothing now"):
        build(tmp_path / "cache", data, parts)
    model.config.segment_attention_penalty = 2.0  # how much they count does not change them
    assert build(tmp_path / "cache", data, (model, processor)).missing_shards() == []
    assert files(tmp_path / "cache") == before and cache.has_patch_segments


def test_without_segments_a_cache_is_what_it_was_before_there_were_any(tmp_path, parts):
    cache = build(tmp_path / "cache", made_data(tmp_path / "data"), parts)
    assert not cache.has_patch_segments
    manifest = json.loads((tmp_path / "cache" / "manifest.json").read_text())
    assert not {"patch segments", "objectness_floor"} & manifest.keys()
    with safe_open(tmp_path / "cache" / "000000.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["ends", "seen", "segment_ids"]


@pytest.mark.parametrize("folder", ["file", "file/cache"])
def test_a_file_is_no_folder(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=f"{folder} is, or lies in, a file; name a folder"):
        ProposalCache(tmp_path / folder, key={}, num_photos=1, grid=(2, 2), views=1)


def test_one_that_lacks_mirrored_views_is_refused_too(tmp_path, parts):
    data = made_data(tmp_path / "data")
    build(tmp_path / "cache", data, parts, flips=False)
    with pytest.raises(StaleCacheError, match="views: 1 there, 2 now"):
        build(tmp_path / "cache", data, parts)


def test_a_model_loaded_from_elsewhere_is_the_same_model(tmp_path, parts):
    model, processor = parts
    data = made_data(tmp_path / "data")
    build(tmp_path / "cache", data, parts)
    model.save_pretrained(tmp_path / "model")
    again = type(model).from_pretrained(tmp_path / "model").eval()
    build(tmp_path / "cache", data, (again, processor))
    assert json.loads((tmp_path / "cache" / "manifest.json").read_text())["photos"] == 2


# Labels that change, sizes in bytes that do not


def write_bitmaps(root):
    """A data set whose files have a size in bytes that does not depend on their content."""
    root.mkdir()
    (root / "classes.txt").write_text("a\nb\n")
    for number in range(2):
        write_values(root / "labels" / f"{number}.tif", quarters(0, 1, 1, number))
        write_photo(root / "images" / f"{number}.bmp", seed=number)
    return load_segmentation_dataset("label_maps", str(root), split="train")


@pytest.mark.parametrize("kind, file", [("labels", "0.tif"), ("images", "0.bmp")])
def test_other_content_of_the_same_size_is_noticed(tmp_path, parts, kind, file):
    build(tmp_path / "cache", write_bitmaps(tmp_path / "data"), parts)
    path = tmp_path / "data" / kind / file
    before = path.stat().st_size
    with Image.open(path) as image:
        changed = Image.fromarray(np.asarray(image)[::-1].copy())
    changed.save(path)
    assert path.stat().st_size == before
    with pytest.raises(StaleCacheError, match="data set"):
        build(
            tmp_path / "cache", load_segmentation_dataset("label_maps", str(tmp_path / "data"), split="train"), parts
        )


def test_other_outlines_of_instances_are_noticed(tmp_path):
    def fingerprint(x):
        outline = [[x, 1, 9, 1, 9, 9]]
        annotation = {"id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": outline}
        images = [{"id": 7, "file_name": "7.jpg", "height": HEIGHT, "width": WIDTH}]
        content = {"images": images, "annotations": [annotation], "categories": CATEGORIES}
        (tmp_path / "annotations" / "instances.json").write_text(json.dumps(content))
        return load_segmentation_dataset("coco_instances", str(tmp_path), split="train").fingerprint

    (tmp_path / "annotations").mkdir()
    write_photo(tmp_path / "images" / "7.jpg")
    assert fingerprint(1) == fingerprint(1) != fingerprint(2)


# Damaged caches


def cut_short(folder):
    path = folder / "000000.safetensors"
    path.write_bytes(path.read_bytes()[:50])


def swap_rows(folder):
    path = folder / "000000.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata, content = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    content["seen"] = content["seen"].flip(0)
    save_file(content, path, metadata=metadata)


def shard_of_other_photos(folder):
    shutil.copy(folder / "000001.safetensors", folder / "000000.safetensors")


def strangers_shard(folder):
    save_file({"seen": torch.zeros(3, 2)}, folder / "000000.safetensors")


def no_manifest(folder):
    (folder / "manifest.json").unlink()


def damaged_manifest(folder):
    (folder / "manifest.json").write_text('{"data')


DAMAGES = {
    cut_short: "000000.safetensors: it cannot be read",
    swap_rows: "000000.safetensors: its content is not what was written",
    shard_of_other_photos: "000000.safetensors: it belongs to another cache or to other photos",
    strangers_shard: "000000.safetensors: it belongs to another cache or to other photos",
    no_manifest: "",
    damaged_manifest: "",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("built")
    data = made_data(folder / "data", photos=PHOTOS_PER_SHARD + 1)
    build(folder / "cache", data, parts)
    return folder, data


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_cache_is_named_and_mended(tmp_path, parts, built, damage, caplog):
    folder, data = built
    shutil.copytree(folder / "cache", tmp_path / "cache")
    damage(tmp_path / "cache")
    build(tmp_path / "cache", data, parts)
    assert DAMAGES[damage] in caplog.text and bool(DAMAGES[damage]) == bool(caplog.text)
    assert files(tmp_path / "cache") == files(folder / "cache")


def test_shards_of_another_cache_are_not_adopted_where_the_manifest_is_gone(tmp_path, parts, built):
    folder, data = built
    shutil.copytree(folder / "cache", tmp_path / "cache")
    no_manifest(tmp_path / "cache")
    before = files(tmp_path / "cache")
    with pytest.raises(StaleCacheError, match="no readable manifest.json, and 000000.safetensors"):
        build(tmp_path / "cache", data.select(range(PHOTOS_PER_SHARD)), parts)
    assert files(tmp_path / "cache") == before


# Size


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
