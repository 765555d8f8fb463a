"""The study's arithmetic, and that a run is made once."""

import json
from pathlib import Path

import pytest

from fisa import train
from fisa.pretrained.patchwork import CHECKPOINT
from fisa.studies.patchwork.dataset import PACK
from fisa.studies.patchwork.reproduce import (
    METHODS,
    SHOWN,
    Study,
    as_flags,
    figures,
    gains,
    gathered,
    interval,
    table,
    tables,
)
from fisa.studies.patchwork.words import SEEN, WORDS


def test_the_interval_is_student_s():
    mean, half = interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.302653 * 1 / 3**0.5)


def test_seen_and_unseen_words_are_averaged_apart():
    per_class = {word.name: {"pq": 80.0 if word.is_seen else 40.0, "iou": 60.0} for word in WORDS}
    per_class[WORDS[0].name] = {"pq": None, "iou": None}  # not there
    whole = {"pq": 64.0, "sq": 80.0, "rq": 80.0}
    found = figures(
        {
            "panoptic": {"all": whole, "things": whole, "stuff": whole, "per_class": per_class},
            "semantic": {"miou": 60.0, "pixel_accuracy": 90.0, "per_class": per_class},
        }
    )
    assert found["pq_seen"] == 80 and found["pq_unseen"] == 40 and found["miou_unseen"] == 60 and found["pq"] == 64
    assert WORDS[0].name in SEEN


def test_a_table_has_intervals_where_there_are_several_runs():
    rows = {"one run": {"pq": [60.0]}, "three": gathered([{"pq": 1.0}, {"pq": 2.0}, {"pq": 3.0}])}
    assert table(rows, ("pq", "ap")).splitlines()[2:] == ["| one run | 60.0 |  |", "| three | 2.0 ± 2.5 |  |"]


def test_the_study_s_page_has_the_tables_of_the_recorded_runs():
    docs = Path(__file__).parents[3] / "docs"
    printed = tables(json.loads((docs / "results.json").read_text(encoding="utf-8")))
    page = (docs / "study.md").read_text(encoding="utf-8")
    rows = [
        line.split(" | ")[1 : len(SHOWN) + 1] for line in printed.splitlines() if "±" in line and "over" not in line
    ]
    assert len(rows) >= 6
    assert all(" | ".join(row) in page for row in rows)


def test_gains_are_differences_seed_by_seed():
    rows = {
        "frozen": dict.fromkeys(SHOWN, [10.0]),
        "simo": dict.fromkeys(SHOWN, [12.0, 15.0]),
        "fisa": dict.fromkeys(SHOWN, [13.0, 14.0]),
    }
    found = [row["pq_unseen"] for row in gains(rows).values()]
    assert found == [[2.0, 5.0], [3.0, 4.0], [1.0, -1.0]]
    assert gains({"frozen": rows["frozen"]}) == {}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_flags_are_train_s_own(method, tmp_path, capsys):
    """Parsed by `train.py` itself, up to the point where it misses the data."""
    flags = {"model": CHECKPOINT, "output_dir": tmp_path, "do_train": "true", "use_cpu": "true"}
    with pytest.raises(SystemExit):
        train.train_and_evaluate(as_flags(flags | METHODS[method].flags))
    assert "--train_format" in capsys.readouterr().err


def test_what_is_there_is_not_run_again(tmp_path, monkeypatch):
    study = Study(tmp_path, num_seeds=1, num_scenes=4)
    assert study.data("validation") == PACK
    folder = tmp_path / "done"
    folder.mkdir()
    zeros = {"pq": 0.0, "sq": 0.0, "rq": 0.0, "iou": 0.0}
    per_class = {"dog": zeros, "ant": zeros}
    (folder / "metrics.json").write_text(
        json.dumps({"panoptic": {"all": zeros, "per_class": per_class}, "semantic": {"per_class": per_class}})
    )
    monkeypatch.setattr(train, "main", lambda flags: pytest.fail("it was run again"))
    assert study.evaluation(folder, "validation", METHODS["frozen"], weights={})["pq"] == 0


def test_gains_of_classes_are_means_over_the_seeds_from_gain_to_loss(tmp_path):
    ious = {"simo": [{"dog": 10.0, "ant": 30.0}] * 2, "fisa": [{"dog": 20.0, "ant": 30.0}, {"dog": 40.0, "ant": 20.0}]}
    for method, runs in ious.items():
        for seed, values in enumerate(runs):
            folder = tmp_path / method / str(seed) / "zoom-0" / "test" / "none"
            folder.mkdir(parents=True)
            never_there = {"bat": None, "bee": 0.0 if seed == 0 else None}
            per_class = {name: {"iou": value} for name, value in (values | never_there).items()}
            (folder / "metrics.json").write_text(json.dumps({"semantic": {"per_class": per_class}}))
    study = Study(tmp_path, num_seeds=2, num_scenes=4)
    assert study.class_gains("test", over="simo", of="fisa") == [("dog", 20.0), ("ant", -5.0)]
