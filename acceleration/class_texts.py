"""Class texts in memory: CLIP's text embeddings of names, encoded in batches, each name once."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers.utils import logging

from fisa.acceleration.class_text_files import ClassTextFiles


SECONDS_BEFORE_A_BAR = 3

Encode = Callable[[Sequence[str]], torch.Tensor]
OpenFiles = Callable[[], ClassTextFiles]


@dataclass(frozen=True)
class _KeptTexts:
    """An immutable table of embeddings: adding names makes a new table.

    Attributes:
        probe: a name and its embedding, to be compared with later encodings of that name.
        rows: the row of each name in the table.
        table: the embeddings, `(number of names, projection_dim)`.
    """

    probe: tuple[str, torch.Tensor]
    rows: dict[str, int]
    table: torch.Tensor

    def embeds(self, names: Sequence[str]) -> torch.Tensor:
        return self.table[[self.rows[name] for name in names]]

    def lacks(self, names: Sequence[str]) -> list[str]:
        return [name for name in dict.fromkeys(names) if name not in self.rows]

    def only(self, names: Sequence[str]) -> "_KeptTexts":
        return _KeptTexts(self.probe, _numbered(names), self.embeds(names))

    def plus(self, names: Sequence[str], embeds: torch.Tensor) -> "_KeptTexts":
        table = torch.cat([self.table, embeds]) if self.rows else embeds
        return _KeptTexts(self.probe, self.rows | _numbered(names, start=len(self.rows)), table)

    def matches(self, encode: Encode) -> bool:
        """Whether the probe is still encoded to the same embedding, bit for bit."""
        name, before = self.probe
        again = encode([name])
        return again.dtype == before.dtype and again.device == before.device and torch.equal(again, before)


def _numbered(names: Sequence[str], *, start: int = 0) -> dict[str, int]:
    return {name: row for row, name in enumerate(names, start=start)}


class ClassTextCache:
    """Keeps the embeddings of names: a vocabulary that is used again or extended is not encoded again.

    Each use encodes one name again. If its embedding differs, the encoder has changed (weights, an adapter, a
    template, the dtype), and the cache is emptied. A change that does not affect that name, such as new embeddings
    for single tokens, goes unnoticed. Beyond `max_names` only the vocabulary of the last use is kept. The cache of a
    copied model starts empty.

    Threads may share a cache: each call reads the immutable table that was kept when it began, and puts its own table
    in that place at the end. If two calls overlap, the new names of one are lost, and are encoded again when they are
    next used. Others are many and the same for all calls, so that one thread encodes them and the rest wait for it.
    """

    max_names = 20_000

    def __init__(self) -> None:
        self._kept: _KeptTexts | None = None
        self._encoding_others = threading.Lock()

    def __reduce__(self) -> tuple[type["ClassTextCache"], tuple[()]]:
        return ClassTextCache, ()

    def embed(
        self,
        names: Sequence[str],
        encode: Encode,
        *,
        batch_size: int,
        open_files: OpenFiles | None = None,
        others: Sequence[str] = (),
        open_other_files: OpenFiles | None = None,
    ) -> torch.Tensor:
        """The embeddings of `names` and, after them, of `others`, `(len(names) + len(others), projection_dim)`.

        Args:
            names: the names to embed, at least one.
            encode: returns the embeddings of a list of names, `(number of names, projection_dim)`.
            batch_size: how many names are encoded at a time.
            open_files: returns the files from which names missing in memory are read, and to which new ones are added.
            others: further names, those of the words that compete.
            open_other_files: likewise, for `others`.
        """
        kept = self._kept  # read once: other threads may replace it at any time
        if kept is None or not kept.matches(encode):
            probe = names[0], encode(names[:1])
            kept = _KeptTexts(probe, _numbered(()), probe[1][:0])
        grow = partial(self._grown, encode=encode, batch_size=batch_size, needed=[*names, *others])
        if kept.lacks(others):
            with self._encoding_others:
                latest = self._kept
                if latest is not None and latest is not kept and latest.matches(encode):
                    kept = latest
                self._kept = kept = grow(kept, others, open_files=open_other_files)
        self._kept = kept = grow(kept, names, open_files=open_files)
        return kept.embeds([*names, *others])

    def _grown(
        self,
        kept: _KeptTexts,
        names: Sequence[str],
        *,
        needed: Sequence[str],
        encode: Encode,
        batch_size: int,
        open_files: OpenFiles | None,
    ) -> _KeptTexts:
        """A table with `names` in it, and with those of the `needed` ones that were there."""
        missing = kept.lacks(names)
        if not missing:
            return kept
        if len(kept.rows) + len(missing) > self.max_names:
            kept = kept.only([name for name in dict.fromkeys(needed) if name in kept.rows])
        files = open_files() if open_files else None
        into = kept.table.new_empty(len(missing), kept.table.shape[1])
        _encode_all(missing, encode, batch_size=batch_size, files=files, into=into)
        return kept.plus(missing, into)


def _encode_all(
    names: Sequence[str], encode: Encode, *, batch_size: int, files: ClassTextFiles | None, into: torch.Tensor
) -> None:
    """Fill `into` with the embeddings of `names`. Those that the files lack are encoded and added to the files."""
    stored_rows = set()
    if files is not None:
        files.check(encode)
        stored_rows = files.read(names, into=into)
    missing_rows = [row for row in range(len(names)) if row not in stored_rows]
    step = batch_size if files is None else max(batch_size, files.names_per_file)
    with logging.tqdm(total=len(missing_rows), desc="encoding words", unit="word", delay=SECONDS_BEFORE_A_BAR) as bar:
        for start in range(0, len(missing_rows), step):
            rows = missing_rows[start : start + step]
            for batch in (rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
                into[batch] = encode([names[row] for row in batch])
                bar.update(len(batch))
            if files is not None:
                files.write([names[row] for row in rows], into[rows])
