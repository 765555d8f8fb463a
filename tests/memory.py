"""The most memory that a piece of work takes, whatever its process has held before."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


CLEAR_REFS = Path("/proc/self/clear_refs")

needs_peaks = pytest.mark.skipif(
    not CLEAR_REFS.exists(), reason="only Linux tells the peak of a process's memory and forgets it"
)


def megabytes(field: str) -> float:
    """Memory of this process: `VmRSS` in use, `VmHWM` at most since `CLEAR_REFS` was written to."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


@contextmanager
def taking_less_than(most: float) -> Iterator[None]:
    """Fail where the process holds `most` megabytes more at one moment than before it, if its system tells."""
    if not CLEAR_REFS.exists():
        yield
        return
    CLEAR_REFS.write_text("5")
    before = megabytes("VmRSS")
    yield
    assert megabytes("VmHWM") - before < most
