"""What the metrics share: they are evaluate's, small however large the images, and exact across processes."""

import json
import tracemalloc
from pathlib import Path

import evaluate
import numpy as np
import pytest

import fisa.evaluation
from fisa.data.formats import load_segmentation_dataset
from fisa.evaluation.mask_average_precision import MaskAveragePrecision
from fisa.evaluation.mean_iou import MeanIoU
from fisa.evaluation.panoptic_quality import PanopticQuality
from tests.evaluation.plain_metrics import CATEGORIES, random_images


METRICS = {"panoptic_quality": PanopticQuality, "mean_iou": MeanIoU, "mask_average_precision": MaskAveragePrecision}
PLACES = {category["id"]: place for place, category in enumerate(CATEGORIES)}


def as_wanted(name, prediction):
    """A panoptic prediction as each metric takes it, with scores from the ids."""
    segmentation, infos = prediction["segmentation"], prediction["segments_info"]
    if name == "panoptic_quality":
        return prediction
    if name == "mean_iou":
        classes = np.zeros(segmentation.shape, int)
        for info in infos:
            classes[segmentation == info["id"]] = PLACES[info["category_id"]]
        return classes
    return {
        "masks": [segmentation == info["id"] for info in infos],
        "category_ids": [info["category_id"] for info in infos],
        "scores": [1 / (2 + info["id"]) for info in infos],
    }


def images(name, count=30, seed=0):
    return [(as_wanted(name, prediction), reference) for prediction, reference in random_images(count, seed=seed)]


def counted(name, pairs):
    metric = METRICS[name](categories=CATEGORIES)
    for prediction, reference in pairs:
        metric.add(prediction=prediction, reference=reference)
    return metric


@pytest.mark.parametrize("name", METRICS)
def test_shares_of_several_processes_give_the_result_of_one_to_the_last_bit(name):
    pairs = images(name)
    alone = counted(name, pairs).compute()
    random = np.random.default_rng(0)
    for parts in (2, 3, 7):
        order = random.permutation(len(pairs)).tolist()
        states = [counted(name, [pairs[index] for index in order[part::parts]]).state() for part in range(parts)]
        together = METRICS[name](categories=CATEGORIES)
        together.merge(states[::-1])
        assert together.compute() == alone


@pytest.mark.parametrize("name", METRICS)
def test_a_process_without_images_adds_nothing(name):
    pairs = images(name, 5)
    together = METRICS[name](categories=CATEGORIES)
    together.merge([counted(name, pairs).state(), METRICS[name](categories=CATEGORIES).state()])
    assert together.compute() == counted(name, pairs).compute()


@pytest.mark.parametrize("name", METRICS)
def test_evaluate_loads_and_runs_it(name):
    path = Path(fisa.evaluation.__file__).parent / f"{name}.py"
    metric = evaluate.load(str(path), categories=CATEGORIES)
    assert isinstance(metric, evaluate.Metric)
    predictions, references = zip(*images(name, 5))
    results = metric.compute(predictions=predictions, references=references)
    assert results == counted(name, images(name, 5)).compute()
    json.dumps(results)


@pytest.mark.parametrize("name", METRICS)
def test_computing_starts_anew(name):
    metric = counted(name, images(name, 5))
    first = metric.compute()
    assert metric.compute() != first
    predictions, references = zip(*images(name, 5))
    assert metric.compute(predictions=predictions, references=references) == first


@pytest.mark.parametrize("name", METRICS)
def test_lists_of_different_lengths_are_refused(name):
    predictions, references = zip(*images(name, 3))
    with pytest.raises(ValueError):
        METRICS[name](categories=CATEGORIES).add_batch(predictions=predictions[:2], references=references)


@pytest.mark.parametrize("name", METRICS)
def test_what_is_kept_of_an_image_does_not_grow_with_its_pixels(name):
    def kept(scale):
        metric = METRICS[name](categories=CATEGORIES)
        for prediction, reference in random_images(4):
            large = {"segmentation": np.kron(prediction["segmentation"], np.ones((scale, scale), int))}
            metric.add(
                prediction=as_wanted(name, prediction | large),
                reference=reference
                | {"segmentation": np.kron(reference["segmentation"], np.ones((scale, scale), int))},
            )
        return len(metric.state())

    # The outlines are as long as the number of columns, the pixels as many as its square.
    assert kept(8) < 8 * 1.5 * kept(1)


