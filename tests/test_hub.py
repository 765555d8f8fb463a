"""An exported folder loads anywhere: without the package by trust_remote_code, with it by the plain Auto classes."""

import importlib
import json
import re
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForUniversalSegmentation, AutoProcessor, pipeline

import fisa
from fisa import FisaPipeline, get_simo_model, hub
from fisa.miniature import miniature


# A process in which `import fisa` fails, as on a machine without the package.
WITHOUT_PACKAGE = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "fisa" not in repr(finder)]
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "fisa" or name.startswith("fisa."):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
try:
    import fisa
    raise SystemExit("the package is there")
except ModuleNotFoundError:
    pass
"""

LOAD_AND_RUN = """
import json
import sys
import torch
from safetensors.torch import save_file
from transformers import AutoModelForUniversalSegmentation, AutoProcessor, pipeline
folder, photo = "exported", "photo.jpg"
model = AutoModelForUniversalSegmentation.from_pretrained(folder, trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
with torch.no_grad():
    stored = model(**processor(images=photo, return_tensors="pt"))
    called = model(**processor(images=photo, text=["house", "tree"], return_tensors="pt"))
    corner = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    corner[..., :3, :2] = True
    zoomed = model(**processor(images=photo, zoom=1, return_tensors="pt"), mask_proposals=corner)
words = {"image-segmentation": {}, "open-vocabulary-image-segmentation": {"candidate_labels": "house, tree"}}
for task, labels in words.items():
    segmenter = pipeline(task, model=folder, trust_remote_code=True, device="cpu")
    segments = segmenter(photo, threshold=0.0, overlap_mask_area_threshold=0.0, **labels)
    print(task, [segment["label"] for segment in segments])
# Anew, since words that are encoded together with others may differ from them alone in the last bit.
segmenter = pipeline("open-vocabulary-image-segmentation", model=folder, trust_remote_code=True, device="cpu")
options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0, "return_type": "segmentation"}
for others in ("dog, grass", "person, window"):
    found = segmenter(photo, candidate_labels="house", others=others, include_others=True, **options)
    segments = [(segment.label, segment.is_other, segment.score, segment.area) for segment in found]
    print("others", json.dumps([segments, found.not_found]))
outputs = {"stored": stored, "called": called, "zoomed": zoomed}
outputs = {name: output.class_queries_logits for name, output in outputs.items()}
save_file(outputs | {"masks": called.masks_queries_logits.contiguous()}, "outputs.safetensors")
"""


@pytest.fixture(scope="module")
def exported(checkpoint, photo, tmp_path_factory):
    """A working directory with the folder `exported` and `photo.jpg` in it."""
    place = tmp_path_factory.mktemp("hub")
    photo.save(place / "photo.jpg")
    model = AutoModelForUniversalSegmentation.from_pretrained(checkpoint)
    processor = AutoProcessor.from_pretrained(checkpoint)
    parts = {"openai/clip-vit-base-patch16": "mit", "facebook/mask2former-swin-tiny-coco-panoptic": "other"}
    hub.export(model, processor, place / "exported", repo_id="exported", base_models=parts)
    return place


def run(code: str, place) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        capture_output=True,
        text=True,
        env={"HF_HOME": str(place / "home"), "PATH": "", "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_loads_without_the_package_and_gives_bit_equal_outputs(exported, checkpoint):
    printed = run(WITHOUT_PACKAGE + LOAD_AND_RUN, exported)
    assert "image-segmentation ['" in printed and "open-vocabulary-image-segmentation ['" in printed
    answers = [json.loads(line.removeprefix("others ")) for line in printed.splitlines() if line.startswith("others ")]
    here = pipeline("image-segmentation", model=str(checkpoint), pipeline_class=FisaPipeline)
    options = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0, "return_type": "segmentation"}
    winners = set()
    for others, answer in zip(("dog, grass", "person, window"), answers, strict=True):
        words = {"candidate_labels": "house", "others": others, "include_others": True}
        found = here(str(exported / "photo.jpg"), **words, **options)
        assert answer[0] == [[segment.label, segment.is_other, segment.score, segment.area] for segment in found]
        assert tuple(answer[1]) == found.not_found
        winners |= {(segment.label == "house", segment.is_other) for segment in found}
    assert winners == {(True, False), (False, True)}  # the asked word against some, others against it
    there = load_file(exported / "outputs.safetensors")
    model = AutoModelForUniversalSegmentation.from_pretrained(checkpoint).eval()
    processor = AutoProcessor.from_pretrained(checkpoint)
    photo = str(exported / "photo.jpg")
    with torch.no_grad():
        stored = model(**processor(images=photo, return_tensors="pt"))
        called = model(**processor(images=photo, text=["house", "tree"], return_tensors="pt"))
        corner = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
        corner[..., :3, :2] = True
        zoomed = model(**processor(images=photo, zoom=1, return_tensors="pt"), mask_proposals=corner)
    assert torch.equal(there["stored"], stored.class_queries_logits)
    assert torch.equal(there["called"], called.class_queries_logits)
    assert torch.equal(there["zoomed"], zoomed.class_queries_logits)
    assert torch.equal(there["masks"], called.masks_queries_logits)


OTHER_WORDS = """
from transformers import AutoModelForUniversalSegmentation, AutoProcessor, pipeline
trusted = {"trust_remote_code": True}
model = AutoModelForUniversalSegmentation.from_pretrained("exported", id2label={0: "house", 1: "tree"}, **trusted)
processor = AutoProcessor.from_pretrained("exported", **trusted)
model.save_pretrained("again")
processor.save_pretrained("again")
sure = {"threshold": 0.0, "overlap_mask_area_threshold": 0.0}
asked = {"candidate_labels": "roof"}
for task, words in ("image-segmentation", {}), ("open-vocabulary-image-segmentation", asked):
    segments = pipeline(task, model="again", device="cpu", **trusted)("photo.jpg", **sure, **words)
    print(task, {segment["label"] for segment in segments})
