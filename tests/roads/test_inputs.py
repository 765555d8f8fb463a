"""Where photos come from: lists of files, addresses and archives, and data sets, walked twice and through a kill."""

import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import datasets
import pytest

from fisa.commands import segment
from fisa.miniature import miniature
from tests.result_files import results
from tests.roads.walking import refused, walk


OPTIONS = ("--model", "model", "--labels", "house, tree", "--threshold", "0")


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene):
    """A small model, and photos one by one and in two shards, a damaged one among each."""
    place = tmp_path_factory.mktemp("inputs")
    for part in miniature():
        part.save_pretrained(place / "model")
    (place / "in").mkdir()
    for number in range(6):
        scene.rotate(17 * number).resize((120, 90)).save(place / "in" / f"{number}.png")
    (place / "in" / "broken.png").write_bytes(b"no photo")
    for shard in range(2):
        with tarfile.open(place / f"shard-{shard}.tar", "w") as archive:
            for number in range(4):
                name = "broken.png" if number == 2 else f"{3 * shard + number % 3}.png"
                archive.add(place / "in" / name, f"{number:03}.png")
                info = tarfile.TarInfo(f"{number:03}.json")
                archive.addfile(info, io.BytesIO())
    return place


@pytest.fixture
def server(place):
    handler = partial(SimpleHTTPRequestHandler, directory=place / "in")
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_list_of_files_addresses_and_archives(place, server):
    lines = ["in/0.png", f"{server}/1.png", "gone.png", f"{server}/gone.png", "shard-0.tar", "in/broken.png"]
    (place / "list.txt").write_text("\n".join(lines))
    command = ("fisa-segment", "list.txt", *OPTIONS, "--format", "yolo", "--output", "listed")
    said = walk(*command, cwd=place, status=1)
    assert "5 of 9 photos segmented" in said
    broken = ["gone.png", f"{server}/gone.png", "tar://002.png::shard-0.tar", "in/broken.png"]
    assert f"not segmented: {', '.join(broken)}" in said
    content = json.loads((place / "listed" / "panoptic.json").read_text())
    inside = [f"tar://{number:03}.png::shard-0.tar" for number in (0, 1, 3)]
    assert [image["file_name"] for image in content["images"]] == ["in/0.png", f"{server}/1.png", *inside]
    copies = {path.name: path.read_bytes() for path in (place / "listed" / "yolo" / "images").iterdir()}
    assert sorted(copies) == ["0.png", "000.png", "001.png", "003.png", "1.png"]
    assert copies["001.png"] == (place / "in" / "1.png").read_bytes()
    before = results(place / "listed")
    assert "5 of them were done before" in walk(*command, cwd=place, status=1)
    assert results(place / "listed") == before


