"""Twenty kills in each stage of `fisa-segment` and ten of `fisa-train` lose nothing: `make test-kills`."""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from fisa.miniature import miniature
from tests.result_files import results
from tests.roads.killing import Forked, killed, open_files
from tests.roads.made_photos import write_label_maps
from tests.roads.walking import started, walk
from tests.training.runs import adapter, equal


pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc for what a process is at"),
]

PHOTOS, KILLS = 30, 20
WITHIN = {"reading": 0.01, "model": 0.2, "writing": 0.02, "assembling": 1.0, "saving": 0.1}  # seconds
SEGMENT = (
    "fisa-segment", "in", "--model", "model", "--labels", "house, tree", "--threshold", "0",
    "--format", "coco", "yolo", "parquet", "--output",
)  # fmt: skip
STEPS, KILLS_IN_TRAINING = 30, 10
TRAIN = (
    "fisa-train", "--model", "model", "--train_format", "label_maps", "--train_data", "labelled", "--do_train",
    "--use_cpu", "true", "--report_to", "none", "--max_steps", STEPS, "--save_strategy", "steps", "--save_steps", 1,
    "--save_total_limit", 3, "--resume_from_checkpoint", "true", "--output_dir",
)  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory, scene):
    """A small model, photos for either command, and what undisturbed runs make of them."""
    place = tmp_path_factory.mktemp("kills")
    for part in miniature():
        part.save_pretrained(place / "model")
    (place / "in").mkdir()
    for number in range(PHOTOS):
        scene.rotate(12 * number).resize((320, 240)).save(place / "in" / f"{number}.png")
    write_label_maps(place / "labelled")
    walk(*SEGMENT, "undisturbed", cwd=place)
    assert set(done(place / "undisturbed").values()) == {1}
    walk(*TRAIN, "undisturbed-adapter", cwd=place)
    return place


class Labelling:
    """A run of `fisa-segment`, started by the one that is given, and what it is at."""

    def __init__(self, place: Path, output: Path, *, start: Callable):
        self._photos, self._output = place / "in", output
        self._runs_before = self._runs()
        self.process = start(*SEGMENT, output.name, cwd=place)

    def loading(self) -> bool:
        return self._runs() == self._runs_before

    def reading(self) -> bool:
        return any(self._photos in path.parents for path in open_files(self.process))

    def model(self) -> bool:
        """Between reading and writing: the model, and all that is computed before and after it."""
        return self._is_labelling() and not self.reading() and not self._is_writing()

    def writing(self) -> bool:
        return self._is_labelling() and self._is_writing()

    def assembling(self) -> bool:
        """All photos are done, and the folder is still locked: `panoptic.json` and the other formats."""
        is_locked = self._output / "journal.lock" in open_files(self.process)
        return is_locked and not self.loading() and len(done(self._output)) == PHOTOS

    def _is_labelling(self) -> bool:
        return not self.loading() and len(done(self._output)) < PHOTOS

    def _is_writing(self) -> bool:
        return any(list(folder.glob("*.partial")) for folder in (self._output, self._output / "panoptic"))

    def _runs(self) -> int:
        return sum("run" in record for record in records(self._output))


def seconds_of_loading(place: Path) -> float:
    start = time.monotonic()
    run = Labelling(place, place / "loaded", start=started)
    while run.loading() and run.process.poll() is None:
        time.sleep(0.01)
    run.process.kill()
    run.process.wait()
    return time.monotonic() - start


def records(output: Path) -> list[dict]:
    journal = output / "journal.jsonl"
    lines = journal.read_bytes().split(b"\n")[:-1] if journal.exists() else []
    return [json.loads(line) for line in lines]


def done(output: Path) -> Counter[str]:
    """How often each photo was done."""
    return Counter(record["photo"] for record in records(output) if "stamp" in record)


@pytest.mark.parametrize("stage", ["loading", "reading", "model", "writing", "assembling"])
def test_kills_while_photos_are_labelled_lose_nothing_and_do_nothing_twice(place, stage):
    chance, whole = random.Random(stage), results(place / "undisturbed")
    kills = folders = redone = 0
    while kills < KILLS:
        folders += 1
        output = place / f"{stage}-{folders}"
        within = seconds_of_loading(place) if stage == "loading" else WITHIN[stage]
        for _ in range(KILLS - kills):
            before = done(output)
            run = Labelling(place, output, start=started if stage == "loading" else Forked)
            if not killed(run.process, getattr(run, stage), chance=chance, within=within):
                break
            kills += 1
            named = {path: content for path, content in results(output).items() if ".partial" not in path}
            assert named.items() <= whole.items()  # each file is whole
            assert before <= done(output)
        walk(*SEGMENT, output.name, cwd=place)
        assert results(output) == whole
        assert done(output) == done(place / "undisturbed")
        redone += sum("replaced" in record for record in records(output))
    print(f"{stage}: {kills} kills, {folders} folders, {redone} photos whose map was there and not yet in the journal")


def test_kills_while_checkpoints_are_saved_lose_nothing(place):
    chance = random.Random(0)
    kills = folders = 0
    while kills < KILLS_IN_TRAINING:
        folders += 1
        output = place / f"adapter-{folders}"
        for _ in range(KILLS_IN_TRAINING - kills):
            before = steps(output)
            run = Forked(*TRAIN, output.name, cwd=place)
            if not killed(run, partial(is_saving, output, after=before), chance=chance, within=WITHIN["saving"]):
                break
            kills += 1
        walk(*TRAIN, output.name, cwd=place)
        assert equal(adapter(output), adapter(place / "undisturbed-adapter"))
    print(f"saving: {kills} kills, {folders} folders")


def is_saving(output: Path, *, after: int) -> bool:
    return (output / ".checkpoint").exists() and steps(output) > after


def steps(output: Path) -> int:
    """How far the newest checkpoint is."""
    return max((int(path.name.rpartition("-")[2]) for path in output.glob("checkpoint-*")), default=0)
