"""The table of presets; tests/roads/test_presets.py walks with them."""

import pytest
import torch
from transformers import AutoModelForUniversalSegmentation, CLIPModel

from fisa.pretrained.presets import MEGABYTES, PRESETS, load, preset_of
from fisa.studies.benchmarks.public_architectures import PUBLIC_CLIPS, PUBLIC_GENERATORS


@pytest.mark.parametrize("part", MEGABYTES)
def test_sizes_are_those_of_the_published_architectures(part):
    name = part.rpartition("/")[2]
    with torch.device("meta"):
        if name in PUBLIC_CLIPS:
            model = CLIPModel(PUBLIC_CLIPS[name])
        else:
            model = AutoModelForUniversalSegmentation.from_config(PUBLIC_GENERATORS[name])
    megabytes = sum(4 * parameter.numel() for parameter in model.parameters()) / 1e6
    assert MEGABYTES[part] == pytest.approx(megabytes, abs=1)


def test_every_part_has_a_size():
    assert {part for preset in PRESETS.values() for part in preset} == MEGABYTES.keys()


def test_a_folder_of_the_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, preset in PRESETS.items():
        assert preset_of(name) == preset
        (tmp_path / name).mkdir()
        assert preset_of(name) is None
    assert preset_of(None) is None and preset_of("my-fisa") is None


def test_a_misspelt_preset_is_answered_by_all_names():
    with pytest.raises(ValueError, match=r"no preset 'clip\+maskformer'; there are clip\+mask2former, clip-large"):
        load("clip+maskformer")
