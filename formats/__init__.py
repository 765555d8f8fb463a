"""Results in the formats that others read: [`write`] knows them all."""

from fisa.formats.results import LabelledPhoto, Results
from fisa.formats.writers import FORMATS, require, write


__all__ = ["FORMATS", "LabelledPhoto", "Results", "require", "write"]
