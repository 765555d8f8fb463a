"""Plain references: panoptic quality as panopticapi defines it, pixel by pixel; mask AP as COCO defines it, with
void; and random segmentations."""

from collections import Counter, defaultdict

import numpy as np


CATEGORIES = [
    {"id": 1, "name": "cat", "isthing": True},
    {"id": 5, "name": "sky", "isthing": False},
    {"id": 9, "name": "dog", "isthing": True},
]


def plain_counts(images, *, has_void=True):
    """For each category the sum of IoUs, the matches, the false positives and the false negatives over all images,
    by https://github.com/cocodataset/panopticapi/blob/master/panopticapi/evaluation.py. Without void, pixels of id 0
    are of no category."""
    found = defaultdict(lambda: [0.0, 0, 0, 0])
    for prediction, reference in images:
        true_map, predicted_map = reference["segmentation"], prediction["segmentation"]
        true = {info["id"]: info for info in reference["segments_info"]}
        predicted = {info["id"]: info for info in prediction["segments_info"]}
        overlap = Counter(zip(true_map.ravel().tolist(), predicted_map.ravel().tolist()))
        true_area, predicted_area = Counter(true_map.ravel().tolist()), Counter(predicted_map.ravel().tolist())
        matched_true, matched_predicted = set(), set()
        for (i, j), shared in overlap.items():
            if i not in true or j not in predicted or true[i]["iscrowd"]:
                continue
            if true[i]["category_id"] != predicted[j]["category_id"]:
                continue
            iou = shared / (true_area[i] + predicted_area[j] - shared - overlap[0, j] * has_void)
            if iou > 0.5:
                counts = found[true[i]["category_id"]]
                counts[0] += iou
                counts[1] += 1
                matched_true.add(i)
                matched_predicted.add(j)
        crowds = {}
        for i, info in true.items():
            if info["iscrowd"]:
                crowds[info["category_id"]] = i
            elif i not in matched_true:
                found[info["category_id"]][3] += 1
        for j, info in predicted.items():
            if j in matched_predicted:
                continue
            forgiven = overlap[0, j] * has_void
            if info["category_id"] in crowds:
                forgiven += overlap[crowds[info["category_id"]], j]
            if forgiven / predicted_area[j] <= 0.5:
                found[info["category_id"]][2] += 1
    return found


def plain_confusion(images, *, has_void=True):
    """Pixels by true and predicted class, of class maps; without void, those of id 0 and of no class are the last."""
    places = {category["id"]: place for place, category in enumerate(CATEGORIES)}
    confusion = np.zeros((len(CATEGORIES) + (not has_void),) * 2)
    for predicted, reference in images:
        of_segment = {info["id"]: places[info["category_id"]] for info in reference["segments_info"]}
        for i, p in zip(reference["segmentation"].ravel().tolist(), predicted.ravel().tolist()):
            if i or not has_void:
                confusion[of_segment.get(i, -1), p] += 1
    return confusion


def plain_average_precision(images, category_id, threshold):
    """COCO's average precision of one category at one IoU threshold. Instances that match no true one are left out
    where void and crowds of the category make up at least the threshold's share of them, as in
    https://github.com/mcordts/cityscapesScripts/blob/master/cityscapesscripts/evaluation/evalInstanceLevelSemanticLabeling.py."""
    judged, wanted = [], 0  # score and whether it is right, image by image
    for prediction, reference in images:
        label = reference["segmentation"]
        infos = [info for info in reference["segments_info"] if info["category_id"] == category_id]
        true = [label == info["id"] for info in infos if not info["iscrowd"]]
        excused = np.isin(label, [0, *(info["id"] for info in infos if info["iscrowd"])])
        wanted += len(true)
        found = [
            (score, mask)
            for mask, predicted_id, score in zip(*(prediction[n] for n in ("masks", "category_ids", "scores")))
            if predicted_id == category_id
        ]
        for score, mask in sorted(found, key=lambda pair: -pair[0])[:100]:
            ious = [(mask & other).sum() / (mask | other).sum() for other in true]
            if ious and max(ious) >= threshold:
                true.pop(int(np.argmax(ious)))
                judged.append((score, True))
            elif not mask.any() or (mask & excused).sum() / mask.sum() < threshold:
                judged.append((score, False))
    right = np.cumsum([is_right for _, is_right in sorted(judged, key=lambda pair: -pair[0])])
    precisions = [(right[place:] / np.arange(place + 1, len(right) + 1)).max() for place in range(len(right))]
    # The best precision at each of 101 recalls, 0 where so many are never reached.
    reached = [
        [p for p, count in zip(precisions, right) if count / wanted >= recall] for recall in np.linspace(0, 1, 101)
    ]
    return float(np.mean([max(values, default=0) for values in reached]))


