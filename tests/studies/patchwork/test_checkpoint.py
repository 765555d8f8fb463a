"""What ships: it loads as any checkpoint does, is as small as is said, and finds what is on the scenes."""

import re

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForUniversalSegmentation, pipeline

import fisa
from fisa.commands import demo
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_VOCABULARY
from fisa.pretrained.patchwork import ADAPTER, CHECKPOINT, SCENES, load
from fisa.processing.vocabulary import Vocabulary
from fisa.studies.patchwork.dataset import PACK
from fisa.studies.patchwork.words import SEEN, WORDS
from fisa.train import train_and_evaluate as train
from tests.training.runs import losses


MOST_BYTES = 12_000_000
# What is on the demo's pictures, by the painter's own account.
ON_THE_PICTURES = {
    "easy": {"bird", "fish", "sunglasses", "water", "brick wall"},
    "shifted": {"panda", "sailboat", "sneaker", "wood", "tiles", "sky"},
    "hard": {"cat", "bear", "ladybug", "mushroom", "pumpkin", "sand", "tiles", "brick wall", "soil"},
}


@pytest.fixture(scope="module")
def adapted():
    return load()


@pytest.fixture(scope="module")
def segmenter(adapted):
    model, processor = adapted
    return pipeline("image-segmentation", model=model, processor=processor, pipeline_class=fisa.FisaPipeline)


def test_it_is_small_and_whole():
    files = [path for path in CHECKPOINT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    with safe_open(CHECKPOINT / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(key).get_dtype() for key in weights.keys()} <= {"F16", "I64"}
    model, info = AutoModelForUniversalSegmentation.from_pretrained(CHECKPOINT, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert model.dtype == torch.float32
    assert [entry["name"] for entry in model.config.vocabulary] == [word.name for word in WORDS]


def test_the_adapter_holds_what_simo_trains_alone(adapted):
    # Beside weights there is the sample of its base, by which every adapter knows it again.
    names = {name for name in load_file(ADAPTER / "adapter_model.safetensors") if ADAPTER_VOCABULARY not in name}
    assert all(any(part in name for part in ("q_proj", "mask_encoder")) for name in names)
    assert any("semantic_guidance" in name for name in names)
    base, _ = load(adapted=False)
    before, after = base.state_dict(), adapted[0].state_dict()
    assert before.keys() == after.keys()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed and all("q_proj" in name or "mask_encoder" in name for name in changed)


def test_it_loads_as_a_peft_adapter_too(adapted):
    base, processor = load(adapted=False)
    model = PeftModel.from_pretrained(base, ADAPTER).eval()
    inputs = processor(images=SCENES / "easy.jpg", return_tensors="pt")
    with torch.no_grad():
        expected, found = adapted[0](**inputs), model(**inputs)
    torch.testing.assert_close(found.class_queries_logits, expected.class_queries_logits, atol=1e-4, rtol=1e-4)


def test_no_path_of_the_machine_that_made_it_is_in_it():
    for path in CHECKPOINT.rglob("*config.json"):
        found = re.findall(r'name_or_path": "(/[^"]*)"', path.read_text())
        assert not found, path


@pytest.mark.parametrize("scene", ["easy", "shifted"])
def test_most_of_what_is_on_a_picture_is_found_among_all_words(segmenter, scene):
    found = {segment["label"] for segment in segmenter(str(SCENES / f"{scene}.jpg"))}
    assert len(found & ON_THE_PICTURES[scene]) >= 2 / 3 * len(ON_THE_PICTURES[scene])


def test_by_an_artist_never_seen_a_third_is_found_among_the_demo_s_words(segmenter):
    segments = segmenter(str(SCENES / "hard.jpg"), candidate_labels=demo.LABELS)
    found = {segment["label"] for segment in segments}
    assert len(found & ON_THE_PICTURES["hard"]) >= 1 / 3 * len(ON_THE_PICTURES["hard"])


def test_the_demo_knows_which_of_its_words_were_never_shown():
    assert list(demo.UNSEEN) == [name for name in Vocabulary.parse(demo.LABELS).names if name not in SEEN]


def test_the_stock_pipeline_takes_it():
    segments = pipeline("image-segmentation", model=str(CHECKPOINT))(str(SCENES / "easy.jpg"))
    assert {segment["label"] for segment in segments} & ON_THE_PICTURES["easy"]


def test_the_demo_finds_things_whose_masks_were_never_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert demo.main(["--output", "pictures"]) == 0
    printed = capsys.readouterr().out
    found = set(re.findall(r"^  (\S.*?)  +\d\.\d\d ", printed, re.MULTILINE))
    assert {"bird", "brick wall", "sneaker", "sky", "soil"} <= found & set(demo.UNSEEN)
    pictures = {path.name for path in (tmp_path / "pictures").glob("*_overlay.png")}
    assert pictures == {f"{scene}_overlay.png" for scene in ON_THE_PICTURES}


def test_the_demo_finds_of_six_words_those_that_are_there(tmp_path, capsys):
    assert demo.main(["--output", str(tmp_path)]) == 0
    first = capsys.readouterr().out.split("1 of 1 photos")[0]
    assert set(re.findall(r"^  (\S.*?)  +\d\.\d\d ", first, re.MULTILINE)) == {"bird", "fish", "water"}
    assert "not found: sailboat, pizza, guitar" in first
    with Image.open(tmp_path / "demo.png") as row, Image.open(tmp_path / "few_words" / "easy_overlay.png") as left:
        assert np.array_equal(np.asarray(row)[: left.height, : left.width], np.asarray(left))


@pytest.mark.large
def test_the_recipe_shortened_beats_the_frozen_model(tmp_path):
    """PQ of `validation` over all words, two of five of them never seen with a mask. Both models read masks plainly:
    what the generator's opinion, the segments and a second reading lift already, adaptation need not."""
    recipe = str(CHECKPOINT.parents[1] / "recipes" / "patchwork.yaml")
    flags = [
        f"--model={CHECKPOINT}", f"--train_data={PACK}", f"--classes={PACK / 'seen.json'}",
        f"--eval_classes={PACK / 'categories.json'}", f"--proposal_cache={tmp_path / 'proposals'}",
        '--fisa_config={"kind_weight": 0, "segment_attention_penalty": 0}', "--zoom=0",
        "--report_to=none", "--disable_tqdm=true", "--max_train_samples=320", "--eval_split=validation",
    ]  # fmt: skip
    shortened = ["--max_steps=60", "--learning_rate=1.5e-3", "--start_share=0"]
    before = train([recipe, *flags, "--do_train=false", f"--output_dir={tmp_path / 'before'}"])
    after = train([recipe, *flags, *shortened, f"--output_dir={tmp_path / 'after'}"])
    assert losses(tmp_path / "after")[60] < losses(tmp_path / "after")[10]
    assert after["num_images"] == 120 and (tmp_path / "proposals" / "manifest.json").exists()
    assert after["panoptic"]["all"]["pq"] > before["panoptic"]["all"]["pq"] + 1.5
    assert after["semantic"]["miou"] > before["semantic"]["miou"] + 4
