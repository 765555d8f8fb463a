"""What large jobs cost, on paper and checked here: `python -m fisa.studies.benchmarks.scaling [--quick]`.

A job is a number of photos, each of which needs something of every resource: operations of the processors that run the
model, seconds of the cores beside them, bytes of the disk and of the network. They work at the same time, so the
resource that needs longest decides how long the job takes: it is the first bottleneck. Prints a table
for COCO's training and for labelling a million photos, on three machines; then what the same arithmetic predicts for
a small job on this machine from one size, and what one process and two take for it at two sizes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass

import torch
from accelerate import PartialState

from fisa.studies.benchmarks.end_to_end import PHOTO, model_and_processor
from fisa.studies.benchmarks.measure import flops, machine


@dataclass(frozen=True)
class Job:
    """What is to be done, and what each photo needs.

    Attributes:
        photos: how many.
        operations: floating-point operations of the model.
        half: whether they may be done in bfloat16.
        host_seconds: of one core: reading, resizing, and what follows the model.
        disk_bytes: read and written.
        network_bytes: sent by each device, gradients among them.
    """

    name: str
    photos: int
    operations: float
    half: bool
    host_seconds: float
    disk_bytes: float
    network_bytes: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What there is of each resource.

    Attributes:
        float32, bfloat16: operations per second, of all devices together.
        cores: beside the devices. On a machine without devices the model runs on them, and nothing else does then.
        disk, network: bytes per second; the network's of each device.
    """

    name: str
    float32: float
    bfloat16: float
    cores: int
    devices: int
    disk: float
    network: float


# Counted by benchmarks.recipe_cost (CLIP ViT-L/14-336, Mask2Former Swin-L); seconds measured on a core of an AMD EPYC.
GENERATOR, CLASSIFIER, TRAINING_STEP = 1.66e12, 0.48e12, 0.82e12
READING, RESULTS = 0.04, 0.22
JPEG_BYTES, CACHE_BYTES, RESULT_BYTES = 160e3, 8e3, 20e3
ADAPTER_BYTES, PHOTOS_A_STEP = 2e8, 16

JOBS = (
    Job("fill the cache of COCO train2017", 2 * 118_287, GENERATOR, False, READING, JPEG_BYTES + CACHE_BYTES),
    Job(
        "train on it, 320,000 photos",
        320_000,
        TRAINING_STEP,
        True,
        READING,
        JPEG_BYTES + CACHE_BYTES,
        2 * ADAPTER_BYTES / PHOTOS_A_STEP,
    ),
    Job(
        "label a million photos",
        1_000_000,
        GENERATOR + CLASSIFIER,
        True,
        READING + RESULTS,
        JPEG_BYTES + RESULT_BYTES,
    ),
)
MACHINES = (
    Machine("16 CPU cores", 16 * 60e9, 16 * 60e9, 16, 0, 1e9, 1e9),
    Machine("1 GPU, 12 cores", 10e12, 80e12, 12, 1, 1e9, 1e9),
    Machine("64 GPUs, 768 cores", 64 * 10e12, 64 * 80e12, 64 * 12, 64, 5e9, 12e9),
)


def hours(job: Job, machine: Machine) -> dict[str, float]:
    """Hours that each resource needs."""
    model = job.photos * job.operations / (machine.bfloat16 if job.half else machine.float32)
    host = job.photos * job.host_seconds / machine.cores
    seconds = {"model": model, "host": host, "disk": job.photos * job.disk_bytes / machine.disk}
    if machine.devices > 1:
        seconds["network"] = job.photos / machine.devices * job.network_bytes / machine.network
    if not machine.devices:  # the cores do both in turn
        seconds["model"] += seconds.pop("host")
    return {resource: value / 3600 for resource, value in seconds.items()}


def table() -> str:
    """Hours of each job on each machine, and what needs them, in Markdown."""
    lines = ["| job | machine | hours | first bottleneck | next |", "|---|---|---:|---|---|"]
    for job in JOBS:
        for computer in MACHINES:
            (first, most), (second, less), *_ = sorted(hours(job, computer).items(), key=lambda item: -item[1])
            lines.append(f"| {job.name} | {computer.name} | {most:,.2f} | {first} | {second}, {less:,.2f} h |")
    return "\n".join(lines)


SIZES, PROCESSES = (256, 384), (1, 2)


def main() -> None:
    """Print the table, predict and measure."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.scaling", description=__doc__)
    parser.add_argument("--photos", type=int, default=16, help="photos of the small job (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="two photos")
    parser.add_argument("--share-of", type=int, metavar="SIZE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    photos = 2 if options.quick else options.photos
    if options.share_of:
        label(photos, size=options.share_of)
        return
    print(table())
    operations = {size: operations_of_a_photo(size) for size in SIZES}
    measured = {
        (processes, size): launched(photos, size=size, processes=processes)
        for processes in PROCESSES
        for size in SIZES
    }
    speed = photos * operations[SIZES[0]] / measured[PROCESSES[0], SIZES[0]]
    for (processes, size), seconds in measured.items():
        predicted = photos * operations[size] / (processes * speed)
        line = {"processes": processes, "canvas": size, "photos": photos, "seconds": seconds, "predicted": predicted}
        line |= {"ratio": seconds / predicted, "gigaflops": operations[size] / 1e9}
        print(json.dumps({"benchmark": "scaling"} | line | machine() | {"threads": 1}), flush=True)


@torch.no_grad()
def operations_of_a_photo(size: int) -> int:
    model, _ = model_and_processor()
    photo = photos_of_noise(1, size=size)
    return flops(lambda: model(**photo))


def photos_of_noise(count: int, *, size: int) -> dict[str, torch.Tensor]:
    """This many photos as the model takes them, on a canvas of this many pixels per side for the generator."""
    return {
        "pixel_values": torch.randn(count, 3, 224, 224),
        "mask_generator_pixel_values": torch.randn(count, 3, size, size),
    }


def launched(photos: int, *, size: int, processes: int) -> float:
    """Seconds that this many processes of one thread, started as `accelerate launch` starts them, take for a job."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    job = ["-m", "fisa.studies.benchmarks.scaling", f"--photos={photos}", f"--share-of={size}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher, *job], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


@torch.no_grad()
def label(photos: int, *, size: int) -> None:
    """Segment this process' share of the photos; the first process prints the seconds until all are through."""
    torch.set_num_threads(1)
    state = PartialState(cpu=True)
    model, processor = model_and_processor()
    batch = photos_of_noise(1, size=size)

    def segment() -> None:
        processor.post_process_panoptic_segmentation(model(**batch), target_sizes=[PHOTO])

    segment()
    state.wait_for_everyone()
    started = time.perf_counter()
    with state.split_between_processes(list(range(photos))) as share:
        for _ in share:
            segment()
    state.wait_for_everyone()
    if state.is_main_process:
        print(json.dumps({"seconds": time.perf_counter() - started}))
    state.destroy_process_group()


if __name__ == "__main__":
    main()
