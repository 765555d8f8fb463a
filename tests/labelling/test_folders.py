"""Folders of results: whatever stopped a run, the next one ends with the files of an undisturbed run."""

import json
import os
import shutil
import threading
import zipfile
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fisa.labelling import Labeller
from fisa.labelling.data_sets import DatasetPhotos
from fisa.labelling.folders import label_photos
from fisa.labelling.overlays import write_overlay
from fisa.labelling.photo_search import PhotoKey, find_photos
from fisa.labelling.result_folder import ResultFolder, Task
from fisa.processing.segmentation import Segmentation
from tests.drawn_picture import draw_picture
from tests.result_files import results


LABELS = "house, tree [stuff], grass [stuff]"


@pytest.fixture(scope="module")
def labeller(checkpoint):
    return Labeller(checkpoint, labels=LABELS, threshold=0.0, batch_size=2)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Six photos and one that is none; names that are alike among them."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a.png", "b.png", "deep/a.png", "photo[1].png", "e.png", "f.png"]):
        Path(name).parent.mkdir(exist_ok=True)
        draw_picture().rotate(10 * number).resize((120, 90)).save(name)
    Path("d.png").write_bytes(b"no photo")
    return ["a.png", "b.png", "deep/a.png", "d.png", "photo[1].png", "e.png", "f.png"]


@pytest.fixture
def undisturbed(labeller, photos):
    label_photos(labeller, photos, Path("undisturbed"))
    return results("undisturbed")


def written(folder):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob("*.??g")}


def test_what_is_written(labeller, photos, undisturbed):
    content = json.loads(undisturbed["panoptic.json"])
    assert [image["file_name"] for image in content["images"]] == [name for name in photos if name != "d.png"]
    assert [image["id"] for image in content["images"]] == [1, 2, 3, 4, 5, 6]
    assert undisturbed.keys() == {"panoptic.json"} | {
        name
        for entry in content["annotations"]
        for name in (f"panoptic/{entry['file_name']}", f"{Path(entry['file_name']).stem}_overlay.jpg")
    }
    again = label_photos(labeller, photos, Path("undisturbed"))
    assert (again.photos, again.before, again.done) == (7, 6, 6)
    [(source, reason)] = again.skipped
    assert source == "d.png" and "cannot be read" in reason


