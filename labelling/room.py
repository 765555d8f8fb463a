"""How many photos the model has at once, which halves when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

import torch


class Room:
    """Room for a number of calls of the model at once, each with a stack of photos.

    Args:
        calls (`int`): calls at once.
        stack (`int`): photos in a call.

    Example:

    ```python
    >>> room = Room(calls=4, stack=1)
    >>> with room.taken() as stack:
    ...     room.halve(), room.calls
    (True, 2)
    ```
    """

    def __init__(self, *, calls: int, stack: int):
        self.calls, self.stack = calls, stack
        self._taken = 0
        self._change = Condition()

    @contextmanager
    def taken(self) -> Iterator[int]:
        """Wait for a place; gives the number of photos that a call may have now."""
        with self._change:
            self._change.wait_for(lambda: self._taken < self.calls)
            self._taken += 1
            stack = self.stack
        try:
            yield stack
        finally:
            with self._change:
                self._taken -= 1
                self._change.notify_all()

    def halve(self) -> bool:
        """Make stacks half as large or, where they hold one photo, calls half as many; `False` if one photo is all."""
        with self._change:
            if self.stack > 1:
                self.stack //= 2
            elif self.calls > 1:
                self.calls //= 2
            else:
                return False
        torch.cuda.empty_cache()  # does nothing without CUDA
        return True
