"""Where formats are written: folders that replace older ones, and copies of photos."""

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fisa.processing.files import written_whole
from fisa.processing.photos import load_photo


# Whatever reads a format reads these; photos of other kinds become PNG.
COMMON_ENDINGS = (".bmp", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


@contextmanager
def replaced_folder(path: Path) -> Iterator[Path]:
    """A temporary folder, which replaces `path` and what an earlier run wrote there at the end of the block.

    Raises:
        ValueError: `path` holds what no earlier run wrote.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside:
        aside.mkdir()
        try:
            yield aside
            if path.exists():
                foreign = {entry.name for entry in path.iterdir()} - {entry.name for entry in aside.iterdir()}
                if foreign:
                    raise ValueError(
                        f"{path} holds other files ({', '.join(sorted(foreign)[:3])}); move them, or name another "
                        "folder."
                    )
                shutil.rmtree(path)
        except BaseException:
            shutil.rmtree(aside)
            raise


def photo_file(source: str) -> tuple[str, bytes]:
    """The ending and the content of a photo's file: its own where it is a common one, else a PNG of it, upright."""
    path = Path(source)
    if path.suffix.lower() in COMMON_ENDINGS and path.is_file():
        return path.suffix.lower(), path.read_bytes()
    png = io.BytesIO()
    load_photo(source).save(png, format="PNG")
    return ".png", png.getvalue()
