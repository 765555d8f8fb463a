"""Settings as files store them: what is damaged is named by file and setting."""

import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import PROCESSOR_NAME


@contextmanager
def naming_file(folder: Any) -> Iterator[None]:
    """Let errors of what a folder's processor_config.json holds name that file.

    Raises:
        ValueError: also instead of what transformers raises on values of unforeseen types.
    """
    file = f"{folder}/{PROCESSOR_NAME}"
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"{file} holds no settings that can be read: {error}.") from error


def refuse_no_dictionary(settings: Any, *, name: str) -> None:
    """Refuse settings that are not a dictionary.

    Raises:
        ValueError: they are not.
    """
    if not isinstance(settings, dict):
        raise ValueError(f"`{name}` is {reprlib.repr(settings)}; it must be a dictionary of settings.")
