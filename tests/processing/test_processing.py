"""FisaProcessor: labels become prompts, photos become views, and all of it comes back from a folder."""

import json
import warnings
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, CLIPProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.mask2former.image_processing_pil_mask2former import Mask2FormerImageProcessorPil
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

from fisa.miniature import character_clip_tokenizer
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.post_processing import (
    Rule,
    instance_segmentation,
    panoptic_segmentation,
    semantic_segmentation,
)
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.vocabulary import PROMPT_TEMPLATES, Vocabulary


LABELS = {"dog": ["puppy"], "sky": [], "red car": ["automobile", "motor"]}
PHOTO = Image.linear_gradient("L").resize((40, 30))
SMALL = {"shortest_edge": 64, "longest_edge": 96}
OUTPUTS = Mask2FormerForUniversalSegmentationOutput(
    class_queries_logits=3 * torch.randn(2, 12, 4, generator=torch.Generator().manual_seed(0)),
    masks_queries_logits=3 * torch.randn(2, 12, 6, 6, generator=torch.Generator().manual_seed(1)),
)


def make_processor(**options) -> FisaProcessor:
    image_processor = FisaImageProcessor(size=32, mask_generator_size=SMALL)
    return FisaProcessor(image_processor, character_clip_tokenizer(), **options)


def decoded(processor: FisaProcessor, inputs: dict) -> list[list[str]]:
    """The text of each prompt, without padding: S lists of T."""
    return [
        [processor.decode(ids[mask.astype(bool)], skip_special_tokens=True) for ids, mask in zip(*prompts)]
        for prompts in zip(inputs["input_ids"], inputs["attention_mask"])
    ]


def test_labels_become_prompts():
    processor = make_processor(prompt_templates=["a photo of a {}", "{}"])
    inputs = processor(text=LABELS)
    names = ["dog", "puppy", "sky", "red car", "automobile", "motor"]
    assert decoded(processor, inputs) == [[f"a photo of a {name}", name] for name in names]
    assert inputs["prompt_class_ids"].tolist() == [0, 0, 1, 2, 2, 2]
    assert inputs["class_is_thing"].tolist() == [True, False, True]
    longest = len("aphotoofaautomobile") + 2
    assert inputs["input_ids"].shape == inputs["attention_mask"].shape == (6, 2, longest)


def test_tokens_are_the_tokenizers_own():
    processor = make_processor(prompt_templates="scene")
    inputs = processor(text=LABELS, return_tensors="pt")
    names = Vocabulary.parse(LABELS).prompts()
    for name, ids, masks in zip(names, inputs["input_ids"], inputs["attention_mask"]):
        for template, row, mask in zip(PROMPT_TEMPLATES["scene"], ids, masks):
            assert row[mask.bool()].tolist() == processor.tokenizer(template.format(name))["input_ids"]
            assert (row[~mask.bool()] == processor.tokenizer.pad_token_id).all()
    tokens = processor.tokenize(names)
    assert tokens.keys() == {"input_ids", "attention_mask"}
    assert all(torch.equal(value, inputs[name]) for name, value in tokens.items())


def test_types_and_shapes_of_everything():
    inputs = make_processor()(images=[PHOTO, np.zeros((50, 20, 3), np.uint8)], text=LABELS, return_tensors="pt")
    assert {name: (tuple(value.shape), value.dtype) for name, value in inputs.items()} == {
        "pixel_values": ((2, 3, 32, 32), torch.float32),
        "mask_generator_pixel_values": ((2, 3, 96, 96), torch.float32),
        "mask_generator_pixel_mask": ((2, 96, 96), torch.bool),
        "input_ids": ((6, 1, 21), torch.int64),
        "attention_mask": ((6, 1, 21), torch.int64),
        "prompt_class_ids": ((6,), torch.int64),
        "class_is_thing": ((3,), torch.bool),
        "class_kinds": ((3,), torch.int64),
    }
    assert set(inputs) == set(make_processor().model_input_names)
    assert all(isinstance(value, np.ndarray) for value in make_processor()(images=PHOTO, text="dog").values())


def test_images_or_text_alone():
    processor = make_processor()
    assert "input_ids" not in processor(images=PHOTO) and "pixel_values" not in processor(text="dog")
    assert processor(PHOTO, mask_generator_size=None).keys() == {"pixel_values"}
    with pytest.raises(ValueError, match="images"):
        processor()


