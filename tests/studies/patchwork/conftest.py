"""Drawn stand-ins for the pictograms, which are not in the repository."""

import numpy as np
import pytest

from fisa.studies.patchwork.glyphs import ARTISTS
from fisa.studies.patchwork.words import THINGS


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory):
    """A disc for each word, each of a colour of its own, the same for all artists."""
    folder = tmp_path_factory.mktemp("glyphs")
    y, x = np.mgrid[:64, :64] - 31.5
    disc = (np.hypot(y, x) < 30).astype(np.uint8) * 255
    colours = np.random.default_rng(0).integers(40, 216, (len(THINGS), 3), dtype=np.uint8)
    drawings = [np.concatenate([np.full((64, 64, 3), colour), disc[..., None]], axis=-1) for colour in colours]
    for artist in ARTISTS:
        np.save(folder / f"{artist}.npy", np.stack(drawings).astype(np.uint8))
    return folder
