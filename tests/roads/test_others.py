"""Words that compete, from outside: the command's forms, folders of every kind, and processes that share a cache."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from transformers import pipeline

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor, Vocabulary
from fisa.pretrained.patchwork import ADAPTER
from tests.roads.walking import walk


LABELS = "bird, fish, water [stuff], pizza, guitar"
OTHERS = "brick wall [stuff], sunglasses, guitars"  # of which the last is asked for


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache folder of Hugging Face's with nothing in it."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def find(saved, scene, home, tmp_path_factory):
    """Runs `fisa-segment` on the scene; returns its map, its segments' names and what it calls not found."""
    cwd = tmp_path_factory.mktemp("runs")
    scene.save(cwd / "scene.png")
    (cwd / "others.txt").write_text(OTHERS.replace(", ", "\n"))

    def find(output, *flags):
        command = "fisa-segment", "scene.png", "--model", saved, "--labels", LABELS, "--output", output
        printed = walk(*command, *flags, cwd=cwd, HF_HOME=str(home))
        found = json.loads((cwd / output / "panoptic.json").read_text())
        names = {category["id"]: category["name"] for category in found["categories"]}
        (entry,) = found["annotations"]
        assert f"not found: {', '.join(entry['not_found'])}" in printed or not entry["not_found"]
        labels = [names[segment["category_id"]] for segment in entry["segments_info"]]
        return np.asarray(Image.open(cwd / output / "panoptic" / entry["file_name"])), labels, entry["not_found"]

    return find


@pytest.fixture(scope="module")
def two_at_once(find):
    """What two processes find that start together on a cold cache."""
    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(find, ("one", "two")))


def assert_same(found, expected):
    assert found[1:] == expected[1:]
    np.testing.assert_array_equal(found[0], expected[0])


def test_two_processes_share_a_cold_cache_and_a_third_reads_it(two_at_once, find, home):
    one, two = two_at_once
    assert set(one[1]) == {"bird", "fish", "water"} and one[2] == ["pizza", "guitar"]
    assert_same(two, one)
    files = {path: path.stat().st_mtime_ns for path in (home / "fisa" / "others").rglob("*") if path.is_file()}
    assert files
    assert_same(find("again", "--others", "auto"), one)
    assert files == {path: path.stat().st_mtime_ns for path in (home / "fisa" / "others").rglob("*") if path.is_file()}


def test_words_and_a_file_of_them_compete_alike_and_none_competes_not(two_at_once, find):
    words = find("words", "--others", OTHERS)
    assert set(words[1]) == {"bird", "fish", "water"} and words[2] == ["pizza", "guitar"]
    assert_same(find("file", "--others", "others.txt"), words)
    alone, _, _ = find("none", "--others", "none")
    assert words[0].any(-1).mean() < 0.5 < 0.9 < alone.any(-1).mean()  # then the wall is named as well


EVERY_FOLDER = """
import json, sys
import fisa
from PIL import Image
from transformers import pipeline

asked = {"candidate_labels": sys.argv[2], "return_type": "segmentation"}
for folder in sys.argv[3:]:
    segmenter = pipeline("image-segmentation", model=folder, pipeline_class=fisa.FisaPipeline)
    options = asked if folder != "stored" else {"return_type": "segmentation"}
    for _ in range(2):
        found = segmenter(Image.open(sys.argv[1]), **options)
        print(json.dumps([[[segment.label, segment.score] for segment in found], found.not_found]))
"""


def test_storing_own_words_leaves_the_words_that_compete(shipped, scene, home, tmp_path):
    scene.save(tmp_path / "scene.png")
    model, processor = FisaForUniversalSegmentation.from_pretrained(shipped), FisaProcessor.from_pretrained(shipped)
    known = Vocabulary.parse(model.config.vocabulary)
    asked, inputs = LABELS.removesuffix(", guitar"), processor(images=scene, zoom=0, return_tensors="pt")
    closed = model.encode_vocabulary(processor, asked)
    with torch.no_grad():
        expected = model(**inputs, **closed).class_queries_logits
    here = FisaPipeline(model=model, processor=processor)(scene, candidate_labels=asked, return_type="segmentation")
    assert here.not_found == ("pizza",)
    for words in ("armchair", asked):
        model.set_vocabulary(processor, words)
        assert model.competition("zorble", "auto").others == tuple(known)
    with torch.no_grad():
        assert torch.equal(model(**inputs).class_queries_logits, expected)  # stored alone, they are a closed set
    for part in (model, processor):
        part.save_pretrained(tmp_path / "own")
    printed = walk("python", "-c", EVERY_FOLDER, "scene.png", asked, "own", cwd=tmp_path, HF_HOME=str(home))
    for line in [line for line in printed.splitlines() if line.startswith("[[")]:
        segments, missing = json.loads(line)
        assert [label for label, _ in segments] == [segment.label for segment in here] and missing == ["pizza"]
    loaded = FisaForUniversalSegmentation.from_pretrained(tmp_path / "own")
    for words in ("armchair", asked):
        loaded.set_vocabulary(processor, words, others="auto")
    once = model.encode_vocabulary(processor, asked, others="auto")
    assert loaded.config.all_labels == once.id2label and len(once.id2label) > 200
    assert torch.equal(loaded.fisa.stored_vocabulary.encoded().others.class_embeds, once.others.class_embeds)


def test_folders_of_every_kind_answer_alike(saved, shipped, scene, home, tmp_path):
    scene.save(tmp_path / "scene.png")
    base, processor = FisaForUniversalSegmentation.from_pretrained(shipped), FisaProcessor.from_pretrained(shipped)
    PeftModel.from_pretrained(base, ADAPTER).save_pretrained(tmp_path / "adapter")
    stored = FisaForUniversalSegmentation.from_pretrained(saved)
    stored.set_vocabulary(processor, LABELS, others=OTHERS)
    stored.save_pretrained(tmp_path / "stored")
    for folder in ("adapter", "stored"):
        processor.save_pretrained(tmp_path / folder)
    folders = (saved, "adapter", "stored")
    printed = walk("python", "-c", EVERY_FOLDER, "scene.png", LABELS, *folders, cwd=tmp_path, HF_HOME=str(home))
    answers = [json.loads(line) for line in printed.splitlines() if line.startswith("[[")]
    here = pipeline("image-segmentation", model=str(saved), pipeline_class=FisaPipeline)
    for number, others in enumerate(("auto", "auto", OTHERS)):
        expected = here(scene, candidate_labels=LABELS, others=others, return_type="segmentation")
        assert expected.not_found == ("pizza", "guitar")
        for segments, missing in answers[2 * number : 2 * number + 2]:
            assert [label for label, _ in segments] == [segment.label for segment in expected]
            assert [score for _, score in segments] == pytest.approx([segment.score for segment in expected], abs=1e-5)
            assert tuple(missing) == expected.not_found
    assert len(answers) == 6