"""


def test_with_other_words_it_is_trusted_once_and_can_be_saved_again(exported):
    printed = run(WITHOUT_PACKAGE + OTHER_WORDS, exported)
    assert "Do you wish to run the custom code?" not in printed
    stored, asked = printed.splitlines()
    assert "house" in stored or "tree" in stored
    assert asked == "open-vocabulary-image-segmentation {'roof'}"


def test_loads_with_the_package_without_trust(exported, photo):
    model = AutoModel.from_pretrained(exported / "exported")
    assert type(model) is fisa.FisaModel
    segmenter = pipeline("image-segmentation", model=str(exported / "exported"), pipeline_class=fisa.FisaPipeline)
    segments = segmenter(photo, candidate_labels="house", threshold=0.0, overlap_mask_area_threshold=0.0)
    assert {segment["label"] for segment in segments} == {"house"}


def test_weights_are_safetensors_only_and_code_is_flat(exported):
    names = {path.name for path in (exported / "exported").iterdir()}
    assert "model.safetensors" in names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    code = "".join(path.read_text() for path in (exported / "exported").glob("*.py"))
    assert not re.search(r"^\s*(from|import) fisa", code, flags=re.MULTILINE)


def test_model_card_metadata_is_what_the_hub_reads(exported):
    card = ModelCard.load(exported / "exported" / "README.md")
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.library_name == "transformers"
    assert card.data.base_model == ["openai/clip-vit-base-patch16", "facebook/mask2former-swin-tiny-coco-panoptic"]
    assert "`openai/clip-vit-base-patch16`: mit" in card.text


def test_usage_in_the_model_card_works_when_pasted(exported):
    examples = re.findall(r"```python\n(.*?)```", (exported / "exported" / "README.md").read_text(), flags=re.DOTALL)
    assert len(examples) == 2
    run(WITHOUT_PACKAGE + "\n".join(examples), exported)


def test_a_card_stays_once_it_is_edited(tmp_path):
    model, processor = miniature()
    card = hub.export(model, processor, tmp_path, license="mit") / "README.md"
    hub.export(model, processor, tmp_path, license="apache-2.0")
    assert ModelCard.load(card).data.license == "apache-2.0"
    edited = card.read_text().replace("# ", "# My own ", 1)
    for text in (edited, "# Written by hand\n"):
        card.write_text(text)
        hub.export(model, processor, tmp_path, license="mit")
        assert card.read_text() == text


def test_a_model_with_an_adapter_is_exported_once_it_is_merged(tmp_path):
    model, processor = miniature()
    adapted = get_simo_model(model)
    for part in (adapted, model):
        with pytest.raises(ValueError, match="merge_and_unload"):
            hub.export(part, processor, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()
    hub.export(adapted.merge_and_unload(), processor, tmp_path / "exported")
    assert (tmp_path / "exported" / "config.json").is_file()


def test_two_modules_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    classes = []
    for package, name in (("first_package", "First"), ("second_package", "Second")):
        (tmp_path / package).mkdir()
        (tmp_path / package / "same.py").write_text(f"class {name}: ...\n")
        classes.append(getattr(importlib.import_module(f"{package}.same"), name))
    with pytest.raises(ValueError, match=r"same\.py in one folder"):
        hub.write_flat_code(tmp_path, classes)


@pytest.mark.parametrize(("number", "rest"), [(1, ""), (5, ""), (6, " and 1 more"), (9, " and 4 more")])
def test_the_card_names_five_stored_words_and_counts_the_others(number, rest):
    model, processor = miniature()
    words = [f"word {i}" for i in range(number)]
    model.set_vocabulary(processor, words)
    card = hub.model_card(model, repo_id="me/mine", base_models={}, license="mit")
    assert f"stored in the model ({', '.join(words[:5])}{rest})" in card.text
