"""transformers' own pipeline for segmentation, which drops arguments that it does not know: given a FISA model, it
refuses them."""

from functools import wraps
from typing import Any

from transformers import ImageSegmentationPipeline

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.processing.pipeline_fisa import ARGUMENTS


_sanitize_parameters = ImageSegmentationPipeline._sanitize_parameters


def refuse_dropped_arguments() -> None:
    """Let the stock pipeline refuse, for FISA models alone, what it would drop: whoever names words in its call would
    take the segments of stored ones for theirs. Classes that sort arguments of their own are left alone."""
    ImageSegmentationPipeline._sanitize_parameters = _sanitized


@wraps(_sanitize_parameters)
def _sanitized(pipeline: ImageSegmentationPipeline, **given: Any) -> Any:
    if isinstance(pipeline.model.config, FisaConfig) and type(pipeline)._sanitize_parameters is _sanitized:
        dropped = [
            name
            for name, value in given.items()
            if value is not None and not any(_sanitize_parameters(pipeline, **{name: value}))
        ]
        if dropped:
            raise TypeError(
                f"transformers' ImageSegmentationPipeline has no argument {', '.join(sorted(dropped))}. "
                f"pipeline(..., pipeline_class=fisa.FisaPipeline) makes one that takes {', '.join(ARGUMENTS)}."
            )
    return _sanitize_parameters(pipeline, **given)
