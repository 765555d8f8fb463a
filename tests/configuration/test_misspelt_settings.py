"""A setting whose name is nearly right is refused with the right one; what other releases saved still loads."""

import pytest

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor


MISSPELT = [("seve_layer", "seve_layers"), ("objectness_flor", "objectness_floor"), ("synonym", "synonyms")]


@pytest.mark.parametrize("misspelt, right", MISSPELT)
@pytest.mark.parametrize("way", ["constructor", "config", "model"])
def test_a_misspelt_setting_is_refused_with_the_right_name(checkpoint, misspelt, right, way):
    load = {
        "constructor": FisaConfig,
        "config": lambda **options: FisaConfig.from_pretrained(checkpoint, **options),
        "model": lambda **options: FisaForUniversalSegmentation.from_pretrained(checkpoint, **options),
    }[way]
    with pytest.raises(TypeError, match=f"`{misspelt}`; did you mean `{right}`"):
        load(**{misspelt: None})


@pytest.mark.parametrize(
    "load",
    [
        lambda folder, **options: FisaImageProcessor(**options),
        FisaImageProcessor.from_pretrained,
        FisaProcessor.from_pretrained,
    ],
    ids=["constructor", "image processor", "processor"],
)
def test_a_misspelt_setting_of_a_processor_is_refused_too(checkpoint, load):
    with pytest.raises(TypeError, match="`mask_thresholds`; did you mean `mask_threshold`"):
        load(checkpoint, mask_thresholds=0.3)
    assert load(checkpoint, mask_threshold=0.3)


def test_a_misspelt_template_is_refused(checkpoint):
    with pytest.raises(TypeError, match="`prompt_template`; did you mean `prompt_templates`"):
        FisaProcessor.from_pretrained(checkpoint, prompt_template="scene")


def test_keys_of_other_releases_still_load():
    content = FisaConfig().to_dict() | {"text_config_dict": {}, "vision_config_dict": {}, "of_a_later_release": 3}
    assert FisaConfig.from_dict(content).of_a_later_release == 3
