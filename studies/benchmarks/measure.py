"""What benchmarks share: paired timings, and the machine that they were made on."""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode


def paired_medians(
    sides: Mapping[str, Callable[[], Any]], *, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each side. They take turns, so that what disturbs the machine disturbs all of them.

    Args:
        clock: seconds since some moment; `time.process_time` leaves out what other processes take.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for run in sides.values():
        run()
    for _ in range(rounds):
        for name, run in sides.items():
            started = clock()
            run()
            seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of matrix products, convolutions and attention, as PyTorch counts them."""
    # The counter does not know the CPU's fused attention: it counts the products that attention is made of.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def peak_bytes(run: Callable[[], Any]) -> int:
    """The most that one run holds at once in tensors that it has made, on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
            run()
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    return max(event["args"]["Total Allocated"] for event in events if event["name"] == "[memory]")


def highest_memory() -> int:
    """The most bytes of memory that this process has had resident so far."""
    if sys.platform == "linux":  # where `getrusage` counts what the process that started this one had
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine() -> dict[str, Any]:
    """Threads and versions of libraries."""
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
