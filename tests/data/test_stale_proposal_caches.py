"""A proposal cache of something else is never taken: other models, settings, photos or labels are named."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from fisa.data.formats import load_segmentation_dataset
from fisa.data.proposal_cache import ProposalCache, StaleCacheError
from fisa.miniature import miniature
from tests.data.built_caches import build, files
from tests.data.made_files import CATEGORIES, HEIGHT, WIDTH, quarters, write_photo, write_values
from tests.data.training import made_data


def other_model(**options):
    def change(data, model, processor):
        other, _ = miniature(proposal_matcher_iou=0.05, **options)
        return data, other, processor

    return change


def other_size(data, model, processor):
    _, other = miniature()
    other.image_processor.mask_generator_size = {"shortest_edge": 96, "longest_edge": 160}
    return data, model, other


def fewer_photos(data, model, processor):
    return data.select([0]), model, processor


STALE = {
    "mask generator": other_model(seed=1),
    "mask_coverage_threshold": other_model(mask_coverage_threshold=0.9),
    "proposal_matcher": other_model(proposal_matcher="hungarian"),
    "image processor": other_size,
    "patch segments: nothing there, of all proposals now": other_model(segment_attention_penalty=1.0),
    "objectness_floor: nothing there, 0.3 now": other_model(objectness_floor=0.3),
    "data set": fewer_photos,
}


@pytest.mark.parametrize("named", STALE)
def test_a_cache_of_something_else_is_refused_by_name(tmp_path, parts, named):
    data = made_data(tmp_path / "data")
    build(tmp_path / "cache", data, parts)
    before = files(tmp_path / "cache")
    data, model, processor = STALE[named](data, *parts)
    with pytest.raises(StaleCacheError) as caught:
        build(tmp_path / "cache", data, (model.eval(), processor))
    assert named in str(caught.value) and "--proposal_cache" in str(caught.value)
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
