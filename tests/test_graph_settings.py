"""Graphs of saved folders answer as the models in them do, whatever the settings: by the command, on photos and words
that were not there when the graph was traced."""

import pytest
import torch
from transformers import AutoModelForUniversalSegmentation, Mask2FormerForUniversalSegmentation

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor, export
from fisa.commands.export import main
from fisa.miniature import character_clip_tokenizer, miniature, miniature_clip
from fisa.processing.vocabulary import Vocabulary
from tests.configurations import NUM_QUERIES, tiny_generator_config
from tests.models import randomise


WORDS = {"dog": ["puppy"], "cat": [], "wall [stuff]": ["brick", "stone"], "grass [stuff]": []}
OTHERS = Vocabulary.parse({"sky [stuff]": ["clouds"], "traffic light": []})
LATER_WORDS = ((WORDS, OTHERS), ({"tree": []}, None), ({"a": ["b", "c"], "d": [], "sky [stuff]": [], "e": []}, None))


def save_model(folder, generator, **settings):
    """A folder with a small model whose every weight matters, which stores `WORDS`, and its processor."""
    tokenizer = character_clip_tokenizer()
    generator = AutoModelForUniversalSegmentation.from_config(tiny_generator_config(generator))
    model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
        miniature_clip(tokenizer), generator, seve_width=16, seve_num_heads=2, **settings
    )
    side = {"height": 64, "width": 64}
    processor = FisaProcessor(FisaImageProcessor(size=side, mask_generator_size=side), tokenizer)
    randomise(model).set_vocabulary(processor, WORDS, others=OTHERS)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def exported(folder, *flags):
    """The saved model, its graph, and the graph's processor."""
    graph = folder / "graph"
    assert main([str(folder), "--output", str(graph), *flags]) == 0
    model = FisaForUniversalSegmentation.from_pretrained(folder)
    return model, export.load_graph(graph), FisaProcessor.from_pretrained(graph)


@torch.no_grad()
def assert_same_answers(model, graph, inputs):
    found, wanted = graph(**inputs), model(**inputs)
    for name in export.OUTPUTS:
        if found.get(name) is None:
            assert wanted.get(name) is None
        else:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-4, rtol=0)


def needs_onnx():
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} of the extra `export` is not installed")


@pytest.mark.parametrize(
    "settings",
    [
        {"seve_tokens": "mask_keys", "seve_max_texts": 3, "ensemble_weight": 0.5, "segment_attention_penalty": 1.0},
        {"seve_tokens": "image", "classifier_dtype": "bfloat16", "mask_coverage_threshold": 0.5, "kind_weight": 0.0},
    ],
    ids=lambda settings: settings["seve_tokens"],
)
def test_words_built_in(settings, photo, tmp_path):
    save_model(tmp_path, "eomt", **settings)
    model, graph, processor = exported(tmp_path, "--format", "torch")
    assert_same_answers(model, graph, processor(images=[photo, photo.rotate(90)], return_tensors="pt"))


def test_open_words_by_onnx(photo, tmp_path):
    needs_onnx()
    options = {"ensemble_weight": 0.5, "segment_attention_penalty": 1.0, "seve_max_texts": 4}
    save_model(tmp_path, "eomt", seve_tokens="both", seve_layers=[0, 1], **options)
    model, graph, processor = exported(tmp_path, "--open")
    for photos in ([photo], [photo, photo.rotate(90), photo.rotate(180)]):
        for words, others in LATER_WORDS:
            encoded = model.encode_vocabulary(processor, words, others=others)
            assert_same_answers(model, graph, processor(images=photos, return_tensors="pt") | encoded)


@torch.no_grad()
def test_eight_bits_are_smaller_and_answer_nearly_alike(photo, tmp_path):
    needs_onnx()
    save_model(tmp_path, "eomt")
    model, graph, processor = exported(tmp_path, "--int8")
    inputs = processor(images=[photo, photo.rotate(90)], return_tensors="pt")
    found, wanted = (run(**inputs).masks_queries_logits for run in (graph, model))
    assert torch.corrcoef(torch.stack([found.flatten(), wanted.flatten()]))[0, 1] > 0.99
    assert not torch.allclose(found, wanted, atol=1e-4)
    weights = sum(weight.numel() for weight in model.parameters())
    assert (tmp_path / "graph" / "model.onnx").stat().st_size < 4 * weights


@torch.no_grad()
def test_proposals_below_the_floor_are_no_objects(photo, tmp_path):
    save_model(tmp_path, "maskformer", seve_tokens="mask", objectness_floor=0.7707, segment_attention_penalty=1.0)
    model, graph, processor = exported(tmp_path, "--format", "torch")
    inputs = processor(images=photo, return_tensors="pt")
    found, wanted = graph(**inputs), model(**inputs)
    kept = found.objectness[0] > 0
    assert 0 < kept.sum() < NUM_QUERIES
    for name in export.OUTPUTS:
        torch.testing.assert_close(found[name][:, kept], wanted[name], atol=1e-4, rtol=0)


class ValueDependent(Mask2FormerForUniversalSegmentation):
    """A generator that branches on the values of a photo."""

    def forward(self, pixel_values, **options):
        return super().forward(pixel_values if pixel_values.sum() > 0 else -pixel_values, **options)


def test_a_model_that_cannot_be_traced_is_named():
    model, processor = miniature()
    model.set_vocabulary(processor, "dog")
    model.mask_generator.__class__ = ValueDependent
    with pytest.raises(ValueError, match="with ValueDependent for its mask generator, cannot be traced: "):
        export.export_program(model, processor)
