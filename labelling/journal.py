"""Lines of JSON that say what is done, written so that a killed process loses one line at most."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple


class Line(NamedTuple):
    """A record, and the bytes of the file between which it stands."""

    start: int
    end: int
    record: dict[str, Any]


class Journal:
    """A file with one record of JSON per line.

    Each record is on its way to the disk before `append` returns. A line that a killed process left torn is not a
    record, and the next one to be appended does not touch it.

    Args:
        path (`Path`): there or not; the folder around it exists.

    Example:

    ```python
    >>> journal = Journal(Path("journal.jsonl"))
    >>> journal.append({"photo": "dog.jpg"})
    >>> [line.record for line in journal.lines()]
    [{'photo': 'dog.jpg'}]
    ```
    """

    def __init__(self, path: Path):
        self.path = path
        self._lock = Lock()
        self._file: BinaryIO | None = None

    def append(self, record: dict[str, Any]) -> None:
        """Write one record; threads may do so at once.

        Raises:
            OSError: it cannot be written; what was written before stays whole.
        """
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"
        with self._lock:
            if self._file is None:
                self._file = open(self.path, "ab", buffering=0)
                self._file.truncate(_whole_bytes(self.path))
            if self._file.write(line) != len(line):
                raise OSError(f"{self.path} took a part of a line: the disk is full.")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def lines(self, start: int = 0) -> Iterator[Line]:
        """The records from this byte on, at which one starts; none where there is no file."""
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            file.seek(start)
            for line in file:
                end = start + len(line)
                record = _record(line)
                if record is not None:
                    yield Line(start, end, record)
                start = end

    def at(self, start: int) -> dict[str, Any]:
        """The record whose line starts at this byte."""
        with open(self.path, "rb") as file:
            file.seek(start)
            record = _record(file.readline())
        assert record is not None, f"{self.path} has no record at byte {start}"
        return record


def _record(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _whole_bytes(path: Path) -> int:
    """The length of a file up to the end of its last whole line."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - 65536)
            file.seek(start)
            line_break = file.read(end - start).rfind(b"\n")
            if line_break >= 0:
                return start + line_break + 1
            end = start
    return 0
