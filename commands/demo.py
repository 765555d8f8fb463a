"""`fisa-demo`: segments scenes of Patchwork with the model that ships, by the command that a person would run."""

import sys
from collections.abc import Sequence

from fisa.commands import segment
from fisa.commands.options import OneLineParser, output_folder
from fisa.pretrained.patchwork import SCENES


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
EXPLANATION = """
Segmenting scenes of Patchwork, the small world that comes with this package, with a model that was trained in it on
two processor cores. Of the words it is given, these were never shown with a mask in training: {unseen}.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment the scenes and say where the pictures are; returns the exit status."""
    parser = OneLineParser(prog="fisa-demo", description="Segment the scenes that come with the package.")
    parser.add_argument(
        "--output", type=output_folder, default="demo_output", help="folder for the pictures (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    print(EXPLANATION.format(unseen=", ".join(UNSEEN)))
    return segment.main([str(SCENES), "--labels", LABELS, "--output", str(options.output)])


if __name__ == "__main__":
    sys.exit(main())
