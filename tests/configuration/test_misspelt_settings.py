"""A setting whose name is nearly right is refused with the right one; what other releases saved still loads."""

import pytest

from fisa import FisaConfig, FisaForUniversalSegmentation


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


def test_keys_of_other_releases_still_load():
    content = FisaConfig().to_dict() | {"text_config_dict": {}, "vision_config_dict": {}, "of_a_later_release": 3}
    assert FisaConfig.from_dict(content).of_a_later_release == 3
