"""Folders of photos: killed runs, several processes, and a disk that is full end with an undisturbed run's files, in
all formats that are asked for."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from fisa.miniature import miniature
from tests.ports import free_port
from tests.result_files import results
from tests.roads.killing import killed
from tests.roads.walking import started, walk


OPTIONS = ("--model", "model", "--labels", "house, tree", "--threshold", "0", "--format", "coco", "yolo", "parquet")
COMMAND = ("fisa-segment", "in", "--recursive", *OPTIONS)
KILLS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene):
    """Twenty photos and one that is none, a small model, and the results of an undisturbed run."""
    place = tmp_path_factory.mktemp("folders")
    for part in miniature():
        part.save_pretrained(place / "model")
    (place / "in" / "deep" / "deep").mkdir(parents=True)
    for number in range(20):  # names that are alike in three folders
        path = place.joinpath("in", *["deep"] * (number // 8), f"{number % 8}.png")
        scene.rotate(17 * number).resize((120, 90)).save(path)
    (place / "in" / "broken.jpg").write_bytes(b"no photo")
    walk(*COMMAND, "--output", "undisturbed", cwd=place, status=1)
    return place


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def reaches(journal: Path, count: int) -> bool:
    return lines(journal) >= count


def test_runs_that_are_killed_at_any_moment_end_like_an_undisturbed_one(place):
    chance, out = random.Random(0), place / "killed"
    done = 0
    for kill in range(KILLS):
        run = started(*COMMAND, "--output", "killed", cwd=place)
        has_lines = partial(reaches, out / "journal.jsonl", done + 1 + kill % 3)
        assert killed(run, has_lines, chance=chance, within=0.05)  # anywhere between one line and the next
        assert lines(out / "journal.jsonl") >= done
        done = lines(out / "journal.jsonl")
        if (out / "panoptic.json").exists():
            json.loads((out / "panoptic.json").read_text())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.??g")}
    assert 0 < len(before) < 40
    said = walk(*COMMAND, "--output", "killed", cwd=place, status=1)
    assert "were done before" in said and results(out) == results(place / "undisturbed")
    again = sum(path.stat().st_mtime_ns != time for path, time in before.items())
    assert again <= 4  # two photos were on the way


def test_a_run_that_is_killed_while_it_writes_formats_leaves_whole_ones(place):
    out = place / "cut"
    shutil.copytree(place / "undisturbed", out)
    run = started(*COMMAND, "--output", "cut", cwd=place)
    assert killed(run, lambda: any(out.glob("yolo.*.partial")), chance=random.Random(0), within=0.01)
    named = {path: content for path, content in results(out).items() if ".partial" not in path}
    whole = results(place / "undisturbed")
    assert named.items() <= whole.items()
    assert len([path for path in named if path.startswith("yolo")]) in (0, 2 * 20 + 2)
    walk(*COMMAND, "--output", "cut", cwd=place, status=1)
    assert results(out) == whole


def test_what_was_written_is_not_read_as_photos(place):
    shutil.copytree(place / "in" / "deep", place / "beside" / "deep")
    shutil.copytree(place / "undisturbed", place / "beside" / "undisturbed")
    command = ("fisa-segment", "beside", "--recursive", *OPTIONS, "--output", "beside/segments")
    assert "12 of 12 photos segmented" in walk(*command, cwd=place)
    assert "12 of them were done before" in walk(*command, cwd=place)


def test_processes_share_the_photos_and_end_like_one(place):
    launcher = ("accelerate", "launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", free_port())
    said = walk(*launcher, "-m", "fisa.commands.segment", "in/**/*.png", *OPTIONS, "--output", "shared", cwd=place)
    assert said.count("20 of 20 photos segmented") == 1
    assert said.count("Loading weights: 100%") == 1  # what all processes would say, the first says alone
    assert results(place / "shared") == results(place / "undisturbed")
    shares = [lines(place / "shared" / name) for name in ("journal.jsonl", "journal-1.jsonl")]
    assert min(shares) >= 10


def test_photos_that_are_as_they_were_before_are_done_again_whoever_did_them_between(place):
    here = place / "restored"
    shutil.copytree(place / "in", here / "in")
    (here / "model").symlink_to(place / "model")
    command, photos = ("in", "--recursive", *OPTIONS, "--output", "out"), sorted((here / "in").rglob("*.png"))
    walk("fisa-segment", *command, cwd=here, status=1)
    for one, other in zip(photos, photos[1:] + photos[:1]):
        shutil.copyfile(place / other.relative_to(here), one)
    launcher = ("accelerate", "launch", "--multi_gpu", "--num_processes", 2, "--main_process_port", free_port())
    walk(*launcher, "-m", "fisa.commands.segment", "in/**/*.png", *command[2:], cwd=here)
    assert (here / "out" / "journal-1.jsonl").exists()
    for photo in photos:
        shutil.copy2(place / photo.relative_to(here), photo)
    said = walk("fisa-segment", *command, cwd=here, status=1)
    assert "20 of 21 photos segmented" in said and "done before" not in said
    assert results(here / "out") == results(place / "undisturbed")


def test_a_disk_that_is_full_ends_a_run_in_one_line(place):
    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    _, *arguments = COMMAND
    run = subprocess.run(
        [Path(sys.executable).with_name("fisa-segment"), *arguments, "--output", "full"],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        preexec_fn=little_room,
    )
    assert run.returncode == 2 and "Traceback" not in run.stderr
    assert "the results cannot be written" in run.stderr.splitlines()[-1]
    walk(*COMMAND, "--output", "full", cwd=place, status=1)
    assert results(place / "full") == results(place / "undisturbed")
