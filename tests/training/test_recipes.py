"""The recipes: every one runs, in its own format, but for the size of the model and of the data."""

from pathlib import Path

import numpy as np
import pytest
import yaml

import fisa
from fisa.train import train_and_evaluate
from tests.data.made_files import (
    quarters,
    write_ade20k,
    write_ade20k_full,
    write_cityscapes,
    write_context,
    write_voc,
)
from tests.training.runs import as_arguments, losses


RECIPES = Path(fisa.__file__).parent / "recipes"
SMALL = {"max_steps": 2, "use_cpu": True, "dataloader_num_workers": 0, "report_to": "none", "disable_tqdm": "true"}
# For each: how its data are made, and of which classes.
EVALUATIONS = {
    "ade20k_150": (lambda root: write_ade20k(root, quarters(0, 1, 13, 150)), 150),
    "ade20k_847": (lambda root: write_ade20k_full(root, quarters(65535, 0, 11, 846, dtype=np.uint16)), 847),
    "pascal_context_59": (lambda root: write_context(root, quarters(1, 2, 3, 4)), 4),
    "pascal_context_459": (lambda root: write_context(root, quarters(0, 1, 3, 6)), 6),
    "voc_20": (write_voc, 20),
    "voc_21": (write_voc, 21),
    "cityscapes": (write_cityscapes, 19),
}


def test_every_recipe_is_tested():
    assert {path.stem for path in (RECIPES / "evaluate").iterdir()} == set(EVALUATIONS)
    # patchwork.yaml: in tests/patchwork
    assert {path.name for path in RECIPES.iterdir()} == {"coco_panoptic.yaml", "evaluate", "patchwork.yaml"}


def test_training_on_the_real_photos(tmp_path, parts_folder, coco_sample):
    options = {
        "clip": parts_folder / "clip", "mask_generator": parts_folder / "mask_generator", "train_data": coco_sample,
        "eval_data": coco_sample, "eval_split": "train", "proposal_cache": tmp_path / "cache",
        "output_dir": tmp_path / "run",
    }  # fmt: skip
    report = train_and_evaluate([str(RECIPES / "coco_panoptic.yaml"), *as_arguments(options | SMALL)])
    assert report["num_images"] == 2 and (tmp_path / "run" / "merged" / "model.safetensors").exists()
    assert (tmp_path / "cache" / "manifest.json").exists()


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluation_in_its_own_format(tmp_path, checkpoint, name):
    write, num_classes = EVALUATIONS[name]
    options = {"model": checkpoint, "eval_data": write(tmp_path / "data"), "output_dir": tmp_path / "run"}
    report = train_and_evaluate([str(RECIPES / "evaluate" / f"{name}.yaml"), *as_arguments(options | SMALL)])
    assert report["num_images"] == 1 and len(report["semantic"]["per_class"]) == num_classes
    recipe = yaml.safe_load((RECIPES / "evaluate" / f"{name}.yaml").read_text())
    assert recipe["model"] == "runs/coco_panoptic/merged" and recipe["output_dir"].endswith(name)


def test_sixty_steps_on_the_real_photos_halve_the_loss_and_lift_the_result(tmp_path, checkpoint, coco_sample):
    """Two photos learnt by heart by a random model: the plumbing from ground truth to metric."""
    options = {
        "model": checkpoint, "train_format": "coco_panoptic", "train_data": coco_sample, "eval_split": "train",
        "oracle": "generator", "do_eval": True, "use_cpu": True, "report_to": "none", "disable_tqdm": "true",
        "logging_steps": 1,
    }  # fmt: skip
    before = train_and_evaluate(as_arguments(options | {"output_dir": tmp_path / "before"}))
    training = {"do_train": True, "max_steps": 60, "learning_rate": 1e-3}
    after = train_and_evaluate(as_arguments(options | training | {"output_dir": tmp_path / "after"}))
    history = losses(tmp_path / "after")
    assert np.mean([history[step] for step in range(56, 61)]) < history[1] / 2
    assert after["panoptic"]["all"]["pq"] > before["panoptic"]["all"]["pq"] + 5
