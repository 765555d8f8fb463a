"""Damaged settings of the model and of the image processor: read, or refused in one sentence."""

import json
from pathlib import Path

import pytest
from huggingface_hub.errors import StrictDataclassError
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoImageProcessor, AutoProcessor

from fisa import FisaImageProcessor, FisaProcessor
from fisa.miniature import miniature
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
    _, processor = miniature()
    processor.save_pretrained(folder)
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
    except ValueError as error:
        assert str(error).strip()


def still_ours(content):
    """What the Auto classes read before they know whose settings these are stays."""
    content = content if isinstance(content, dict) else {}
    images = content.get("image_processor")
    images = images if isinstance(images, dict) else {}
    names = {"processor_class": "FisaProcessor"}, {"image_processor_type": "FisaImageProcessor"}
    return content | names[0] | {"image_processor": images | names[1]}


@given(
    changes=CHANGES,
    loader=st.sampled_from([AutoProcessor, AutoImageProcessor, FisaProcessor, FisaImageProcessor]),
)
def test_a_damaged_processor(saved, changes, loader):
    file = saved / "processor_config.json"
    whole = file.read_text()
    content = changed(json.loads(whole), changes)
    try:
        file.write_text(json.dumps(still_ours(content) if loader in (AutoProcessor, AutoImageProcessor) else content))
        loader.from_pretrained(saved)
    except (ValueError, OSError) as error:
        assert "processor_config.json" in str(error)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize("loader", [AutoProcessor, AutoImageProcessor, FisaProcessor, FisaImageProcessor])
@pytest.mark.parametrize(
    ("name", "value"),
    [("size", "x"), ("threshold", None), ("threshold", 2), ("image_mean", [[1]]), ("do_normalize", 1)],
)
def test_a_wrong_value_is_named_with_its_file(saved, loader, name, value):
    file = saved / "processor_config.json"
    whole = file.read_text()
    content = json.loads(whole)
    content["image_processor"][name] = value
    try:
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=rf"processor_config\.json: `{name}` is .*; .* must be .*\.$"):
            loader.from_pretrained(saved)
    finally:
        file.write_text(whole)


@pytest.mark.parametrize("loader", [AutoProcessor, FisaProcessor])
@pytest.mark.parametrize(("name", "value"), [("image_processor", []), ("prompt_templates", 5)])
def test_parts_of_a_wrong_kind_are_named_with_their_file(saved, loader, name, value):
    file = saved / "processor_config.json"
    whole = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(whole) | {name: value}))
        with pytest.raises(ValueError, match=rf"processor_config\.json: .*{name.split('_')[0]}"):
            loader.from_pretrained(saved)
    finally:
        file.write_text(whole)
