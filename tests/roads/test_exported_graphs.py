"""Graphs of the folders that users have: what ONNX Runtime and torch's graph answer is what the model answers."""

import pytest
import torch

from fisa import FisaForUniversalSegmentation, FisaProcessor, SimoConfig, get_simo_model
from fisa.commands.export import main
from fisa.export import OUTPUTS, check_export, export_program, load_graph, save
from fisa.miniature import miniature
from tests.models import randomise
from tests.roads.walking import refused, walk


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    """The folder of a trained adapter, without a processor; its base is stored in half precision and many files."""
    base, folder = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("adapter")
    model, processor = miniature(seve_layers=[0, 1])
    model.set_vocabulary(processor, "dog, sky [stuff], car")
    model.half().save_pretrained(base, max_shard_size="200KB")
    processor.save_pretrained(base)
    simo_model = get_simo_model(FisaForUniversalSegmentation.from_pretrained(base, dtype=torch.float32), SimoConfig())
    trained = [parameter for parameter in simo_model.parameters() if parameter.requires_grad]
    randomise(torch.nn.ParameterList(trained))
    simo_model.save_pretrained(folder)
    assert len(list(base.glob("*.safetensors"))) > 3
    return folder


@torch.no_grad()
def assert_same_answers(graph_folder, model, photo):
    inputs = FisaProcessor.from_pretrained(graph_folder)(images=[photo, photo.rotate(90)], return_tensors="pt")
    outputs, expected = load_graph(str(graph_folder))(**inputs), model(**inputs)
    assert set(OUTPUTS) & set(outputs) == set(OUTPUTS) & set(expected)
    for name in set(OUTPUTS) & set(expected):
        torch.testing.assert_close(outputs[name], expected[name], atol=1e-3, rtol=0)
    assert torch.equal(outputs.class_is_thing, expected.class_is_thing)


def needs_onnx():
    for module in ("onnxscript", "onnxruntime"):
        pytest.importorskip(module, reason=f"{module} of the extra `export` is not installed")


def test_a_saved_folder_becomes_an_onnx_graph(saved, scene, tmp_path):
    needs_onnx()
    said = walk("fisa-export", saved, "--output", "graph", cwd=tmp_path)
    assert not {"torchvision", "Warning", "Skipping"} & set(said.replace(":", " ").split()), said
    model = FisaForUniversalSegmentation.from_pretrained(saved)
    assert_same_answers(tmp_path / "graph", model, scene)


def test_an_adapter_on_a_sharded_half_precision_base_becomes_a_graph(adapter, photo, tmp_path):
    walk("fisa-export", adapter, "--format", "torch", "--output", "graph", cwd=tmp_path)
    model = FisaForUniversalSegmentation.from_pretrained(adapter, dtype=torch.float32)
    assert_same_answers(tmp_path / "graph", model, photo)


def test_a_merged_adapter_becomes_a_torch_graph(adapter, photo, tmp_path):
    from peft import PeftConfig, PeftModel

    folder = PeftConfig.from_pretrained(adapter).base_model_name_or_path
    base = FisaForUniversalSegmentation.from_pretrained(folder, dtype=torch.float32)
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload().eval()
    assert all(layer.semantic_guidance.out_proj.weight.any() for layer in merged.fisa.mask_encoder.layers[:2])
    processor = FisaProcessor.from_pretrained(folder)
    save(export_program(merged, processor), merged, processor, tmp_path / "graph", file_format="torch")
    assert_same_answers(tmp_path / "graph", merged, photo)


