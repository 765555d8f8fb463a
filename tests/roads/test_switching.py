"""Who fine-tunes Mask2Former with transformers' Trainer changes the folder's name and nothing else."""

import json

import numpy as np
import pytest
import torch
from datasets import load_dataset
from PIL import Image

from fisa import FisaForUniversalSegmentation, FisaImageProcessor, FisaProcessor, hub
from tests.roads.walking import walk


NAMES = ["background", "thing"]

WITHOUT_THE_PACKAGE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "fisa":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
"""

FINE_TUNE = """
import json, sys
import numpy as np
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation, Trainer, TrainingArguments
from transformers.utils import ModelOutput

folder, options = sys.argv[1], json.loads(sys.argv[2])
id2label = dict(enumerate(json.load(open("names.json"))))
label2id = {name: index for index, name in id2label.items()}
model = AutoModelForUniversalSegmentation.from_pretrained(
    folder, id2label=id2label, label2id=label2id, ignore_mismatched_sizes=True, **options
)
processor = AutoImageProcessor.from_pretrained(
    folder, do_resize=True, size={"height": 96, "width": 96}, do_reduce_labels=False, **options
)

class Photos(torch.utils.data.Dataset):
    def __init__(self, split):
        self.rows = [row for row in json.load(open("rows.json")) if row["split"] == split]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        inputs = processor(
            images=[np.array(Image.open(row["image"]))],
            segmentation_maps=[np.array(Image.open(row["ids"]))],
            instance_id_to_semantic_id={int(key): value for key, value in row["classes"].items()},
            return_tensors="pt",
        )
        return {name: inputs[name][0] for name in ("pixel_values", "mask_labels", "class_labels")}

def collate(examples):
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "mask_labels": [example["mask_labels"] for example in examples],
        "class_labels": [example["class_labels"] for example in examples],
    }

answers = []

def measure(batch, compute_result=False):
    class_logits, mask_logits = batch.predictions[:2]
    masks, classes = batch.label_ids
    results = processor.post_process_instance_segmentation(
        ModelOutput(class_queries_logits=class_logits, masks_queries_logits=mask_logits),
        threshold=0.0,
        target_sizes=[photo.shape[-2:] for photo in masks],
        return_binary_maps=True,
    )
    for result, photo_classes in zip(results, classes):
        info = result["segments_info"]
        answers.append(
            {
                "labels": [segment["label_id"] for segment in info],
                "scores": [segment["score"] for segment in info],
                "areas": result["segmentation"].sum((-2, -1)).tolist() if info else [],
                "truth": photo_classes.tolist(),
            }
        )
    return {"photos": len(answers)} if compute_result else None

args = TrainingArguments(
    "output",
    max_steps=12,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=2,  # accelerate cuts the lists of a last batch that is smaller, Mask2Former's too
    learning_rate=1e-3,
    logging_steps=4,
    seed=0,
    use_cpu=True,
    report_to="none",
    disable_tqdm=True,
    save_strategy="no",
    remove_unused_columns=False,
    batch_eval_metrics=True,
    eval_do_concat_batches=False,
)
trainer = Trainer(
    model=model,
    args=args,
    train_dataset=Photos("train"),
    eval_dataset=Photos("validation"),
    processing_class=processor,
    data_collator=collate,
    compute_metrics=measure,
)
before = trainer.evaluate()
answers.clear()
trainer.train()
after = trainer.evaluate()
trainer.save_model()
losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
json.dump({"losses": losses, "before": before, "after": after, "answers": answers}, open("results.json", "w"))
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Painted scenes as instance segmentation has them: id 0 is background, each thing has an id of its own."""
    folder = tmp_path_factory.mktemp("photos")
    pack = pytest.importorskip("fisa.studies.patchwork.dataset").PACK
    categories = json.loads((pack / "categories.json").read_text())
    things = {entry["id"] for entry in categories if entry["isthing"]}
    scenes = load_dataset(str(pack), split="train").select(range(13))
    rows = []
    for index, scene in enumerate(scenes):
        ids = np.array(scene["label"])
        instances = [info["id"] for info in scene["segments_info"] if info["category_id"] in things]
        ids[~np.isin(ids, instances)] = 0
        row = {"image": f"{index}.jpg", "ids": f"{index}.png", "split": "validation" if index > 8 else "train"}
        scene["image"].save(folder / row["image"])
        Image.fromarray(ids).save(folder / row["ids"])
        rows.append(row | {"classes": {"0": 0} | {str(instance): 1 for instance in instances}})
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "names.json").write_text(json.dumps(NAMES))
    return folder


@pytest.fixture(params=["import fisa", "remote code"])
def fine_tuned(request, photos, shipped, tmp_path):
    """What the fine-tuning wrote, beside the photos."""
    if request.param == "import fisa":
        walk("python", "-c", "import fisa\n" + FINE_TUNE, shipped, "{}", cwd=photos)
    else:
        model = FisaForUniversalSegmentation.from_pretrained(shipped)
        hub.export(model, FisaProcessor.from_pretrained(shipped), tmp_path / "exported")
        code = WITHOUT_THE_PACKAGE + FINE_TUNE
        options = json.dumps({"trust_remote_code": True})
        walk("python", "-c", code, tmp_path / "exported", options, cwd=photos, HF_HOME=str(tmp_path / "home"))
    return photos


def test_fine_tuning_as_mask2former_is(fine_tuned):
    results = json.loads((fine_tuned / "results.json").read_text())
    assert results["losses"][-1] < 0.7 * results["losses"][0]
    assert results["after"]["eval_loss"] < 0.7 * results["before"]["eval_loss"]
    assert results["after"]["eval_photos"] == len(results["answers"]) == 4

    model = FisaForUniversalSegmentation.from_pretrained(fine_tuned / "output").eval()
    assert model.config.id2label == dict(enumerate(NAMES))
    processor = FisaImageProcessor.from_pretrained(fine_tuned / "output")
    rows = [row for row in json.loads((fine_tuned / "rows.json").read_text()) if row["split"] == "validation"]
    for row, answer in zip(rows, results["answers"], strict=True):
        inputs = processor(fine_tuned / row["image"], return_tensors="pt")
        with torch.no_grad():
            outputs = model(inputs["pixel_values"])
        (result,) = processor.post_process_instance_segmentation(
            outputs, threshold=0.0, target_sizes=[(96, 96)], return_binary_maps=True
        )
        segments = result["segments_info"]
        assert answer["labels"] == [segment["label_id"] for segment in segments]
        assert answer["scores"] == pytest.approx([segment["score"] for segment in segments], abs=1e-3)
        assert answer["areas"] == pytest.approx(result["segmentation"].sum((-2, -1)).tolist(), abs=2)
        assert answer["truth"] == [row["classes"][key] for key in sorted(row["classes"], key=int)]
