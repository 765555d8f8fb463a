"""Damaged settings of the model and of the image processor: read, or refused in one sentence."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given
from transformers import AutoConfig

from fisa import FisaImageProcessor
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
    return folder


@given(changes=CHANGES)
def test_a_damaged_configuration(saved, changes):
    file = saved / "config.json"
    whole = file.read_text()
    try:
        # What tells transformers which class reads it stays.
        file.write_text(json.dumps(changed(json.loads(whole), changes) | {"model_type": "fisa"}))
        AutoConfig.from_pretrained(saved)
    except REFUSED as error:
        assert str(error).strip()
    finally:
        file.write_text(whole)


@given(changes=CHANGES)
def test_a_damaged_image_processor(changes):
    content = json.loads(json.dumps(FisaImageProcessor().to_dict(), default=list))
    try:
        FisaImageProcessor.from_dict(changed(content, changes))
    except REFUSED as error:
        assert str(error).strip()
