"""The pictograms: the same words as several artists drew them, from the npm packages that carry their drawings.

`python -m fisa.studies.patchwork.glyphs [FOLDER]` brings them (npm and resvg-py must be installed), renders the words
that Patchwork uses, once, and keeps them.
"""

import argparse
import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fisa.processing.files import written_whole
from fisa.studies.patchwork.words import THINGS


SIDE = 192
DRAWINGS_FILE = Path(__file__).parent / "drawings.tsv"


@dataclass(frozen=True)
class Artist:
    """Who drew, and where the drawings are.

    Attributes:
        name: what Patchwork calls them.
        package: name and version on npm, of a set of icons as Iconify packs them.
        integrity: npm's own checksum, SHA-512 in base 64.
        licence: of the drawings.
        is_shown: whether captions show CLIP this hand. Hands that are not shown are held out with their relatives, and
            those whose licence asks that what is made of them carry the same one are never shown: nothing that ships
            is made of them.
    """

    name: str
    package: str
    integrity: str
    licence: str
    is_shown: bool


ARTISTS = {
    artist.name: artist
    for artist in (
        Artist(
            "noto",
            "@iconify-json/noto@1.2.9",
            "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
            "Noto Emoji, Google, Apache-2.0",
            is_shown=True,
        ),
        Artist(
            "noto-v1",
            "@iconify-json/noto-v1@1.2.5",
            "/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
            "Noto Emoji before 2017, Google, Apache-2.0",
            is_shown=True,
        ),
        Artist(
            "twemoji",
            "@iconify-json/twemoji@1.2.5",
            "uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
            "Twemoji, Twitter, Inc and other contributors, CC-BY 4.0",
            is_shown=True,
        ),
        Artist(
            "fxemoji",
            "@iconify-json/fxemoji@1.2.2",
            "UAasRaxzFUKfIGSmLwnoarsssA4LX0VLLuEmplIqM6ZNQqIQRtav8tZ4H1neTlBreXuMQyAifr5jP4kn78DpiQ==",
            "FxEmojis, Mozilla, Apache-2.0",
            is_shown=True,
        ),
        Artist(
            "emojione",
            "@iconify-json/emojione@1.2.3",
            "T9+T3HIbJNLKKsmxYKlaYhvnHYkz/HNYTV7SHCXVZPfeUi4FqskY70YeN8yYAZT8cCv7w5vJxS4Q1m8zb9CMMg==",
            "Emoji One 2, EmojiTwo, CC-BY 4.0",
            is_shown=True,
        ),
        Artist(
            "streamline",
            "@iconify-json/streamline-emojis@1.2.4",
            "iNr9T9XuZVTyQPJO8ZlLxBzPkpi7qMl+z1l0C31vpEMqhPMelth3n7CeWQYtixdetDPdI81yeG4ROqjWpYJE6A==",
            "Streamline Emojis, Streamline, CC-BY 4.0",
            is_shown=True,
        ),
        Artist(
            "fluent",
            "@iconify-json/fluent-emoji@1.2.7",
            "D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
            "Fluent Emoji, Microsoft Corporation, MIT",
            is_shown=False,
        ),
        Artist(
            "openmoji",
            "@iconify-json/openmoji@1.2.29",
            "vXdhkqcXVSO6suy+m9LbcUM3OdVyuNOtpV8/als/WqfkQIRxevL5Geb/g+6GH/Qwnq1OqksEmaDGTCmZ5nFKJQ==",
            "OpenMoji, CC-BY-SA 4.0",
            is_shown=False,
        ),
    )
}


def default_folder() -> Path:
    """Where the pictograms are kept: `FISA_GLYPHS`, else `fisa/glyphs` in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")
    return Path(os.environ.get("FISA_GLYPHS", Path(cache) / "fisa" / "glyphs"))


def load_glyphs(artist: str, *, folder: Path | None = None) -> np.ndarray:
    """The drawings of one artist.

    Returns:
        `np.ndarray` of shape `(num_things, 192, 192, 4)`, uint8, RGBA, in the order of `THINGS`; nothing but
        transparency where the artist has no drawing of a word.

    Raises:
        FileNotFoundError: they have not been brought; the message says how to.
    """
    path = (folder or default_folder()) / f"{artist}.npy"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file. Bring the pictograms, about 30 MB to read once: "
            "python -m fisa.studies.patchwork.glyphs"
        )
    return np.load(path)


def bring_glyphs(artist: Artist, folder: Path) -> Path:
    """Render the drawings in the artist's npm package, checksum verified, unless they are there already.

    Raises:
        RuntimeError: npm is missing or fails, or the package is not the one that is expected.
    """
    path = folder / f"{artist.name}.npy"
    if path.exists():
        return path
    with tempfile.TemporaryDirectory() as scratch:
        try:
            subprocess.run(["npm", "pack", artist.package, "--silent"], cwd=scratch, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(
                f"`npm pack {artist.package}` failed; npm and its registry are needed: {error}"
            ) from error
        (archive,) = Path(scratch).glob("*.tgz")
        checksum = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if checksum != artist.integrity:
            raise RuntimeError(f"{artist.package} has checksum {checksum}, not {artist.integrity}: it was changed.")
        with tarfile.open(archive) as members:
            icons = json.load(members.extractfile("package/icons.json"))
    drawings = [rendered(icons, name) for name in icon_names(artist.name)]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside, open(aside, "xb") as file:
        np.save(file, np.stack(drawings))
    return path


def icon_names(artist: str) -> list[str]:
    """What the artist's set calls the drawing of each of `THINGS`; empty where there is none."""
    lines = [line for line in DRAWINGS_FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    heading, *rows = [line.split("\t") for line in lines]
    by_word = {row[0]: row[heading.index(artist)] for row in rows}
    return [by_word[word.name] for word in THINGS]


def rendered(icons: dict[str, Any], name: str) -> np.ndarray:
    """An icon of a set as Iconify packs it, `(192, 192, 4)`, uint8, RGBA; transparent if `name` is empty."""
    if not name:
        return np.zeros((SIDE, SIDE, 4), np.uint8)
    from resvg_py import svg_to_bytes  # only those who bring the drawings need it

    icon = icons["icons"][icons.get("aliases", {}).get(name, {}).get("parent", name)]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in {"left": 0, "top": 0, "width": 16, "height": 16}.items()
    )
    side = max(width, height)
    box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'width="{side}" height="{side}">{icon["body"]}</svg>'
    )
    picture = svg_to_bytes(svg_string=drawing, width=SIDE, height=SIDE, skip_system_fonts=True)
    with Image.open(io.BytesIO(bytes(picture))) as image:
        return np.asarray(image.convert("RGBA"))


def main() -> None:
    """Bring the pictograms of all artists."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.glyphs", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    folder = parser.parse_args().folder
    for artist in ARTISTS.values():
        print(f"{bring_glyphs(artist, folder)}  ({artist.licence})")


if __name__ == "__main__":
    main()