@pytest.mark.filterwarnings("error:No complete tensor found")
def test_a_graph_refuses_what_it_would_not_answer(photo, tmp_path):
    """Other words than those that are built in, masks from elsewhere, and padding around a photo."""
    model, processor = miniature()
    model.set_vocabulary(processor, "dog, sky", others="car, road")
    closed, opened = tmp_path / "closed", tmp_path / "open"
    save(export_program(model, processor), model, processor, closed, file_format="torch")
    save(export_program(model, processor, open_vocabulary=True), model, processor, opened, file_format="torch")
    processor = FisaProcessor.from_pretrained(closed)
    closed, opened = load_graph(closed), load_graph(opened)
    inputs = processor(images=photo, return_tensors="pt")
    asked = processor(images=photo, text="cat", return_tensors="pt")
    encoded = model.encode_vocabulary(processor, "cat")
    masks = {"mask_proposals": torch.ones(1, 2, 9, 9)}
    padded = {"mask_generator_pixel_mask": inputs["mask_generator_pixel_mask"].clone()}
    padded["mask_generator_pixel_mask"][..., -1] = False
    for graph, given, problem in (
        (closed, asked, "takes no input_ids: .* words are built in"),
        (closed, {**inputs, **encoded}, "takes no class_embeds: .* words are built in"),
        (closed, {**inputs, **masks}, "takes no mask_proposals"),
        (closed, {**inputs, **padded}, "reads photos without padding"),
        (opened, asked, "takes no input_ids: .* words come from `model.encode_vocabulary`"),
        (opened, inputs, "needs class_embeds"),
        (opened, {**inputs, **encoded, **masks}, "takes no mask_proposals"),
    ):
        with pytest.raises((TypeError, ValueError), match=problem):
            graph(**given)
    assert opened(**inputs, **encoded).class_queries_logits.shape[-1] == 1 + 1


def test_a_failure_leaves_no_folder_behind(tmp_path):
    model, processor = miniature()
    for file_format in ("torch", "onnx", "tensorrt"):
        with pytest.raises((TypeError, ValueError, RuntimeError)):
            save("no program", model, processor, tmp_path / "graph", file_format=file_format)
    assert not list(tmp_path.iterdir())


def test_a_graph_keeps_the_words_beside_it(tmp_path):
    """Those of a graph of the other format would take their place."""
    model, processor = miniature()
    model.set_vocabulary(processor, "dog, sky")
    program = torch.export.export(torch.nn.Identity(), (torch.zeros(1),))  # what it computes is not looked at
    save(program, model, processor, tmp_path, file_format="torch")
    save(program, model, processor, tmp_path, file_format="torch")
    (tmp_path / "model.pt2").rename(tmp_path / "model.onnx")
    save(program, model, processor, tmp_path, file_format="torch")  # of the same words
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.set_vocabulary(processor, "car, sky")
    with pytest.raises(ValueError, match=r"holds a model\.onnx whose words or settings"):
        save(program, model, processor, tmp_path, file_format="torch")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_graph_is_not_saved_with_words_that_came_later(tmp_path):
    model, processor = miniature()
    model.set_vocabulary(processor, "dog, sky")
    program = export_program(model, processor)
    model.set_vocabulary(processor, "car, road")
    with pytest.raises(ValueError, match="has other words now than when it was traced"):
        save(program, model, processor, tmp_path / "graph", file_format="torch")
    assert not list(tmp_path.iterdir())
    model.set_vocabulary(processor, "dog, sky")
    save(program, model, processor, tmp_path / "graph", file_format="torch")


def test_a_graph_is_not_put_into_the_folder_of_a_model(tmp_path):
    """Whose photos would be prepared as the graph's are from then on, and nothing would be read a second time."""
    model, processor = miniature()
    model.set_vocabulary(processor, "dog, sky")
    processor.image_processor.zoom = 8
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    said = refused(main, tmp_path, "--format", "torch", "--output", tmp_path, cwd=tmp_path)
    assert "holds a model.safetensors whose words or settings are not those of this graph" in said
    assert "Tracing" not in said
    assert FisaProcessor.from_pretrained(tmp_path).image_processor.zoom == 8


def test_a_config_of_something_else_is_not_replaced(tmp_path):
    model, processor = miniature()
    model.set_vocabulary(processor, "dog, sky")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match=r"holds a config\.json whose words or settings"):
        check_export(model, processor, tmp_path, file_format="torch")


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"neither model\.onnx nor model\.pt2"):
        load_graph(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_graph(str(tmp_path / "model.onnx"))
    with pytest.raises(ValueError, match="is not a graph"):
        load_graph(tmp_path / "config.json")
    for name in ("model.onnx", "model.pt2"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="holds both"):
        load_graph(tmp_path)
