"""Ctrl-C in the middle of a folder: the results until then are whole, and one line says where they are."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def test_a_stopped_fisa_segment_keeps_what_it_has_done(saved, scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    run = subprocess.Popen(
        [Path(sys.executable).with_name("fisa-segment"), *["photo.png"] * 500, "--model", saved, "--labels", "bird"],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    patience = time.monotonic() + 120
    while not list(tmp_path.glob("segments/panoptic/*.png")) and time.monotonic() < patience:
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, printed = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Traceback" not in printed and "stopped; what was done until then: segments/panoptic.json" in printed
    annotations = json.loads((tmp_path / "segments" / "panoptic.json").read_text())["annotations"]
    names = {entry["file_name"] for entry in annotations}
    assert names == {path.name for path in (tmp_path / "segments" / "panoptic").iterdir()}
    assert 1 <= len(names) < 500
