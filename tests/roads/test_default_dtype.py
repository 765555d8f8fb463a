"""Other code of a process may set another default dtype; nothing here depends on it. And models of float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fisa import FisaForUniversalSegmentation, FisaProcessor
from tests.configurations import GENERATOR_KINDS, tiny_generator_inputs, tiny_inputs
from tests.models import tiny_segmentation_model


DTYPES = [torch.float64, torch.bfloat16]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(usual)


def results(folder, photos) -> list[torch.Tensor]:
    """What comes of photos in a model of float32 and its processor, loaded now: all outputs and all maps."""
    model = FisaForUniversalSegmentation.from_pretrained(folder, dtype=torch.float32)
    processor = FisaProcessor.from_pretrained(folder, threshold=0.1)
    with torch.no_grad():
        outputs = model(**processor(images=photos, return_tensors="pt", zoom=2, text="bird, fish, water [stuff]"))
    sizes = [photo.size[::-1] for photo in photos]
    found = [outputs.class_queries_logits, outputs.masks_queries_logits]
    for rule in ("open_vocabulary", "closed_vocabulary"):
        processor.image_processor.post_processing_rule = rule
        for segmented in (
            processor.post_process_panoptic_segmentation(outputs, target_sizes=sizes),
            processor.post_process_instance_segmentation(outputs, target_sizes=sizes),
        ):
            found += [result["segmentation"] for result in segmented]
    return [*found, *processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_do_not_depend_on_the_default_dtype(saved, scene, dtype):
    photos = [scene.resize((301, 173)), scene.resize((211, 407))]
    wanted = results(saved, photos)
    assert wanted[2].max() > 1  # segments to compare
    with default_dtype(dtype):
        found = results(saved, photos)
    torch.testing.assert_close(found, wanted, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("generator", GENERATOR_KINDS)
@torch.no_grad()
def test_proposals_do_not_depend_on_the_default_dtype(generator, dtype):
    model = tiny_segmentation_model(generator)
    inputs = tiny_inputs() | tiny_generator_inputs([(32, 64), (64, 43)], canvas=(64, 64))
    del inputs["mask_proposals"]
    wanted = model(**inputs)
    with default_dtype(dtype):
        torch.testing.assert_close(model(**inputs), wanted, atol=0, rtol=0)


@torch.no_grad()
def test_a_model_of_float64_answers_as_one_of_float32():
    model, inputs = tiny_segmentation_model("mask2former"), tiny_inputs()
    wanted = model(**inputs)
    found = model.double()(**{name: value.double() for name, value in inputs.items()})
    torch.testing.assert_close(found.class_queries_logits.float(), wanted.class_queries_logits, atol=1e-4, rtol=1e-4)
