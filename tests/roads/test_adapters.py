"""The folder that training leaves gives the same words and scores by every road that loads adapters."""

import json
import shutil

import numpy as np
import peft
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.integrations.peft import MIN_PEFT_VERSION

from fisa import FisaForUniversalSegmentation, get_simo_model
from fisa.miniature import miniature, miniature_clip
from fisa.pretrained.patchwork import ADAPTER, load
from tests.roads.walking import walk


WORDS = "sky [stuff]\nroad, street [stuff]\ncar\n"

LOAD_BY_EVERY_ROAD = """
import json, sys
import fisa
from peft import AutoPeftModel, PeftConfig, PeftModel
from PIL import Image
from transformers import AutoModelForUniversalSegmentation, AutoProcessor, pipeline

folder, photo = sys.argv[1], Image.open(sys.argv[2])
base = PeftConfig.from_pretrained(folder).base_model_name_or_path
merged = PeftModel.from_pretrained(fisa.FisaForUniversalSegmentation.from_pretrained(base), folder).merge_and_unload()
merged.save_pretrained("merged")
processor = AutoProcessor.from_pretrained(folder)
processor.save_pretrained("merged")
roads = {
    "AutoPeftModel": AutoPeftModel.from_pretrained(
        folder, import_allowlist=["fisa.modeling_fisa.modeling_fisa"]
    ).get_base_model(),
    "PeftModel": PeftModel.from_pretrained(
        fisa.FisaForUniversalSegmentation.from_pretrained(base), folder
    ).get_base_model(),
    "Auto class": AutoModelForUniversalSegmentation.from_pretrained(folder),
    "merged": merged,
    "folder": folder,
    "folder of the merged": "merged",
}
answers = {}
for name, model in roads.items():
    parts = {"model": model} if isinstance(model, str) else {"model": model.eval(), "processor": processor}
    segmenter = pipeline("image-segmentation", pipeline_class=fisa.FisaPipeline, **parts)
    segments = segmenter(photo, threshold=0.0)
    answers[name] = [list(segmenter.model.config.id2label.values()), [[s["label"], s["score"]] for s in segments]]
print(json.dumps(answers))
"""


def train_on(photos, *flags, model, cwd, status=0):
    return walk(
        "fisa-train", "--model", model, "--train_format", "label_maps", "--train_data", photos, "--do_train",
        "--output_dir", "adapter", "--report_to", "none", "--use_cpu", "true", *flags, cwd=cwd, status=status,
    )  # fmt: skip


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, shipped):
    """What `fisa-train` leaves of two steps on made label maps, and what it printed."""
    folder = tmp_path_factory.mktemp("training")
    generator = np.random.default_rng(1)
    for kind in ("images", "labels"):
        (folder / "photos" / kind).mkdir(parents=True)
    for number in range(4):
        classes = generator.integers(0, 3, (4, 4), dtype=np.uint8).repeat(24, 0).repeat(24, 1)
        colors = generator.integers(0, 255, (3, 3), dtype=np.uint8)
        Image.fromarray(colors[classes]).save(folder / "photos" / "images" / f"{number}.png")
        Image.fromarray(classes).save(folder / "photos" / "labels" / f"{number}.png")
    (folder / "photos" / "classes.txt").write_text(WORDS)
    printed = train_on("photos", "--max_steps", 2, "--learning_rate", 0.01, model=shipped, cwd=folder)
    return folder / "adapter", printed


def test_every_road_answers_with_the_same_words_and_scores(adapter, scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    printed = walk("python", "-c", LOAD_BY_EVERY_ROAD, adapter[0], "photo.png", cwd=tmp_path)
    answers = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))
    words, segments = answers.pop("folder of the merged")
    assert words == ["sky", "road", "car"] and segments
    for road, (found_words, found) in answers.items():
        assert found_words == words, road
        assert [label for label, _ in found] == [label for label, _ in segments], road
        assert [score for _, score in found] == pytest.approx([score for _, score in segments], abs=1e-5), road


def test_the_folder_holds_the_processor_and_its_tokenizer(adapter):
    names = {path.name for path in adapter[0].iterdir()}
    assert {"processor_config.json", "tokenizer.json", "tokenizer_config.json"} <= names


