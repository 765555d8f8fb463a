"""Patchwork as a data set in the package's one schema: splits, painted when asked for, and the small pack that ships.

    load_patchwork("validation")                       # the shipped scenes of a split
    load_patchwork("test_shifted", num_scenes=1000)    # painted anew; needs the pictograms (see glyphs.py)

`python -m fisa.studies.patchwork.dataset` paints the pack.
"""

import argparse
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from PIL import Image
from tqdm import tqdm

from fisa.studies.patchwork.scenes import Painter, SceneKind
from fisa.studies.patchwork.words import CATEGORIES, SEEN


PACK = Path(__file__).parent / "pack"
HOME, SHIFTED, THIRD = "noto", "twemoji", "fluent"


@dataclass(frozen=True)
class Split:
    """Whose hand painted it, from which seed, with which words, and how many of its scenes ship.

    Attributes:
        only_seen: whether unseen words are left out. Nothing is trained on scenes that show one.
    """

    artist: str
    seed: int
    only_seen: bool
    num_shipped: int


SPLITS = {
    "train": Split(HOME, 10, only_seen=True, num_shipped=640),
    "validation": Split(HOME, 20, only_seen=False, num_shipped=120),
    "validation_shifted": Split(SHIFTED, 30, only_seen=False, num_shipped=120),
    "test": Split(HOME, 40, only_seen=False, num_shipped=0),
    "test_shifted": Split(SHIFTED, 50, only_seen=False, num_shipped=0),
    "test_third": Split(THIRD, 60, only_seen=False, num_shipped=0),
}
# Larger than what is trained on, for people to look at: who painted them, what they are, their number.
DEMO = {
    "easy": (HOME, SceneKind(side=384, num_objects=(3, 3), object_size=(0.36, 0.48), num_patches=(2, 2)), 8),
    "shifted": (SHIFTED, SceneKind(side=384, num_objects=(4, 4), object_size=(0.3, 0.45), num_patches=(3, 3)), 7),
    "hard": (THIRD, SceneKind(side=384, num_objects=(8, 8), object_size=(0.2, 0.4), num_patches=(4, 4)), 7),
}
DEMO_SEED = 70
FEATURES = datasets.Features(
    {
        "image_id": datasets.Value("string"),
        "image": datasets.Image(),
        "label": datasets.Image(),
        "segments_info": datasets.List(
            {"id": datasets.Value("int32"), "category_id": datasets.Value("int32"), "iscrowd": datasets.Value("int8")}
        ),
    }
)


def load_patchwork(split: str, *, num_scenes: int | None = None, glyph_folder: Path | None = None) -> datasets.Dataset:
    """Scenes of one split, the same at every call.

    Args:
        split: one of `SPLITS`.
        num_scenes: how many are painted; `None`: those that ship with the package.
        glyph_folder: where the pictograms are, if not in the usual place. Shipped scenes need none.

    Returns:
        `datasets.Dataset` with columns `image_id`, `image` (RGB, 192 × 192), `label` (a map of segment ids, 0 nowhere)
        and `segments_info` (`id`, `category_id`, `iscrowd`), as COCO panoptic has them on the Hub. The categories are
        `fisa.studies.patchwork.words.CATEGORIES`.

    Raises:
        ValueError: no such split, or none of its scenes ships.
        FileNotFoundError: scenes are to be painted and the pictograms are missing.
    """
    if split not in SPLITS:
        raise ValueError(f"No split {split!r}; there are {', '.join(SPLITS)}.")
    if num_scenes is not None:
        rows = _painted(split, num_scenes, glyph_folder)
        return datasets.Dataset.from_list(list(rows), features=FEATURES)
    if not SPLITS[split].num_shipped:
        raise ValueError(f"No scene of {split!r} ships; paint some: load_patchwork({split!r}, num_scenes=1000).")
    return datasets.load_dataset(str(PACK), split=split)


def painter_of(split: str, *, glyph_folder: Path | None = None) -> Painter:
    """Who paints the scenes of a split."""
    settings = SPLITS[split]
    words = SEEN if settings.only_seen else None
    return Painter(settings.artist, seed=settings.seed, things=words, stuff=words, glyph_folder=glyph_folder)


def _painted(split: str, num_scenes: int, glyph_folder: Path | None = None, **image_options: Any) -> Iterator[dict]:
    painter, kind = painter_of(split, glyph_folder=glyph_folder), SceneKind()
    for number in tqdm(range(num_scenes), desc=f"painting {split}", unit="scene", disable=num_scenes < 1000):
        scene = painter.paint(kind, number)
        yield {
            "image_id": f"{split}-{number}",
            "image": _file(Image.fromarray(scene.image), **image_options),
            "label": _file(Image.fromarray(scene.label.astype("uint8"))),
            "segments_info": scene.segments_info,
        }


def _file(image: Image.Image, **options: Any) -> dict[str, Any]:
    """An image as `datasets` stores it; PNG by default."""
    content = io.BytesIO()
    image.save(content, **({"format": "PNG"} | options))
    return {"bytes": content.getvalue(), "path": None}


def write_split(split: str, folder: Path, *, num_scenes: int, **image_options: Any) -> None:
    """Paint scenes of a split into a folder that `datasets.load_dataset` reads.

    Args:
        image_options: of PIL, for saving the pictures; PNG if none are given.
    """
    scenes = datasets.Dataset.from_list(list(_painted(split, num_scenes, **image_options)), features=FEATURES)
    (folder / "data").mkdir(parents=True, exist_ok=True)
    scenes.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")  # a name that load_dataset knows


def main() -> None:
    """Paint the scenes that ship, and write down what their categories are."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.dataset", description=main.__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=PACK)
    folder = parser.parse_args().folder
    (folder / "demo").mkdir(parents=True, exist_ok=True)
    for split, settings in SPLITS.items():
        if settings.num_shipped:
            compression = {"format": "WEBP", "quality": 85, "method": 6}
            write_split(split, folder, num_scenes=settings.num_shipped, **compression)
    for name, (artist, kind, number) in DEMO.items():
        picture = Image.fromarray(Painter(artist, seed=DEMO_SEED).paint(kind, number).image)
        picture.save(folder / "demo" / f"{name}.jpg", quality=90)
    for name, categories in (("categories", CATEGORIES), ("seen", [c for c in CATEGORIES if c.name in SEEN])):
        text = json.dumps([category.to_dict() for category in categories], indent=None, ensure_ascii=False)
        (folder / f"{name}.json").write_text(text.replace("}, {", "},\n {") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
