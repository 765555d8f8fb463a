"""Results in the formats that others read: [`write`] knows them all."""

from fisa.formats.results import LabelledPhoto, Results
from fisa.formats.writers import FORMATS, write


__all__ = ["FORMATS", "LabelledPhoto", "Results", "write"]