def test_labels_in_any_form_and_refused_ones():
    processor = make_processor()
    expected = processor(text="dog, curtain [stuff]")
    vocabulary = Vocabulary.parse("dog, curtain [stuff]")
    for labels in (vocabulary, ["dog", "curtain [stuff]"], {"dog": [], "curtain [stuff]": []}):
        for name, value in processor(text=labels).items():
            np.testing.assert_array_equal(value, expected[name])
    assert processor.parse_vocabulary(["dog"]) == Vocabulary.parse("dog")
    with pytest.raises(ValueError, match='"Dog"'):
        processor(text="dog, Dog")


@pytest.mark.parametrize("limit", [77, 20, None])
def test_long_prompts_lose_their_end_with_one_warning_that_quotes_them(limit):
    processor = make_processor(prompt_templates="{}")
    if limit is None:  # as in tokenizers that were saved without a length
        limit, processor.tokenizer = 77, character_clip_tokenizer(model_max_length=None)
    elif limit != 77:
        processor.tokenizer.model_max_length = limit
    fits, too_long, longer = "a" * (limit - 2), "b" * (limit - 1), "c" * 200
    with pytest.warns(UserWarning, match="tokens") as caught:
        inputs = processor(text=["dog", fits, too_long, longer])
    assert len(caught) == 1 and caught[0].filename == __file__
    message = str(caught[0].message)
    assert f'"{too_long}"' in message and f'"{longer}"' in message and str(limit) in message
    assert fits not in message and '"dog"' not in message
    assert inputs["input_ids"].shape == (4, 1, limit)
    assert (inputs["input_ids"][1:, 0, -1] == processor.tokenizer.eos_token_id).all()
    assert decoded(processor, inputs)[3] == ["c" * (limit - 2)]


@pytest.mark.filterwarnings("ignore:Prompts of more")
def test_names_that_are_one_once_they_are_cut_off_are_refused():
    long = "a" * 100
    with pytest.raises(ValueError, match=f'"{long}b" and "{long}c" are the same to CLIP'):
        make_processor()(text=["dog", f"{long}b", f"{long}c"])
    assert len(make_processor()(text=[f"b{long}", f"c{long}"])["input_ids"]) == 2


def test_settings_as_transformers_takes_them():
    processor = make_processor()
    plain = processor(images=PHOTO, text=LABELS)
    for given in (
        {"padding": True, "truncation": True, "do_convert_rgb": True},
        {"text_kwargs": {"padding": "longest", "max_length": 77}, "images_kwargs": {"do_convert_rgb": True}},
        {"common_kwargs": {"return_tensors": "np"}},
    ):
        for name, value in processor(images=PHOTO, text=LABELS, **given).items():
            np.testing.assert_array_equal(value, plain[name])
    assert processor(text=LABELS, padding="max_length", max_length=30)["input_ids"].shape == (6, 1, 30)
    for without in (False, "do_not_pad"):
        assert processor(text="dog, cat", padding=without)["input_ids"].shape[:2] == (2, 1)
    flat, nested = processor(images=PHOTO, do_normalize=False), processor(PHOTO, images_kwargs={"do_normalize": False})
    np.testing.assert_array_equal(flat["pixel_values"], nested["pixel_values"])
    assert (flat["pixel_values"] != plain["pixel_values"]).any()


