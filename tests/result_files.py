"""What a run of `fisa-segment` left in its folder."""

from pathlib import Path


def results(folder: str | Path) -> dict[str, bytes]:
    """The content of each file by its path in the folder, without the journals, which say how a run went."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and not path.name.startswith("journal"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
