"""Weights that accelerate offloads to disk or CPU memory and loads for each call of their module."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def brought_in(*modules: nn.Module) -> Iterator[None]:
    """Load the offloaded parameters of modules while code reads them without calling the modules.

    Example:
        >>> with brought_in(embeddings):
        ...     class_token = embeddings.class_embedding
    """
    offloaded = [module for module in modules if hasattr(module, "_hf_hook")]
    with ExitStack() as stack:
        if offloaded:
            from accelerate.utils import align_module_device  # installed, because it offloaded the weights

            for module in offloaded:
                stack.enter_context(align_module_device(module))
        yield


def loaded_weights(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The entries of a module's `state_dict`, each loaded, if it is offloaded, until the next one is asked for.

    Entries of quantised layers are no attributes of them, and not all are tensors.
    """
    for name, entry in module.state_dict().items():
        if not getattr(entry, "is_meta", False):
            yield name, entry
            continue
        owner, _, tensor = name.rpartition(".")
        with brought_in(module.get_submodule(owner)):
            yield name, getattr(module.get_submodule(owner), tensor)


def computing_device(model: nn.Module) -> torch.device | None:
    """The device to which offloaded weights are loaded; `None` if no weights are offloaded."""
    hooks = (getattr(module, "_hf_hook", None) for module in model.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    return next((torch.device(device) for device in devices if device is not None), None)
