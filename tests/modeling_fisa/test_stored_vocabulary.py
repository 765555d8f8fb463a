"""The stored vocabulary is read once, and again whenever it or what the generator makes of it has changed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fisa import FisaForUniversalSegmentation
from fisa.miniature import miniature


WORDS = "red car, blue sky [stuff], road"


def _another_kind(model: FisaForUniversalSegmentation) -> None:
    model.config.is_thing[0] = False
    model.config.kind_is_known[0] = True


def _other_texts(model: FisaForUniversalSegmentation) -> None:
    model.load_state_dict(model.state_dict() | {"fisa.class_embeds": model.fisa.class_embeds.flip(0)})


def _other_texts_of_others(model: FisaForUniversalSegmentation) -> None:
    model.fisa.other_embeds.copy_(model.fisa.other_embeds.flip(-1))


def _another_weight(model: FisaForUniversalSegmentation) -> None:
    model.config.kind_weight = 0.0


def _other_labels_of_the_generator(model: FisaForUniversalSegmentation) -> None:
    labels = model.mask_generator.config.id2label
    labels[0], labels[1] = labels[1], labels[0]


def _another_vocabulary(model: FisaForUniversalSegmentation) -> None:
    _, processor = miniature()
    model.set_vocabulary(processor, "road, red car", others="tree")


def _another_precision(model: FisaForUniversalSegmentation) -> None:
    model.to(torch.bfloat16).to(torch.float32)


CHANGES: list[Callable[[FisaForUniversalSegmentation], None]] = [
    _another_kind,
    _other_texts,
    _other_texts_of_others,
    _another_weight,
    _other_labels_of_the_generator,
    _another_vocabulary,
    _another_precision,
]


@pytest.mark.parametrize("change", CHANGES)
@torch.no_grad()
def test_what_changes_after_a_call_counts_in_the_next_one(change):
    model, inputs = _with_stored_words()
    before = model(**inputs).class_queries_logits
    change(model)
    found = model(**inputs).class_queries_logits

    fresh, _ = _with_stored_words()
    change(fresh)
    assert torch.equal(found, fresh(**inputs).class_queries_logits)
    assert found.shape != before.shape or not torch.equal(found, before)


@pytest.mark.parametrize("others", [None, "tree, house"])
@pytest.mark.parametrize("made_by", ["set_vocabulary", "encode_vocabulary", "a call"])
def test_words_from_inference_mode_can_be_trained_with(made_by, others):
    model, processor = miniature()
    words: dict[str, Any] = {}
    if made_by == "a call":
        model.set_vocabulary(processor, WORDS, others=others)
    inputs = processor(
        images=np.zeros((8, 8, 3), np.uint8), segmentation_maps=np.eye(8, dtype=np.uint8), return_tensors="pt"
    )
    labels = {name: inputs.pop(name) for name in ("mask_labels", "class_labels")}
    with torch.inference_mode():
        if made_by == "set_vocabulary":
            model.set_vocabulary(processor, WORDS, others=others)
        elif made_by == "encode_vocabulary":
            words |= model.encode_vocabulary(processor, WORDS, others=others)
        else:
            model(**inputs)
    model.load_state_dict(model.state_dict())
    model.train()(inputs["pixel_values"], **words, **labels).loss.backward()
    assert model.fisa.mask_encoder.mask_position.weight.grad.abs().sum() > 0


def _with_stored_words() -> tuple[FisaForUniversalSegmentation, dict[str, Any]]:
    model, processor = miniature()
    model.mask_generator.config.id2label = {0: "thing", 1: "stuff"}
    model.set_vocabulary(processor, WORDS, others="tree, house")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))
    return model, processor(images=photo, return_tensors="pt")
