"""Photos that changed between two runs, however a call names them: none keeps the results of another."""

import base64
import io
import json
import os
import tarfile
import time
import zipfile
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from xml.etree import ElementTree

import datasets
import pyarrow.parquet
import pytest

from fisa.labelling import Labeller
from fisa.labelling.data_sets import DatasetPhotos, Row
from fisa.labelling.folders import label_photos
from fisa.labelling.photo_search import find_photos
from tests.drawn_picture import draw_picture
from tests.result_files import results


@pytest.fixture(scope="module")
def labeller(checkpoint):
    return Labeller(checkpoint, labels="house, tree [stuff], grass [stuff]", threshold=0.0, batch_size=1)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """Two pictures of one size, as the bytes of BMP files."""
    monkeypatch.chdir(tmp_path)
    contents = []
    for degrees in (0, 90):
        file = io.BytesIO()
        draw_picture().rotate(degrees).resize((40, 40)).save(file, format="BMP")
        contents.append(file.getvalue())
    return contents


@pytest.mark.parametrize("kind", ["addresses", "paths"])
def test_rows_that_changed_places_are_done_again(labeller, pictures, kind):
    """Also where files have the same size and time."""
    rows = [f"data:image/bmp;base64,{base64.b64encode(picture).decode()}" for picture in pictures]
    if kind == "paths":
        rows = ["one.bmp", "other.bmp"]
        for name, picture in zip(rows, pictures):
            Path(name).write_bytes(picture)
            os.utime(name, (1, 1))
    summaries = []
    for run, order in enumerate([rows, rows[::-1], rows[::-1]]):
        Path("rows.jsonl").write_text("\n".join(json.dumps({"image": row}) for row in order))
        summaries.append(label_photos(labeller, DatasetPhotos("rows.jsonl"), Path("out")))
        if run == 0:
            first = results("out")
    assert [summary.before for summary in summaries] == [0, 0, 2]
    names = ("panoptic/train-00000000.png", "panoptic/train-00000001.png")
    assert [results("out")[name] for name in names] == [first[name] for name in names[::-1]]
    assert first[names[0]] != first[names[1]]


def test_a_member_without_a_time_is_as_old_as_its_archive(labeller, pictures):
    def write(content):
        with tarfile.open("a.tar", "w") as archive:
            member = tarfile.TarInfo("dog.bmp")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))

    (photo,) = write(pictures[0]) or find_photos(["a.tar"])
    assert label_photos(labeller, [photo], Path("out")).before == 0
    assert label_photos(labeller, [photo], Path("out")).before == 1
    write(pictures[1])
    assert len(pictures[0]) == len(pictures[1]) and label_photos(labeller, [photo], Path("out")).before == 0


def test_a_file_is_the_same_photo_by_its_path_and_by_its_address(labeller, pictures):
    """So it is done again when it changed, and not when it is named otherwise."""
    path, address = "a dog.bmp", Path("a dog.bmp").absolute().as_uri()
    Path(path).write_bytes(pictures[0])
    label_photos(labeller, [path], Path("out"))
    first = results("out")
    assert label_photos(labeller, [address], Path("out"), formats=["yolo"]).before == 1
    assert Path("out/yolo/images/a dog.bmp").read_bytes() == pictures[0]
    Path(path).write_bytes(pictures[1])
    assert label_photos(labeller, [address], Path("out")).before == 0
    assert results("out")["panoptic/a dog.png"] != first["panoptic/a dog.png"]
    assert label_photos(labeller, [path], Path("out")).before == 1


