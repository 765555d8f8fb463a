"""Values of settings, checked: shares, switches and counts."""

from numbers import Integral, Real
from typing import Any

import numpy as np


THRESHOLDS = ("threshold", "mask_threshold", "overlap_mask_area_threshold", "min_score")


def share(name: str, value: Any) -> float:
    """A setting that is a probability or a share, as Python's own number.

    Raises:
        ValueError: it is not a number in [0, 1].

    Example:
        >>> share("threshold", np.float64(0.5))
        0.5
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not 0 <= float(value) <= 1:
        raise ValueError(f"`{name}` is {value!r}; as a probability or a share it must be a number in [0, 1].")
    return float(value)


def switch(name: str, value: Any) -> bool:
    """A setting that is on or off, as Python's own truth value.

    Raises:
        ValueError: it is neither `True` nor `False`; "no" would otherwise be on.

    Example:
        >>> switch("include_others", False)
        False
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"`{name}` is {value!r}; it must be True or False.")
    return bool(value)


def count(name: str, value: Any) -> int:
    """A setting that is a number of things, as Python's own number.

    Raises:
        ValueError: it is not a whole number from 0 on.

    Example:
        >>> count("zoom", np.int64(8))
        8
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 0:
        raise ValueError(f"`{name}` is {value!r}; it must be a whole number, 0 for none.")
    return int(value)
