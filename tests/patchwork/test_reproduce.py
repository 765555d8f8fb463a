"""The study's arithmetic, and that a run is made once."""

import json

import pytest

from fisa import train
from fisa.patchwork.dataset import PACK
from fisa.patchwork.reproduce import METHODS, Study, as_flags, figures, gathered, interval, table
from fisa.patchwork.words import SEEN, WORDS


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
    rows = {"one run": {"pq": [60.0]}, "three": gathered(iter([{"pq": 1.0}, {"pq": 2.0}, {"pq": 3.0}]))}
    assert table(rows, ("pq", "ap")).splitlines()[2:] == ["| one run | 60.0 |  |", "| three | 2.0 ± 2.5 |  |"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_s_flags_are_train_s_own(method, tmp_path, capsys):
    """Parsed by `train.py` itself, up to the point where it misses the data."""
    flags = {"model": "x", "output_dir": tmp_path, "do_train": "true", "use_cpu": "true"} | METHODS[method].flags
    with pytest.raises(SystemExit):
        train.main(as_flags(flags))
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
