"""What ships: a FISA of Patchwork's CLIP and mask generator, its SIMO adapter, and scenes to try it on.

    model, processor = load()

It knows the pictograms of Patchwork and no photos; `docs/patchwork.md` says what that world is.
"""

from pathlib import Path

from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.processing.processing_fisa import FisaProcessor


CHECKPOINT = Path(__file__).parent / "checkpoint"
ADAPTER = CHECKPOINT / "adapter"
SCENES = Path(__file__).parent / "scenes"


def load(*, adapted: bool = True) -> tuple[FisaForUniversalSegmentation, FisaProcessor]:
    """The shipped model, in evaluation mode, and its processor.

    Args:
        adapted: with the SIMO adapter merged in; else as it was before any mask was classified.

    Example:

    ```python
    >>> from transformers import pipeline
    >>> from fisa import FisaPipeline
    >>> from fisa.pretrained import patchwork

    >>> model, processor = patchwork.load()
    >>> segmenter = pipeline("image-segmentation", model, processor=processor, pipeline_class=FisaPipeline)
    >>> segments = segmenter(patchwork.SCENES / "easy.jpg", candidate_labels="bird, fish, water [stuff]")
    >>> sorted({segment["label"] for segment in segments})
    ['bird', 'fish', 'water']
    ```
    """
    model = FisaForUniversalSegmentation.from_pretrained(CHECKPOINT)
    if adapted:
        from peft import PeftModel  # an extra, not needed to segment with whole models

        model = PeftModel.from_pretrained(model, ADAPTER).merge_and_unload()
    return model.eval(), FisaProcessor.from_pretrained(CHECKPOINT)
