"""Mask AP: against pycocotools on random instances, with crowds, ties and empty images; and with void against a plain
loop."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as reference_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fisa.evaluation.mask_average_precision import MaskAveragePrecision
from fisa.evaluation.panoptic_quality import PanopticQuality
from tests.evaluation.plain_metrics import CATEGORIES, cells, plain_average_precision


THINGS = [category for category in CATEGORIES if category["isthing"]]


def random_instances(count, *, seed):
    """Images of up to 130 × 130 pixels, so that some instances are large by COCO's measure."""
    random = np.random.default_rng(seed)
    images = []
    for number in range(count):
        height, width = random.integers(60, 131, 2).tolist()
        true = cells(random, height, width, int(random.integers(1, 9))) + 1
        true[random.random() * height < np.arange(height)] = 0
        infos = [
            {"id": i, "category_id": int(random.choice([1, 5, 9])), "iscrowd": int(random.random() < 0.2)}
            for i in np.unique(true[true > 0]).tolist()
        ]
        masks, category_ids, scores = [], [], []
        for info in infos:
            for _ in range(int(random.integers(0, 3))):
                masks.append(np.roll(true == info["id"], random.integers(-6, 7, 2).tolist(), (0, 1)))
                category_ids.append(info["category_id"] if random.random() < 0.8 else int(random.choice([1, 5, 9])))
                scores.append(round(float(random.random()), 1))  # with ties
        prediction = {"masks": masks, "category_ids": category_ids, "scores": scores}
        images.append((prediction, {"image_id": f"{number}", "segmentation": true, "segments_info": infos}))
    return images


def computed(images, **options):
    metric = MaskAveragePrecision(categories=CATEGORIES, **options)
    for prediction, true in images:
        metric.add(prediction=prediction | {"masks": iter(prediction["masks"])}, reference=true)
    return metric.compute()


def encoded(mask):
    return reference_mask.encode(np.asfortranarray(mask, np.uint8))


