"""What an objectness floor saves and costs in Patchwork:
`python -m fisa.studies.benchmarks.objectness_floor [--quick]`.

The shipped model and adapter, evaluated with the generator's unlikely proposals left out before they are classified.
Prints a JSON line for each floor: PQ, mIoU and mask AP in percent, and how many of its proposals a scene keeps, as
the mean over the scenes of `validation`.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import torch

from fisa.pretrained import patchwork
from fisa.studies.benchmarks.measure import machine
from fisa.studies.patchwork.dataset import load_patchwork
from fisa.studies.patchwork.reproduce import Method, Study


FLOORS = (0.0, 0.3, 0.4)


def main() -> None:
    """Evaluate at each floor and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.objectness_floor", description=__doc__)
    parser.add_argument("--scenes", type=int, default=1000, help="scenes of the test split (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="the scenes of `validation`, which ship")
    options = parser.parse_args()
    split = "validation" if options.quick else "test"
    objectness = objectness_of_proposals()
    with tempfile.TemporaryDirectory() as folder:
        study = Study(Path(folder), num_seeds=1, num_scenes=options.scenes)
        for floor in FLOORS:
            method = Method("", {"fisa_config": json.dumps({"objectness_floor": floor})})
            adapter = {"adapter": patchwork.ADAPTER}
            with contextlib.redirect_stdout(io.StringIO()):  # the evaluation prints a table of its own
                figures = study.evaluation(study.folder / str(floor), split, method, weights=adapter)
            line = {"benchmark": "objectness_floor", "split": split, "floor": floor}
            line |= {name: figures[name] for name in ("pq", "miou", "ap")}
            line |= {"kept": (objectness >= floor).sum(dim=1).float().mean().item(), "of": objectness.shape[1]}
            print(json.dumps(line | machine()), flush=True)


@torch.no_grad()
def objectness_of_proposals() -> torch.Tensor:
    """Of all proposals of the scenes that ship, `(num_scenes, num_proposals)`."""
    model, processor = patchwork.load()
    photos = load_patchwork("validation")["image"]
    return model(**processor(images=list(photos), return_tensors="pt")).objectness


if __name__ == "__main__":
    main()
