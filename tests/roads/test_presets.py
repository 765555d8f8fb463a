"""The first own photo by one command: public parts by one name, from a Hub, from its cache, and without a network.

The parts have the architectures, the names and the files of the published ones, and are small."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor
from fisa.labelling import Labeller
from fisa.pretrained.presets import PRESETS
from tests.roads.made_hub import cached, serving, write_clip, write_mask_generator
from tests.roads.made_photos import write_label_maps
from tests.roads.walking import walk


NAME = "clip+mask2former"
WORDS = ("--labels", "dog, grass", "--others", "none", "--threshold", "0")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder with the parts of the preset, `OWNER/NAME`."""
    root = tmp_path_factory.mktemp("hub")
    clip, mask_generator = PRESETS[NAME]
    write_clip(root / clip)
    write_mask_generator(root / mask_generator)
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory, hub):
    """Hugging Face's folder with the parts in its cache."""
    folder = tmp_path_factory.mktemp("home")
    for part in PRESETS[NAME]:
        shutil.copytree(hub / part, cached(folder / "hub", part), dirs_exist_ok=True)
    return folder


@pytest.fixture
def place(tmp_path, photo):
    photo.save(tmp_path / "photo.jpg")
    return tmp_path


def test_the_first_own_photo_is_one_command(home, hub, place):
    (place / "broken.jpg").write_bytes(b"no photo")
    command = ("fisa-segment", ".", "--model", NAME, *WORDS, "--output", "found")
    printed = walk(*command, cwd=place, status=1, HF_HOME=str(home))
    assert "1 of 2 photos segmented" in printed and "broken.jpg" in printed and "downloading" not in printed
    again = walk(*command, cwd=place, status=1, HF_HOME=str(home))
    assert "1 of them were done before" in again  # the same parts are the same model

    parts = [hub / part for part in PRESETS[NAME]]
    segmenter = FisaPipeline(
        model=FisaForUniversalSegmentation.from_clip_and_mask_generator(*parts),
        processor=FisaProcessor.from_clip_and_mask_generator(*parts),
    )
    expected = segmenter(
        str(place / "photo.jpg"), candidate_labels="dog, grass", others=None, threshold=0.0, return_type="segmentation"
    )
    written = json.loads((place / "found" / "panoptic.json").read_text())["annotations"][0]["segments_info"]
    assert len(written) == len(expected) > 0
    segments = np.asarray(Image.open(place / "found" / "panoptic" / "photo.png")).any(-1)
    assert segments.tolist() == (expected.ids > 0).tolist()


def test_what_is_missing_is_downloaded_and_said(hub, place):
    with serving(hub) as address:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(place / "home")}
        command = ("fisa-segment", "photo.jpg", "--model", NAME, *WORDS, "--output", "found")
        printed = walk(*command, cwd=place, **online)
    assert f"downloading {PRESETS[NAME].clip} (0.6 GB) and {PRESETS[NAME].mask_generator} (0.2 GB), once" in printed
    assert f"into {place / 'home' / 'hub'}" in printed and "1 of 1 photos segmented" in printed


COMMANDS = {
    "fisa-segment": ("photo.jpg", "--labels", "dog", "--output", "results", "--model", NAME),
    "fisa-export": (NAME, "--labels", "dog", "--output", "results"),
    "fisa-train": (
        "--train_format", "label_maps", "--train_data", "photos", "--do_train", "--output_dir", "results", "--model",
        NAME,
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "there"),
    [("fisa-export", ""), ("fisa-train", ""), ("fisa-segment", "clip and half of the rest")],
)
def test_without_a_network_one_line_says_what_to_fetch_where(command, there, hub, place):
    clip, mask_generator = PRESETS[NAME]
    if there:
        shutil.copytree(hub / clip, cached(place / "home" / "hub", clip), dirs_exist_ok=True)
        shutil.copy(hub / mask_generator / "config.json", cached(place / "home" / "hub", mask_generator))
    printed = walk(command, *COMMANDS[command], cwd=place, status=2, timeout=60, HF_HOME=str(place / "home"))
    *_, last = printed.strip().splitlines()
    assert last.startswith(f"{command}: error: ") and f"{NAME} cannot be put together" in last
    fetched = re.findall(r"hf download (\S+) --exclude", last)
    assert fetched == ([mask_generator] if there else [clip, mask_generator])
    assert f"to {place / 'home' / 'hub'}" in last and not (place / "results").exists()


def test_what_it_says_to_fetch_is_enough(hub, place):
    command = ("fisa-segment", "photo.jpg", "--model", NAME, *WORDS)
    said = walk(*command, cwd=place, status=2, HF_HOME=str(place / "home"))
    fetching = re.search(r"run: (.+); then copy", said.replace("\n", " ")).group(1)
    for part in PRESETS[NAME]:
        (hub / part / "tf_model.h5").write_text("weights for another framework")
    with serving(hub) as address:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(place / "home")}
        for single in fetching.split(" && "):
            walk(*shlex.split(single), cwd=place, **online)
    assert not list(place.rglob("*.h5"))
    assert "1 of 1 photos segmented" in walk(*command, cwd=place, HF_HOME=str(place / "home"))


def test_a_labeller_of_rows_takes_the_name(hub, photo, monkeypatch):
    monkeypatch.chdir(hub)
    rows = Labeller(NAME, labels="dog, grass", others=None, threshold=0)({"image": [photo]})
    assert rows["problem"] == [None] and rows["segments_info"][0]


def test_fine_tuning_parts_in_folders_of_their_names_leaves_a_model_that_needs_neither(hub, place):
    for part in PRESETS[NAME]:  # as `hf download NAME --local-dir NAME` leaves them
        shutil.copytree(hub / part, place / part)
    write_label_maps(place / "photos")
    command = ("fisa-train", *COMMANDS["fisa-train"], "--max_steps", "2", "--report_to", "none", "--use_cpu")
    walk(*command, cwd=place, HF_HOME=str(place / "none"))
    for part in PRESETS[NAME]:
        shutil.rmtree(place / part)
    printed = walk(
        "fisa-segment", "photo.jpg", "--model", "results", "--threshold", "0", cwd=place, HF_HOME=str(place / "none")
    )
    assert "1 of 1 photos segmented" in printed


@pytest.mark.parametrize("command", ["fisa-segment", "fisa-export"])
def test_a_preset_without_words_is_refused_before_it_is_downloaded(command, hub, place):
    arguments = ("photo.jpg", "--model", NAME) if command == "fisa-segment" else (NAME, "--output", "graph")
    with serving(hub) as address:
        online = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(place / "home")}
        printed = walk(command, *arguments, cwd=place, status=2, **online)
    assert "name some with --labels" in printed and not (place / "home" / "hub").exists()
