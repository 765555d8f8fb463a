"""Files that are complete or absent, whenever a process is stopped; digests that follow the weights alone."""

import os
import resource
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from fisa.processing.files import (
    PARTIAL,
    name_fields,
    name_of,
    remove_leftovers,
    weights_digest,
    write_picture,
    write_unless_edited,
    write_whole,
    written_whole,
)


def test_an_error_leaves_what_was_there_before(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, "é")
    with pytest.raises(KeyboardInterrupt), written_whole(path) as aside:
        aside.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "é" and list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_the_file_of_before(tmp_path):
    path = tmp_path / "report.json"
    write_whole(path, "before")
    code = (
        "import os, signal, sys\nfrom fisa.processing.files import written_whole\n"
        "with written_whole(sys.argv[1]) as aside:\n"
        "    aside.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)]).returncode == -signal.SIGKILL
    (leftover,) = tmp_path.glob(f"*{PARTIAL}")
    assert path.read_text() == "before"
    remove_leftovers(tmp_path)
    assert leftover.exists()  # it may be another process's that is still at work
    os.utime(leftover, (0, 0))
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_killed_processes_left_are_removed_too(tmp_path):
    leftover = tmp_path / f"yolo.{'0' * 32}{PARTIAL}"
    (leftover / "images").mkdir(parents=True)
    remove_leftovers(tmp_path, older_than=-1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_pictures_are_whole_or_an_error_says_why(tmp_path, format):
    picture = Image.effect_noise((300, 200), 50)
    write_picture(tmp_path / "whole", picture, format=format)
    size = (tmp_path / "whole").stat().st_size

    def little_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    code = (
        "import sys\nfrom PIL import Image\nfrom fisa.processing.files import write_picture\n"
        "write_picture('part', Image.open(sys.argv[1]), format=sys.argv[2], quality=100)"
    )
    command = [sys.executable, "-c", code, "whole", format]
    run = subprocess.run(command, cwd=tmp_path, preexec_fn=little_room, capture_output=True, text=True)
    assert run.returncode and "File too large" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_folder_too_is_complete_or_absent(tmp_path):
    folder = tmp_path / "scenes"
    with written_whole(folder) as aside:
        aside.mkdir()
        (aside / "a").write_text("a")
        assert not folder.exists()
    assert (folder / "a").read_text() == "a" and list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("name", "spelt"),
    [
        (b"caf\xc3\xa9 %E9.png", "café %E9.png"),
        (b"caf\xe9 %41.png", "caf%DCE9 %41.png"),
        (b"tar://\xff.png::a b/\xe9.tar", "tar://%DCFF.png::a b/%DCE9.tar"),
    ],
)
def test_names_are_text_and_lead_back_to_the_bytes(name, spelt):
    fields = name_fields("photo", os.fsdecode(name))
    assert fields["photo"] == spelt and "".join(fields.values()).encode()
    assert os.fsencode(name_of(fields, "photo")) == name


def test_every_weight_type_and_description_makes_another_digest():
    one = torch.ones(2, 3)
    digests = {
        weights_digest(description, [(name, weight)])
        for description in ({}, {"a": 1})
        for name in ("x", "y")
        for weight in (one, one * 2, one.bfloat16(), one.view(3, 2), torch.tensor(1.0), torch.ones(0))
    }
    assert len(digests) == 24
    strided = torch.ones(3, 2).T
    assert weights_digest({}, [("x", strided)]) == weights_digest({}, [("x", one)])


def test_a_text_with_any_line_ends_is_known_again(tmp_path):
    card = tmp_path / "README.md"
    for text in ("one\r\ntwo", "three"):
        write_unless_edited(card, text)
        assert card.read_text().startswith(text.replace("\r\n", "\n"))
