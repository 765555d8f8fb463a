"""Class texts in memory: prompts to CLIP text embeddings, in batches, each prompt once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fisa.acceleration.class_text_files import ClassTextFiles


Encode = Callable[[Sequence[str]], torch.Tensor]


@dataclass(frozen=True)
class _KeptTexts:
    """Embeddings of names, never changed: who adds names makes a new one.

    Attributes:
        probe: a name and what it was encoded to, to be compared with what it is encoded to later.
        rows: the row of each name in the table.
        table: `(number of names, projection_dim)`.
    """

    probe: tuple[str, torch.Tensor]
    rows: dict[str, int]
    table: torch.Tensor

    def embeds(self, names: Sequence[str]) -> torch.Tensor:
        return self.table[[self.rows[name] for name in names]]

    def only(self, names: Sequence[str]) -> "_KeptTexts":
        return _KeptTexts(self.probe, _numbered(names), self.embeds(names))

    def plus(self, names: Sequence[str], embeds: torch.Tensor) -> "_KeptTexts":
        table = torch.cat([self.table, embeds]) if self.rows else embeds
        return _KeptTexts(self.probe, self.rows | _numbered(names, start=len(self.rows)), table)

    def is_what(self, encode: Encode) -> bool:
        """Whether the probe is still encoded as it was, bit for bit."""
        name, before = self.probe
        again = encode([name])
        return again.dtype == before.dtype and again.device == before.device and torch.equal(again, before)


def _numbered(names: Sequence[str], *, start: int = 0) -> dict[str, int]:
    return {name: row for row, name in enumerate(names, start=start)}


class ClassTextCache:
    """Keeps the embedding of each name, so that a vocabulary used again, or grown by a word, is not encoded again.

    One name is encoded afresh at every use. Where it comes out different, something between the words and the
    embeddings has changed (weights, an adapter, a template, the type), whatever the way, and everything is forgotten.
    Only a change that spares that name, such as new embeddings for single tokens, is not seen.
    Beyond `max_names` only the vocabulary that was used last is kept. Copies of a model start with nothing kept.

    Threads may share a cache without waiting for each other: each call works on what was kept when it began, which
    nobody changes, and leaves its own in its place. Of two calls that end together one's new names are forgotten, and
    encoded again when they are next used.
    """

    max_names = 20_000

    def __init__(self) -> None:
        self._kept: _KeptTexts | None = None

    def __reduce__(self) -> tuple[type["ClassTextCache"], tuple[()]]:
        return ClassTextCache, ()

    def embed(
        self,
        names: Sequence[str],
        encode: Encode,
        *,
        batch_size: int,
        open_files: Callable[[], ClassTextFiles] | None = None,
    ) -> torch.Tensor:
        """The embeddings of `names`, `(len(names), projection_dim)`.

        Args:
            names: what to embed, at least one.
            encode: embeds some names: `(number of names, projection_dim)`.
            batch_size: how many names are encoded at a time.
            open_files: gives the files where names that are not kept here are looked for, and added when encoded.
        """
        kept = self._kept  # read once: other threads may replace it at any time
        if kept is None or not kept.is_what(encode):
            probe = names[0], encode(names[:1])
            kept = _KeptTexts(probe, _numbered(()), probe[1][:0])
        distinct = list(dict.fromkeys(names))
        missing = [name for name in distinct if name not in kept.rows]
        if missing:
            if len(kept.rows) + len(missing) > self.max_names:
                kept = kept.only([name for name in distinct if name in kept.rows])
            files = open_files() if open_files else None
            into = kept.table.new_empty(len(missing), kept.table.shape[1])
            _encode_all(missing, encode, batch_size=batch_size, files=files, into=into)
            kept = kept.plus(missing, into)
        self._kept = kept
        return kept.embeds(names)


def _encode_all(
    names: Sequence[str], encode: Encode, *, batch_size: int, files: ClassTextFiles | None, into: torch.Tensor
) -> None:
    """Fill `into` with the embeddings of `names`: from the files, or encoded and added to them."""
    read = set()
    if files is not None:
        files.check(encode)
        read = files.read(names, into=into)
    left = [row for row in range(len(names)) if row not in read]
    step = batch_size if files is None else max(batch_size, files.names_per_file)
    for start in range(0, len(left), step):
        rows = left[start : start + step]
        for batch in (rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
            into[batch] = encode([names[row] for row in batch])
        if files is not None:
            files.write([names[row] for row in rows], into[rows])
