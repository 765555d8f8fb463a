"""Class texts on disk: what one text encoder made of names, for the next process to read."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fisa.processing.files import weights_digest, written_whole


# Unit vectors of one name that differ by more than this were not made in the same way, on whatever machine.
SAME_TO_ROUNDING = 0.05


class ClassTextFiles:
    """A folder of safetensors files, each with the embeddings of some names.

    Files are added whole or not at all and never changed: a run that is stopped goes on from the last of them, and
    several runs may share the folder.

    Args:
        folder (`str` or `os.PathLike`): holds one folder for each text encoder.
        encoder (`str`): see [`text_fingerprint`].
    """

    names_per_file = 4096

    def __init__(self, folder: str | os.PathLike, *, encoder: str):
        self.folder = Path(folder) / encoder

    def check(self, encode: Callable[[Sequence[str]], torch.Tensor]) -> None:
        """Encode one of the names in the files anew and compare.

        Raises:
            `ValueError`: it comes out different.
        """
        for path in self._paths()[:1]:
            with _opened(path) as file:
                names, stored = _names(file), file.get_tensor("embeds")[0]
            now = encode(names[:1])[0].float().cpu()
            if (now - stored.float()).norm() > SAME_TO_ROUNDING:
                raise ValueError(
                    f'{path}: "{names[0]}" is no longer encoded as it was, though the weights are the same; is an '
                    "adapter switched off? Take another folder for texts that are encoded otherwise."
                )

    def read(self, names: Sequence[str], *, into: torch.Tensor) -> set[int]:
        """Fill the rows `into` `(len(names), projection_dim)` of the names that are here; returns which those are."""
        rows = {name: row for row, name in enumerate(names)}
        found: set[int] = set()
        for path in self._paths():
            with _opened(path) as file:
                here = [(place, rows[name]) for place, name in enumerate(_names(file)) if name in rows]
                if here:
                    places, targets = map(list, zip(*here))
                    into[targets] = file.get_tensor("embeds")[places].to(into)
                    found.update(targets)
        return found

    def write(self, names: Sequence[str], embeds: torch.Tensor) -> None:
        """Add a file with these names and their embeddings `(len(names), projection_dim)`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_digest(json.dumps(names).encode())}.safetensors"
        with written_whole(path) as aside:
            save_file({"embeds": embeds.cpu().contiguous()}, aside, metadata={"names": json.dumps(names)})

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


def text_fingerprint(model: nn.Module, processor: Any) -> str:
    """A short name for what turns names into embeddings: the same for the same text weights of the same type, prompt
    templates and tokens, wherever they were loaded from.

    Args:
        model ([`FisaModel`]): its `text_model` and `text_projection` count.
        processor ([`FisaProcessor`])
    """
    read = {"templates": list(processor.prompt_templates), "tokens": processor.tokenizer.get_vocab()}
    weights = chain.from_iterable(part.state_dict().items() for part in (model.text_model, model.text_projection))
    return weights_digest(read, weights)[:16]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _opened(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except SafetensorError as error:
        raise ValueError(f"{path}: cannot be read ({error}); remove it, and its names are encoded again.") from error


def _names(file: safe_open) -> list[str]:
    return json.loads(file.metadata()["names"])
