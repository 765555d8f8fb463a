"""The processes of a run, as `accelerate launch` and `torchrun` start them."""

import atexit
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist
from transformers.utils import logging as transformers_logging


T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """How many there are, and which one this is.

    They exchange what there is to do at the start, and nothing more: each works at its own speed.

    Example:

    ```python
    >>> Processes.started().from_main(lambda: 3)
    3
    ```
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def started(cls) -> "Processes":
        """Those that a launcher started; one, if there was none."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that says what there is to do, and puts the results together."""
        return self.rank == 0

    @contextmanager
    def warned_once(self) -> Iterator[None]:
        """A block that all processes run alike: what it warns of, and its progress, is the main process's to show."""
        if self.is_main:
            yield
            return
        with errors_only():
            yield

    def from_main(self, make: Callable[[], T]) -> T:
        """What the main process makes, in all of them.

        Raises:
            OSError, ValueError: whatever the main process met with, in all of them too.
        """
        made: list[Any] = [None]
        if self.is_main:
            try:
                made = [make()]
            except (OSError, ValueError) as error:
                made = [error]
        if self.count > 1:
            _join()
            dist.broadcast_object_list(made)
        if isinstance(made[0], OSError | ValueError):
            raise made[0]
        return made[0]


@contextmanager
def errors_only() -> Iterator[None]:
    """A block without warnings and transformers' progress bars.

    Example:

    ```python
    >>> with errors_only():
    ...     warnings.warn("nobody hears this")
    ```
    """
    before, had_bars = logging.root.manager.disable, transformers_logging.is_progress_bar_enabled()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        if had_bars:
            transformers_logging.enable_progress_bar()


def _join() -> None:
    """Let the processes talk, until they end: a second group would find the addresses that the first one has left."""
    if not dist.is_initialized():
        dist.init_process_group("gloo")
        atexit.register(dist.destroy_process_group)
