"""How cameras store pictures: the table of the EXIF standard."""

import numpy as np


def as_stored(upright: np.ndarray, orientation: int) -> np.ndarray:
    """How a camera held that way stores an upright picture: row 0 and column 0 of the EXIF standard's table."""
    sideways = upright.swapaxes(0, 1)
    return {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: sideways,
        6: sideways[::-1],
        7: sideways[::-1, ::-1],
        8: sideways[:, ::-1],
    }[orientation]