def cells(random, height, width, count):
    """A map of `count` cells, each the pixels nearest to a point."""
    ys, xs = random.integers(0, height, count), random.integers(0, width, count)
    rows, columns = np.mgrid[:height, :width]
    return np.argmin((rows[..., None] - ys) ** 2 + (columns[..., None] - xs) ** 2, axis=-1)


def random_images(count, *, seed=0, one_crowd=True):
    """Predictions that are shifted and changed references, with void and crowds.

    Args:
        one_crowd: at most one crowd of a category in an image, as in COCO: of several, panopticapi knows the last.
    """
    random = np.random.default_rng(seed)
    images = []
    for number in range(count):
        height, width = random.integers(20, 60, 2).tolist()
        true = cells(random, height, width, 12) + 1
        predicted = np.roll(true, random.integers(-3, 4, 2).tolist(), (0, 1))
        true[true > 10], predicted[predicted > 11] = 0, 0
        if random.random() < 0.5:
            predicted[predicted == 2] = 1
        crowded, infos = set(), []
        for i in np.unique(true[true > 0]).tolist():
            category_id = int(random.choice([1, 5, 9]))
            iscrowd = int(random.random() < 0.25 and not (one_crowd and category_id in crowded))
            if iscrowd:
                crowded.add(category_id)
            infos.append({"id": i, "category_id": category_id, "iscrowd": iscrowd})
        right = {info["id"]: info["category_id"] for info in infos}
        guessed = [
            {"id": j, "category_id": right.get(j, 5) if random.random() < 0.7 else int(random.choice([1, 5, 9]))}
            for j in np.unique(predicted[predicted > 0]).tolist()
        ]
        reference = {"image_id": f"image {number}", "segmentation": true, "segments_info": infos}
        images.append(({"segmentation": predicted, "segments_info": guessed}, reference))
    return images


def tiny_images(random):
    """One to three maps of at most 16 pixels, any of them all void or of segments that have nothing to do with each
    other; often without segments of a category, and with IoUs of exactly one half."""
    images = []
    for number in range(random.integers(1, 4)):
        true, predicted = random.integers(0, 4, (2, *random.integers(1, 5, 2)))
        true, predicted = true * (random.random() < 0.8), predicted * (random.random() < 0.8)
        present, crowded, infos = [1, 5, 9][: random.integers(1, 4)], set(), []
        for i in np.unique(true[true > 0]).tolist():
            category_id = int(random.choice(present))
            iscrowd = int(random.random() < 0.3 and category_id not in crowded)
            crowded |= {category_id} if iscrowd else set()
            infos.append({"id": i, "category_id": category_id, "iscrowd": iscrowd})
        guessed = [
            {"id": j, "category_id": int(random.choice([1, 5, 9]))}
            for j in np.unique(predicted[predicted > 0]).tolist()
        ]
        reference = {"image_id": f"image {number}", "segmentation": true, "segments_info": infos}
        images.append(({"segmentation": predicted, "segments_info": guessed}, reference))
    return images


def strips(*ids):
    """A map of strips of ten pixels."""
    return np.repeat(np.array(ids), 10)[None]
