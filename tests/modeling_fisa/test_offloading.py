"""Weights on the disk and in another memory, brought in for each call: the same answers but for rounding, which may
depend on how a matrix lies in memory."""

import pytest
import torch

from fisa import FisaForUniversalSegmentation, FisaModel
from fisa.miniature import miniature
from tests.configurations import tiny_generator_inputs, tiny_inputs
from tests.model_tester import assert_outputs_close
from tests.models import tiny_segmentation_model


PLACES = [{"max_memory": {"cpu": 5_000}}, {"max_memory": {"cpu": 60_000}}]


def saved(folder, generator="mask2former", **options):
    model = tiny_segmentation_model(generator, **options)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("places", PLACES, ids=str)
@pytest.mark.parametrize("image_size", [32, 48])
@pytest.mark.parametrize("seve_tokens", ["both", "mask_keys"])
@torch.no_grad()
def test_clip_answers_from_the_disk(tmp_path, places, image_size, seve_tokens):
    model = saved(tmp_path / "model", seve_tokens=seve_tokens).fisa
    offloaded = FisaModel.from_pretrained(
        tmp_path / "model", device_map="auto", offload_folder=tmp_path / "disk", **places
    )
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    inputs = tiny_inputs()
    inputs["pixel_values"] = torch.randn(len(inputs["pixel_values"]), 3, image_size, image_size)
    assert_outputs_close(offloaded(**inputs), model(**inputs), atol=1e-6)
    tokens = torch.tensor([[62, 5, 7, 63]])
    torch.testing.assert_close(
        offloaded.get_class_features(tokens), model.get_class_features(tokens), atol=1e-6, rtol=0
    )


CLIP_ON_THE_DISK = {"mask_generator": "cpu", "fisa": "disk"}


@pytest.mark.parametrize(
    "generator, places",
    [
        ("mask2former", CLIP_ON_THE_DISK),
        ("maskformer", CLIP_ON_THE_DISK),
        ("eomt", {"mask_generator": "disk", "fisa": "cpu"}),
        ("eomt", {"": "disk"}),
    ],
)
@torch.no_grad()
def test_the_whole_model_answers_with_parts_on_the_disk(tmp_path, generator, places):
    model = saved(tmp_path / "model", generator)
    offloaded = FisaForUniversalSegmentation.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk"
    )
    assert offloaded.device == torch.device("cpu")
    for name, parameter in offloaded.named_parameters():
        assert parameter.is_meta == (places.get(name.split(".")[0], places.get("")) == "disk"), name
    inputs = tiny_inputs(batch_size=1) | tiny_generator_inputs([(64, 40)], canvas=(64, 64))
    del inputs["mask_proposals"]
    assert_outputs_close(offloaded(**inputs), model(**inputs), atol=1e-6)


def test_texts_are_kept_in_files_with_the_text_tower_on_the_disk(tmp_path):
    model, processor = miniature()
    model.save_pretrained(tmp_path / "model")
    offloaded = FisaForUniversalSegmentation.from_pretrained(
        tmp_path / "model", device_map=CLIP_ON_THE_DISK, offload_folder=tmp_path / "disk"
    )
    offloaded.encode_vocabulary(processor, "dog, sky", text_cache=tmp_path / "texts")
    (files,) = (tmp_path / "texts").glob("*")
    written = {file: file.stat().st_mtime_ns for file in files.iterdir()}
    encoded = model.encode_vocabulary(processor, "dog, sky", text_cache=tmp_path / "texts")
    assert {file: file.stat().st_mtime_ns for file in files.iterdir()} == written
    expected = miniature()[0].encode_vocabulary(processor, "dog, sky")
    torch.testing.assert_close(encoded["class_embeds"], expected["class_embeds"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("generator", ["mask2former", "maskformer"])
def test_a_generator_that_cannot_be_offloaded_is_refused_with_the_map_that_works(tmp_path, generator):
    saved(tmp_path / "model", generator)
    with pytest.raises(ValueError, match=r'device_map=\{"mask_generator": "cpu", "fisa": "disk"\}'):
        FisaForUniversalSegmentation.from_pretrained(
            tmp_path / "model", device_map="auto", max_memory={"cpu": 5_000}, offload_folder=tmp_path / "disk"
        )
