"""Everything that users call has an example in its docstring, and the examples run as they are printed."""

import copy
import doctest
import importlib
import inspect
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

import fisa
from fisa.data.formats import load_segmentation_dataset
from fisa.evaluation.segmentation_metric import as_reference


NAMES = [
    *(f"fisa.{name}" for name in fisa.__all__ if name != "PROMPT_TEMPLATES"),
    "fisa.FisaForUniversalSegmentation.encode_vocabulary",
    "fisa.FisaForUniversalSegmentation.from_clip_and_mask_generator",
    "fisa.FisaForUniversalSegmentation.set_vocabulary",
    "fisa.FisaImageProcessor.post_process_segmentation",
    "fisa.Vocabulary.from_file",
    "fisa.Vocabulary.parse",
    "fisa.data.formats.load_segmentation_dataset",
    "fisa.data.splits.hold_out",
    "fisa.evaluation.headlines.headlines",
    "fisa.evaluation.mask_average_precision.MaskAveragePrecision",
    "fisa.evaluation.mean_iou.MeanIoU",
    "fisa.evaluation.panoptic_quality.PanopticQuality",
    "fisa.evaluation.samples.SampleWriter",
    "fisa.evaluation.samples.read_samples",
    "fisa.export.export_program",
    "fisa.export.load_graph",
    "fisa.export.save",
    "fisa.formats.results.Results",
    "fisa.formats.writers.write",
    "fisa.hub.export",
    "fisa.labelling.Labeller",
    "fisa.labelling.folders.label_photos",
    "fisa.labelling.journal.Journal",
    "fisa.labelling.photo_search.find_photos",
    "fisa.labelling.photo_search.result_names",
    "fisa.labelling.processes.Processes",
    "fisa.labelling.room.Room",
    "fisa.miniature.miniature",
    "fisa.pretrained.patchwork.load",
    "fisa.pretrained.presets.load",
    "fisa.pretrained.presets.missing_parts",
    "fisa.processing.coco_panoptic.CocoPanopticWriter",
    "fisa.processing.coco_panoptic.numbered",
    "fisa.processing.coco_panoptic.panoptic_png",
    "fisa.processing.coco_panoptic.panoptic_to_rgb",
    "fisa.processing.coco_panoptic.rgb_to_panoptic",
    "fisa.processing.coco_panoptic.segments_info",
    "fisa.processing.photos.load_photo",
    "fisa.processing.segment.Segment",
    "fisa.processing.segmentation.Segmentation",
    "fisa.processing.segmentation.Segmentation.from_supervision",
    "fisa.processing.segmentation.Segmentation.plot",
    "fisa.train.train_and_evaluate",
    "fisa.training.evaluator.Evaluator",
    "fisa.training.recipes.with_recipe",
    "fisa.training.trainer.FisaTrainer",
    "fisa.training.training_arguments.FisaTrainingArguments",
    "fisa.training.training_data.open_data",
    "fisa.visualization.Lettering",
    "fisa.visualization.class_colors",
    "fisa.visualization.draw_legend",
    "fisa.visualization.draw_segments",
    "fisa.visualization.paint_segments",
]


# Their outputs are those of real models and photos: the examples run, and what they print is not compared.
ILLUSTRATIVE = {
    "fisa.FisaForUniversalSegmentation",
    "fisa.FisaModel",
    "fisa.FisaPipeline",
    "fisa.FisaImageProcessor.post_process_segmentation",
    "fisa.train.train_and_evaluate",
    "fisa.training.evaluator.Evaluator",
}


# They take long: `load_graph`'s example exports too, and models of CLIP's own size are made by no other.
ONLY_READ = {"fisa.FisaConfig", "fisa.export.export_program", "fisa.export.save"}


class AnyOutput(doctest.OutputChecker):
    """Takes whatever an example prints."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return True


def example_of(name: str) -> doctest.DocTest:
    """The example in the docstring of what a dotted name stands for, with its module's names to run it with."""
    module_name, value = "fisa", fisa
    for part in name.split(".")[1:]:
        qualified = f"{module_name}.{part}"
        if not hasattr(value, part) or inspect.ismodule(getattr(value, part)):
            module_name, value = qualified, importlib.import_module(qualified)
        else:
            value = getattr(value, part)
    text = re.sub(r"^ *```(python)?$", "", inspect.getdoc(value) or "", flags=re.MULTILINE)
    names = dict(vars(importlib.import_module(inspect.getmodule(value).__name__)))
    return doctest.DocTestParser().get_doctest(text, names, name, None, None)


@pytest.fixture(scope="module")
def segmenter(belongings):
    return pipeline("image-segmentation", str(belongings / "my-fisa"), pipeline_class=fisa.FisaPipeline)


@pytest.fixture
def workplace(belongings, segmenter, photo, tmp_path, monkeypatch):
    """A folder with the files that examples name; returns the objects that they name."""
    shutil.copytree(belongings, tmp_path / "workplace", symlinks=True)
    monkeypatch.chdir(tmp_path / "workplace")
    model, processor = copy.deepcopy(segmenter.model), segmenter.processor
    data = load_segmentation_dataset("label_maps", "my-photos", split="train")
    vocabulary = model.encode_vocabulary(processor, ["dog", "sky"])
    inputs = processor(images=photo, return_tensors="pt")
    return vars(fisa) | {
        "Path": Path,
        "np": np,
        "torch": torch,
        "photo": photo,
        "model": model,
        "processor": processor,
        "simo_model": fisa.get_simo_model(copy.deepcopy(model)),
        "data": data,
        "categories": [category.to_dict() for category in data.categories],
        "reference": as_reference(data[0]),
        "vocabulary": vocabulary,
        "class_embeds": vocabulary["class_embeds"],
        "inputs": inputs,
        "pixel_values": inputs["pixel_values"],
        "mask_proposals": torch.ones(1, 2, 12, 12),
        "segmenter": segmenter,
        "segmentation": segmenter(photo, candidate_labels=["dog", "grass"], return_type="segmentation"),
        "folder": "my-fisa",
        "clip_folder": "openai/clip-vit-large-patch14-336",
        "fisa_folder": "my-fisa",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_an_example(name):
    statements = example_of(name).examples
    assert statements, f"{name} has no example in its docstring"
    for statement in statements:
        compile(statement.source, name, "single")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ONLY_READ])
def test_the_example_of_a_name_runs(name, workplace):
    example = example_of(name)
    example.globs = workplace | example.globs
    runner = doctest.DocTestRunner(AnyOutput() if name in ILLUSTRATIVE else None)
    report: list[str] = []
    assert runner.run(example, out=report.append).failed == 0, "".join(report)
