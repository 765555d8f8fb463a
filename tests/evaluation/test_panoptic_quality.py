"""Panoptic quality: panopticapi's definition and hotcoco's counts on random maps, and cases worked out by hand."""

import numpy as np
import pytest
from hotcoco.panoptic import PanopticEval

from fisa.evaluation.panoptic_quality import PanopticQuality
from fisa.evaluation.segment_runs import SegmentRuns
from tests.evaluation.plain_metrics import CATEGORIES, plain_counts, random_images, strips, tiny_images


CAT, SKY, DOG = 1, 5, 9


def computed(*images, **options):
    metric = PanopticQuality(categories=CATEGORIES, **options)
    for prediction, reference in images:
        metric.add(prediction=prediction, reference=reference)
    return metric.compute()


def image(true_map, true, predicted_map, predicted):
    """Segments are `(id, category)` or `(id, category, iscrowd)`."""
    infos = [{"id": i, "category_id": c, "iscrowd": int(bool(rest))} for i, c, *rest in true]
    guessed = [{"id": i, "category_id": c} for i, c in predicted]
    reference = {"image_id": "1", "segmentation": true_map, "segments_info": infos}
    return {"segmentation": predicted_map, "segments_info": guessed}, reference


def counts(results, name):
    return tuple(results["per_class"][name][key] for key in ("tp", "fp", "fn"))


@pytest.mark.parametrize("unlabelled", ["ignored", "background"])
@pytest.mark.parametrize("seed", range(4))
def test_panopticapis_definition_on_random_maps(seed, unlabelled):
    images = random_images(40, seed=seed)
    results = computed(*images, unlabelled=unlabelled)
    qualities = []
    for category in CATEGORIES:
        iou, matched, wrong, missed = plain_counts(images, has_void=unlabelled == "ignored")[category["id"]]
        found = results["per_class"][category["name"]]
        assert (found["tp"], found["fp"], found["fn"]) == (matched, wrong, missed) and matched > 0
        quality = iou / (matched + wrong / 2 + missed / 2)
        assert found["pq"] == pytest.approx(100 * quality, abs=1e-9)
        assert found["sq"] == pytest.approx(100 * iou / matched, abs=1e-9)
        assert found["rq"] == pytest.approx(100 * matched / (matched + wrong / 2 + missed / 2), abs=1e-9)
        qualities.append(100 * quality)
    assert results["all"]["pq"] == pytest.approx(np.mean(qualities), abs=1e-9)
    assert results["things"]["pq"] == pytest.approx(np.mean([qualities[0], qualities[2]]), abs=1e-9)
    assert results["stuff"]["pq"] == pytest.approx(qualities[1], abs=1e-9)


@pytest.mark.parametrize("unlabelled", ["ignored", "background"])
def test_panopticapis_definition_where_there_is_little_or_nothing(unlabelled):
    random = np.random.default_rng(0)
    for _ in range(150):
        images = tiny_images(random)
        results, wanted = (
            computed(*images, unlabelled=unlabelled),
            plain_counts(images, has_void=unlabelled == "ignored"),
        )
        qualities = []
        for category in CATEGORIES:
            iou, *numbers = wanted[category["id"]]
            matched, wrong, missed = numbers
            quality = 100 * iou / (matched + wrong / 2 + missed / 2) if any(numbers) else None
            assert counts(results, category["name"]) == (matched, wrong, missed)
            assert results["per_class"][category["name"]]["pq"] == pytest.approx(quality, abs=1e-9)
            qualities += [] if quality is None else [quality]
        mean = pytest.approx(np.mean(qualities), abs=1e-9) if qualities else None
        assert results["all"]["pq"] == mean and results["all"]["n"] == len(qualities)


@pytest.mark.parametrize("one_crowd", [True, False], ids=["one crowd", "several crowds"])
def test_hotcocos_counts_on_random_maps(one_crowd):
    for pair in random_images(40, one_crowd=one_crowd):
        evaluator = PanopticEval(*(as_annotations(side) for side in pair[::-1]))
        evaluator.evaluate()
        theirs, ours = evaluator.results()["per_class"], computed(pair)
        for category in CATEGORIES:
            name, figures = category["name"], theirs[category["id"]]
            assert counts(ours, name) == (figures["tp"], figures["fp"], figures["fn"])
            assert (ours["per_class"][name]["sq"] or 0) * figures["tp"] == pytest.approx(
                100 * figures["iou"], abs=1e-9
            )


def as_annotations(side):
    masks = SegmentRuns.from_map(side["segmentation"]).masks()
    height, width = side["segmentation"].shape
    return {
        "images": [{"id": 1, "height": height, "width": width}],
        "annotations": [
            {"iscrowd": 0} | info | {"image_id": 1, "segmentation": masks[info["id"]]}
            for info in side["segments_info"]
        ],
        "categories": CATEGORIES,
    }


def test_the_truth_as_prediction_gives_exactly_100():
    for _, reference in random_images(20):
        kept = [info for info in reference["segments_info"] if not info["iscrowd"]]
        ids = [info["id"] for info in kept]
        perfect = np.where(np.isin(reference["segmentation"], ids), reference["segmentation"], 0)
        results = computed(({"segmentation": perfect, "segments_info": kept}, reference))
        assert results["all"]["pq"] == results["all"]["sq"] == results["all"]["rq"] == 100


