"""Weights that accelerate keeps on the disk or in another memory and brings in for each call of their module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn


@contextmanager
def brought_in(*modules: nn.Module) -> Iterator[None]:
    """Have the own parameters of modules at hand that are read without calling the module.

    Example:
        >>> with brought_in(embeddings):
        ...     class_token = embeddings.class_embedding
    """
    offloaded = [module for module in modules if hasattr(module, "_hf_hook")]
    with ExitStack() as stack:
        if offloaded:
            from accelerate.utils import align_module_device  # there, since it has offloaded them

            for module in offloaded:
                stack.enter_context(align_module_device(module))
        yield


def computing_device(model: nn.Module) -> torch.device | None:
    """The device that offloaded weights are brought to; `None` if none of them is offloaded."""
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return next((torch.device(device) for device in devices if device is not None), None)