def test_archives_after_a_kill(place):
    command = ("fisa-segment", "shard-0.tar", "shard-1.tar", *OPTIONS, "--output")
    walk(*command, "undisturbed", cwd=place, status=1)
    run = subprocess.Popen(
        [Path(sys.executable).with_name(command[0]), *command[1:], "killed"],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    journal, patience = place / "killed" / "journal.jsonl", time.monotonic() + 120
    while run.poll() is None and time.monotonic() < patience:
        if journal.exists() and journal.read_bytes().count(b"\n") > 2:
            break
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    run.wait()
    said = walk(*command, "killed", cwd=place, status=1)
    assert "6 of 8 photos segmented" in said and results(place / "killed") == results(place / "undisturbed")


def test_a_shard_that_is_cut_off_is_named_and_what_is_whole_of_it_done(place):
    content = (place / "shard-1.tar").read_bytes()
    shutil.copy(place / "shard-0.tar", place / "whole.tar")
    (place / "cut.tar").write_bytes(content[: content.rindex(b"003.png") + 700])
    said = walk("fisa-segment", "cut.tar", "whole.tar", *OPTIONS, "--output", "cut", cwd=place, status=1)
    assert "5 of 8 photos segmented" in said
    assert "skipped: 'cut.tar' cannot be read as an image: the archive is damaged behind '002.json'" in said


@pytest.fixture(scope="module")
def data_set(place):
    """Eight rows of Parquet, of which one holds no photo and one nothing."""
    files = [(place / "in" / f"{number}.png").read_bytes() for number in range(6)]
    files[2:2], files[5:5] = [b"no photo"], [None]
    rows = [content and {"bytes": content, "path": None} for content in files]
    features = datasets.Features({"picture": datasets.Image(), "id": datasets.Value("int8")})
    data = datasets.Dataset.from_dict({"picture": rows, "id": list(range(8))}, features=features)
    data.to_parquet(place / "photos.parquet")
    return ("--dataset", "photos.parquet", "--image-column", "picture", *OPTIONS)


@pytest.fixture(scope="module")
def of_data_set(place, data_set):
    """The results of an undisturbed run over the data set."""
    command = ("fisa-segment", *data_set, "--format", "parquet", "jsonl", "--output", "rows")
    said = walk(*command, cwd=place, status=1)
    assert "6 of 8 photos segmented" in said
    assert "not segmented: photos.parquet/train/2, photos.parquet/train/5" in said
    return results(place / "rows")


def test_a_data_set_becomes_a_data_set(place, data_set, of_data_set):
    rows = datasets.load_dataset(str(place / "rows" / "parquet"), split="train", cache_dir=str(place / "cache"))
    assert rows["image_id"][:] == [f"train-{number:08}" for number in (0, 1, 3, 4, 6, 7)]
    for row, number in zip(rows.cast_column("image", datasets.Image(decode=False)), range(6), strict=True):
        assert row["image"]["bytes"] == (place / "in" / f"{number}.png").read_bytes()
    command = ("fisa-segment", *data_set, "--format", "parquet", "jsonl", "--output", "rows")
    assert "6 of them were done before" in walk(*command, cwd=place, status=1)
    assert results(place / "rows") == of_data_set


def test_a_data_set_by_two_processes_and_as_lines(place, data_set, of_data_set):
    port = random.Random(str(place)).randrange(20000, 30000)
    launcher = ("python", "-m", "torch.distributed.run", "--nproc_per_node", 2, "--master_port", port)
    command = ("-m", "fisa.commands.segment", *data_set, "--format", "parquet", "jsonl", "--output", "shared")
    said = subprocess.run(
        [sys.executable, *map(str, launcher[1:]), *command],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )  # whose status is that of the launcher, since photos were skipped
    assert "6 of 8 photos segmented" in said.stdout, said.stderr[-2000:]
    assert results(place / "shared") == of_data_set
    journals = [place / "shared" / name for name in ("journal.jsonl", "journal-1.jsonl")]
    assert [journal.read_text().count('"photo"') for journal in journals] == [4, 4]
    lines = walk("fisa-segment", *data_set, "--output", "-", "--quiet", cwd=place, status=1)
    assert lines.startswith(of_data_set["segments.jsonl"].decode())


def test_another_data_set_does_not_mix_with_the_first(place, data_set, of_data_set):
    shutil.copy(place / "photos.parquet", place / "others.parquet")
    other = ["others.parquet" if part == "photos.parquet" else part for part in data_set]
    said = refused(segment.main, *other, "--output", "rows", cwd=place)
    assert "data set: ../photos.parquet, now ../others.parquet" in said
    said = refused(segment.main, "in", *OPTIONS, "--output", "rows", cwd=place)
    assert "data set: ../photos.parquet, now not set" in said
    assert results(place / "rows") == of_data_set


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--dataset", "photos.parquet"), "photos.parquet has no column image; there are picture, id."),
        (("--dataset", "photos.parquet", "--image-column", "id"), "The column id of photos.parquet holds no photos"),
        (("--dataset", "photos.parquet", "--split", "test"), "a file has no splits; leave test out"),
        (("--dataset", "none.parquet"), "none.parquet cannot be read as a data set with a split train"),
        (("in", "--dataset", "photos.parquet"), "give photos or --dataset, one of them."),
        ((), "give photos or --dataset, one of them."),
    ],
)
def test_mistakes_are_one_sentence(place, data_set, arguments, said):
    assert said in refused(segment.main, *arguments, *OPTIONS, "--output", "mistaken", cwd=place)
