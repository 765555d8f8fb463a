"""Segments by plain loops over one proposal and one pixel at a time, and how results are compared."""

import math

import pytest
import torch

from fisa.processing.post_processing import instance_segmentation, panoptic_segmentation


TASKS = {
    "panoptic": panoptic_segmentation,
    "panoptic closed": lambda *args, **options: panoptic_segmentation(*args, rule="closed_vocabulary", **options),
    "instance": instance_segmentation,
    "instance closed": lambda *args, **options: instance_segmentation(*args, rule="closed_vocabulary", **options),
}


def assert_same(found, expected):
    """Equal maps and segments, scores up to the last of the six digits."""
    assert found["segmentation"].dtype == torch.int32
    assert torch.equal(found["segmentation"], expected["segmentation"].int())
    assert len(found["segments_info"]) == len(expected["segments_info"])
    for segment, reference in zip(found["segments_info"], expected["segments_info"]):
        assert segment == reference | {"score": pytest.approx(reference["score"], abs=2e-6)}


def plain_panoptic(outputs, size, threshold, mask_threshold, overlap):
    probs = outputs.class_queries_logits[0].softmax(-1).tolist()
    masks = [plain_resize(mask, size) for mask in outputs.masks_queries_logits[0].sigmoid().tolist()]
    is_thing = outputs.class_is_thing[0].tolist()
    kept = [q for q in range(len(probs)) if 1 - probs[q][-1] > threshold]
    kept.sort(key=lambda q: -max(probs[q][:-1]))
    pixels = [(y, x) for y in range(size[0]) for x in range(size[1])]
    winner = {(y, x): max(kept, key=lambda q: max(probs[q][:-1]) * masks[q][y][x], default=None) for y, x in pixels}
    segmentation, segments = torch.zeros(size), []
    for q in kept:
        area = sum(masks[q][y][x] >= mask_threshold for y, x in pixels)
        won = [pixel for pixel in pixels if winner[pixel] == q]
        visible = [(y, x) for y, x in won if masks[q][y][x] >= mask_threshold]
        if not visible or len(won) / area <= overlap:
            continue
        score = max(probs[q][:-1])
        label = probs[q].index(score)
        segment = next((s for s in segments if s["label_id"] == label and not is_thing[label]), None)
        if segment is None:
            segment = {"id": len(segments) + 1, "label_id": label, "was_fused": not is_thing[label], "score": score}
            segments.append(segment)
        for y, x in visible:
            segmentation[y, x] = segment["id"]
    return {"segmentation": segmentation, "segments_info": segments}


def plain_instances(outputs, size, threshold, mask_threshold, overlap):
    things = outputs.class_is_thing[0].nonzero().flatten().tolist()
    found = []
    for probs, mask in zip(outputs.class_queries_logits[0].softmax(-1).tolist(), outputs.masks_queries_logits[0]):
        if sum(probs[c] for c in things) <= threshold:
            continue
        label = max(things, key=lambda c: probs[c])
        inside = [p for row in mask.sigmoid().tolist() for p in row if p >= mask_threshold]
        score = probs[label] * sum(inside) / len(inside) if inside else 0.0
        found.append((score, label, plain_resize(mask.sigmoid().tolist(), size)))
    segmentation, segments = torch.full(size, -1), []
    for score, label, probs in sorted(found, key=lambda item: -item[0]):
        mask = torch.tensor(probs) >= mask_threshold
        visible = mask & (segmentation == -1)
        if visible.sum() > overlap * mask.sum():
            segmentation[visible] = len(segments)
            segments.append({"id": len(segments), "label_id": label, "was_fused": False, "score": score})
    return {"segmentation": segmentation, "segments_info": segments}


def plain_resize(rows, size):
    """Bilinear interpolation between the centres of pixels."""

    def sources(length, target):
        for i in range(target):
            position = max((i + 0.5) * length / target - 0.5, 0)
            first = math.floor(position)
            yield first, min(first + 1, length - 1), position - first

    return [
        [
            (1 - v) * ((1 - u) * rows[y0][x0] + u * rows[y0][x1]) + v * ((1 - u) * rows[y1][x0] + u * rows[y1][x1])
            for x0, x1, u in sources(len(rows[0]), size[1])
        ]
        for y0, y1, v in sources(len(rows), size[0])
    ]


def plain_semantic(outputs, size):
    probs = outputs.class_queries_logits[0].softmax(-1)[:, :-1].tolist()
    masks = [plain_resize(mask, size) for mask in outputs.masks_queries_logits[0].sigmoid().tolist()]
    return torch.tensor(
        [
            [
                max(range(len(probs[0])), key=lambda c: sum(p[c] * m[y][x] for p, m in zip(probs, masks)))
                for x in range(size[1])
            ]
            for y in range(size[0])
        ]
    )
