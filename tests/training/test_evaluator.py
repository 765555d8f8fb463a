"""The evaluation loop: what is known of unlabelled pixels, and oracles in batches of any size."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fisa.data.formats import load_segmentation_dataset
from fisa.data.segmentation_datasets import FileDataset
from fisa.evaluation.predictors import PREDICTORS
from fisa.miniature import miniature
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.pretrained import patchwork
from fisa.processing.coco_panoptic import CocoPanopticWriter, remove_unfinished, written_maps
from fisa.training.evaluator import Evaluator
from tests.data.made_files import CATEGORIES, HEIGHT, WIDTH, write_coco_panoptic, write_photo


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two photos in quarters: a person, a tree, a crowd of persons, and nothing."""
    root = tmp_path_factory.mktemp("photos")
    write_coco_panoptic(root)
    return load_segmentation_dataset("coco_panoptic", str(root), split="val2017")


class PersonsInTwoQuarters:
    """A model that sees the same on each photo: persons in the first quarter and, surer of it, in the last."""

    device = torch.device("cpu")

    def encode_vocabulary(self, processor, vocabulary):
        return {}

    def __call__(self, pixel_values, **inputs):
        masks = torch.full((len(pixel_values), 2, 12, 16), -9.0)
        masks[:, 0, :6, :8] = masks[:, 1, 6:, 8:] = 9.0
        probabilities = torch.tensor([[0.8, 0.05, 0.05, 0.05, 0.05], [0.9, 0.025, 0.025, 0.025, 0.025]])
        return FisaOutput(
            class_queries_logits=probabilities.log().expand(len(pixel_values), -1, -1),
            masks_queries_logits=masks,
            class_is_thing=torch.tensor([[True, True, False, False]]).expand(len(pixel_values), -1),
        )


@pytest.mark.parametrize(("unlabelled", "ap", "pq"), [("ignored", 100, 100), ("background", 50, 200 / 3)])
def test_what_lies_on_unlabelled_pixels_is_wrong_where_these_are_background(data, unlabelled, ap, pq):
    known = FileDataset(data.entries, data.categories, read_label=data.read_label, unlabelled=unlabelled)
    _, processor = miniature()
    evaluator = Evaluator(known, processor, name="quarters")
    report = evaluator.evaluate(PersonsInTwoQuarters(), evaluator.loader(batch_size=2, num_workers=0))
    assert report["instance"]["per_class"]["person"]["ap"] == pytest.approx(ap)
    assert report["panoptic"]["per_class"]["person"]["pq"] == pytest.approx(pq)
    if unlabelled == "background":  # of person, crowd and background one in three is right; the tree's quarter is free
        assert report["semantic"]["per_class"]["person"]["iou"] == pytest.approx(100 / 3)