@pytest.fixture
def server(pictures):
    """Gives one picture to whoever asks first; by the path, later another one, too much, too late, or none."""
    asked = Counter()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            asked[self.path] += 1
            kind = Path(self.path).stem if asked[self.path] > 1 else ""
            if kind == "slow":
                time.sleep(3)
            self.send_response(404 if kind == "gone" else 200)
            self.end_headers()
            self.wfile.write(pictures[kind == "changed"] + bytes(20_000 * (kind == "large")))

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("named_by", ["call", "paths of a data set", "images of a data set"])
def test_copies_are_of_the_photos_that_were_segmented(checkpoint, pictures, server, named_by):
    """An address may hold another photo a second later; segments of the first are never put beside the second."""
    limited = Labeller(checkpoint, labels="house", threshold=0.0, timeout=1.5, max_download_bytes=10_000)
    addresses = [f"{server}/{kind}.bmp" for kind in ("same", "changed", "large", "slow", "gone")]
    photos, names, said = addresses, ["same", "changed", "large", "slow", "gone"], []
    if named_by != "call":
        feature = datasets.Image() if named_by.startswith("images") else datasets.Value("string")
        rows = [{"image": feature.encode_example(address)} for address in addresses]
        table = pyarrow.Table.from_pylist(rows, schema=datasets.Features(image=feature).arrow_schema)
        pyarrow.parquet.write_table(table, "rows.parquet")
        photos, names = DatasetPhotos("rows.parquet"), [f"train-{number:08}" for number in range(5)]
    summary = label_photos(
        limited, photos, Path("out"), formats=["yolo", "cvat"], report=lambda result: said.append(result.reason)
    )
    assert len(json.loads(Path("out/panoptic.json").read_text())["images"]) == 5
    assert [source for source, _ in summary.skipped] == [
        *(addresses[1:] if named_by == "call" else [f"rows.parquet/train/{number}" for number in range(1, 5)])
    ]
    says = ("has changed since it was segmented", "exceeds 10000 bytes", "within 1.5 seconds", "answered 404")
    for (_, reason), part in zip(summary.skipped, says, strict=True):
        assert part in reason and reason in said
    assert Path(f"out/yolo/images/{names[0]}.bmp").read_bytes() == pictures[0]
    assert [path.stem for path in Path("out/yolo/images").iterdir()] == names[:1]
    assert [path.stem for path in Path("out/yolo/labels").iterdir()] == names[:1]
    with zipfile.ZipFile("out/cvat.zip") as archive:
        task = ElementTree.fromstring(archive.read("annotations.xml"))
        assert archive.namelist() == [f"images/{names[0]}.bmp", "annotations.xml"]
    assert task.find("meta/task/size").text == "1" and len(task.findall("image")) == 1


def test_a_file_that_is_replaced_during_a_run_is_in_no_copy_until_it_is_segmented_again(labeller, pictures):
    photo, photos = Path("dog.bmp"), ["dog.bmp"]
    photo.write_bytes(pictures[0])

    def replace(result):
        if result.segmentation is not None:
            photo.write_bytes(pictures[1])

    summary = label_photos(labeller, photos, Path("out"), formats=["yolo"], report=replace)
    assert "dog.bmp has changed" in summary.skipped[0][1] and not list(Path("out/yolo/images").iterdir())
    assert label_photos(labeller, photos, Path("out"), formats=["yolo"]).skipped == []
    assert Path("out/yolo/images/dog.bmp").read_bytes() == pictures[1]


def test_results_of_versions_that_noted_no_digests_are_written_as_before(labeller, pictures):
    Path("dog.bmp").write_bytes(pictures[0])
    label_photos(labeller, ["dog.bmp"], Path("out"))
    journal = Path("out/journal.jsonl")
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert any(line.pop("sha256", None) for line in lines)
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    summary = label_photos(labeller, ["dog.bmp"], Path("out"), formats=["yolo"])
    assert summary.before == 1 and summary.skipped == []
    assert Path("out/yolo/images/dog.bmp").read_bytes() == pictures[0]


def test_archives_behind_addresses_have_limits(pictures):
    """Rows of images in such archives: what `datasets` hands on as an address of fsspec's."""
    with zipfile.ZipFile("photos.zip", "w") as archive:
        archive.writestr("dog.bmp", pictures[0])
    row = Row("rows/train/0", "train/0", "train-00000000", {"bytes": None, "path": "zip://dog.bmp::photos.zip"})
    assert row.read() == pictures[0]
    with pytest.raises(OSError, match="exceeds 100 bytes"):
        row.read(max_download_bytes=100)
    with pytest.raises(OSError, match="did not end within 1e-09 seconds"):
        row.read(timeout=1e-9)
