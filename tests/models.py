"""Tiny FISA models whose every weight matters: no projection is zero and no norm the identity."""

from typing import Any, TypeVar

import torch
from torch import nn

from fisa import FisaForUniversalSegmentation, FisaModel
from tests.configurations import tiny_config


Module = TypeVar("Module", bound=nn.Module)


@torch.no_grad()
def randomise(module: Module, *, seed: int = 0) -> Module:
    """As after training: matrices of a size that makes attention pick and choose, and all else off its start.

    The weights depend on the seed alone, whatever the new module came with. A scalar, CLIP's temperature, stays.
    """
    random = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        noise = torch.randn(parameter.shape, generator=random)
        if parameter.ndim > 1:
            parameter.copy_(0.2 * noise)
        elif parameter.ndim == 1:
            is_norm = bool((parameter == 1).all())
            parameter.copy_(is_norm + 0.1 * noise)
    return module


def tiny_model(**options: Any) -> FisaModel:
    """A `FisaModel` in evaluation mode with random weights; options as for `tiny_config`."""
    return randomise(FisaModel(tiny_config(**options))).eval()


def tiny_segmentation_model(generator: str | None = None, **options: Any) -> FisaForUniversalSegmentation:
    """A `FisaForUniversalSegmentation` in evaluation mode with random weights; options as for `tiny_config`."""
    return randomise(FisaForUniversalSegmentation(tiny_config(generator, **options))).eval()
