"""Mean IoU: against a confusion matrix counted pixel by pixel."""

import numpy as np
import pytest

from fisa.evaluation.mean_iou import MeanIoU
from tests.evaluation.plain_metrics import CATEGORIES, plain_confusion, random_images, strips, tiny_images


PLACES = {category["id"]: place for place, category in enumerate(CATEGORIES)}


def reference(map, *segments):
    infos = [{"id": i, "category_id": c, "iscrowd": 0} for i, c in segments]
    return {"image_id": "1", "segmentation": map, "segments_info": infos}


def computed(*images, **options):
    metric = MeanIoU(categories=CATEGORIES, **options)
    metric.add_batch(predictions=[p for p, _ in images], references=[r for _, r in images])
    return metric.compute()


def random_classes(seed, *, least=0):
    random = np.random.default_rng(seed)
    return [
        (random.integers(least, len(CATEGORIES), true["segmentation"].shape), true)
        for _, true in random_images(20, seed=seed)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_a_confusion_matrix(seed):
    images = random_classes(seed)
    confusion = plain_confusion(images)
    right = np.diag(confusion)
    iou = right / (confusion.sum(0) + confusion.sum(1) - right)
    accuracy = right / confusion.sum(1)
    results = computed(*images)
    assert results["miou"] == pytest.approx(100 * iou.mean(), abs=1e-9)
    assert results["pixel_accuracy"] == pytest.approx(100 * right.sum() / confusion.sum(), abs=1e-9)
    assert results["mean_accuracy"] == pytest.approx(100 * accuracy.mean(), abs=1e-9)
    assert results["fwiou"] == pytest.approx(100 * (iou * confusion.sum(1)).sum() / confusion.sum(), abs=1e-9)
    for place, category in enumerate(CATEGORIES):
        found = results["per_class"][category["name"]]
        assert found["iou"] == pytest.approx(100 * iou[place], abs=1e-9)
        assert found["accuracy"] == pytest.approx(100 * accuracy[place], abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_background_is_one_more_class_that_has_no_part_in_the_means(seed):
    images = random_classes(seed, least=-1)
    confusion = plain_confusion(images, has_void=False)
    right = np.diag(confusion)
    iou = right / (confusion.sum(0) + confusion.sum(1) - right)
    results = computed(*images, unlabelled="background")
    assert results["miou"] == pytest.approx(100 * iou[:-1].mean(), abs=1e-9)
    assert results["mean_accuracy"] == pytest.approx(100 * (right / confusion.sum(1))[:-1].mean(), abs=1e-9)
    assert results["pixel_accuracy"] == pytest.approx(100 * right.sum() / confusion.sum(), abs=1e-9)
    assert results["fwiou"] == pytest.approx(100 * (iou * confusion.sum(1)).sum() / confusion.sum(), abs=1e-9)
    assert [figures["iou"] for figures in results["per_class"].values()] == pytest.approx(100 * iou[:-1], abs=1e-9)


@pytest.mark.parametrize("unlabelled", ["ignored", "background"])
def test_figures_where_classes_are_missing_or_there_is_nothing(unlabelled):
    random, has_void = np.random.default_rng(0), unlabelled == "ignored"
    for _ in range(150):
        references = [reference for _, reference in tiny_images(random)]
        images = [(random.integers(0 if has_void else -1, 3, true["segmentation"].shape), true) for true in references]
        confusion = plain_confusion(images, has_void=has_void)
        right = np.diag(confusion)[:3]
        union = (confusion.sum(0) + confusion.sum(1))[:3] - right
        iou = [100 * hits / pixels if pixels else None for hits, pixels in zip(right, union)]
        results = computed(*images, unlabelled=unlabelled)
        assert [figures["iou"] for figures in results["per_class"].values()] == pytest.approx(iou, abs=1e-9)
        known = [value for value in iou if value is not None]
        assert results["miou"] == (pytest.approx(np.mean(known), abs=1e-9) if known else None)


def test_the_truth_as_prediction_gives_exactly_100():
    images = []
    for _, true in random_classes(0):
        classes = np.zeros(true["segmentation"].shape, int)
        for info in true["segments_info"]:
            classes[true["segmentation"] == info["id"]] = PLACES[info["category_id"]]
        images.append((classes, true))
    results = computed(*images)
    assert results["miou"] == results["pixel_accuracy"] == results["mean_accuracy"] == results["fwiou"] == 100


def test_void_is_left_out_and_a_class_that_is_nowhere_has_no_iou():
    results = computed((strips(0, 0, 1), reference(strips(1, 1, 0), (1, 1))))
    assert results["miou"] == 100 and results["per_class"]["dog"]["iou"] is None
    # Predicted on pixels that are known, it has one: 0.
    results = computed((strips(0, 1, 1), reference(strips(1, 1, 0), (1, 1))))
    assert results["per_class"]["cat"]["iou"] == 50 and results["per_class"]["sky"]["iou"] == 0
    assert results["miou"] == 25


def test_maps_of_different_sizes_are_named():
    with pytest.raises(ValueError, match=r"\(1, 10\).*\(1, 20\)"):
        computed((strips(0), reference(strips(1, 1), (1, 1))))


def test_a_class_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"categories \[77\]"):
        computed((strips(0), reference(strips(1), (1, 77))))
    for wrong in (3, -1):
        with pytest.raises(ValueError):
            computed((strips(wrong), reference(strips(1), (1, 1))))
