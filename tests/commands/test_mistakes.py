"""Mistakes on the command line: status 2 and one line that names what to change, whichever command it is."""

import json
import re
import shutil
import socket
from pathlib import Path

import pytest

from fisa import app, train
from fisa.commands import demo, export, segment


TRAINING = ("--train_format", "label_maps", "--train_data", "photos", "--do_train", "--use_cpu")
COMMANDS = {
    "fisa-segment": (segment.main, ["photo.png", "--labels", "dog"], "--output"),
    "fisa-export": (export.main, ["--labels", "dog"], "--output"),
    "fisa-train": (train.main, list(TRAINING), "--output_dir"),
}
PROGRESS = re.compile(r"^$|it/s\]")  # of weights
MODELS = {
    "no/such/folder": "not a folder, a name that the Hub could know",
    "a folder with no model": "no file named config.json or adapter_config.json",
    "a file": "name the folder of a model",
    "a model of another kind": "'clip'",
    "a config cut short": "cannot be read",
    "processor settings that are none": "processor_config.json",
    "weights cut short": "weights",
}


@pytest.fixture
def place(tmp_path, monkeypatch, photo, checkpoint):
    """A working directory with a photo, a file and models that are none."""
    monkeypatch.chdir(tmp_path)
    photo.save(tmp_path / "photo.png")
    for kind in ("images", "labels"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        photo.convert("L").point(lambda value: 0).save(tmp_path / "photos" / kind / "one.png")
    (tmp_path / "photos" / "classes.txt").write_text("sky\n")
    (tmp_path / "a file").write_text("x")
    (tmp_path / "a folder with no model").mkdir()
    for name, content in (
        ("a model of another kind", json.dumps({"model_type": "clip"})),
        ("a config cut short", "{"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
    settings = shutil.copytree(checkpoint, tmp_path / "processor settings that are none") / "processor_config.json"
    settings.write_text("[]")
    weights = shutil.copytree(checkpoint, tmp_path / "weights cut short") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    return tmp_path


def refusal(command, arguments, capsys) -> str:
    """What a command says on ending with status 2."""
    with pytest.raises(SystemExit) as stop:
        command(list(map(str, arguments)))
    assert stop.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not PROGRESS.search(line)]
    assert len(lines) == 1 and ": error: " in lines[0]
    return lines[0]


def with_model(name, model) -> list[str]:
    return [model] if name == "fisa-export" else ["--model", model]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_no_model(place, capsys, name, model):
    command, arguments, output = COMMANDS[name]
    message = refusal(command, [*with_model(name, model), *arguments, output, "results"], capsys)
    if model != "weights cut short":
        assert MODELS[model] in message
    assert not (place / "results").exists()


def test_a_page_that_cannot_be_served(place, checkpoint, capsys):
    pytest.importorskip("gradio", reason="the page needs Gradio, the extra `app`")
    assert "weights cut short are damaged" in refusal(app.main, ["--model", "weights cut short"], capsys)
    assert "70000 is not a port" in refusal(app.main, ["--port", "70000"], capsys)
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        assert port in refusal(app.main, ["--model", checkpoint, "--port", port], capsys)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_is_a_file_or_lies_in_one(place, checkpoint, capsys, name):
    command, arguments, output = COMMANDS[name]
    for folder in ("a file", "a file/results"):
        message = refusal(command, [*with_model(name, str(checkpoint)), *arguments, output, folder], capsys)
        assert "a file is a file" in message and "folder" in message


@pytest.mark.parametrize("cache", ["a file", "a file/cache"])
def test_a_proposal_cache_that_is_a_file_or_lies_in_one(place, checkpoint, capsys, cache):
    options = ["--model", checkpoint, *TRAINING, "--output_dir", "results", "--proposal_cache", cache]
    message = refusal(train.main, options, capsys)
    assert "a file is a file; name a folder" in message
    assert (place / "a file").read_text() == "x" and not (place / "results").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, where nobody can make a folder")
@pytest.mark.parametrize("name", [*COMMANDS, "fisa-demo"])
def test_an_output_that_nothing_can_be_written_to(place, checkpoint, capsys, name):
    if name == "fisa-demo":
        message = refusal(demo.main, ["--output", "/proc/results"], capsys)
    else:
        command, arguments, output = COMMANDS[name]
        arguments = [*with_model(name, str(checkpoint)), *arguments, output, "/proc/results"]
        message = refusal(command, arguments, capsys)
    assert "/proc/results cannot be written to" in message


def test_photos_of_which_none_is_there(place, checkpoint, capsys):
    options = ["--labels", "dog", "--output", "results", "--model", checkpoint]
    assert "one.png, two.png: no such file" in refusal(segment.main, ["one.png", "two.png", *options], capsys)
    assert not (place / "results").exists()


@pytest.mark.parametrize("font", ["a file", "a folder with no model", "Comic Sans"])
def test_fonts_that_are_none(place, checkpoint, capsys, font):
    message = refusal(segment.main, ["photo.png", "--model", checkpoint, "--font", font], capsys)
    assert f"{font}: no font file that can be read" in message and "name a .ttf or .otf" in message


@pytest.mark.parametrize("flag", ["--timeout", "--max-download-bytes"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_limits_that_are_none(place, checkpoint, capsys, flag, value):
    message = refusal(segment.main, ["photo.png", "--model", checkpoint, f"{flag}={value}"], capsys)
    assert flag in message and value in message


@pytest.mark.parametrize("command", [segment.main, export.main])
@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        ("--others", "everyday", '"everyday" is neither auto nor none'),
        ("--others", "Known", "neither auto nor none"),
        ("--others", "missing.txt", "missing.txt: no such file. Name a .txt or .json file"),
        ("--others", "missing.csv", "a .txt or a .json file, found '.csv'"),
        ("--others", "photos.txt", "photos.txt: that is a folder. Name"),
        ("--others", "", "name at least one class"),
        ("--others", "cat, cat", 'already in class "cat"'),
        ("--labels-file", "missing.txt", "missing.txt: no such file. Name a .txt or .json file"),
        ("--labels", "words.txt", "give files to --labels-file"),
        ("--labels", "dog,,cat", "empty name"),
    ],
)
def test_words_that_are_none(place, checkpoint, capsys, command, flag, value, said):
    (place / "photos.txt").mkdir()
    model = with_model("fisa-export" if command is export.main else "fisa-segment", checkpoint)
    photos = ["photo.png"] if command is segment.main else []
    message = refusal(command, [*photos, *model, flag, value, "--output", "results"], capsys)
    assert f"argument {flag}: " in message and said in message
    assert "`" not in message and "Errno" not in message and not (place / "results").exists()


def test_words_that_read_like_something_else_and_have_a_kind(place, checkpoint):
    words = ["--labels", "a.csv [thing]", "--others", "everyday [thing]"]
    assert segment.main(["photo.png", "--model", str(checkpoint), *words, "--output", "results"]) == 0
    [category] = json.loads((place / "results" / "panoptic.json").read_text())["categories"]
    assert category["name"] == "a.csv"


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--min-score", "no"), ("--threshold", "1.5"), ("--zoom", "many"), ("--zoom", "-1"), ("--batch-size", "0")],
)
def test_numbers_that_are_none(place, checkpoint, capsys, flag, value):
    message = refusal(segment.main, ["photo.png", "--model", checkpoint, f"{flag}={value}"], capsys)
    assert f"argument {flag}: {value} is not a " in message


@pytest.mark.parametrize("device", ["cuda:99", "meta", "toaster"])
def test_a_device_that_is_not_here(place, checkpoint, capsys, device):
    options = ["--labels", "dog", "--output", "results", "--model", checkpoint, "--device", device]
    assert f"{device} cannot be used here" in refusal(segment.main, ["photo.png", *options], capsys)
    assert not (place / "results").exists()


def test_recipes_that_are_none(place, capsys):
    (place / "broken.yaml").write_text("model: [\n")
    (place / "list.yaml").write_text("- model\n")
    for recipe, named in (("broken.yaml", "broken.yaml"), ("list.yaml", "mapping"), ("coco", "coco_panoptic")):
        assert named in refusal(train.main, [recipe, "--output_dir", "results"], capsys)


@pytest.mark.parametrize("name", ["photo[1].png", "..png", "x" * 240 + ".png", "a%20b #1.png", "café ☃.png"])
def test_file_names_of_real_life(tmp_path, checkpoint, photo, name):
    photo.save(tmp_path / name, "PNG")
    output = tmp_path / "out"
    arguments = [str(tmp_path / name), "--labels", "house", "--model", str(checkpoint), "--output", str(output)]
    assert segment.main(arguments) == 0
    assert len(list(output.glob("*_overlay.jpg"))) == 1
    [entry] = json.loads((output / "panoptic.json").read_text())["annotations"]
    assert (output / "panoptic" / entry["file_name"]).exists()


def test_a_name_that_begins_with_a_dash_follows_two(tmp_path, checkpoint, photo, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo.save("-dash.png")
    assert segment.main(["--labels", "house", "--model", str(checkpoint), "--output", "out", "--", "-dash.png"]) == 0
    assert (tmp_path / "out" / "-dash_overlay.jpg").exists()