def test_true_instances_are_right_by_every_metric(tmp_path):
    write_photo(tmp_path / "images" / "7.jpg")
    (tmp_path / "annotations").mkdir()
    overlapping = [[[2, 2, 5, 2, 5, 5, 2, 5]], [[1, 1, 13, 1, 1, 10]]]
    instances = [
        {"id": number, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": outline}
        for number, outline in enumerate(overlapping)
    ]
    images = [{"id": 7, "file_name": "7.jpg", "height": HEIGHT, "width": WIDTH}]
    content = {"images": images, "annotations": instances, "categories": CATEGORIES[:2]}
    (tmp_path / "annotations" / "instances.json").write_text(json.dumps(content))
    data = load_segmentation_dataset("coco_instances", str(tmp_path), split="validation")
    model, processor = miniature()
    evaluator = Evaluator(data, processor, name="instances", oracle="both")
    report = evaluator.evaluate(model.eval(), evaluator.loader(batch_size=1, num_workers=0))
    assert report["panoptic"]["all"]["pq"] == report["semantic"]["miou"] == 100
    assert report["semantic"]["pixel_accuracy"] == 100


@pytest.mark.parametrize("oracle", PREDICTORS)
def test_figures_do_not_depend_on_the_batch_size(data, oracle):
    model, processor = miniature()
    evaluator = Evaluator(data, processor, name="quarters", oracle=oracle)
    one, two = (evaluator.evaluate(model.eval(), evaluator.loader(batch_size=size, num_workers=0)) for size in (1, 2))
    assert one == two and one["num_images"] == 2 and one["oracle"] == oracle


def test_an_unknown_oracle_is_refused(data):
    _, processor = miniature()
    with pytest.raises(ValueError, match="'masks'.*'classifier'"):
        Evaluator(data, processor, name="quarters", oracle="masks")


class Recorded:
    """A model, and what it was given and gave, call by call."""

    def __init__(self, model):
        self.model, self.inputs, self.scores = model, [], []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def __call__(self, **inputs):
        outputs = self.model(**inputs)
        self.inputs.append(inputs)
        self.scores.append(outputs.class_queries_logits)
        return outputs


@pytest.mark.parametrize("num_workers", [0, 1])
def test_zoom_reads_photos_as_in_use(data, num_workers):
    model, processor = patchwork.load(adapted=False)
    words = model.encode_vocabulary(processor, Evaluator(data, processor, name="quarters").vocabulary)
    photos, scores = [record["image"] for record in data], {}
    for zoom in (0, 4):
        processor.image_processor.zoom = zoom
        evaluator, recorded = Evaluator(data, processor, name="quarters"), Recorded(model)
        evaluator.evaluate(recorded, evaluator.loader(batch_size=2, num_workers=num_workers))
        with torch.no_grad():
            called = model(**processor(images=photos, zoom=zoom, return_tensors="pt"), **words)
        (scores[zoom],) = recorded.scores
        assert torch.equal(called.class_queries_logits, scores[zoom])
    assert not torch.allclose(scores[0], scores[4], atol=0.1)


def test_true_masks_are_read_with_the_same_zoom(data):
    model, processor = patchwork.load(adapted=False)
    processor.image_processor.zoom = 4
    evaluator, recorded = Evaluator(data, processor, name="quarters", oracle="generator"), Recorded(model)
    evaluator.evaluate(recorded, evaluator.loader(batch_size=2, num_workers=0))
    assert [(inputs["zoom"].item(), len(inputs["photos"])) for inputs in recorded.inputs] == [(4, 1), (4, 1)]


def test_instances_of_any_score_count_whatever_the_model_s_settings(data):
    _, processor = miniature()
    processor.image_processor.min_score = 0.85
    evaluator = Evaluator(data, processor, name="quarters")
    report = evaluator.evaluate(PersonsInTwoQuarters(), evaluator.loader(batch_size=2, num_workers=0))
    assert report["instance"]["per_class"]["person"]["ap"] == pytest.approx(100)


def test_an_earlier_evaluation_of_other_photos_leaves_nothing_but_what_is_not_its_own(data, tmp_path):
    _, processor = miniature()
    predictions, samples = tmp_path / "predictions.json", tmp_path / "samples"

    def evaluate(photos):
        evaluator = Evaluator(photos, processor, name="quarters", predictions=predictions, samples=samples)
        evaluator.evaluate(PersonsInTwoQuarters(), evaluator.loader(batch_size=2, num_workers=0))
        return sorted(path.name for path in (tmp_path / "predictions").iterdir())

    assert evaluate(data) == ["1.png", "2.png"]
    (tmp_path / "predictions" / "mine.png").touch()
    (tmp_path / "mine.png").touch()
    content = json.loads(predictions.read_text())
    content["annotations"].append({"file_name": "../mine.png"})
    predictions.write_text(json.dumps(content))
    assert evaluate(data.select([1])) == ["2.png", "mine.png"] and (tmp_path / "mine.png").exists()
    assert [entry["file_name"] for entry in json.loads(predictions.read_text())["annotations"]] == ["2.png"]
    for kind, ending in (("photos", "jpg"), ("truth", "png"), ("prediction", "png")):
        assert [path.name for path in (samples / kind).iterdir()] == [f"2.{ending}"]


class Stopped(PersonsInTwoQuarters):
    """One that stops on its second photo."""

    def __init__(self):
        self.calls = 0

    def __call__(self, **inputs):
        self.calls += 1
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().__call__(**inputs)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("before", [True, False], ids=["after another", "the first"])
def test_a_stopped_evaluation_leaves_the_earlier_one_whole_and_nothing_to_the_next(data, tmp_path, before):
    _, processor = miniature()

    def evaluate(photos, model):
        paths = {"predictions": tmp_path / "predictions.json", "samples": tmp_path / "samples"}
        evaluator = Evaluator(photos, processor, name="quarters", **paths)
        evaluator.evaluate(model, evaluator.loader(batch_size=1, num_workers=0))

    if before:
        evaluate(data.select([1]), PersonsInTwoQuarters())
    earlier = files_of(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, Stopped())
    seen = files_of(tmp_path)
    assert {path: seen[path] for path in seen if "." not in (path.parent.name[0], path.name[0])} == earlier
    evaluate(data.select([1]), PersonsInTwoQuarters())
    left = {path.relative_to(tmp_path).as_posix() for path in files_of(tmp_path)}
    assert left == {
        "predictions.json", "predictions/2.png", "samples/photos/2.jpg", "samples/truth.json", "samples/truth/2.png",
        "samples/prediction.json", "samples/prediction/2.png",
    }  # fmt: skip


@pytest.mark.parametrize("moment", range(9))
def test_a_kill_while_predictions_are_put_in_place_leaves_nothing_to_the_next(tmp_path, monkeypatch, moment):
    def written(*names):
        remove_unfinished(tmp_path / "all.json")
        writer = CocoPanopticWriter(tmp_path / "all.json", CATEGORIES)
        for name in names:
            segments = {"segmentation": np.ones((2, 2), int), "segments_info": [{"id": 1, "category_id": 1}]}
            writer.add(name, file_name=f"{name}.jpg", **segments)
        return writer

    written("a", "b", "c").close()
    writer, moves = written("c", "d"), iter(range(moment))

    def unless_killed(function):
        def moved(*arguments, **options):
            if next(moves, None) is None:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return moved

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", unless_killed(os.replace))
        patch.setattr("pathlib.Path.unlink", unless_killed(Path.unlink))
        patch.setattr("shutil.rmtree", unless_killed(shutil.rmtree))
        try:
            writer.close()
        except KeyboardInterrupt:
            pass
    listed = written_maps(tmp_path / "all.json")  # a list that is in place is true
    assert not listed or listed == sorted(path.name for path in (tmp_path / "all").iterdir())
    written("e").close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["all", "all.json", "e.png"]
