"""The command that a person runs, run as a person would: files in, pictures and COCO panoptic files out."""

import json
import os
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import datasets
import numpy as np
import pytest
from PIL import Image
from transformers import pipeline

import fisa
from fisa.commands import segment
from fisa.miniature import miniature
from fisa.pretrained import patchwork
from fisa.processing.coco_panoptic import rgb_to_panoptic


LOOSE = ["--threshold", "0"]


@pytest.fixture
def folder(tmp_path, photo):
    """Three good photos and a broken one."""
    place = tmp_path / "photos"
    place.mkdir()
    for name in ("a.png", "b.png", "c.jpg"):
        photo.save(place / name)
    (place / "broken.jpg").write_bytes(b"no photo at all")
    return place


@pytest.fixture
def run(checkpoint, tmp_path):
    def run(*arguments) -> tuple[int, dict]:
        output = tmp_path / "out"
        status = segment.main([*map(str, arguments), "--model", str(checkpoint), "--output", str(output), *LOOSE])
        return status, json.loads((output / "panoptic.json").read_text())

    return run


def test_annotations_agree_with_their_panoptic_png(run, folder, tmp_path, photo):
    status, annotations = run(folder / "a.png", "--labels", "house, tree, grass")
    assert status == 0
    (entry,) = annotations["annotations"]
    ids = rgb_to_panoptic(np.asarray(Image.open(tmp_path / "out" / "panoptic" / entry["file_name"])))
    assert ids.shape == (photo.height, photo.width)
    assert {info["id"] for info in entry["segments_info"]} == set(np.unique(ids)) - {0}
    categories = {category["id"]: category for category in annotations["categories"]}
    assert [(c["name"], c["isthing"]) for c in categories.values()] == [("house", 1), ("tree", 0), ("grass", 0)]
    for info in entry["segments_info"]:
        rows, columns = np.nonzero(ids == info["id"])
        assert info["area"] == len(rows)
        corner = [columns.min(), rows.min()]
        assert info["bbox"] == [*corner, columns.max() - corner[0] + 1, rows.max() - corner[1] + 1]
        assert info["category_id"] in categories and info["iscrowd"] == 0


def test_coco_tools_read_the_result_back(run, folder, tmp_path):
    panoptic = pytest.importorskip("hotcoco.panoptic")
    run(folder / "a.png", folder / "c.jpg", "--labels", "house, tree")
    path = str(tmp_path / "out" / "panoptic.json")
    assert panoptic.pq_compute(path, path)["All"]["pq"] == 1.0


def test_broken_photo_is_reported_and_the_others_are_done(run, folder, tmp_path, capsys):
    status, annotations = run(folder, "--labels", "house")
    assert status == 1
    assert [image["file_name"].rpartition("/")[2] for image in annotations["images"]] == ["a.png", "b.png", "c.jpg"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.jpg")) == [
        "a_overlay.jpg",
        "b_overlay.jpg",
        "c_overlay.jpg",
    ]
    printed = capsys.readouterr()
    assert "broken.jpg" in printed.err
    assert all(f"{name} -> " in printed.out for name in ("a.png", "b.png", "c.jpg"))


def test_quiet_is_silent_but_for_what_is_left_out_and_why(run, folder, capfd):
    status, _ = run(folder, "--labels", "house", "--quiet", "--min-score", 1)
    printed = capfd.readouterr()
    assert status == 1 and printed.out == ""
    skipped, left_out = printed.err.splitlines()
    assert "broken.jpg' cannot be read as an image: it is in no image format" in skipped
    assert left_out == f"not segmented: {folder / 'broken.jpg'}"


def test_rows_that_cannot_be_read_are_named_beside_the_reason(run, tmp_path, photo, capsys):
    photo.save(tmp_path / "a.png")
    contents = [(tmp_path / "a.png").read_bytes(), b"no photo at all"]
    datasets.Dataset.from_dict({"image": contents}).to_parquet(tmp_path / "photos.parquet")
    status, _ = run("--dataset", tmp_path / "photos.parquet", "--labels", "house")
    assert status == 1
    assert f"skipped: {tmp_path}/photos.parquet/train/1: The file given as bytes" in capsys.readouterr().err


def test_missing_file_is_reported_and_the_others_are_done(run, folder, capsys):
    status, annotations = run(folder / "nothing.png", folder / "a.png", "--labels", "house")
    assert status == 1 and len(annotations["images"]) == 1
    assert "nothing.png" in capsys.readouterr().err


def test_patterns_and_equal_names_lose_nothing(run, folder, tmp_path):
    status, annotations = run(folder / "*.png", folder / "a.png", "--labels", "house")
    assert status == 0
    assert [entry["file_name"] for entry in annotations["annotations"]] == ["a.png", "b.png", "a-2.png"]


@pytest.mark.skipif(not hasattr(os, "O_DIRECTORY"), reason="folders are no files here")
def test_a_folder_that_cannot_be_searched_is_named_among_the_others(run, folder, tmp_path, capsys):
    """One so deep that its path is too long, which binds root as well."""
    os.chdir(folder)
    try:
        for _ in range(18):
            os.mkdir("x" * 240)
            os.chdir("x" * 240)
    finally:
        os.chdir(tmp_path)
    status, annotations = run(folder, "--recursive", "--labels", "house")
    assert status == 1 and len(annotations["images"]) == 3
    said = capsys.readouterr()
    assert "3 of 5 photos segmented" in said.out
    assert said.err.count("File name too long") == 1 and f"{'x' * 240}" in said.err.splitlines()[-1]


