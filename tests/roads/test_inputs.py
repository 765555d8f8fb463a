"""Where photos come from: lists of files, addresses and archives, walked twice and through a kill."""

import io
import json
import os
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

import pytest

from fisa.miniature import miniature
from tests.roads.walking import walk


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


def results(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("journal"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


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
    assert f"could not be read: {', '.join(broken)}" in said
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
