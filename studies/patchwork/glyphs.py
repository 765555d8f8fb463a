"""The pictograms: the same words as three artists drew them, from the npm packages that carry their drawings.

`python -m fisa.studies.patchwork.glyphs [FOLDER]` brings them (npm must be installed) and keeps the 214 that
Patchwork uses.
"""

import argparse
import base64
import hashlib
import os
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fisa.processing.files import written_whole
from fisa.studies.patchwork.words import THINGS


SIDE = 64


@dataclass(frozen=True)
class Artist:
    """Who drew, and where the drawings are.

    Attributes:
        name: what Patchwork calls them.
        package: name and version on npm.
        integrity: npm's own checksum, SHA-512 in base 64.
        member: path of a drawing in the package, with `{}` for the emoji's code.
        licence: of the drawings.
    """

    name: str
    package: str
    integrity: str
    member: str
    licence: str


ARTISTS = {
    artist.name: artist
    for artist in (
        Artist(
            "noto",
            "emoji-datasource-google@16.0.0",
            "ZRexfzs7MVoLnmzZmNsO4TKhnAJp5D++Vm6PpUpH/jEQQlemp3l88CjZ+DoZ2faM9R4QxZkOPJCoT8DlPhfQ3A==",
            "package/img/google/64/{}.png",
            "Noto Emoji, Google, Apache-2.0",
        ),
        Artist(
            "twemoji",
            "emoji-datasource-twitter@16.0.0",
            "7F+uCuHH+7Qnrc15P5tnbvKkg9E6tlzi4MnT2uW1RlN4pLYTza6cP/dstIfSDMtpjFLWuZewWg8jBbuL2eyELQ==",
            "package/img/twitter/64/{}.png",
            "Twemoji, Twitter, Inc and other contributors, CC-BY 4.0",
        ),
        Artist(
            "fluent",
            "@lobehub/fluent-emoji-3d@1.1.0",
            "Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
            "package/assets/{}.webp",
            "Fluent Emoji, Microsoft Corporation, MIT",
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
        `np.ndarray` of shape `(num_things, 64, 64, 4)`, uint8, RGBA, in the order of `THINGS`.

    Raises:
        FileNotFoundError: they have not been brought; the message says how to.
    """
    path = (folder or default_folder()) / f"{artist}.npy"
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: no such file. Bring the pictograms, about 100 MB to read once: "
            "python -m fisa.studies.patchwork.glyphs"
        )
    return np.load(path)


def bring_glyphs(artist: Artist, folder: Path) -> Path:
    """Take the drawings out of the artist's npm package, checksum verified, unless they are there already.

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
            drawings = [_drawing(members.extractfile(artist.member.format(word.code))) for word in THINGS]
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as aside, open(aside, "xb") as file:
        np.save(file, np.stack(drawings))
    return path


def _drawing(file) -> np.ndarray:
    with Image.open(file) as image:
        # Premultiplied, or the colour behind transparent pixels bleeds into the outline.
        return np.asarray(image.convert("RGBA").convert("RGBa").resize((SIDE, SIDE), Image.LANCZOS).convert("RGBA"))


def main() -> None:
    """Bring the pictograms of all artists."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.glyphs", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=default_folder())
    folder = parser.parse_args().folder
    for artist in ARTISTS.values():
        print(f"{bring_glyphs(artist, folder)}  ({artist.licence})")


if __name__ == "__main__":
    main()