def test_training_and_loading_say_nothing_that_a_user_cannot_act_on(adapter, scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    loaded = walk("python", "-W", "default", "-c", LOAD_BY_EVERY_ROAD, adapter[0], "photo.png", cwd=tmp_path)
    for printed in (adapter[1], loaded):
        said = [line for line in printed.splitlines() if "warn" in line.lower() or "deprecat" in line.lower()]
        assert not [line for line in said if "site-packages" in line], said
        assert "UNEXPECTED" not in printed


def test_an_adapter_that_is_trained_on_with_other_classes_leaves_their_words(adapter, shipped, tmp_path):
    shutil.copytree(adapter[0], tmp_path / "first")
    shutil.copytree(adapter[0].parent / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "classes.txt").write_text("water [stuff]\nbird\nfish\n")
    train_on("photos", "--max_steps", 1, "--adapter", "first", model=shipped, cwd=tmp_path)
    for folder in ("adapter", "adapter/checkpoint-1", "adapter/merged"):
        words = FisaForUniversalSegmentation.from_pretrained(tmp_path / folder).config.id2label
        assert list(words.values()) == ["water", "bird", "fish"], folder


@pytest.mark.parametrize("differs", ["layers", "sizes"])
def test_an_adapter_of_another_model_is_refused_in_one_line(adapter, tmp_path, differs):
    folder, photos = adapter[0], adapter[0].parent / "photos"
    model, processor = miniature()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "other")
    if differs == "sizes":  # as many layers, twice as wide
        folder = tmp_path / "wider"
        get_simo_model(model).save_pretrained(folder)
        weights = load_file(folder / "adapter_model.safetensors")
        wider = {name: torch.cat([weight, weight]) for name, weight in weights.items() if "ln_tuning" in name}
        save_file(weights | wider, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    printed = train_on(photos, "--adapter", folder, model="other", cwd=tmp_path, status=2)
    assert f"--adapter {folder} does not fit this model" in printed


def test_an_adapter_whose_base_was_moved_says_where_it_was(adapter, shipped, scene, tmp_path):
    scene.save(tmp_path / "photo.png")
    shutil.copytree(shipped, tmp_path / "base")
    train_on(adapter[0].parent / "photos", "--max_steps", 1, model="base", cwd=tmp_path)
    (tmp_path / "base").rename(tmp_path / "moved")
    printed = walk("fisa-segment", "photo.png", "--model", "adapter", cwd=tmp_path, status=2)
    assert f"its base is not where it was: {(tmp_path / 'base').resolve()}" in " ".join(printed.split())


@pytest.mark.parametrize("now", ["clip", "other sizes"])
def test_an_adapter_whose_base_was_replaced_says_so_in_one_line(tmp_path, now):
    model, processor = miniature()
    model.name_or_path = str(tmp_path / "base")
    get_simo_model(model).save_pretrained(tmp_path / "adapter")
    other = miniature_clip(processor.tokenizer) if now == "clip" else load()[0]
    for part in (other, processor):
        part.save_pretrained(tmp_path / "base")
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    printed = walk("fisa-segment", "photo.png", "--model", "adapter", "--labels", "dog", cwd=tmp_path, status=2)
    reason = "is a model of type 'clip', not of FISA" if now == "clip" else "their weights differ in size"
    assert reason in " ".join(printed.split("error: ")[1].split())


SWITCH = """
import sys
import fisa
from peft import PeftConfig, PeftModel, get_peft_model

first, road = sys.argv[1:]
processor = fisa.FisaProcessor.from_pretrained(first)
base = PeftConfig.from_pretrained(first).base_model_name_or_path


def new_base():
    model = fisa.FisaForUniversalSegmentation.from_pretrained(base)
    model.set_vocabulary(processor, "water, stone")
    return model


def words(model):
    assert model.config.num_prompts == len(model.fisa.class_embeds)
    return ", ".join(model.config.id2label.values())


trained = fisa.get_simo_model(new_base())
trained.get_base_model().set_vocabulary(processor, "bird, fish")
trained.save_pretrained("second")  # PEFT's own way to save
model = new_base()
switched = PeftModel.from_pretrained(model, first, adapter_name="a") if road == "peft" else model
if road == "transformers":
    model.load_adapter(first, "a")
switched.load_adapter("second", "b")
for name in ("a", "b"):
    switched.set_adapter(name)
    print(name, words(model))
if road == "peft":
    with switched.disable_adapter():
        print("disabled", words(model))
else:
    switched.disable_adapters()
    print("disabled", words(model))
    switched.enable_adapters()
print("enabled", words(model))
switched.set_adapter("a")
model.set_vocabulary(processor, "cloud")
switched.set_adapter("b")
switched.set_adapter("a")
print("given to a", words(model))
switched.delete_adapter("a")
print("deleted a", words(model))
if road == "peft":
    switched.merge_adapter(["b"])
    print("merged b", words(model))
    print("merged and unloaded b", words(switched.merge_and_unload()))
    print("unloaded", words(PeftModel.from_pretrained(new_base(), "second").unload()))
else:
    switched.delete_adapter("b")
    print("deleted b", words(model))
"""


TOO_OLD_A_PEFT = pytest.mark.skipif(
    Version(peft.__version__) < Version(MIN_PEFT_VERSION),
    reason=f"transformers {transformers.__version__} switches adapters with peft {MIN_PEFT_VERSION} or later",
)


@pytest.mark.parametrize("road", ["peft", pytest.param("transformers", marks=TOO_OLD_A_PEFT)])
def test_the_words_are_those_of_the_active_adapter(adapter, tmp_path, road):
    printed = walk("python", "-c", SWITCH, adapter[0], road, cwd=tmp_path).splitlines()
    expected = {
        "a": "sky, road, car",
        "b": "bird, fish",
        "disabled": "water, stone",
        "enabled": "bird, fish",
        "given to a": "cloud",
        "deleted a": "bird, fish",
    }
    if road == "peft":
        expected |= {"merged b": "bird, fish", "merged and unloaded b": "bird, fish", "unloaded": "water, stone"}
    else:
        expected |= {"deleted b": "water, stone"}
    assert [line for line in printed if line.split(" ")[0] in {name.split(" ")[0] for name in expected}] == [
        f"{name} {words}" for name, words in expected.items()
    ]
    assert not [line for line in printed if "UNEXPECTED" in line or "other weights" in line]


def test_an_adapter_of_an_unknown_model_asks_for_it():
    with pytest.raises(ValueError, match="does not say of which model: load that model, then the adapter by peft"):
        FisaForUniversalSegmentation.from_pretrained(ADAPTER)