def test_by_hand():
    # Cats: one found with IoU 20/30, one missed. Sky: found whole. A dog that is not there.
    results = computed(
        image(strips(1, 1, 2, 3, 3, 0), [(1, CAT), (2, CAT), (3, SKY)],
              strips(1, 1, 1, 2, 2, 0), [(1, CAT), (2, SKY)]),
        image(strips(1), [(1, SKY)], strips(4), [(4, DOG)]),
    )  # fmt: skip
    assert counts(results, "cat") == (1, 0, 1)
    assert results["per_class"]["cat"]["pq"] == pytest.approx(100 * (20 / 30) / 1.5, abs=1e-12)
    assert counts(results, "sky") == (1, 0, 1) and results["per_class"]["sky"]["sq"] == 100
    assert counts(results, "dog") == (0, 1, 0) and results["per_class"]["dog"]["pq"] == 0
    assert results["all"]["n"] == 3 and results["things"]["n"] == 2
    assert results["all"]["pq"] == pytest.approx((100 * (20 / 30) / 1.5 + 100 / 1.5 + 0) / 3, abs=1e-12)


def test_a_category_that_is_nowhere_counts_in_no_mean():
    results = computed(image(strips(1), [(1, CAT)], strips(1), [(1, CAT)]))
    assert results["all"] == {"pq": 100, "sq": 100, "rq": 100, "n": 1}
    assert results["per_class"]["dog"]["pq"] is None and results["stuff"] == {
        "pq": None, "sq": None, "rq": None, "n": 0
    }  # fmt: skip


def test_an_iou_of_one_half_is_no_match():
    results = computed(image(strips(1, 1, 0), [(1, CAT)], strips(0, 1, 1), [(1, CAT)]))
    # The void third counts for neither: 10 of 20 pixels.
    assert counts(results, "cat") == (0, 0, 1) or counts(results, "cat") == (0, 1, 1)
    half = computed(image(strips(1, 1, 2), [(1, CAT), (2, SKY)], strips(1, 2, 2), [(1, CAT), (2, SKY)]))
    assert counts(half, "cat") == (0, 1, 1)
    assert counts(half, "sky") == (0, 1, 1)


def test_void_pixels_count_for_neither():
    results = computed(image(strips(1, 0, 0), [(1, CAT)], strips(1, 1, 1), [(1, CAT)]))
    assert results["per_class"]["cat"] | {"isthing": True} == {
        "pq": 100, "sq": 100, "rq": 100, "tp": 1, "fp": 0, "fn": 0, "isthing": True
    }  # fmt: skip


@pytest.mark.parametrize("void, wrong", [(2, 1), (3, 0)], ids=["half void", "more than half void"])
def test_a_prediction_that_is_mostly_void_is_forgiven(void, wrong):
    true_map = strips(*[0] * void, *[1] * (4 - void))
    results = computed(image(true_map, [(1, SKY)], strips(1, 1, 1, 1), [(1, CAT)]))
    assert counts(results, "cat") == (0, wrong, 0)


def test_a_crowd_is_no_miss_and_forgives_predictions_of_its_own_category():
    crowd = [(1, CAT, True)]
    assert counts(computed(image(strips(1, 1), crowd, strips(0, 0), [])), "cat") == (0, 0, 0)
    assert counts(computed(image(strips(1, 1), crowd, strips(1, 2), [(1, CAT), (2, CAT)])), "cat") == (0, 0, 0)
    assert counts(computed(image(strips(1, 1), crowd, strips(1, 1), [(1, DOG)])), "dog") == (0, 1, 0)


def test_ids_of_any_size_and_order():
    true_map, predicted_map = strips(16_000_000, 7, 300), strips(2, 70_000, 1)
    results = computed(
        image(true_map, [(7, CAT), (300, CAT), (16_000_000, SKY)], predicted_map, [(1, CAT), (2, SKY), (70_000, CAT)])
    )
    assert results["all"]["pq"] == 100


@pytest.mark.parametrize(
    "predicted_map, predicted, named",
    [
        (strips(1), [(1, CAT)], ["(1, 10)", "(1, 20)"]),
        (strips(1, 2), [(1, CAT)], ["[2]", "only in the map"]),
        (strips(1, 1), [(1, CAT), (3, SKY)], ["[3]", "only in the list"]),
        (strips(1, 1), [(1, 77)], ["77"]),
    ],
    ids=["another size", "not listed", "not drawn", "unknown category"],
)
def test_what_does_not_fit_is_named(predicted_map, predicted, named):
    with pytest.raises(ValueError) as caught:
        computed(image(strips(1, 1), [(1, CAT)], predicted_map, predicted))
    assert [word for word in named if word not in str(caught.value)] == []


def test_nothing_at_all():
    assert computed()["all"] == {"pq": None, "sq": None, "rq": None, "n": 0}
    empty = image(strips(0, 0), [], strips(0, 0), [])
    assert computed(empty)["all"]["pq"] is None
