"""`fisa-demo`: segments scenes of Patchwork with the model that ships, by the command that a person would run."""

import sys
from collections.abc import Sequence

from PIL import Image

from fisa.commands import segment
from fisa.commands.options import output_folder
from fisa.pretrained.patchwork import SCENES
from fisa.processing.one_line_parser import OneLineParser


FEW_LABELS = "bird, fish, water [stuff], sailboat, pizza, guitar"
STUFF = ("water", "brick wall", "wood", "tiles", "sky", "sand", "soil")
THINGS = (
    "bird", "fish", "sunglasses", "panda", "sailboat", "sneaker", "cat", "bear", "ladybug", "mushroom", "pumpkin",
    "eagle", "shark", "glasses", "teddy bear", "fox", "tomato", "butterfly",  # none of these is in the scenes
)  # fmt: skip
LABELS = ", ".join([*(f"{name} [thing]" for name in THINGS), *(f"{name} [stuff]" for name in STUFF)])
UNSEEN = (
    "bird", "panda", "sneaker", "bear", "ladybug", "pumpkin", "glasses", "teddy bear", "fox", "butterfly",
    "brick wall", "sky", "soil",
)  # fmt: skip
FEW_WORDS = """
Segmenting scenes of Patchwork, the small world that comes with this package, with a model that was trained in it on
two processor cores. First one scene and six words, of which three are not on it.
"""
MANY_WORDS = """
Then three scenes and 25 words, of which these were never shown with a mask in training: {unseen}.
"""
OPTIONS = ("--zoom", "8", "--overlay-format", "png")  # look closer, and show each pixel of so small scenes
GAP = 16  # pixels between pictures


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment the scenes and say where the pictures are; returns the exit status."""
    parser = OneLineParser(prog="fisa-demo", description="Segment the scenes that come with the package.")
    parser.add_argument(
        "--output", type=output_folder, default="demo_output", help="folder for the pictures (default: %(default)s)"
    )
    folder = parser.parse_args(arguments).output
    print(FEW_WORDS)
    few = folder / "few_words"
    status = segment.main([str(SCENES / "easy.jpg"), "--labels", FEW_LABELS, *OPTIONS, "--output", str(few)])
    print(MANY_WORDS.format(unseen=", ".join(UNSEEN)))
    status = status or segment.main([str(SCENES), "--labels", LABELS, *OPTIONS, "--output", str(folder)])
    if not status:
        pictures = few / "easy_overlay.png", folder / "shifted_overlay.png", folder / "hard_overlay.png"
        side_by_side([Image.open(picture) for picture in pictures]).save(folder / "demo.png")
        print(f"side by side: {folder / 'demo.png'}")
    return status


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, on white."""
    width = sum(picture.width + GAP for picture in pictures) - GAP
    row = Image.new("RGB", (width, max(picture.height for picture in pictures)), "white")
    left = 0
    for picture in pictures:
        row.paste(picture, (left, 0))
        left += picture.width + GAP
    return row


if __name__ == "__main__":
    sys.exit(main())
