"""Libraries that the package does without until somebody asks for what they do."""

import importlib
import warnings
from typing import Any


def library(module: str, *, extra: str, purpose: str) -> Any:
    """Import a library of one of the package's extras.

    Not by an `import` statement: transformers would ask all users of remote code for it.

    Args:
        module: its name.
        extra: which of the package's extras brings it.
        purpose: what needs it, for the message.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it could use too, and does without
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise ImportError(f'{purpose} needs {name}: install the extra with `pip install "fisa[{extra}]"`.') from error