def test_urls_are_fetched(run, folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        host = f"http://127.0.0.1:{server.server_port}"
        status, annotations = run(f"{host}/a.png?size=large", f"{host}/none.png", "--labels", "house")
    finally:
        server.shutdown()
        server.server_close()
    assert status == 1
    assert [entry["file_name"] for entry in annotations["annotations"]] == ["a.png"]


def test_downloads_have_limits(run, folder, capsys):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/a.png"
    try:
        assert run(address, "--labels", "house", "--max-download-bytes", "100")[0] == 1
        assert "the download exceeds 100 bytes" in capsys.readouterr().err
        assert run(address, "--labels", "house", "--timeout", "0.000001")[0] == 1
        assert "within 1e-06 seconds" in capsys.readouterr().err
    finally:
        server.shutdown()
        server.server_close()


def test_overlays_are_left_out_or_pngs_where_asked(run, folder, tmp_path, capsys):
    run(folder / "a.png", "--labels", "house", "--no-overlay")
    map_path = tmp_path / "out" / "panoptic" / "a.png"
    assert f"a.png -> {map_path}\n" in capsys.readouterr().out
    assert not list((tmp_path / "out").glob("*overlay*"))
    run(folder / "a.png", "--labels", "house", "--overlay-format", "png")
    assert Image.open(tmp_path / "out" / "a_overlay.png").format == "PNG"
    with pytest.raises(SystemExit):
        run(folder / "a.png", "--no-overlay", "--overlay-format", "png")


@pytest.mark.parametrize("subtask", ["panoptic", "instance", "semantic"])
def test_every_subtask_writes_results(run, folder, tmp_path, subtask):
    status, annotations = run(folder / "a.png", "--labels", "house, tree [thing]", "--subtask", subtask)
    assert status == 0 and annotations["annotations"][0]["segments_info"]
    overlay = Image.open(tmp_path / "out" / "a_overlay.jpg")
    assert overlay.width >= 640 and overlay.height >= 480


def test_stored_vocabulary_serves_without_labels(run, folder):
    _, annotations = run(folder / "a.png")
    assert [category["name"] for category in annotations["categories"]] == ["dog", "sky", "car"]


def test_stored_vocabulary_is_not_encoded_anew(photo, tmp_path):
    model, processor = miniature()
    model.set_vocabulary(processor, ["dog", "car"])
    model.fisa.class_embeds.neg_()  # embeddings that no words would give
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    photo.save(tmp_path / "a.png")
    output = tmp_path / "out"
    segment.main([str(tmp_path / "a.png"), "--model", str(tmp_path), "--output", str(output), *LOOSE])
    (entry,) = json.loads((output / "panoptic.json").read_text())["annotations"]
    segments = pipeline("image-segmentation", model=str(tmp_path), pipeline_class=fisa.FisaPipeline)(
        photo, threshold=0.0
    )
    assert [info["score"] for info in entry["segments_info"]] == [item["score"] for item in segments]


def test_encoded_labels_are_kept_for_the_next_run(run, folder, tmp_path):
    arguments = [folder / "a.png", "--labels", "house, tree", "--overwrite"]
    _, wanted = run(*arguments)
    for _ in range(2):
        assert run(*arguments, "--text-cache", tmp_path / "texts") == (0, wanted)
        assert len(list((tmp_path / "texts").rglob("*.safetensors"))) == 1


def test_labels_files(run, folder, tmp_path):
    (tmp_path / "words.txt").write_text("house, hut  # a comment\nmeadow [stuff]\n")
    _, annotations = run(folder / "a.png", "--labels-file", tmp_path / "words.txt")
    assert [(c["name"], c["isthing"]) for c in annotations["categories"]] == [("house", 1), ("meadow", 0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "dog, dog"], "dog"),
        (["--labels-file", "missing.txt"], "missing.txt"),
        (["--labels", "dog", "--dtype", "int4"], "int4"),
        (["--labels", "dog", "--threshold", "2"], "2 is not a number between 0 and 1"),
    ],
)
def test_wrong_arguments_end_with_status_2_and_say_why(run, folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        run(folder / "a.png", *arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_folder_without_photos_is_an_error(run, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, "--labels", "dog")
    assert stop.value.code == 2
    assert "no photo found there" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed"])
def test_half_precision(run, folder, dtype):
    status, _ = run(folder / "a.png", "--labels", "house", "--dtype", dtype)
    assert status == 0


def test_the_model_that_ships_runs_in_the_precision_that_is_asked_for(tmp_path):
    command = [str(patchwork.SCENES / "easy.jpg"), "--labels", "bird", "--output", str(tmp_path), "--dtype"]
    for dtype in ("bfloat16", "float32"):
        assert segment.main([*command, dtype, "--overwrite"]) == 0
        settings = json.loads((tmp_path / "journal.jsonl").read_text().splitlines()[0])["settings"]
        assert settings["dtype"].startswith(f"torch.{dtype}")


def test_help_as_a_script_has_examples():
    done = subprocess.run([sys.executable, segment.__file__, "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "examples:" in done.stdout and "--labels" in done.stdout


def test_zoom_is_that_of_the_pipeline(tmp_path, capsys):
    scene, printed = patchwork.SCENES / "shifted.jpg", {}
    model, processor = patchwork.load()
    segmenter = pipeline("image-segmentation", model, processor=processor, pipeline_class=fisa.FisaPipeline)
    for zoom in (0, 4):
        assert segment.main([str(scene), "--zoom", str(zoom), "--output", str(tmp_path), "--overwrite"]) == 0
        printed[zoom] = capsys.readouterr().out
        for found in segmenter(str(scene), zoom=zoom):
            assert f"{found['label']:<24} {found['score']:5.2f}" in printed[zoom]
    assert printed[0] != printed[4]


def test_zoom_below_zero_is_a_wrong_argument(run, folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(folder / "a.png", "--zoom", "-1")
    assert stopped.value.code == 2 and "-1 is not a whole number, 0 or more" in capsys.readouterr().err
