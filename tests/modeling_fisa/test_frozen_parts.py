"""What no training of FISA changes asks for no gradients, however the model was made."""

import pytest

from fisa import FisaForUniversalSegmentation
from tests.models import tiny_segmentation_model


UNTRAINED = ("mask_generator.", "fisa.text_model.", "fisa.text_projection.")


def made(tmp_path, way):
    model = tiny_segmentation_model("eomt")
    if way != "from a config":
        model.save_pretrained(tmp_path)
    if way == "loaded":
        return FisaForUniversalSegmentation.from_pretrained(tmp_path)
    if way == "loaded with a report":
        return FisaForUniversalSegmentation.from_pretrained(tmp_path, output_loading_info=True)[0]
    return model


@pytest.mark.parametrize("way", ["from a config", "loaded", "loaded with a report"])
def test_what_never_trains_asks_for_no_gradients(tmp_path, way):
    model = made(tmp_path, way)
    last_queries = f"fisa.vision_model.encoder.layers.{model.config.vision_config.num_hidden_layers - 1}.self_attn.q_"
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith((*UNTRAINED, last_queries)), name
