"""Photos that changed between two runs, however a call names them: none keeps the results of another."""

import base64
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from fisa.labelling import Labeller
from fisa.labelling.data_sets import DatasetPhotos
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