def pycocotools_says(images):
    thing_ids = {category["id"] for category in THINGS}
    content = {"images": [], "annotations": [], "categories": THINGS, "info": {}}
    found = []
    for number, (prediction, true) in enumerate(images, start=1):
        height, width = true["segmentation"].shape
        content["images"].append({"id": number, "height": height, "width": width})
        for info in true["segments_info"]:
            if info["category_id"] in thing_ids:
                rle = encoded(true["segmentation"] == info["id"])
                content["annotations"].append(
                    info
                    | {"id": len(content["annotations"]) + 1, "image_id": number, "segmentation": rle}
                    | {"area": float(reference_mask.area(rle)), "bbox": reference_mask.toBbox(rle).tolist()}
                )
        for mask, category_id, score in zip(*(prediction[name] for name in ("masks", "category_ids", "scores"))):
            if category_id in thing_ids:
                found.append(
                    {"image_id": number, "category_id": category_id, "score": score, "segmentation": encoded(mask)}
                )
    with contextlib.redirect_stdout(io.StringIO()):
        true = COCO()
        true.dataset = content
        true.createIndex()
        evaluation = COCOeval(true, true.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"]  # threshold, recall, category, area, number of instances
    per_class = [precision[:, :, place, 0, 2] for place in range(len(THINGS))]
    per_class = [values[values > -1].mean() for values in per_class]
    return evaluation.stats, per_class


@pytest.mark.parametrize("seed", range(3))
def test_pycocotools_figures(seed):
    images = random_instances(30, seed=seed)
    results = computed(images, unlabelled="background")  # pycocotools knows no void
    stats, per_class = pycocotools_says(images)
    names = {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5, "ar": 8}
    assert 0 < stats[0] < 1
    for name, place in names.items():
        expected = None if stats[place] < 0 else pytest.approx(100 * stats[place], abs=1e-9)
        assert results[name] == expected
    for category, value in zip(THINGS, per_class):
        assert results["per_class"][category["name"]]["ap"] == pytest.approx(100 * value, abs=1e-9)


def test_the_truth_as_prediction_gives_exactly_100():
    images = []
    for _, true in random_instances(10, seed=0):
        kept = [info for info in true["segments_info"] if not info["iscrowd"]]
        masks = [true["segmentation"] == info["id"] for info in kept]
        prediction = {
            "masks": masks,
            "category_ids": [info["category_id"] for info in kept],
            "scores": [0.5] * len(kept),
        }
        images.append((prediction, true))
    results = computed(images)
    assert results["ap"] == results["ap50"] == results["ar"] == 100


def test_instances_that_overlap_count_with_their_whole_masks():
    whole = np.zeros((40, 40), bool)
    whole[5:35, 5:35] = True
    label = np.where(whole, 1, 0)
    label[10:30, 10:30] = 2  # covers most of it
    rle = encoded(whole)
    true = {
        "image_id": "1",
        "segmentation": label,
        "segments_info": [
            {"id": 1, "category_id": 1, "iscrowd": 0, "segmentation": rle},
            {"id": 2, "category_id": 9, "iscrowd": 0},
        ],
    }
    prediction = {"masks": [whole, label == 2], "category_ids": [1, 9], "scores": [1.0, 1.0]}
    # Of a single instance pycocotools' precision is 1 / (1 + 2.2e-16).
    assert computed([(prediction, true)])["ap"] == pytest.approx(100, abs=1e-12)


def test_no_instances_at_all():
    label = np.zeros((8, 8), int)
    true = {"image_id": "1", "segmentation": label, "segments_info": []}
    results = computed([({"masks": [], "category_ids": [], "scores": []}, true)])
    assert results["ap"] is None
    assert results["per_class"] == {"cat": {"ap": None}, "dog": {"ap": None}}


@pytest.mark.parametrize(
    "change, named",
    [
        ({"masks": [np.ones((2, 3), bool)]}, r"\(2, 3\) and the reference \(4, 4\)"),
        ({"category_ids": [77]}, r"categories \[77\]"),
    ],
    ids=["size", "category"],
)
def test_what_cannot_be_compared_is_refused(change, named):
    label = np.ones((4, 4), int)
    true = {"image_id": "1", "segmentation": label, "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}]}
    prediction = {"masks": [label == 1], "category_ids": [1], "scores": [0.5]}
    with pytest.raises(ValueError, match=named):
        computed([(prediction | change, true)])
    true["segments_info"].append({"id": 2, "category_id": 1, "iscrowd": 0})
    with pytest.raises(ValueError, match=r"segments \[2\] are in the list and not in the map"):
        computed([(prediction, true)])


def test_without_things_there_is_no_such_metric():
    with pytest.raises(ValueError, match="None of the categories is a thing"):
        MaskAveragePrecision(categories=[CATEGORIES[1]])


# Void


def random_instances_beside_void(count, *, seed):
    """As above, with up to half of the pixels void and instances of 10 × 10 pixels anywhere."""
    random = np.random.default_rng(seed)
    images = []
    for prediction, true in random_instances(count, seed=seed):
        height, width = true["segmentation"].shape
        for _ in range(4):
            mask = np.zeros((height, width), bool)
            y, x = random.integers(0, height - 10), random.integers(0, width - 10)
            mask[y : y + 10, x : x + 10] = True
            prediction["masks"].append(mask)
            prediction["category_ids"].append(int(random.choice([1, 9])))
        # No ties: which of two equals comes first is another matter.
        prediction["scores"] = random.permutation(len(prediction["masks"])) / 100
        images.append((prediction, true))
    return images


@pytest.mark.parametrize("seed", range(3))
def test_what_lies_on_void_counts_as_in_a_plain_loop(seed):
    images = random_instances_beside_void(20, seed=seed)
    results = computed(images)
    for category in THINGS:
        expected = [
            plain_average_precision(images, category["id"], threshold) for threshold in np.linspace(0.5, 0.95, 10)
        ]
        assert results["per_class"][category["name"]]["ap"] == pytest.approx(100 * np.mean(expected), abs=1e-9)
    assert results["ap"] > 1.1 * computed(images, unlabelled="background")["ap"]


def strip_of(*places):
    mask = np.zeros((1, 100), bool)
    for start, end in places:
        mask[:, start:end] = True
    return mask


def one_cat(*masks):
    """A cat of 20 pixels, found, beside a crowd of 20, a dog of 20, and 40 void pixels; and other cats that come
    before it."""
    label = np.repeat([1, 2, 3, 0], [20, 20, 20, 40])[None]
    infos = [
        {"id": 1, "category_id": 1, "iscrowd": 0},
        {"id": 2, "category_id": 1, "iscrowd": 1},
        {"id": 3, "category_id": 9, "iscrowd": 0},
    ]
    prediction = {
        "masks": [*masks, strip_of((0, 20))],
        "category_ids": [1] * (len(masks) + 1),
        "scores": [0.9] * len(masks) + [0.5],
    }
    return prediction, {"image_id": "1", "segmentation": label, "segments_info": infos}


@pytest.mark.parametrize(
    ("place", "ap50", "ap75"),
    [
        ((60, 100), 100, 100),  # on void alone
        ((50, 100), 100, 100),  # four fifths of it
        ((40, 80), 100, 50),  # one half
        ((40, 79), 50, 50),  # less
        ((40, 60), 50, 50),  # on the dog
        ((20, 40), 100, 100),  # on the crowd
    ],
)
def test_unmatched_instances_on_void_or_crowds_do_not_count(place, ap50, ap75):
    prediction, true = one_cat(strip_of(place))
    metric = MaskAveragePrecision(categories=[CATEGORIES[0]])
    metric.add(prediction=prediction, reference=true)
    figures = metric.compute()
    assert (figures["ap50"], figures["ap75"]) == pytest.approx((ap50, ap75))


def test_void_and_crowd_excuse_together():
    mostly = strip_of((30, 50), (60, 75))  # 10 on the crowd, 10 on the dog, 15 on void
    # 25 of 35 pixels are excused: at the five thresholds up to 0.7 but not above.
    assert computed([one_cat(mostly)])["per_class"]["cat"]["ap"] == pytest.approx(75)


def test_an_image_that_is_void_but_for_one_instance_is_as_good_as_its_panoptic_quality():
    ids = np.zeros((40, 40), int)
    ids[5:25, 5:25] = 1
    true = {"image_id": "1", "segmentation": ids, "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}]}
    elsewhere = np.kron([[0, 0], [0, 1]], np.ones((20, 20), int)).astype(bool) & (ids == 0)
    prediction = {"masks": [elsewhere, ids == 1], "category_ids": [1, 1], "scores": [0.9, 0.8]}
    panoptic = PanopticQuality(categories=CATEGORIES)
    segments = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 1}]
    panoptic.add(prediction={"segmentation": ids + 2 * elsewhere, "segments_info": segments}, reference=true)
    assert panoptic.compute()["all"]["pq"] == 100
    assert computed([(prediction, true)])["ap"] == pytest.approx(100)
    assert computed([(prediction, true)], unlabelled="background")["ap"] == pytest.approx(50)
