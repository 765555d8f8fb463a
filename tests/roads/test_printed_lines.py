"""`fisa-segment --output -`: JSON lines on standard output for the next program, and nothing else there."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow.json
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fisa.commands.segment import main
from fisa.processing.coco_panoptic import rgb_to_panoptic
from fisa.processing.lettering import FONTS
from tests.roads.walking import refused, walk


WORDS = ("--labels", "bird, fish, water [stuff]")


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene):
    """Five photos and one that is none."""
    place = tmp_path_factory.mktemp("printed")
    (place / "in").mkdir()
    for number in range(5):
        scene.rotate(7 * number).resize((192, 192)).save(place / "in" / f"{number} größer.png")
    (place / "in" / "3.jpg").write_bytes(b"no photo")
    return place


def run(*arguments, cwd, **options):
    return subprocess.Popen(
        [Path(sys.executable).with_name("fisa-segment"), *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def printed(place):
    process = run("in", *WORDS, "--output", "-", cwd=place)
    lines, said = process.communicate(timeout=120)
    assert process.returncode == 1 and "Traceback" not in said
    assert "skipped: 'in/3.jpg' cannot be read" in said and "not segmented: in/3.jpg" in said
    return lines


def test_lines_are_the_photos_in_their_order(place, printed):
    rows = [json.loads(line) for line in printed.splitlines()]
    assert [row["photo"] for row in rows] == [f"in/{number} größer.png" for number in range(5)]
    assert not (place / "-").exists() and not (place / "segments").exists()


def test_they_are_the_lines_and_masks_of_a_folder(place, printed):
    walk("fisa-segment", "in", *WORDS, "--format", "jsonl", "--output", "folder", cwd=place, status=1)
    assert (place / "folder" / "segments.jsonl").read_text() == printed
    found = 0
    for line in printed.splitlines():
        row = json.loads(line)
        with Image.open(place / "folder" / "panoptic" / Path(row["photo"]).name) as picture:
            ids = rgb_to_panoptic(np.asarray(picture))
        for number, segment in enumerate(row["segments"], start=1):
            np.testing.assert_array_equal(coco_mask.decode(segment["segmentation"]), ids == number)
            found += 1
    assert found


def test_a_reader_that_has_enough_ends_it_without_a_word(place):
    process = run(*["in"] * 40, *WORDS, "--output", "-", cwd=place)
    assert json.loads(process.stdout.readline())["photo"] == "in/0 größer.png"
    process.stdout.close()
    said = process.stderr.read()
    assert process.wait(timeout=60) == 141
    assert "Broken" not in said and "Traceback" not in said and "Exception" not in said


def test_ctrl_c_leaves_whole_lines(place):
    process = run(
        *["in"] * 40,
        *WORDS,
        "--output",
        "-",
        cwd=place,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    first = process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    lines, said = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in said
    assert all(json.loads(line) for line in (first + lines).splitlines())


@pytest.mark.parametrize(
    "further", [("--format", "coco"), ("--overwrite",), ("--font", FONTS / "NotoSans-Regular.ttf")]
)
def test_what_writes_files_is_refused(place, further):
    said = refused(main, "in", *WORDS, "--output", "-", *further, cwd=place)
    assert "--output - prints and writes no files: leave out --format, --overwrite, --overlay-format and" in said


def test_several_processes_are_refused(place):
    command = ("fisa-segment", "in", *WORDS, "--output", "-")
    said = walk(*command, cwd=place, status=2, RANK="1", WORLD_SIZE="2")
    assert "name a folder for those of several" in said


def test_a_data_set_that_breaks_off_says_so_in_one_line(place):
    (place / "part-1.jsonl").write_text(json.dumps({"image": str(place / "in" / "0 größer.png")}) + "\n")
    (place / "part-2.jsonl").write_text("{\n")
    command = ("fisa-segment", "--dataset", "part-*.jsonl", *WORDS, "--output", "-", "--quiet")
    *_, last = walk(*command, cwd=place, status=2).strip().splitlines()
    assert last.startswith("fisa-segment: error: ") and "part-*.jsonl cannot be read from row 1 on" in last


def strictly_read(path):
    """The first object of JSON in a file, by a reader that takes no half of a surrogate pair."""
    options = pyarrow.json.ParseOptions(newlines_in_values=True)
    return pyarrow.json.read_json(path, parse_options=options).slice(0, 1).to_pylist()[0]


def test_names_that_are_no_text(place):
    (place / "bytes").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    try:
        shutil.copy(place / "in" / "0 größer.png", place / "bytes" / name)
    except OSError:
        pytest.skip("files have names of characters alone here")
    command = ("fisa-segment", "bytes", *WORDS, "--format", "coco", "yolo", "jsonl", "parquet", "label-studio", "cvat")
    said = walk(*command, "--output", "named", cwd=place, PYTHONIOENCODING="utf-8:strict")
    assert "bytes/caf\\udce9.png -> named" in said
    with zipfile.ZipFile(place / "named" / "cvat.zip") as archive:
        assert archive.namelist() == ["images/caf%DCE9.png", "annotations.xml"]
    assert (place / "named" / "yolo" / "images" / "caf%DCE9.png").is_file()
    [task] = json.loads((place / "named" / "label_studio" / "tasks.json").read_text())
    assert task["data"]["image"].endswith("images/caf%25DCE9.png")
    photos = [strictly_read(place / "named" / file)["images"][0] for file in ("panoptic.json", "instances.json")]
    names = [(photo["file_name"], photo["file_name_quoted"]) for photo in photos]
    line = strictly_read(place / "named" / "segments.jsonl")
    names.append((line["photo"], line["photo_quoted"]))
    assert names == [("bytes/caf%DCE9.png", "bytes/caf%E9.png")] * 3
    assert os.fsencode(name) == unquote_to_bytes("caf%E9.png")  # as it is opened
    written = [path.relative_to(place / "named").as_posix() for path in (place / "named").rglob("*")]
    assert {"panoptic/caf%DCE9.png", "caf%DCE9_overlay.jpg"} < set(written) and "".join(written).encode()
    again = walk(*command, "--output", "named", cwd=place, PYTHONIOENCODING="utf-8:strict")
    assert "1 of them were done before" in again
