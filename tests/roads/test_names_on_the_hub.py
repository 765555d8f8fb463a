"""A model's name that nothing can be loaded by: status 2 and one line, without a minute of trying again."""

import pytest

from tests.roads.made_hub import cached, write_clip
from tests.roads.walking import walk


COMMANDS = {
    "fisa-segment": ("photo.png", "--labels", "dog", "--output", "results", "--model"),
    "fisa-export": ("--output", "results"),
    "fisa-train": (
        "--do_train", "--train_format", "label_maps", "--train_data", "photos", "--output_dir", "results", "--model",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_a_name_without_a_model(tmp_path, command):
    # Nothing listens on port 9 of this machine: trying again would take 23 seconds per file, and several files.
    unreachable = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    output = walk(command, *COMMANDS[command], "nobody/nothing", cwd=tmp_path, status=2, timeout=60, **unreachable)
    *_, last = output.strip().splitlines()
    assert "nobody/nothing is not a folder" in last and "the Hub cannot be reached" in last
    assert "Retrying" not in output and not (tmp_path / "results").exists()


def test_a_name_of_another_kind_of_model(tmp_path, photo):
    photo.save(tmp_path / "photo.png")
    write_clip(cached(tmp_path / "home" / "hub", "some/clip"))
    model = ("fisa-segment", *COMMANDS["fisa-segment"], "some/clip")
    output = walk(*model, cwd=tmp_path, status=2, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "home"))
    assert "some/clip is a model of type 'clip', not of FISA" in output.strip().splitlines()[-1]
    assert not (tmp_path / "results").exists()
