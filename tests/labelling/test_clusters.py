"""Rows from a local Ray of two workers: all are there, once, and equal, though one worker is killed in the middle."""

import os
import signal
import sys
from pathlib import Path

import pytest

from fisa.labelling import Labeller
from tests.drawn_picture import draw_picture


ray = pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills a process")

OPTIONS = {"labels": "house, tree [stuff]", "threshold": 0.0, "batch_size": 1}
PHOTOS, BATCH = 12, 2


class Mortal(Labeller):
    """Kills its own process at one photo, the first time that any worker meets it."""

    def __init__(self, *arguments, met, **options):
        super().__init__(*arguments, **options)
        self._met = met

    def __call__(self, rows):
        if any(Path(path).name == "5.png" for path in rows["image"]):
            try:
                os.close(os.open(self._met, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(rows)


@pytest.fixture
def cluster(tmp_path):
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}},
    )
    yield
    ray.shutdown()


def test_rows_of_two_workers_one_of_which_is_killed(cluster, checkpoint, tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(PHOTOS)]
    for number, path in enumerate(paths):
        draw_picture().rotate(10 * number).resize((120, 90)).save(path)
    met = tmp_path / "met"
    labelled = ray.data.from_items([{"image": path} for path in paths]).map_batches(
        Mortal,
        fn_constructor_args=[str(checkpoint)],
        fn_constructor_kwargs=OPTIONS | {"met": str(met)},
        batch_size=BATCH,
        concurrency=2,
    )
    rows = labelled.take_all()
    assert met.exists()
    assert sorted(row["image"] for row in rows) == sorted(paths)
    expected = Labeller(str(checkpoint), **OPTIONS)({"image": paths})
    labels = dict(zip(paths, expected["label"]))
    segments = dict(zip(paths, expected["segments_info"]))
    for row in rows:
        assert row["problem"] is None and row["label"] == labels[row["image"]]
        assert [info["category_id"] for info in row["segments_info"]] == [
            info["category_id"] for info in segments[row["image"]]
        ]
