"""What the roads share: commands run in a fresh process, away from the checkout, by the names that users type."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def walk(*command, cwd: Path, status: int = 0, timeout: float = 300, **environment: str) -> str:
    """Run a command on one thread and offline; returns what it printed, standard output first.

    A command that the package installs goes by its name alone; `python` is the one that runs the tests.

    Args:
        command: its parts.
        cwd: where it runs.
        status: the exit status that is right.
        timeout: in seconds.
        environment: further variables.
    """
    name, *arguments = map(str, command)
    program = sys.executable if name == "python" else Path(sys.executable).with_name(name)
    result = subprocess.run(
        [str(program), *arguments],
        cwd=cwd,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
        | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    said = result.stdout + result.stderr
    assert result.returncode == status, f"{name} ended with {result.returncode} instead of {status}:\n{said[-3000:]}"
    assert "Traceback" not in said, said[-3000:]
    return said


def started(*command, cwd: Path, **options) -> subprocess.Popen:
    """Start a command as [`walk`] runs it, and return its process.

    Args:
        command, cwd: as for [`walk`].
        options: of `subprocess.Popen`; what the command prints is thrown away where they do not say.
    """
    name, *arguments = map(str, command)
    return subprocess.Popen(
        [Path(sys.executable).with_name(name), *arguments],
        cwd=cwd,
        env=os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL} | options,
    )


def refused(main: Callable, *arguments, cwd: Path) -> str:
    """What a command says, in this process, of arguments that it ends with status 2 for.

    Args:
        main: of the command.
        arguments: its arguments.
        cwd: where it runs.
    """
    said = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stderr(said), pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    assert stop.value.code == 2
    return said.getvalue()
