"""`attn_implementation`: by one name for the parts that have it, by a name for each part; and tokens stay CLIP's."""

import pytest
import torch

from fisa import FisaForUniversalSegmentation
from tests.configurations import GENERATOR_KINDS, tiny_config, tiny_inputs
from tests.models import tiny_segmentation_model


def attention_of(model: FisaForUniversalSegmentation) -> dict[str, str]:
    parts = {"text": model.fisa.text_model, "vision": model.fisa.vision_model, "generator": model.mask_generator}
    return {name: part.config._attn_implementation for name, part in parts.items()}


@pytest.fixture(scope="module", params=GENERATOR_KINDS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / request.param
    FisaForUniversalSegmentation(tiny_config(request.param)).save_pretrained(path)
    return path


@pytest.mark.parametrize("name", ["sdpa", "eager"])
@pytest.mark.parametrize("way", ["loading", "later"])
def test_one_name_is_taken_by_the_parts_that_have_it(folder, name, way):
    if way == "loading":
        model = FisaForUniversalSegmentation.from_pretrained(folder, attn_implementation=name)
    else:
        model = FisaForUniversalSegmentation.from_pretrained(folder, attn_implementation="eager")
        model.set_attn_implementation(name)
    generator = name if folder.name == "eomt" else "eager"
    assert attention_of(model) == {"text": name, "vision": name, "generator": generator}


def test_each_part_takes_its_own_name(folder):
    model = FisaForUniversalSegmentation.from_pretrained(
        folder, attn_implementation={"text_config": "eager", "vision_config": "sdpa", "mask_generator_config": "eager"}
    )
    assert attention_of(model) == {"text": "eager", "vision": "sdpa", "generator": "eager"}


def test_what_no_part_has_is_refused(folder):
    load = FisaForUniversalSegmentation.from_pretrained
    with pytest.raises(ValueError, match='"spda"'):
        load(folder, attn_implementation="spda")
    with pytest.raises(ValueError, match="names vision; FISA's parts are text_config, vision_config"):
        load(folder, attn_implementation={"vision": "eager"})
    if folder.name != "eomt":
        with pytest.raises(ValueError, match="does not support"):
            load(folder, attn_implementation={"mask_generator_config": "sdpa"})


def test_the_names_compute_the_same(folder):
    inputs = tiny_inputs()
    with torch.no_grad():
        eager, sdpa = (
            FisaForUniversalSegmentation.from_pretrained(folder, attn_implementation=name)(**inputs)
            for name in ("eager", "sdpa")
        )
    torch.testing.assert_close(sdpa.class_queries_logits, eager.class_queries_logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_the_token_embeddings_stay_clips(whole):
    model = tiny_segmentation_model()
    model = model if whole else model.fisa
    tokens = model.get_input_embeddings()
    assert model.resize_token_embeddings() is model.resize_token_embeddings(tokens.num_embeddings) is tokens
    with pytest.raises(ValueError, match="reads 64 tokens; 65 .*set_vocabulary"):
        model.resize_token_embeddings(65)
    with pytest.raises(ValueError, match="from_clip_and_mask_generator"):
        model.set_input_embeddings(torch.nn.Embedding(4, 4))
    assert model.get_input_embeddings() is tokens
