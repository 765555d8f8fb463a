"""Proof that code is silent: no Python warning and nothing that transformers logs as one."""

import contextlib
import logging
import warnings
from collections.abc import Iterator

from transformers.utils import logging as transformers_logging


class _Raise(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise AssertionError(f"logged: {record.getMessage()}")


@contextlib.contextmanager
def raising_on_any_warning() -> Iterator[None]:
    """Turns warnings into errors, those of transformers' loggers too."""
    handler = _Raise(level=logging.WARNING)
    transformers_logging.add_handler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            yield
    finally:
        transformers_logging.remove_handler(handler)
