"""Wherever the model runs, it finds what it finds on the CPU."""

import pytest
import torch
from transformers import pipeline

from fisa.commands import segment
from fisa.formats import Results
from fisa.labelling import Labeller
from tests.roads.made_photos import write_label_maps
from tests.training.runs import losses, run


WORDS = "bird, fish, tiger, water [stuff], sand [stuff], wood [stuff]"
OPTIONS = {"candidate_labels": WORDS, "others": None, "return_type": "segmentation"}
TASKS = ("panoptic", "instance", "semantic")
NEARLY_ALL = 0.995  # of the pixels or masks: other devices add up in another order, and a tie goes either way


@pytest.fixture(scope="module")
def batch(on_the_cpu, scenes):
    """Scenes and words as the model takes them, on the CPU."""
    processor = on_the_cpu.processor
    with torch.no_grad():
        vocabulary = on_the_cpu.model.encode_vocabulary(processor, WORDS)
    return {**processor(images=list(scenes.values()), return_tensors="pt"), **vocabulary}


@pytest.fixture(scope="module")
def expected(on_the_cpu, batch):
    """The CPU's outputs."""
    with torch.no_grad():
        return on_the_cpu.model(**batch)


def moved(values, device):
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def same_winners(found, expected) -> float:
    """Of the likely proposals, how many have the same best class."""
    likely = expected.objectness > 0.4
    best = [outputs.class_queries_logits.cpu()[..., :-1].argmax(-1)[likely] for outputs in (found, expected)]
    return (best[0] == best[1]).float().mean().item()


def test_scores_and_masks_are_the_cpus(segmenter, batch, expected, device):
    with torch.no_grad():
        found = segmenter.model(**moved(batch, device))
    assert found.masks_queries_logits.device.type == found.class_queries_logits.device.type == device.type
    probabilities = [outputs.class_queries_logits.cpu().exp() for outputs in (found, expected)]
    assert (probabilities[0] - probabilities[1]).abs().max() < 0.01
    is_inside = [outputs.masks_queries_logits.cpu() > 0 for outputs in (found, expected)]
    assert (is_inside[0] == is_inside[1]).float().mean() > NEARLY_ALL


def test_scores_in_bfloat16_name_the_same_classes(segmenter, batch, expected, device):
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16):
        found = segmenter.model(**moved(batch, device))
    assert found.class_queries_logits.dtype == torch.float32
    assert same_winners(found, expected) > 0.9


@pytest.mark.parametrize("task", TASKS)
def test_segments_are_made_on_the_device_and_are_the_cpus(segmenter, expected, scenes, device, task):
    outputs = type(expected)(**moved(expected, device))
    sizes = [scene.size[::-1] for scene in scenes.values()]
    make = getattr(segmenter.processor, f"post_process_{task}_segmentation")
    for found, right in zip(make(outputs, target_sizes=sizes), make(expected, target_sizes=sizes), strict=True):
        ids, right_ids = ((one if task == "semantic" else one["segmentation"]) for one in (found, right))
        assert ids.device.type == device.type
        assert (ids.cpu() == right_ids).float().mean() > NEARLY_ALL
        if task != "semantic":
            assert [info["label_id"] for info in found["segments_info"]] == [
                info["label_id"] for info in right["segments_info"]
            ]


def assert_same(found, right):
    """Two segmentations of a photo, but for ties."""
    assert [part.label for part in found] == [part.label for part in right] != []
    assert [part.score for part in found] == pytest.approx([part.score for part in right], abs=0.01)
    assert (found.ids.cpu() == right.ids).float().mean() > NEARLY_ALL


@pytest.mark.parametrize("zoom", [0, 4])
def test_a_pipeline_finds_what_it_finds_on_the_cpu(segmenter, on_the_cpu, scenes, device, zoom):
    assert segmenter.device.type == segmenter.model.device.type == device.type
    for scene in scenes.values():
        assert_same(*(one(scene, zoom=zoom, **OPTIONS) for one in (segmenter, on_the_cpu)))


def test_the_fastest_device_is_taken_if_none_is_named(saved):
    there = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    assert pipeline("open-vocabulary-image-segmentation", model=str(saved)).device.type == there.type


def test_a_folder_is_labelled_as_on_the_cpu_whatever_the_order_of_its_photos(
    saved, on_the_cpu, scenes, tmp_path, device
):
    for name, scene in scenes.items():
        scene.save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no photo")
    photos = [str(path) for path in sorted(tmp_path.glob("*.png"))]
    command = ["--model", str(saved), "--labels", WORDS, "--others", "none", "--device", str(device)]
    command += ["--batch-size", "2", "--quiet", "--output"]
    assert segment.main([*photos, *command, str(tmp_path / "found")]) == 1
    assert segment.main([*photos[::-1], *command, str(tmp_path / "turned")]) == 1
    found = {photo.name: photo.segmentation for photo in Results(tmp_path / "found" / "panoptic.json")}
    assert found.keys() == scenes.keys()
    for name, scene in scenes.items():
        assert_same(found[name], on_the_cpu(scene, **OPTIONS))
        maps = [(tmp_path / folder / "panoptic" / f"{name}.png").read_bytes() for folder in ("found", "turned")]
        assert maps[0] == maps[1]


def test_a_stack_that_memory_does_not_hold_is_halved_and_nothing_is_lost(cuda, saved, scenes):
    labeller = Labeller(saved, labels=WORDS, others=None, batch_size=16)
    assert labeller.room.stack == 16
    photos = list(scenes.values()) * 6
    labeller.label(photos[:1])  # encodes the words, and takes what stays taken

    def memory(stack: int) -> int:
        labeller.room.stack = stack
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        labeller.label(photos[:stack])
        return torch.cuda.max_memory_reserved()

    one, sixteen = memory(1), memory(16)
    assert one < sixteen
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((one + sixteen) / 2 / torch.cuda.mem_get_info()[1])
    try:
        results = labeller.label(photos)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 1 <= labeller.room.stack < 16
    labels = [[part.label for part in segmentation] for _, segmentation in results]
    assert len(labels) == len(photos) and labels[: len(scenes)] * 6 == labels


def test_training_loses_what_it_loses_on_the_cpu(checkpoint, tmp_path, device):
    data = write_label_maps(tmp_path / "photos")
    options = {"train_format": "label_maps", "do_train": True, "max_steps": 2, "logging_steps": 1, "train_split": None}
    places = {"found": {"use_cpu": True if device.type == "cpu" else None}, "right": {}}
    for name, place in places.items():
        run(tmp_path / name, model=checkpoint, data=data, **(options | place))
    found, right = losses(tmp_path / "found"), losses(tmp_path / "right")
    assert found.keys() == right.keys() == {1, 2}
    assert list(found.values()) == pytest.approx(list(right.values()), rel=0.05)
