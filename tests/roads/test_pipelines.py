"""Pipelines that are saved and loaded again, and pipelines of parts: the same answers by the same words."""

import pytest
from transformers import AutoImageProcessor, AutoTokenizer, pipeline

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor
from fisa.miniature import miniature


WORDS = ["bird", "fish", "sky"]


def answer(segmenter, scene, **options):
    return [
        (segment["label"], segment["score"], segment["mask"].tobytes())
        for segment in segmenter(scene, threshold=0.0, **options)
    ]


@pytest.fixture(scope="module")
def templated(saved, tmp_path_factory):
    """The saved folder with another set of prompt templates."""
    folder = tmp_path_factory.mktemp("templated")
    processor = FisaProcessor.from_pretrained(saved)
    FisaForUniversalSegmentation.from_pretrained(saved).save_pretrained(folder)
    FisaProcessor(processor.image_processor, processor.tokenizer, prompt_templates="scene").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", ["image-segmentation", "open-vocabulary-image-segmentation"])
def test_a_saved_pipeline_answers_as_before(templated, scene, tmp_path, task):
    segmenter = pipeline(task, model=str(templated), pipeline_class=FisaPipeline)
    segmenter.save_pretrained(tmp_path)
    again = pipeline(task, model=str(tmp_path), pipeline_class=FisaPipeline)
    assert again.processor.prompt_templates == segmenter.processor.prompt_templates
    assert len(again.processor.prompt_templates) > 1
    assert answer(again, scene, candidate_labels=WORDS) == answer(segmenter, scene, candidate_labels=WORDS)
    stock = pipeline("image-segmentation", model=str(tmp_path))
    assert {segment["label"] for segment in stock(scene)} <= set(segmenter.model.config.id2label.values())


@pytest.mark.parametrize(
    "parts", [("image_processor", "tokenizer"), ("image_processor",), ("processor",), ()], ids=str
)
def test_a_pipeline_of_parts_answers_as_one_of_a_folder(saved, scene, parts):
    every_part = {
        "processor": FisaProcessor.from_pretrained(saved),
        "image_processor": AutoImageProcessor.from_pretrained(saved),
        "tokenizer": AutoTokenizer.from_pretrained(saved),
    }
    model = FisaForUniversalSegmentation.from_pretrained(saved)
    given = {name: every_part[name] for name in parts}
    segmenter = pipeline("image-segmentation", model=model, pipeline_class=FisaPipeline, **given)
    whole = pipeline("image-segmentation", model=str(saved), pipeline_class=FisaPipeline)
    assert answer(segmenter, scene, candidate_labels=WORDS) == answer(whole, scene, candidate_labels=WORDS)


def test_a_model_from_nowhere_asks_for_its_processor():
    with pytest.raises(ValueError, match="pass `processor="):
        pipeline("image-segmentation", model=miniature()[0], pipeline_class=FisaPipeline)
