"""A proposal cache is the same however it was built, also where it was killed or damaged in between."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fisa.data.proposal_cache import PHOTOS_PER_SHARD, StaleCacheError
from fisa.processing.files import PARTIAL
from tests.data.built_caches import build, files
from tests.data.training import made_data


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
    # One may find that the other is done.
    assert any("65 photos x 2 views" in text and "views per second" in text for text in printed)
    for path in folder.glob(f"*{PARTIAL}"):
        path.unlink()
    assert files(folder) == files(tmp_path / "whole")


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
