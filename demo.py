"""`make demo`: segments photos with a small model made on the spot, by the command that a person would run."""

import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw
from transformers.utils import logging

from fisa import segment
from fisa.miniature import miniature


OUTPUT = Path("demo_output")
SAMPLE_PHOTOS = Path(__file__).resolve().parent.parent / "shared" / "data" / "coco_panoptic_sample" / "images"
LABELS = "person, dog, car, bottle, table [stuff], wall [stuff], floor [stuff], sky [stuff]"
MEANINGLESS = """
The model of this demo has RANDOM WEIGHTS: it was made a moment ago and has learned nothing.
Its labels and masks are MEANINGLESS until trained weights are loaded. What the demo shows is
that everything runs here: photos, words, proposals, classification, segments, pictures.
"""


def main() -> int:
    """Make a model, segment photos with it, say where the pictures are; returns the exit status."""
    print(MEANINGLESS)
    logging.disable_progress_bar()  # saving and loading so small a model takes no time
    with tempfile.TemporaryDirectory() as folder:
        model, processor = miniature(seed=2)
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
        status = segment.main([*sample_photos(), "--model", folder, "--labels", LABELS, "--output", str(OUTPUT)])
    print(MEANINGLESS)
    return status


def sample_photos() -> list[str]:
    """Two COCO photos where they are at hand, else a picture drawn for the occasion."""
    photos = sorted(str(path) for path in SAMPLE_PHOTOS.glob("*.jpg"))
    if photos:
        return photos
    OUTPUT.mkdir(exist_ok=True)
    drawn = OUTPUT / "drawn.png"
    draw_picture().save(drawn)
    return [str(drawn)]


def draw_picture() -> Image.Image:
    """A house, a tree and the sun over a meadow, 640 × 480."""
    picture = Image.new("RGB", (640, 480), "skyblue")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 320, 640, 480), fill="yellowgreen")
    draw.ellipse((500, 40, 590, 130), fill="gold")
    draw.rectangle((120, 220, 300, 380), fill="firebrick")
    draw.polygon([(100, 220), (210, 130), (320, 220)], fill="saddlebrown")
    draw.rectangle((425, 260, 450, 390), fill="sienna")
    draw.ellipse((370, 150, 505, 290), fill="darkgreen")
    return picture


if __name__ == "__main__":
    sys.exit(main())
