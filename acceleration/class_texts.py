"""Class texts: prompts to CLIP text embeddings, in batches, each prompt once."""

from collections.abc import Callable, Sequence

import torch

from fisa.acceleration.class_text_files import ClassTextFiles


Encode = Callable[[Sequence[str]], torch.Tensor]


class ClassTextCache:
    """Keeps the embedding of each name, so that a vocabulary used again, or grown by a word, is not encoded again.

    One name is encoded afresh at every use. Where it comes out different, something between the words and the
    embeddings has changed (weights, an adapter, a template, the type), whatever the way, and everything is forgotten.
    Only a change that spares that name, such as new embeddings for single tokens, is not seen.
    Beyond `max_names` only the vocabulary that was used last is kept. Copies of a model start with nothing kept.
    """

    max_names = 20_000

    def __init__(self):
        self._rows: dict[str, int] = {}
        self._table: torch.Tensor | None = None
        self._probe: tuple[str, torch.Tensor] | None = None

    def __reduce__(self):
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
        if self._probe is None or not self._is_as_before(encode):
            self._probe = names[0], encode(names[:1])
            self._rows, self._table = {}, self._probe[1][:0]
        missing = [name for name in dict.fromkeys(names) if name not in self._rows]
        if missing and len(self._rows) + len(missing) > self.max_names:
            self._keep([name for name in dict.fromkeys(names) if name in self._rows])
        if missing:
            self._add(missing, encode, batch_size, open_files() if open_files else None)
        return self._table[[self._rows[name] for name in names]]

    def _keep(self, names: Sequence[str]) -> None:
        self._table = self._table[[self._rows[name] for name in names]]
        self._rows = {name: row for row, name in enumerate(names)}

    def _add(self, names: Sequence[str], encode: Encode, batch_size: int, files: ClassTextFiles | None) -> None:
        new = self._table.new_empty(len(names), self._table.shape[1])
        if files is not None:
            files.check(encode)
        found = set() if files is None else files.read(names, into=new)
        left = [row for row in range(len(names)) if row not in found]
        step = batch_size if files is None else max(batch_size, files.names_per_file)
        for start in range(0, len(left), step):
            rows = left[start : start + step]
            for batch in (rows[i : i + batch_size] for i in range(0, len(rows), batch_size)):
                new[batch] = encode([names[row] for row in batch])
            if files is not None:
                files.write([names[row] for row in rows], new[rows])
        self._rows.update((name, row) for row, name in enumerate(names, start=len(self._rows)))
        self._table = torch.cat([self._table, new]) if len(self._table) else new

    def _is_as_before(self, encode: Encode) -> bool:
        name, before = self._probe
        now = encode([name])
        return now.dtype == before.dtype and now.device == before.device and torch.equal(now, before)
