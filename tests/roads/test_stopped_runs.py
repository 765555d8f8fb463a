"""Runs that are stopped in the middle: what they leave is whole, and after Ctrl-C one line says where it is."""

import json
import signal
import subprocess
import time

import pytest
from transformers import pipeline

import fisa
from tests.roads.made_photos import write_label_maps
from tests.roads.walking import started, walk


def interruptible(*command, cwd):
    """A command in a process of its own, which Ctrl-C reaches as in a terminal."""
    return started(
        *command,
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def wait_for(folder, pattern):
    patience = time.monotonic() + 120
    while not list(folder.glob(pattern)) and time.monotonic() < patience:
        time.sleep(0.05)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_fisa_train_leaves_a_checkpoint_to_use_and_to_go_on_from(shipped, scene, tmp_path, kind):
    command = [
        "fisa-train", "--model", shipped, "--train_format", "label_maps", "--do_train", "--report_to", "none",
        "--train_data", write_label_maps(tmp_path / "photos"), "--output_dir", "adapter", "--use_cpu", "true",
        "--save_strategy", "steps", "--save_steps", 2,
    ]  # fmt: skip
    run = interruptible(*command, "--max_steps", 1000, cwd=tmp_path)
    wait_for(tmp_path, "adapter/checkpoint-4/trainer_state.json")
    run.send_signal(kind)
    _, printed = run.communicate(timeout=60)
    assert run.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in printed
    if kind == signal.SIGINT:
        (said,) = [line for line in printed.splitlines() if "stopped" in line]
        assert said.strip().endswith("is left: go on from it with --resume_from_checkpoint true")
    segmenter = pipeline(
        "image-segmentation", model=str(tmp_path / "adapter" / "checkpoint-4"), pipeline_class=fisa.FisaPipeline
    )
    assert {segment["label"] for segment in segmenter(scene, subtask="semantic")} <= {"sky", "car"}
    last = max(int(path.name.rpartition("-")[2]) for path in (tmp_path / "adapter").glob("checkpoint-*"))
    walk(*command, "--max_steps", last + 1, "--resume_from_checkpoint", "true", cwd=tmp_path)
    assert json.loads((tmp_path / "adapter" / "trainer_state.json").read_text())["global_step"] == last + 1


def test_a_stopped_fisa_segment_keeps_what_it_has_done(saved, scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    run = interruptible("fisa-segment", *["photo.png"] * 500, "--model", saved, "--labels", "bird", cwd=tmp_path)
    wait_for(tmp_path, "segments/panoptic/*.png")
    run.send_signal(signal.SIGINT)
    _, printed = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in printed and "stopped; what was done until then: segments/panoptic.json" in printed
    annotations = json.loads((tmp_path / "segments" / "panoptic.json").read_text())["annotations"]
    names = {entry["file_name"] for entry in annotations}
    assert names == {path.name for path in (tmp_path / "segments" / "panoptic").iterdir()}
    assert 1 <= len(names) < 500


def test_a_fisa_segment_that_is_stopped_while_it_loads_says_so_in_one_line(scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    run = interruptible("fisa-segment", "photo.png", "--labels", "bird", cwd=tmp_path)
    printed = ""
    while "Loading" not in printed:
        printed += run.stderr.read(1)
    run.send_signal(signal.SIGINT)
    printed += run.communicate(timeout=60)[1]
    assert run.returncode == 130
    assert "Traceback" not in printed and "stopped" in printed.splitlines()[-1]