def test_memory_stays_flat_over_many_images():
    metric = PanopticQuality(categories=CATEGORIES)
    reference = {
        "image_id": "1",
        "segmentation": np.kron(np.arange(1, 5).reshape(2, 2), np.ones((400, 400), int)),
        "segments_info": [{"id": i, "category_id": 1, "iscrowd": 0} for i in range(1, 5)],
    }
    metric.add(prediction=reference, reference=reference)
    tracemalloc.start()
    for _ in range(40):
        metric.add(prediction=reference, reference=reference)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 200_000  # one map alone has 5 million bytes


def test_the_truth_of_the_real_photos_gives_exactly_100(coco_sample):
    data = load_segmentation_dataset("coco_panoptic", str(coco_sample), split="validation")
    categories = [category.to_dict() for category in data.categories]
    places = {category["id"]: place for place, category in enumerate(categories)}
    metrics = {name: metric(categories=categories) for name, metric in METRICS.items()}
    for record in (data[index] for index in range(len(data))):
        reference = {"image_id": record["image_id"], "segmentation": record["label"]}
        reference["segments_info"] = record["segments_info"]
        kept = [info for info in record["segments_info"] if not info["iscrowd"]]
        label = np.where(np.isin(record["label"], [info["id"] for info in kept]), record["label"], 0)
        classes = np.zeros(label.shape, int)
        for info in record["segments_info"]:
            classes[record["label"] == info["id"]] = places[info["category_id"]]
        metrics["panoptic_quality"].add(prediction={"segmentation": label, "segments_info": kept}, reference=reference)
        metrics["mean_iou"].add(prediction=classes, reference=reference)
        metrics["mask_average_precision"].add(
            prediction={
                "masks": (label == info["id"] for info in kept),
                "category_ids": [info["category_id"] for info in kept],
                "scores": [1.0] * len(kept),
            },
            reference=reference,
        )
    results = {name: metric.compute() for name, metric in metrics.items()}
    assert results["panoptic_quality"]["all"]["pq"] == 100 and results["panoptic_quality"]["all"]["n"] > 5
    assert results["mean_iou"]["miou"] == results["mean_iou"]["pixel_accuracy"] == 100
    assert results["mask_average_precision"]["ap"] == 100


def test_categories_of_one_name_count_each():
    screens = [{"id": number, "name": "screen", "isthing": True} for number in (3, 8)]
    truth = {
        "image_id": "1",
        "segmentation": np.array([[1, 1, 2, 2]]),
        "segments_info": [{"id": number + 1, "category_id": screens[number]["id"], "iscrowd": 0} for number in (0, 1)],
    }
    found = {"segmentation": np.array([[1, 1, 0, 0]]), "segments_info": truth["segments_info"][:1]}
    panoptic = PanopticQuality(categories=screens)
    panoptic.add(prediction=found, reference=truth)
    figures = panoptic.compute()
    assert figures["all"]["pq"] == 50 and figures["all"]["n"] == 2
    assert [*figures["per_class"]] == ["screen (3)", "screen (8)"]
    semantic = MeanIoU(categories=screens, unlabelled="background")
    semantic.add(prediction=np.array([[0, 0, -1, -1]]), reference=truth)
    assert semantic.compute()["miou"] == 50
    instances = MaskAveragePrecision(categories=screens)
    instances.add(
        prediction={"masks": [truth["segmentation"] == 1], "category_ids": [3], "scores": [0.9]}, reference=truth
    )
    figures = instances.compute()
    assert figures["ap"] == pytest.approx(50)
    assert figures["per_class"] == {"screen (3)": {"ap": pytest.approx(100)}, "screen (8)": {"ap": 0}}


def test_a_name_of_an_image_comes_once():
    metric = MaskAveragePrecision(categories=[{"id": 3, "name": "cat", "isthing": True}])
    image = {
        "prediction": {"masks": [], "category_ids": [], "scores": []},
        "reference": {"image_id": "0", "segmentation": np.zeros((2, 2), np.int32), "segments_info": []},
    }
    metric.add(**image)
    with pytest.raises(ValueError, match="two images '0'"):
        metric.add(**image)
