"""Class texts on disk: the embeddings that a text encoder gave to names, for later processes to read."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol

import torch
from huggingface_hub import constants
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from transformers.utils import logging

from fisa.acceleration.offloaded_weights import loaded_weights
from fisa.processing.files import weights_digest, written_whole


logger = logging.get_logger(__name__)

FORMAT = 2

# Unit vectors of one name that differ by more than this come from different encoders, not from different machines.
SAME_TO_ROUNDING = 0.05


class ClassTextFiles:
    """A folder of safetensors files, each with the embeddings of several names.

    Files are written whole or not at all and never change: a stopped run continues after the last file, and several
    runs may share the folder. Each file stores the digest of its content. A file that was truncated or changed is
    removed with a warning, and its names are encoded again.

    Args:
        folder (`str` or `os.PathLike`): contains one folder per text encoder.
        encoder (`str`): the name of the text encoder's folder, from [`text_fingerprint`].
    """

    names_per_file = 4096

    def __init__(self, folder: str | os.PathLike, *, encoder: str):
        self.folder = Path(folder) / encoder

    def check(self, encode: Callable[[Sequence[str]], torch.Tensor]) -> None:
        """Encode one of the stored names again and compare the embeddings.

        Raises:
            `ValueError`: the embeddings differ.
        """
        for path, names, stored in islice(self._contents(), 1):
            encoded = encode(names[:1])[0].float().cpu()
            if (encoded - stored[0].float()).norm() > SAME_TO_ROUNDING:
                raise ValueError(
                    f'{path}: "{names[0]}" is no longer encoded as it was, though the weights are the same; is an '
                    "adapter switched off? Use another folder for texts that are encoded differently."
                )

    def read(self, names: Sequence[str], *, into: torch.Tensor) -> set[int]:
        """Copy the stored embeddings of names to their rows of `into`, `(len(names), projection_dim)`.

        Returns:
            The rows that were filled.
        """
        rows = {name: row for row, name in enumerate(names)}
        filled: set[int] = set()
        for _, stored_names, embeds in self._contents():
            stored = [(place, rows[name]) for place, name in enumerate(stored_names) if name in rows]
            if stored:
                places, targets = map(list, zip(*stored))
                into[targets] = embeds[places].to(into)
                filled.update(targets)
        return filled

    def write(self, names: Sequence[str], embeds: torch.Tensor) -> None:
        """Add a file with names and their embeddings, `(len(names), projection_dim)`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        embeds = embeds.cpu().contiguous()
        metadata = {"names": json.dumps(names), "digest": _digest(names, embeds)}
        with written_whole(self.folder / f"{weights_digest(names, ())[:16]}.safetensors") as aside:
            save_file({"embeds": embeds}, aside, metadata=metadata)

    def _contents(self) -> Iterator[tuple[Path, list[str], torch.Tensor]]:
        """Path, names and embeddings of each intact file."""
        for path in self._paths():
            try:
                with safe_open(path, framework="pt") as file:
                    metadata = file.metadata() or {}
                    names, embeds = json.loads(metadata.get("names", "[]")), file.get_tensor("embeds")
            except (SafetensorError, ValueError) as error:
                self._remove(path, f"cannot be read ({error})")
                continue
            if _digest(names, embeds) == metadata.get("digest"):
                yield path, names, embeds
            else:
                self._remove(path, "has changed since it was written")

    def _remove(self, path: Path, problem: str) -> None:
        logger.warning(f"{path} {problem}; it is removed, and its names are encoded again.")
        path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))


class OptionalTextFiles(ClassTextFiles):
    """Files that are left alone once they fail: where the folder cannot be read or written, or was written by another
    encoder. One warning says so, and the texts are kept in memory alone."""

    _have_failed = False

    def check(self, encode: Callable[[Sequence[str]], torch.Tensor]) -> None:
        """As [`ClassTextFiles.check`], without an error."""
        with self._failing_once():
            super().check(encode)

    def read(self, names: Sequence[str], *, into: torch.Tensor) -> set[int]:
        """As [`ClassTextFiles.read`], without an error."""
        filled: set[int] = set()
        if not self._have_failed:
            with self._failing_once():
                filled = super().read(names, into=into)
        return filled

    def write(self, names: Sequence[str], embeds: torch.Tensor) -> None:
        """As [`ClassTextFiles.write`], without an error."""
        if not self._have_failed:
            with self._failing_once():
                super().write(names, embeds)

    @contextmanager
    def _failing_once(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, SafetensorError) as error:
            self._have_failed = True
            logger.warning_once(f"Encoded words are kept in memory, and each process encodes them again: {error}")


class TextEncoder(Protocol):
    """The parts of a model that turn prompts into embeddings."""

    @property
    def text_model(self) -> nn.Module: ...

    @property
    def text_projection(self) -> nn.Module: ...


def text_fingerprint(model: TextEncoder, processor: Any) -> str:
    """A short identifier of a text encoder, equal for equal text weights, dtype, prompt templates and tokens.

    It does not depend on where these were loaded from.

    Args:
        model ([`FisaModel`]): its `text_model` and `text_projection` are read.
        processor ([`FisaProcessor`])
    """
    settings = {
        "format": FORMAT,
        "templates": list(processor.prompt_templates),
        "tokens": processor.tokenizer.get_vocab(),
    }
    weights = chain(loaded_weights(model.text_model), loaded_weights(model.text_projection))
    return weights_digest(settings, weights)[:16]


def shared_text_files(model: TextEncoder, processor: Any) -> OptionalTextFiles:
    """The files of a text encoder in Hugging Face's cache folder, `fisa/others`, which all processes share.

    Args:
        model, processor: as for [`text_fingerprint`].
    """
    folder = Path(constants.HF_HOME, "fisa", "others")
    return OptionalTextFiles(folder, encoder=text_fingerprint(model, processor))


def _digest(names: Sequence[str], embeds: torch.Tensor) -> str:
    return weights_digest(list(names), [("embeds", embeds)])
