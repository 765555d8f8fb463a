"""What is exported answers as the model does: on scenes of Patchwork, in batches and over words that it was not traced
with, down to the label maps."""

from pathlib import Path

import pytest
import torch

from fisa import FisaProcessor, export
from fisa.commands.export import main
from fisa.miniature import miniature
from fisa.pretrained import patchwork
from fisa.studies.patchwork.dataset import load_patchwork


WORDS = "tiger, apple, headphones, sand [stuff], wood [stuff]"
OPEN_WORDS = (
    {
        "cat": ["kitten"],
        "dog": [],
        "bus": ["coach", "omnibus"],
        "water": ["lake"],
        "grass": [],
        "sand": [],
        "tiger": [],
    },
    ["dog"],
)
# Pixels of a scene's 9216 that may differ: ONNX Runtime rounds its own way, and there two masks may claim one alike to
# the seventh digit. torch's graph runs the operations that the model does.
MOST_FLIPPED = {"onnx": 2, "torch": 0}
SUBTASKS = ("panoptic", "instance", "semantic")


@pytest.fixture(scope="module")
def scenes():
    return list(load_patchwork("validation").select(range(3))["image"])


@pytest.fixture(scope="module")
def built_in():
    """The shipped model with words of its own, its processor, and its traced graph."""
    model, processor = patchwork.load()
    model.set_vocabulary(processor, WORDS)
    return model, processor, export.export_program(model, processor)


@pytest.fixture(scope="module")
def left_open():
    """The shipped model, its processor, and its traced graph that takes any words."""
    model, processor = patchwork.load()
    return model, processor, export.export_program(model, processor, open_vocabulary=True)


def assert_same_answers(folder, exported, scenes, *, file_format, vocabularies=(None,)):
    """Write the graph, load it, and compare it with the model on one scene and on all."""
    model, processor, program = exported
    graph = export.load_graph(export.save(program, model, processor, folder, file_format=file_format))
    processor = FisaProcessor.from_pretrained(folder)
    for words in vocabularies:
        encoded = {} if words is None else model.encode_vocabulary(processor, words)
        for photos in (scenes[:1], scenes):
            inputs = processor(images=photos, return_tensors="pt") | encoded
            with torch.no_grad():
                wanted = model(**inputs)
            assert_close(graph(**inputs), wanted, processor, most_flipped=MOST_FLIPPED[file_format])


def assert_close(found, wanted, processor, *, most_flipped):
    for name in export.OUTPUTS:
        assert (name in found) == (name in wanted)
        if name in wanted:
            torch.testing.assert_close(found[name], wanted[name], atol=1e-3, rtol=0)
    for subtask in SUBTASKS:
        post_process = getattr(processor, f"post_process_{subtask}_segmentation")
        sizes = [(96, 96)] * len(wanted.objectness)
        for one, other in zip(*(post_process(outputs, target_sizes=sizes) for outputs in (found, wanted))):
            if subtask != "semantic":
                labels, wanted_labels = ([part["label_id"] for part in item["segments_info"]] for item in (one, other))
                assert labels == wanted_labels
                one, other = one["segmentation"], other["segmentation"]
            assert (one != other).count_nonzero() <= most_flipped


def needs_onnx():
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} of the extra `export` is not installed")


# Half a minute a graph for tracing, and more for ONNX: small models are exported in test_graph_settings.py.
@pytest.mark.large
def test_torch_with_words_built_in(built_in, scenes, tmp_path):
    assert_same_answers(tmp_path, built_in, scenes, file_format="torch")
    zooming = FisaProcessor.from_pretrained(tmp_path, zoom=4)
    with pytest.raises(ValueError, match="reads each proposal once"):
        export.load_graph(tmp_path)(**zooming(images=scenes, return_tensors="pt"))


@pytest.mark.large
def test_onnx_with_open_words(left_open, scenes, tmp_path):
    needs_onnx()
    assert_same_answers(tmp_path, left_open, scenes, file_format="onnx", vocabularies=OPEN_WORDS)
    assert str(Path(export.__file__).parent).encode() not in (tmp_path / "model.onnx").read_bytes()


@pytest.mark.large
def test_eight_bits_are_smaller_and_keep_the_labels(scenes, tmp_path):
    needs_onnx()
    assert main(["--labels", WORDS, "--int8", "--output", str(tmp_path / "graph")]) == 0
    processor, graph = FisaProcessor.from_pretrained(tmp_path / "graph"), export.load_graph(tmp_path / "graph")
    model, _ = patchwork.load()
    model.set_vocabulary(processor, WORDS)
    inputs = processor(images=scenes, return_tensors="pt")
    with torch.no_grad():
        maps, wanted = (
            torch.stack(processor.post_process_semantic_segmentation(run(**inputs), target_sizes=[(192, 192)] * 3))
            for run in (graph, model)
        )
    assert (maps == wanted).float().mean() > 0.98 and not torch.equal(maps, wanted)
    weights = sum(weight.numel() for weight in model.parameters())
    assert (tmp_path / "graph" / "model.onnx").stat().st_size < 2.5 * weights  # in float32 they have four bytes each


@pytest.mark.large
def test_torch_with_open_words(left_open, scenes, tmp_path):
    assert_same_answers(tmp_path, left_open, scenes, file_format="torch", vocabularies=OPEN_WORDS)


@pytest.mark.large
def test_onnx_with_words_built_in(built_in, scenes, tmp_path):
    needs_onnx()
    assert_same_answers(tmp_path, built_in, scenes, file_format="onnx")


def test_photos_are_squashed_where_they_were_put_on_a_canvas(photo):
    model, processor = miniature()
    assert not processor(images=photo, return_tensors="pt")["mask_generator_pixel_mask"].all()
    inputs = export.without_padding(processor, model)(images=photo, return_tensors="pt")
    assert inputs["mask_generator_pixel_values"].shape == (1, 3, 192, 192)
    assert inputs["mask_generator_pixel_mask"].all()


@pytest.mark.parametrize("squashes", [False, True])
def test_a_graph_s_processor_asks_for_no_zoom(photo, squashes):
    model, processor = miniature()
    if squashes:
        processor = export.without_padding(processor, model)
    processor.image_processor.zoom = 4
    assert "photos" not in export.without_padding(processor, model)(images=photo, return_tensors="pt")
    assert "photos" in processor(images=photo, return_tensors="pt")


def test_what_cannot_be_exported_is_said(checkpoint, tmp_path, capsys):
    wordless = tmp_path / "wordless"
    model, processor = miniature()
    model.save_pretrained(wordless)
    processor.save_pretrained(wordless)
    mixed, a_file = tmp_path / "mixed", tmp_path / "file"
    a_file.touch()
    model.config.classifier_dtype = "bfloat16"
    model.save_pretrained(mixed)
    processor.save_pretrained(mixed)
    for arguments, said in (
        ([wordless], "name some with --labels"),
        ([mixed, "--labels", "dog"], "classifier_dtype"),
        ([checkpoint, "--labels", "dog, dog"], "dog"),
        ([checkpoint, "--labels-file", tmp_path / "missing.txt"], "missing.txt"),
        ([tmp_path / "nowhere"], "nowhere"),
        ([tmp_path], "no file named"),
        ([checkpoint, "--output", a_file], "is a file; name a folder"),
        ([checkpoint, "--labels", "dog", "--open"], "not allowed with"),
        ([checkpoint, "--labels", "dog", "--int8", "--format", "torch"], "Only ONNX graphs take weights of eight"),
    ):
        with pytest.raises(SystemExit) as error:
            main(["--output", str(tmp_path / "out"), *map(str, arguments)])
        assert error.value.code == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
