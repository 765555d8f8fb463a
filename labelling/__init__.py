"""Many photos: a folder, a data set or a cluster's share of one. [`Labeller`] is what all of them call."""

from fisa.labelling.labeller import Labeller


__all__ = ["Labeller"]
