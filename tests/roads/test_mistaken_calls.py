"""Mistakes that people make in Python, and what they are told: what was found, and what to do."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel, pipeline

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor, SimoConfig, get_simo_model
from fisa.miniature import miniature


@pytest.fixture
def here(mistaken, monkeypatch) -> Path:
    monkeypatch.chdir(mistaken)
    return mistaken


class Parts(NamedTuple):
    """What calls are made with."""

    model: FisaForUniversalSegmentation
    processor: FisaProcessor
    segmenter: FisaPipeline
    photo: Image.Image

    def inputs(self, **others: Any) -> dict[str, Any]:
        return {**self.processor(images=self.photo, return_tensors="pt"), **others}

    def segmentation(self) -> Any:
        return self.segmenter(self.photo, candidate_labels=["dog"], return_type="segmentation", threshold=0)


@pytest.fixture(scope="module")
def parts(mistaken) -> Parts:
    segmenter = pipeline("image-segmentation", model=str(mistaken / "model"), pipeline_class=FisaPipeline)
    return Parts(segmenter.model, segmenter.processor, segmenter, Image.open(mistaken / "photo.png"))


class Call(NamedTuple):
    """What is called, with [`Parts`], and what its error must say."""

    call: Callable[[Parts], Any]
    error: type[Exception]
    found: str
    to_do: str


def together(clip: str, mask_generator: str) -> Callable[[Parts], Any]:
    return lambda parts: FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, mask_generator)


def stock_pipeline(parts: Parts, **arguments: Any) -> Any:
    return pipeline("image-segmentation", parts.model, image_processor=parts.processor.image_processor, **arguments)


def nan_photo() -> np.ndarray:
    pixels = np.full((8, 8, 3), 0.5, dtype=np.float32)
    pixels[0, 0] = np.nan
    return pixels


CALLS = {
    # photos
    "NaN in a photo": Call(lambda of: of.segmenter(nan_photo()), ValueError, "found nan", "Replace NaN"),
    "a photo of no pixels": Call(
        lambda of: of.segmenter(Image.new("RGB", (0, 5))), ValueError, "The image is empty", "5 x 0 pixels"
    ),
    "a number for a photo": Call(lambda of: of.segmenter(3), TypeError, "found int", "Pass a PIL image"),
    "a folder for a photo": Call(lambda of: of.segmenter("empty"), ValueError, "'empty'", "Is a directory"),
    "a text for a photo": Call(
        lambda of: of.segmenter("words.csv"), ValueError, "no image format that FISA reads", "JPEG or PNG"
    ),
    "one photo of two": Call(lambda of: of.segmenter([of.photo, "gone.png"]), ValueError, "Image 1", "gone.png"),
    # words
    "an empty list of words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels=[]), ValueError, "vocabulary is empty", "name at least one"
    ),
    "a set of words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels={"dog"}), TypeError, "found set", "an ordered list"
    ),
    "numbers for words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels=[1]), TypeError, "found 1 (int)", "must be a name"
    ),
    "words before the processor": Call(
        lambda of: of.model.set_vocabulary(["dog"], of.processor), TypeError, "found list", "processor comes before"
    ),
    "a model without words": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("bare")(**of.inputs()),
        ValueError,
        "No classes to choose from",
        "model.set_vocabulary(processor",
    ),
    "a template without a place": Call(
        lambda of: FisaProcessor.from_pretrained("model", prompt_templates="a photo"), ValueError, "a photo", "{}"
    ),
    # options
    "a misspelt argument": Call(
        lambda of: of.segmenter(of.photo, treshold=0.3), TypeError, "no argument treshold", "threshold"
    ),
    "words for the stock pipeline": Call(
        lambda of: stock_pipeline(of)(of.photo, candidate_labels=["dog"], batch_size=1),
        TypeError,
        "no argument candidate_labels.",
        "pipeline_class=fisa.FisaPipeline",
    ),
    "words when the stock pipeline is made": Call(
        lambda of: stock_pipeline(of, text=["dog"]), TypeError, "no argument text.", "takes candidate_labels"
    ),
    "words for the processor by the pipeline's name": Call(
        lambda of: of.processor(images=of.photo, candidate_labels=["dog"]), TypeError, "candidate_labels", "`text`"
    ),
    "no such task": Call(lambda of: of.segmenter(of.photo, subtask="pan"), ValueError, "'pan'", "panoptic, instance"),
    "no such type": Call(
        lambda of: of.segmenter(of.photo, return_type="seg"), ValueError, "'seg'", "segments, segmentation"
    ),
    "a per cent": Call(lambda of: of.segmenter(of.photo, threshold=50), ValueError, "is 50", "in [0, 1]"),
    # models
    "CLIP's vision alone": Call(together("vision", "generator"), ValueError, "'clip_vision_model'", "both towers"),
    "CLIP's texts alone": Call(together("text", "generator"), ValueError, "'clip_text_model'", "both towers"),
    "FISA for CLIP": Call(together("model", "generator"), ValueError, "'fisa'", "must be a whole one"),
    "FISA for a generator": Call(together("clip", "model"), ValueError, "'fisa'", "'mask2former', 'maskformer'"),
    "SegFormer for a generator": Call(together("clip", "segformer"), ValueError, "'segformer'", "'mask2former',"),
    "a generator for FISA": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("generator"),
        ValueError,
        "'mask2former', not of FISA",
        "from_clip_and_mask_generator",
    ),
    "CLIP for FISA": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("clip"),
        ValueError,
        "'clip', not of FISA",
        "from_clip_and_mask_generator",
    ),
    "SegFormer for FISA": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("segformer"),
        ValueError,
        "'segformer', not of FISA",
        "from_clip_and_mask_generator",
    ),
    "a processor from nowhere": Call(
        lambda of: FisaProcessor.from_pretrained("empty"), OSError, "there is no tokenizer", "save_pretrained(folder)"
    ),
    "another model in the pipeline": Call(
        lambda of: pipeline("image-segmentation", model="generator", pipeline_class=FisaPipeline),
        OSError,
        "there is no tokenizer",
        "save_pretrained(folder)",
    ),
    # tensors
    "a photo's bytes": Call(
        lambda of: of.model(**of.inputs(pixel_values=torch.zeros(1, 3, 96, 96, dtype=torch.uint8))),
        TypeError,
        "torch.uint8",
        "FisaProcessor makes",
    ),
    "masks of one photo": Call(
        lambda of: of.model(**of.inputs(mask_proposals=torch.zeros(4, 8, 8))), ValueError, "(4, 8, 8)", "it must be"
    ),
    "masks of other photos": Call(
        lambda of: of.model(**of.inputs(mask_proposals=torch.zeros(2, 4, 8, 8))), ValueError, "for 2 photos", "one set"
    ),
    "embeddings of another CLIP": Call(
        lambda of: of.model(**of.inputs(class_embeds=torch.zeros(2, 7))), ValueError, "(2, 7)", "projection_dim, 64"
    ),
    "masks without classes": Call(
        lambda of: of.model(**of.inputs(mask_labels=[torch.ones(1, 9, 9)])), ValueError, "without", "pass the class"
    ),
    "a class that is not there": Call(
        lambda of: of.model(**of.inputs(mask_labels=[torch.ones(1, 9, 9)], class_labels=[torch.tensor([9])])),
        ValueError,
        "holds 9",
        "from 0 to 2",
    ),
    "a label map of another size": Call(
        lambda of: of.processor(images=of.photo, segmentation_maps=np.zeros((5, 5), dtype=np.uint8)),
        ValueError,
        "5 x 5",
        "120 x 160",
    ),
    "sizes of two photos": Call(
        lambda of: of.processor.post_process_panoptic_segmentation(
            of.model(**of.inputs()), target_sizes=[(9, 9), (9, 9)]
        ),
        ValueError,
        "[(9, 9), (9, 9)]",
        "each of the 1 images",
    ),
    # training
    "an adapter on an adapter": Call(
        lambda of: get_simo_model(get_simo_model(miniature()[0])), TypeError, "PeftModel", "add_adapter"
    ),
    "an adapter on CLIP": Call(
        lambda of: get_simo_model(CLIPModel.from_pretrained("clip")), TypeError, "CLIPModel", "pass FISA's own model"
    ),
    "layers that are not there": Call(
        lambda of: get_simo_model(miniature()[0], SimoConfig(image_layers=(99,))), ValueError, "99", "layers"
    ),
    # results
    "a label nobody looked for": Call(lambda of: of.segmentation()["cat"], KeyError, "'cat'", "there are dog"),
    "a segment that is not there": Call(
        lambda of: of.segmentation()[999], IndexError, "no segment 999", "counted from"
    ),
    "a label for a segment": Call(
        lambda of: of.segmentation().crop("dog"), TypeError, "found 'dog'", "segmentation[0]"
    ),
    "categories of no class": Call(
        lambda of: of.segmentation().to_coco([]), ValueError, "has 0 ids", "one id for each class"
    ),
    "another photo": Call(
        lambda of: of.segmentation().plot(Image.new("RGB", (5, 5))), ValueError, "(5, 5)", "the very image"
    ),
    "a picture of no format": Call(
        lambda of: of.segmentation().save("picture"), ValueError, "picture", ".png or .jpg"
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_it_found_and_what_to_do(here, parts, name):
    call, error, found, to_do = CALLS[name]
    with pytest.raises(error) as raised:
        call(parts)
    said = " ".join(str(raised.value).split())
    assert found in said and to_do in said


def test_the_parts_of_a_processor_are_those_of_a_model(here):
    with pytest.raises(ValueError, match="'mask2former'.*must be a whole one"):
        FisaProcessor.from_clip_and_mask_generator("generator", "clip")


def test_words_of_two_hundred_tokens_are_said_to_lose_their_end(parts):
    with pytest.warns(UserWarning, match=r"more than the 77 tokens that CLIP reads lose their end.*dog dog"):
        parts.segmenter(parts.photo, candidate_labels=[" ".join(["dog"] * 200)])


@pytest.mark.parametrize("words", [["dog, cat"], [" ".join(["cat"] * 200)]], ids=["a list in an item", "200 tokens"])
def test_ten_calls_warn_once(parts, words):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(10):
            parts.segmenter(parts.photo, candidate_labels=words)
    assert len(said) == 1, [str(warning.message) for warning in said]
