"""Kills commands in the middle of what they are at, as seen from outside."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path


BETWEEN_LOOKS = 0.001  # seconds


class Forked:
    """A command in a process that starts quickly: a fork of one that has the package imported, and has computed
    nothing, since PyTorch's threads do not outlive a fork. What it prints is thrown away.

    Args:
        command: its parts, the first being the name of one of the package's commands.
        cwd: where it runs.
    """

    _processes = multiprocessing.get_context("forkserver")
    _processes.set_forkserver_preload(["fisa.commands.segment", "fisa.train"])

    def __init__(self, *command, cwd: Path):
        self._process = self._processes.Process(target=_run, args=(list(map(str, command)), cwd))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.join()


def _run(command: list[str], cwd: Path) -> None:
    import torch

    torch.set_num_threads(1)
    os.chdir(cwd)
    with open(os.devnull, "w") as nowhere:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere.fileno(), stream.fileno())
    (entry,) = entry_points(group="console_scripts", name=command[0])
    sys.argv = command
    sys.exit(entry.load()())


def killed(
    run: subprocess.Popen | Forked, is_at_it: Callable[[], bool], *, chance: random.Random, within: float
) -> bool:
    """Kill a process at a random moment of a stage of its work; `False` if it ended before.

    It is stopped before the last look, so that the kill meets it where it was seen.

    Args:
        run: the process.
        is_at_it: whether it is in the stage.
        chance: draws the moment.
        within: seconds after the process was first seen there, at most.
    """
    while run.poll() is None:
        if not is_at_it():
            time.sleep(BETWEEN_LOOKS)
            continue
        time.sleep(chance.uniform(0, within))
        with suppress(ProcessLookupError):  # it has ended
            os.kill(run.pid, signal.SIGSTOP)
            time.sleep(BETWEEN_LOOKS)  # all of its threads obey at once
            if is_at_it() and run.poll() is None:
                run.kill()
                run.wait()
                return True
            os.kill(run.pid, signal.SIGCONT)
    return False


def open_files(run: subprocess.Popen | Forked) -> set[Path]:
    """What a process has open, as Linux tells it; nothing if it has ended."""
    opened = set()
    with suppress(OSError):  # closed meanwhile: what was seen until then
        for link in Path(f"/proc/{run.pid}/fd").iterdir():
            opened.add(link.readlink())
    return opened
