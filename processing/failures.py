"""What to say of errors that concern one photo."""

import torch


def reason_of(error: Exception) -> str:
    """What to say of an error, in one line."""
    if is_out_of_memory(error):
        return "there is too little memory for this photo."
    text = " ".join(str(error).split())
    return text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that there is too little memory, of whichever device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "DefaultCPUAllocator" in text)
