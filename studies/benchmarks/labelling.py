"""A folder by cores, processes and batch sizes: `python -m fisa.studies.benchmarks.labelling [--quick]`.

What `fisa-segment` does with a folder, pictures and files written, with Mask2Former Swin-T at 384 pixels and CLIP
ViT-B/16, random weights at the public shapes, beside the model alone on as many cores. The cases take turns. Each is
started anew, on as many cores as it says, and loading is not counted. Prints a JSON line for each. Needs Linux and two
cores with nothing else to do.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from fisa.labelling.folders import label_photos
from fisa.labelling.labeller import Labeller
from fisa.labelling.photo_search import find_photos
from fisa.labelling.processes import Processes
from fisa.studies.benchmarks.end_to_end import inputs, model_and_processor, write_album
from fisa.studies.benchmarks.measure import machine


class Case(NamedTuple):
    """What labels the folder, and on how many cores."""

    cores: int
    processes: int = 1
    batch_size: int | None = None
    """`None`: the model alone, a photo after the other."""


OVERLAP = 0.05  # random masks overlap everywhere: by default none is left, by this about nine
ALONE = {cores: Case(cores) for cores in (1, 2)}
ONE = Case(1, batch_size=1)
TWO = (Case(2, batch_size=1), Case(2, batch_size=2), Case(2, batch_size=4), Case(2, processes=2, batch_size=2))
CASES = (ALONE[1], ONE, Case(1, batch_size=2), ALONE[2], *TWO)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.labelling", description=__doc__)
    parser.add_argument("--photos", type=int, default=12, help="photos in the folder (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timings of each case (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="four photos, once")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    photos, rounds = (4, 1) if options.quick else (options.photos, options.rounds)
    if options.place:
        print(json.dumps({"seconds": own_share(options.place, photos, batch_size=options.batch_size)}), flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        torch.manual_seed(0)
        model, processor = model_and_processor()
        processor.image_processor.overlap_mask_area_threshold = OVERLAP
        for part in (model, processor):
            part.save_pretrained(place / "model")
        write_album(place / "album", photos)
        timings = [{case: launched(case, place, photos) for case in CASES} for _ in range(rounds)]
    seconds = {case: statistics.median(timing[case] for timing in timings) for case in CASES}
    for case in CASES:
        alone = seconds[ALONE[case.cores]]
        line = case._asdict() | {"photos": photos, "seconds": seconds[case], "model_seconds": alone}
        line |= {"throughput": alone / seconds[case], "times_one_core": seconds[ONE] / seconds[case]}
        print(json.dumps({"benchmark": "labelling"} | line | machine() | {"threads": _threads(case)}), flush=True)


def launched(case: Case, place: Path, photos: int) -> float:
    """Seconds of a case, whose processes share its cores evenly."""
    shutil.rmtree(place / "found", ignore_errors=True)
    cores = sorted(os.sched_getaffinity(0))[: case.cores]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={case.processes}"]
    job = ["-m", "fisa.studies.benchmarks.labelling", f"--photos={photos}", f"--place={place}"]
    if case.batch_size is not None:
        job.append(f"--batch-size={case.batch_size}")
    done = subprocess.run(
        [sys.executable, *(launcher if case.processes > 1 else []), *job],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(_threads(case)), "HF_HUB_OFFLINE": "1"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return max(json.loads(line)["seconds"] for line in done.stdout.splitlines())


def _threads(case: Case) -> int:
    return case.cores // case.processes


def own_share(place: Path, photos: int, *, batch_size: int | None) -> float:
    """Seconds until all photos are done, in the first process, or until this process' share is; without loading."""
    labeller = Labeller(place / "model", batch_size=batch_size)
    model, photo = labeller.pipeline.model, inputs()
    with torch.no_grad():
        model(**photo)
    if batch_size is None:
        started = time.perf_counter()
        with torch.no_grad():
            for _ in range(photos):
                model(**photo)
        return time.perf_counter() - started
    processes = Processes.started()
    processes.from_main(lambda: None)  # all have loaded
    album = find_photos([str(place / "album")])
    summary = label_photos(labeller, album, place / "found", show_progress=False)
    return 0.0 if summary is None else summary.seconds


if __name__ == "__main__":
    main()
