"""The demo's three scenes as CLIP with mask tokens reads them, and as what ships does, with every word of Patchwork to
choose from: `python -m fisa.studies.patchwork.before_after FILE`."""

import argparse
from pathlib import Path

from PIL import Image

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor
from fisa.commands.demo import GAP, side_by_side
from fisa.pretrained import patchwork


SCENES = ("easy", "shifted", "hard")
PLAINLY = {"kind_weight": 0.0, "segment_attention_penalty": 0.0, "seve_layers": []}
ZOOM = 8


def before_and_after() -> Image.Image:
    """Two rows of three pictures."""
    plain = FisaForUniversalSegmentation.from_pretrained(patchwork.CHECKPOINT, **PLAINLY).eval()
    adapted, processor = patchwork.load()
    rows = [
        side_by_side([_drawn(model, processor, scene, zoom=zoom) for scene in SCENES])
        for model, zoom in ((plain, 0), (adapted, ZOOM))
    ]
    both = Image.new("RGB", (rows[0].width, sum(row.height for row in rows) + GAP), "white")
    both.paste(rows[0], (0, 0))
    both.paste(rows[1], (0, rows[0].height + GAP))
    return both


def _drawn(model: FisaForUniversalSegmentation, processor: FisaProcessor, scene: str, *, zoom: int) -> Image.Image:
    segmenter = FisaPipeline(model=model, processor=processor)
    return segmenter(patchwork.SCENES / f"{scene}.jpg", zoom=zoom, return_type="segmentation").plot(legend=False)


def main() -> None:
    """Draw them."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.before_after", description=__doc__)
    parser.add_argument("file", type=Path)
    before_and_after().save(parser.parse_args().file)


if __name__ == "__main__":
    main()