def test_padding_that_the_tokenizer_was_given_counts_until_the_call_says_otherwise(tmp_path):
    make_processor().save_pretrained(tmp_path)
    processor = FisaProcessor.from_pretrained(tmp_path, padding="max_length", max_length=40)
    assert processor(text=LABELS)["input_ids"].shape == (6, 1, 40)
    assert processor(text=LABELS, max_length=50)["input_ids"].shape == (6, 1, 50)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"nonsense": 1}, TypeError, "no setting nonsense for images"),
        ({"images_kwargs": {"padding": True}}, TypeError, "no setting padding for images"),
        ({"text_kwargs": {"do_normalize": True}}, TypeError, "no setting do_normalize for text"),
        ({"truncate": True}, TypeError, "did you mean `truncation`"),
        ({"common_kwargs": {"return_tensor": "pt"}}, TypeError, "did you mean `return_tensors`"),
        ({"padding": True, "text_kwargs": {"padding": False}}, ValueError, "padding was passed two times"),
        ({"padding": False}, ValueError, "leave `padding` at True"),
        ({"padding": "do_not_pad"}, ValueError, "leave `padding` at True"),
        ({"truncation": "do_not_truncate", "max_length": 15}, ValueError, "more than 15 tokens"),
        ({"truncation": False, "max_length": 15}, ValueError, 'more than 15 tokens: "a photo of a puppy"'),
        ({"images": PHOTO, "do_convert_rgb": False}, ValueError, "only RGB"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        make_processor()(text=LABELS, **given)


def test_prompts_that_fit_are_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_processor(prompt_templates="{}")(text=["dog", "a" * 75])


def test_braces_in_a_name_or_a_template_are_text():
    processor = make_processor(prompt_templates=["{} {x}"])
    assert decoded(processor, processor(text=["{0}"])) == [["{ 0 } { x }"]]


@pytest.mark.parametrize("templates", ["default", "scene", "just {}", ["one {}", "two {}"]])
def test_round_trips_through_a_folder_and_the_auto_classes(tmp_path, templates):
    processor = make_processor(prompt_templates=templates)
    processor.save_pretrained(tmp_path)
    expected = processor(images=PHOTO, text=LABELS)
    for loaded in (FisaProcessor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert type(loaded) is FisaProcessor and type(loaded.image_processor) is FisaImageProcessor
        assert loaded.to_dict() == processor.to_dict()
        assert json.loads(loaded.to_json_string()) == json.loads(processor.to_json_string())
        for name, value in loaded(images=PHOTO, text=LABELS).items():
            np.testing.assert_array_equal(value, expected[name])
    image_processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert image_processor.to_dict() == processor.image_processor.to_dict()


def test_templates_can_be_changed_on_loading(tmp_path):
    make_processor(prompt_templates="scene").save_pretrained(tmp_path)
    assert FisaProcessor.from_pretrained(tmp_path, prompt_templates="a {}").prompt_templates == ("a {}",)
    with pytest.raises(ValueError, match='"nonsense"'):
        make_processor(prompt_templates="nonsense")


def test_from_clip_and_mask_generator(tmp_path):
    clip = CLIPProcessor(CLIPImageProcessorPil(crop_size=96), character_clip_tokenizer())
    generator = Mask2FormerImageProcessorPil(size=SMALL)
    clip.save_pretrained(tmp_path / "clip")
    generator.save_pretrained(tmp_path / "generator")
    loaded = FisaProcessor.from_clip_and_mask_generator(clip, generator, prompt_templates="scene")
    named = FisaProcessor.from_clip_and_mask_generator(
        str(tmp_path / "clip"), tmp_path / "generator", prompt_templates="scene"
    )
    assert loaded.to_dict() == named.to_dict()
    assert loaded.prompt_templates == PROMPT_TEMPLATES["scene"]
    assert loaded.image_processor.size == {"height": 96, "width": 96}
    np.testing.assert_array_equal(loaded(text=LABELS)["input_ids"], named(text=LABELS)["input_ids"])
    assert FisaProcessor.from_clip_and_mask_generator(clip).image_processor.mask_generator_size is None


@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
@pytest.mark.parametrize("stored", [{}, {"threshold": 0.3, "mask_threshold": 0.4, "overlap_mask_area_threshold": 0.1}])
def test_post_processing_takes_the_stored_settings_for_what_is_not_given(subtask, stored):
    function = {"panoptic": panoptic_segmentation, "instance": instance_segmentation}[subtask]
    settings = {"threshold": 0.5, "mask_threshold": 0.5, "overlap_mask_area_threshold": 0.8} | stored
    for rule in get_args(Rule):
        image_processor = FisaImageProcessor(**stored, post_processing_rule=rule)
        processor = FisaProcessor(image_processor, character_clip_tokenizer())
        post_process = getattr(processor, f"post_process_{subtask}_segmentation")
        for given in ({}, {"threshold": 0.0}, {"mask_threshold": 0.2}, {"overlap_mask_area_threshold": 0.0}):
            found = post_process(OUTPUTS, target_sizes=[(13, 17)] * 2, **given)
            expected = function(OUTPUTS, target_sizes=[(13, 17)] * 2, rule=rule, **(settings | given))
            for one, other in zip(found, expected):
                assert one["segments_info"] == other["segments_info"]
                assert torch.equal(one["segmentation"], other["segmentation"])


def test_post_processing_passes_on_what_to_fuse_and_the_sizes():
    processor = make_processor()
    (fused, _) = processor.post_process_panoptic_segmentation(
        OUTPUTS, threshold=0.0, overlap_mask_area_threshold=0.0, label_ids_to_fuse={0, 1, 2}
    )
    labels = [segment["label_id"] for segment in fused["segments_info"]]
    assert labels and len(set(labels)) == len(labels)
    for size in (None, [(5, 7), (9, 3)]):
        found = processor.post_process_semantic_segmentation(OUTPUTS, target_sizes=size)
        expected = semantic_segmentation(OUTPUTS, target_sizes=size)
        assert all(torch.equal(one, other) for one, other in zip(found, expected))


def test_ten_thousand_names_take_seconds():
    inputs = make_processor()(text=[f"class number {index}" for index in range(10_000)])
    assert inputs["input_ids"].shape[:2] == (10_000, 1)
