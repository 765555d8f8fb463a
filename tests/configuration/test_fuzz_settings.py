"""Damaged config.json and processor_config.json: read, or refused in one sentence that names what is wrong."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given
from transformers import AutoConfig

from fisa import FisaImageProcessor, FisaProcessor
from fisa.miniature import character_clip_tokenizer
from tests.configurations import tiny_config
from tests.damaged_json import CHANGES, changed


# transformers' own error for a field names the field.
REFUSED = (ValueError, OSError, StrictDataclassError)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    config = tiny_config("eomt")
    config.store_vocabulary([{"name": "dog", "synonyms": ["puppy"], "is_thing": True}])
    config.save_pretrained(folder)
    FisaProcessor(FisaImageProcessor(), character_clip_tokenizer()).save_pretrained(folder)
    return folder


def load_damaged(load, saved: Path, file: str, kept: dict[str, str], changes) -> None:
    """Load a damaged file, but for what tells transformers which class reads it."""
    whole = (saved / file).read_text()
    content = changed(json.loads(whole), changes)
    content = content | kept if isinstance(content, dict) else content
    try:
        (saved / file).write_text(json.dumps(content))
        load(saved)
    except REFUSED as error:
        assert str(error).strip()
    finally:
        (saved / file).write_text(whole)


@given(changes=CHANGES)
def test_a_damaged_configuration(saved, changes):
    load_damaged(AutoConfig.from_pretrained, saved, "config.json", {"model_type": "fisa"}, changes)


@given(changes=CHANGES)
def test_a_damaged_image_processor(changes):
    content = json.loads(json.dumps(FisaImageProcessor().to_dict(), default=list))
    try:
        FisaImageProcessor.from_dict(changed(content, changes))
    except REFUSED as error:
        assert str(error).strip()