@pytest.mark.parametrize("step", ["write_map", "write_overlay", "append"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_run_that_broke_off_goes_on(labeller, photos, undisturbed, monkeypatch, step, count):
    """As a full disk does it, in each of the steps that write."""
    calls = []

    def failing(original):
        def call(*arguments, **options):
            calls.append(arguments)
            if len(calls) > count:
                raise OSError(28, "No space left on device")
            return original(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        from fisa.labelling import journal, result_folder

        place = journal.Journal if step == "append" else result_folder
        patch.setattr(place, step, failing(getattr(place, step)))
        with pytest.raises(OSError, match="No space left"):
            label_photos(labeller, photos, Path("out"))
    partial = results("out").get("panoptic.json", b'{"annotations": []}')
    before = written("out")
    maps = {entry["file_name"] for entry in json.loads(partial)["annotations"]}
    assert len(maps) < 6 and all((Path("out/panoptic") / name).exists() for name in maps)
    summary = label_photos(labeller, photos, Path("out"))
    assert summary.before == len(maps)
    assert results("out") == undisturbed
    after = written("out")
    assert sum(after[path] == time for path, time in before.items()) >= 2 * len(maps)


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_what_ctrl_c_meets_while_a_thread_starts_is_waited_for(labeller, photos, undisturbed, monkeypatch, nth):
    """Python signals the main thread between any two steps, also where it has just begun another thread."""
    start, begun = threading.Thread.start, []

    def start_and_be_stopped(thread):
        start(thread)
        if thread.name.startswith("ThreadPoolExecutor"):
            begun.append(thread)
            if len(begun) == nth:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", start_and_be_stopped)
        label_photos(labeller, photos, Path("stopped"))
    at_the_end = results("stopped")
    for thread in begun:
        thread.join()
    assert results("stopped") == at_the_end
    annotations = json.loads(Path("stopped/panoptic.json").read_text())["annotations"]
    assert {entry["file_name"] for entry in annotations} == {path.name for path in Path("stopped/panoptic").iterdir()}
    label_photos(labeller, photos, Path("stopped"))
    assert results("stopped") == undisturbed


def test_a_data_set_keeps_what_is_done_behind_the_row_at_which_a_run_is_stopped(labeller, photos):
    features = datasets.Features({"image": datasets.Image()})
    files = [{"bytes": Path(photo).read_bytes(), "path": None} for photo in photos]
    datasets.Dataset.from_dict({"image": files}, features).to_parquet("photos.parquet")
    label_photos(labeller, DatasetPhotos("photos.parquet"), Path("undisturbed"))

    def annotations(folder):
        return json.loads(Path(folder, "panoptic.json").read_text())

    def stop_at(number):
        class Stopped(DatasetPhotos):
            def __iter__(self):
                yield from islice(super().__iter__(), number)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            label_photos(labeller, Stopped("photos.parquet"), Path("out"))
        return annotations("out")

    until = stop_at(5)
    assert until["images"] == annotations("undisturbed")["images"][:4]
    assert stop_at(2) == until
    label_photos(labeller, DatasetPhotos("photos.parquet"), Path("out"))
    assert results("out") == results("undisturbed")
    assert stop_at(0) == annotations("undisturbed")
    datasets.Dataset.from_dict({"image": files[:2]}, features).to_parquet("photos.parquet")
    assert label_photos(labeller, DatasetPhotos("photos.parquet"), Path("out")).done == 2
    assert annotations("out")["images"] == until["images"][:2]


def test_the_order_of_the_photos_and_what_was_done_before_change_no_file(labeller, photos, undisturbed):
    label_photos(labeller, photos[:2], Path("out"))
    label_photos(labeller, photos[::-1], Path("out"))
    label_photos(labeller, photos, Path("out"))
    assert results("out") == undisturbed


def test_a_photo_that_changed_is_done_again_and_one_that_went_is_not_listed(labeller, photos, undisturbed):
    shutil.copy("f.png", "a.png")
    os.utime("a.png", (1, 1))
    os.remove("b.png")
    summary = label_photos(labeller, photos, Path("undisturbed"))
    content = json.loads(Path("undisturbed/panoptic.json").read_text())
    names = [image["file_name"] for image in content["images"]]
    assert names == ["a.png", "deep/a.png", "photo[1].png", "e.png", "f.png"] and summary.done == 5
    assert results("undisturbed")["panoptic/a.png"] == undisturbed["panoptic/f.png"]


@pytest.mark.parametrize("broke_off", [None, "write_overlay", "append"])
def test_a_photo_that_is_as_it_was_before_is_done_again(labeller, photos, undisturbed, monkeypatch, broke_off):
    """Also where the run in between had written its map and nothing else."""
    shutil.copy2("a.png", "kept.png")
    shutil.copy("f.png", "a.png")
    with monkeypatch.context() as patch:
        from fisa.labelling import journal, result_folder

        place = journal.Journal if broke_off == "append" else result_folder
        map_written, original = [], result_folder.write_map

        def write_map(path, ids):
            original(path, ids)
            map_written.append(path)

        def failing(write):
            def call(*arguments, **options):
                if map_written:
                    raise OSError(28, "No space left on device")
                return write(*arguments, **options)

            return call

        patch.setattr(result_folder, "write_map", write_map)
        if broke_off:
            patch.setattr(place, broke_off, failing(getattr(place, broke_off)))
            with pytest.raises(OSError, match="No space left"):
                label_photos(labeller, photos, Path("undisturbed"))
        else:
            label_photos(labeller, photos, Path("undisturbed"))
    assert results("undisturbed")["panoptic/a.png"] != undisturbed["panoptic/a.png"]
    shutil.copy2("kept.png", "a.png")
    assert label_photos(labeller, photos, Path("undisturbed")).before == 5
    assert results("undisturbed") == undisturbed
    assert label_photos(labeller, photos, Path("undisturbed")).before == 6


def test_results_that_were_deleted_are_made_again(labeller, photos, undisturbed):
    os.remove("undisturbed/a_overlay.jpg")
    os.remove("undisturbed/panoptic/b.png")
    os.remove("undisturbed/panoptic.json")
    assert label_photos(labeller, photos, Path("undisturbed")).before == 4
    assert results("undisturbed") == undisturbed


def test_overlays_are_jpgs_pngs_or_none(labeller, photos, undisturbed):
    """They are no setting: the results in a folder stay, and what is asked for is there in the end."""
    annotations = {name: content for name, content in undisturbed.items() if "overlay" not in name}
    label_photos(labeller, photos, Path("out"), overlay_format=None)
    assert results("out") == annotations
    Image.new("RGB", (2, 2)).save("out/a_overlay.png")  # somebody's own
    assert label_photos(labeller, photos, Path("out")).before == 0
    assert results("out").keys() == undisturbed.keys() | {"a_overlay.png"}
    os.remove("out/a_overlay.png")
    assert label_photos(labeller, photos, Path("out"), overlay_format="png").before == 0
    found = results("out")
    assert found.keys() == {name.replace("overlay.jpg", "overlay.png") for name in undisturbed}
    with Image.open("out/a_overlay.png") as drawn, Image.open("undisturbed/a_overlay.jpg") as encoded:
        difference = np.abs(np.asarray(drawn).astype(int) - np.asarray(encoded.convert("RGB")))
    assert 0 < difference.mean() < 3
    assert label_photos(labeller, photos, Path("out"), overlay_format=None).before == 6
    assert results("out") == found  # they are still right
    shutil.copy("f.png", "a.png")
    os.utime("a.png", (1, 1))
    label_photos(labeller, photos, Path("out"), overlay_format=None)
    assert found.keys() - results("out").keys() == {"a_overlay.png"}  # it would be of the photo as it was


def test_a_photo_longer_than_a_jpeg_can_be_has_an_overlay(tmp_path):
    size = (70_000, 4)
    nothing = Segmentation.from_map(torch.zeros(size[::-1], dtype=torch.int32), labels=[])
    write_overlay(tmp_path / "long_overlay.jpg", Image.new("RGB", size), nothing)
    with Image.open(tmp_path / "long_overlay.jpg") as picture:
        assert picture.width == 65_500


def test_other_settings_are_refused_by_name_and_replaced_on_demand(labeller, checkpoint, photos, undisturbed):
    other = Labeller(checkpoint, labels="house, sky", threshold=0.5, batch_size=2)
    Path("undisturbed/mine.txt").write_text("")
    with pytest.raises(ValueError, match="labels: house, tree, grass, now house, sky; threshold: 0.0, now 0.5"):
        label_photos(other, photos, Path("undisturbed"))
    assert results("undisturbed") == undisturbed | {"mine.txt": b""}
    synonym = Labeller(checkpoint, labels={"house": ["hut"], "tree": [], "grass": []}, threshold=0.0)
    with pytest.raises(ValueError, match=r"labels: .*'synonyms': \[\].*, now .*'synonyms': \['hut'\]"):
        label_photos(synonym, photos, Path("undisturbed"))
    alone = Labeller(checkpoint, labels="house, tree, grass", threshold=0.0, others=None)
    with pytest.raises(ValueError, match=r"others: not set, now none\)"):
        label_photos(alone, photos, Path("undisturbed"))
    label_photos(other, ["a.png"], Path("undisturbed"), overwrite=True)
    assert results("undisturbed").keys() == {"a_overlay.jpg", "panoptic/a.png", "panoptic.json", "mine.txt"}
    label_photos(labeller, photos, Path("undisturbed"), overwrite=True)
    assert results("undisturbed") == undisturbed | {"mine.txt": b""}


def test_of_long_lists_of_words_the_refusal_shows_where_they_differ(checkpoint, photos):
    words = [f"word {number}" for number in range(40)]
    label_photos(Labeller(checkpoint, labels=words, others=None), ["a.png"], Path("long"))
    for other, now in ((words[:30], "word 29"), ([*words[:30], "sky", *words[31:]], "sky")):
        with pytest.raises(ValueError, match=f"labels: .*word 30.*, now .*{now}.*; name another"):
            label_photos(Labeller(checkpoint, labels=other, others=None), ["a.png"], Path("long"))


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_a_later_version_is_refused_by_name_and_kept(labeller, photos, overwrite):
    label_photos(labeller, photos, Path("out"))
    journal = Path("out/journal.jsonl")
    journal.write_text(journal.read_text().replace('"format": 1', '"format": 2', 1))
    before = results("out"), journal.read_text()
    with pytest.raises(ValueError, match=r"out was written by a later version of FISA .*format 2.*--output"):
        label_photos(labeller, photos, Path("out"), overwrite=overwrite)
    assert (results("out"), journal.read_text()) == before


def test_formats_go_with_the_results_they_were_made_of(labeller, checkpoint, photos, undisturbed):
    Path("undisturbed/segments.jsonl").write_text("mine")
    label_photos(labeller, photos, Path("undisturbed"), formats=["coco", "yolo"])
    made = {"instances.json", "yolo"}
    assert made <= {path.name for path in Path("undisturbed").iterdir()}
    label_photos(Labeller(checkpoint, labels="sky"), ["a.png"], Path("undisturbed"), overwrite=True)
    left = {path.name for path in Path("undisturbed").iterdir()}
    assert not made & left and Path("undisturbed/segments.jsonl").read_text() == "mine"


def test_files_that_no_run_wrote_are_never_replaced_without_a_word(labeller, photos):
    Path("out/panoptic").mkdir(parents=True)
    own = [Path(f"out/{name}") for name in ("panoptic.json", "panoptic/a.png", "a_overlay.jpg", "instances.json")]
    for path in own:
        path.write_text("mine")
    for path in own[:2]:
        with pytest.raises(ValueError, match="out holds a panoptic.json or maps, and no journal"):
            label_photos(labeller, photos, Path("out"))
        path.unlink()
    with pytest.raises(ValueError, match="instances.json was not made by fisa-segment"):
        label_photos(labeller, photos, Path("out"), formats=["coco"])
    summary = label_photos(labeller, photos, Path("out"))
    assert summary.before == 0 and dict(summary.skipped)["a.png"].startswith("out/a_overlay.jpg was not made by")
    assert [path.read_text() for path in own[2:]] == ["mine"] * 2
    for path in own[2:]:
        path.unlink()
    assert label_photos(labeller, photos, Path("out"), formats=["coco"]).done == 6


@pytest.mark.parametrize("overwrite", [False, True])
def test_other_files_in_the_folder_of_a_format_are_kept(labeller, photos, overwrite):
    label_photos(labeller, photos[:2], Path("out"), formats=["yolo"])
    mine, before = Path("out/yolo/runs/best.pt"), results("out")
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(ValueError, match="holds other files .runs/best.pt."):
        label_photos(labeller, photos, Path("out"), formats=["yolo"], overwrite=overwrite)
    assert mine.read_text() == "mine" and before.items() <= results("out").items()


def test_a_photo_whose_results_and_file_are_gone_is_not_done(labeller, photos):
    label_photos(labeller, photos[:2], Path("out"))
    Path("out/panoptic/a.png").unlink()
    Path("a.png").unlink()
    address = Path("a.png").absolute().as_uri()
    summary = label_photos(labeller, [address, "b.png"], Path("out"), formats=["coco"])
    assert (summary.done, summary.before) == (1, 1) and [source for source, _ in summary.skipped] == [address]
    assert [image["file_name"] for image in json.loads(results("out")["panoptic.json"])["images"]] == ["b.png"]


def test_results_that_go_in_part_are_still_somebodys(labeller, photos, monkeypatch):
    label_photos(labeller, photos[:2], Path("out"))
    other = ResultFolder(Path("out"), labeller.categories, rank=1)
    other.journal.append({"run": 1})
    other.journal.close()

    def unlink_and_stop(path, unlink=Path.unlink, **options):
        unlink(path, **options)
        if path.suffix == ".jsonl":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Path, "unlink", unlink_and_stop)
        label_photos(labeller, photos[:2], Path("out"), overwrite=True)
    assert Path("out/journal.jsonl").exists() and not Path("out/journal-1.jsonl").exists()


@pytest.mark.parametrize("folder", ["out/panoptic", "out/yolo/images", "out/yolo"])
def test_results_are_no_photos_from_inside_either(labeller, photos, monkeypatch, folder):
    label_photos(labeller, photos[:2], Path("out"), formats=["yolo"])
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="no photo found there"):
        find_photos(["."], recursive=True)


def test_a_format_that_cannot_be_written_is_refused_before_any_photo_is_read(labeller, photos):
    with pytest.raises(ValueError, match="no format 'voc'"):
        label_photos(labeller, photos, Path("out"), formats=["coco", "voc"])
    assert not Path("out").exists()


def test_a_photo_is_left_out_for_the_reason_of_the_last_run_whoever_made_it(tmp_path):
    first, second = ResultFolder(tmp_path, []), ResultFolder(tmp_path, [], rank=1)
    task = Task("a.jpg", PhotoKey("../a.jpg"), None, "a")
    with first.locked():
        first.begin({}, overwrite=False)
        second.journal.append({"run": 1})
        second.skip(task, "there was no such file")
        for run in (1, 2):
            first.journal.append({"run": run})
        first.skip(task, "it is cut off")
        assert first.skipped([task]) == [("a.jpg", "it is cut off")]


def test_a_second_run_at_once_is_refused_by_name(labeller, photos):
    with ResultFolder(Path("out"), []).locked(), pytest.raises(ValueError, match="out is being written to by another"):
        label_photos(labeller, photos, Path("out"))
    assert label_photos(labeller, photos, Path("out")).done == 6


def test_whatever_a_photo_breaks_the_others_are_done(labeller, photos, undisturbed, monkeypatch):
    from fisa.labelling import result_folder

    draw = result_folder.write_overlay

    def breaking(path, photo, segmentation, **options):
        if breaking.again:
            breaking.again = False
            raise ZeroDivisionError("a bug of some library")
        return draw(path, photo, segmentation, **options)

    breaking.again = True
    monkeypatch.setattr(result_folder, "write_overlay", breaking)
    reasons = [reason for _, reason in label_photos(labeller, photos, Path("out")).skipped]
    assert len(reasons) == 2 and "ZeroDivisionError: a bug of some library" in reasons
    assert label_photos(labeller, photos, Path("out")).done == 6
    assert results("out") == undisturbed


def test_a_photo_that_vanishes_during_a_run_is_left_out_of_the_copies_and_named(labeller, photos):
    formats, said = ("yolo", "parquet", "label-studio", "cvat"), []

    def vanish(result):
        said.append((result.source, result.reason))
        if result.source == "a.png" and result.segmentation is not None:
            Path("a.png").unlink()

    summary = label_photos(labeller, photos, Path("out"), formats=formats, report=vanish)
    reasons = dict(summary.skipped)
    assert reasons.keys() == {"a.png", "d.png"} and summary.done == 5
    assert "a.png" in reasons["a.png"] and ("a.png", reasons["a.png"]) in said
    others = [name for name in photos if name not in reasons]
    assert len(json.loads(Path("out/panoptic.json").read_text())["images"]) == 6
    assert len(list(Path("out/yolo/images").iterdir())) == len(list(Path("out/yolo/labels").iterdir())) == len(others)
    assert len(datasets.load_dataset("out/parquet", split="train", cache_dir="cache")) == len(others)
    assert len(json.loads(Path("out/label_studio/tasks.json").read_text())) == len(others)
    with zipfile.ZipFile("out/cvat.zip") as archive:
        annotations = ElementTree.fromstring(archive.read("annotations.xml"))
        assert len(archive.namelist()) == len(others) + 1
    assert len(annotations.findall("image")) == int(annotations.find("meta/task/size").text) == len(others)
