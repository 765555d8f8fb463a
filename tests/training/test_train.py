"""`train.py` from end to end: what it leaves in its folder, when it stops, and what it refuses."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import pipeline

import fisa
from fisa.data.formats import load_segmentation_dataset
from fisa.evaluation.report import main as write_report
from fisa.processing.processing_fisa import FisaProcessor
from fisa.train import train_and_evaluate
from fisa.training.recipes import with_recipe
from tests.data.made_files import quarters, write_photo, write_values
from tests.training.runs import adapter, as_arguments, equal, launch, losses, run


# What a run leaves


@pytest.fixture(scope="module")
def trained(tmp_path_factory, checkpoint, photos):
    output = tmp_path_factory.mktemp("run") / "my-adapter"
    options = {"report_to": "tensorboard", "do_train": True, "do_eval": True, "max_steps": 4, "logging_steps": 1}
    report = run(output, model=checkpoint, data=photos, learning_rate=0.01, **options)
    return output, report


def test_the_folder_holds_all_that_is_needed(trained, photos):
    output, report = trained
    names = {path.name for path in output.iterdir()}
    assert {
        "adapter_model.safetensors",
        "adapter_config.json",
        "processor_config.json",
        "metrics.json",
        "README.md",
    } <= names
    assert {"merged", "samples", "trainer_state.json"} <= names
    assert json.loads((output / "metrics.json").read_text()) == report
    assert report["num_images"] == 3 and report["oracle"] == "none"
    assert report["data"] == f"{photos.name} (validation)"  # and no path of this machine


def test_adapter_and_merged_model_give_the_same_and_not_the_base_s(trained, checkpoint, photo):
    output, _ = trained
    base = fisa.FisaForUniversalSegmentation.from_pretrained(checkpoint)
    processor = FisaProcessor.from_pretrained(output)
    inputs = processor(images=photo, return_tensors="pt")

    @torch.no_grad()
    def scores(model):
        texts = base.encode_vocabulary(processor, "dog, sky")
        return model.eval()(**inputs, **texts).class_queries_logits

    plain = scores(base)
    merged = scores(fisa.FisaForUniversalSegmentation.from_pretrained(output / "merged"))
    adapted = scores(PeftModel.from_pretrained(base, output))
    assert (adapted - plain).abs().max() > 0.01
    torch.testing.assert_close(adapted, merged, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("part", [".", "merged"])
def test_adapter_and_merged_model_run_in_a_pipeline(trained, part, photo):
    output, _ = trained
    segmenter = pipeline("image-segmentation", model=str(output / part), pipeline_class=fisa.FisaPipeline)
    found = segmenter(photo, candidate_labels=["dog", "sky [stuff]"], threshold=0.0)
    assert {segment["label"] for segment in found} <= {"dog", "sky"}


def test_the_model_card_has_the_results_where_the_hub_reads_them(trained):
    output, report = trained
    card = ModelCard.load(output / "README.md")
    results = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert results["miou"] == pytest.approx(report["semantic"]["miou"], abs=1e-4) and "pq" in results
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "image-segmentation"
    assert "my-adapter" in card.text and f"| miou | {report['semantic']['miou']:.2f} |" in card.text
    assert "of 753,394 parameters" in card.text


def test_losses_and_results_are_in_tensorboard(trained):
    output, report = trained
    [folder] = (output / "runs").iterdir()
    events = EventAccumulator(str(folder))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4]
    assert events.Scalars("eval/miou")[-1].value == pytest.approx(report["semantic"]["miou"], rel=1e-5)


def test_the_base_of_a_model_that_was_put_together_is_saved_with_its_adapter(tmp_path, parts_folder, photos):
    options = {"clip": parts_folder / "clip", "mask_generator": parts_folder / "mask_generator"}
    options |= {"fisa_config": '{"seve_layers": [1]}', "max_steps": 1}
    run(tmp_path / "run", model=None, data=photos, do_train=True, **options)
    base = fisa.FisaForUniversalSegmentation.from_pretrained(tmp_path / "run" / "base")
    assert base.config.seve_layers == [1]
    again = fisa.FisaForUniversalSegmentation.from_clip_and_mask_generator(
        parts_folder / "clip", parts_folder / "mask_generator", seve_layers=[1]
    ).state_dict()
    stored = base.state_dict()
    # SEVE starts from random numbers, and the vocabulary is the data's.
    assert {name for name in again if not torch.equal(stored[name], again[name])} <= {
        name for name in again if "semantic_guidance" in name
    }
    assert PeftModel.from_pretrained(base, tmp_path / "run")
    found = pipeline("image-segmentation", model=str(tmp_path / "run"), pipeline_class=fisa.FisaPipeline)
    assert found.model.config.id2label[0] == "person"


def test_a_refused_run_leaves_no_base(tmp_path, trained, parts_folder, photos, capsys):
    parts = {"clip": parts_folder / "clip", "mask_generator": parts_folder / "mask_generator"}
    checkpoint = next(trained[0].glob("checkpoint-*"))
    for options, said in (
        ({"resume_from_checkpoint": checkpoint}, "does not belong to this run"),
        ({"start_share": 0.5, "lora_rank": 2}, "--start_share averages whole weights"),
    ):
        with pytest.raises(SystemExit):
            run(tmp_path / "run", model=None, data=photos, do_train=True, max_steps=1, **parts, **options)
        assert said in " ".join(capsys.readouterr().err.split())
        assert not list((tmp_path / "run").rglob("*"))


def test_low_rank_changes_make_a_small_adapter(tmp_path, trained, checkpoint, photos, photo):
    run(tmp_path, model=checkpoint, data=photos, do_train=True, max_steps=3, lora_rank=2, learning_rate=0.01)
    sizes = [(folder / "adapter_model.safetensors").stat().st_size for folder in (tmp_path, trained[0])]
    assert sizes[0] < sizes[1] / 4
    assert any(tensor.abs().max() > 0 for name, tensor in adapter(tmp_path).items() if "lora_B" in name)
    segmenter = pipeline("image-segmentation", model=str(tmp_path), pipeline_class=fisa.FisaPipeline)
    assert segmenter(photo, candidate_labels=["dog"], threshold=0.0) is not None
    assert (tmp_path / "merged" / "model.safetensors").exists()


class RecordingHub:
    """Stands for the Hub's interface: notes what is made and uploaded."""

    def __init__(self):
        self.uploads = []

    def model_info(self, name, **_):
        return SimpleNamespace(id=name)

    def create_repo(self, name, **_):
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, *, repo_id, folder_path, **_):
        self.uploads.append((repo_id, {path.name for path in Path(folder_path).iterdir()}))
        return SimpleNamespace(done=lambda: True)


def test_the_trainer_pushes_adapter_card_and_processor_but_no_photos(tmp_path, checkpoint, photos, monkeypatch):
    recorder = RecordingHub()
    monkeypatch.setattr("transformers.trainer.hf_api", lambda: recorder)
    monkeypatch.setattr("fisa.commands.options.HfApi", lambda: recorder)
    for loaded in (fisa.FisaForUniversalSegmentation, FisaProcessor):
        from_folder = loaded.from_pretrained
        monkeypatch.setattr(loaded, "from_pretrained", lambda name, load=from_folder, **_: load(checkpoint))
    options = {"do_train": True, "do_eval": True, "max_steps": 1, "push_to_hub": True, "hub_model_id": "me/adapter"}
    run(tmp_path / "run", model="me/base", data=photos, **options)
    repository, names = recorder.uploads[-1]
    assert repository == "me/adapter" and "samples" not in names
    assert {"adapter_model.safetensors", "adapter_config.json", "processor_config.json", "README.md"} <= names
    card = ModelCard.load(tmp_path / "run" / "README.md")
    assert card.data.model_name == "adapter" and "me/adapter" in card.text


# Predictions and evaluation alone


def test_predictions_are_coco_panoptic_files(tmp_path, checkpoint, photos, capsys):
    report = run(tmp_path, model=checkpoint, data=photos, do_predict=True)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert [annotation["image_id"] for annotation in content["annotations"]] == ["1", "2", "3"]
    assert all((tmp_path / "predictions" / annotation["file_name"]).exists() for annotation in content["annotations"])
    for image in content["images"]:
        with Image.open(next(photos.rglob(image["file_name"]))) as photo:
            assert (image["width"], image["height"]) == photo.size
    assert report["num_images"] == 3 and not (tmp_path / "merged").exists()
    with pytest.raises(SystemExit):  # whose figures would lie beside those predictions
        run(tmp_path, model=checkpoint, data=photos, do_eval=True, max_eval_samples=1)
    assert "replace them with --do_predict" in capsys.readouterr().err
    assert json.loads((tmp_path / "metrics.json").read_text()) == report
    run(tmp_path, model=checkpoint, data=photos, do_predict=True, max_eval_samples=1)
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["1.png"]


def test_an_evaluation_alone_writes_into_its_own_folder(tmp_path, checkpoint, photos, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    run(tmp_path / "run", model=checkpoint, data=photos, do_eval=True, report_to="tensorboard")
    assert not list((tmp_path / "here").iterdir())
    assert len(list((tmp_path / "run" / "runs").rglob("events.*"))) == 1


def test_an_adapter_is_evaluated_and_trained_on(tmp_path, trained, checkpoint, photos):
    output, report = trained
    again = run(tmp_path / "again", model=checkpoint, data=photos, adapter=output, do_eval=True)
    assert again["semantic"] == report["semantic"] and again["panoptic"] == report["panoptic"]
    run(tmp_path / "more", model=checkpoint, data=photos, adapter=output, do_train=True, max_steps=2, warmup_steps=0)
    assert adapter(tmp_path / "more").keys() == adapter(output).keys()
    assert not equal(adapter(tmp_path / "more"), adapter(output))


@pytest.mark.parametrize("oracle", ["classifier", "generator", "both"])
def test_oracles_on_the_real_photos(tmp_path, checkpoint, coco_sample, oracle):
    report = run(
        tmp_path,
        model=checkpoint,
        data=coco_sample,
        train_split="train",
        eval_split="train",
        do_eval=True,
        oracle=oracle,
    )
    assert report["oracle"] == oracle
    if oracle == "both":
        # Exactly: the ground truth went in as masks and classes and came out through post-processing.
        assert report["panoptic"]["all"] == {"pq": 100, "sq": 100, "rq": 100, "n": report["panoptic"]["all"]["n"]}
        assert report["panoptic"]["all"]["n"] > 5
    else:
        assert report["panoptic"]["all"]["pq"] < 100


def test_an_evaluation_prints_its_figures_in_percent(tmp_path, checkpoint, photos, capsys):
    report = run(tmp_path, model=checkpoint, data=photos, do_eval=True, oracle="both")
    figures = dict(line.split() for line in capsys.readouterr().out.splitlines() if len(line.split()) == 2)
    assert figures["pq"] == f"{report['panoptic']['all']['pq']:.2f}" == "100.00"
    assert (
        figures["miou"] == f"{report['semantic']['miou']:.2f}" and figures["ap"] == f"{report['instance']['ap']:.2f}"
    )


def test_two_evaluations_make_a_report(tmp_path, checkpoint, photos):
    for oracle in ("none", "classifier"):
        run(tmp_path / oracle, model=checkpoint, data=photos, do_eval=True, oracle=oracle)
    folder = write_report(
        [str(tmp_path / "none" / "metrics.json"), str(tmp_path / "classifier" / "metrics.json"),
         "--output", str(tmp_path / "report")]
    )  # fmt: skip
    assert (folder / "side_by_side.png").exists()


# Choosing and stopping


def test_training_stops_when_results_no_longer_rise_and_keeps_the_best(tmp_path, checkpoint, photos):
    options = {
        "do_train": True, "max_steps": 30, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
        "learning_rate": 0, "seve_learning_rate": 0, "load_best_model_at_end": True, "metric_for_best_model": "miou",
        "early_stopping_patience": 2, "save_total_limit": 2,
    }  # fmt: skip
    run(tmp_path, model=checkpoint, data=photos, **options)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    # Nothing is learnt: the first evaluation stays the best, and two more are waited for.
    assert state["global_step"] == 3 and state["best_global_step"] == 1
    assert state["best_model_checkpoint"].endswith("checkpoint-1")
    evaluated = [entry["eval_miou"] for entry in state["log_history"] if "eval_miou" in entry]
    assert evaluated == [state["best_metric"]] * 3


@pytest.mark.parametrize("metric", ["pq", "miou"])
def test_the_best_checkpoint_is_that_of_the_chosen_metric(tmp_path, checkpoint, photos, metric):
    options = {
        "do_train": True, "max_steps": 4, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
        "learning_rate": 0.05, "load_best_model_at_end": True, "metric_for_best_model": metric,
        "oracle": "generator",
    }  # fmt: skip
    run(tmp_path, model=checkpoint, data=photos, **options)
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    values = {entry["step"]: entry[f"eval_{metric}"] for entry in state["log_history"] if f"eval_{metric}" in entry}
    assert state["best_metric"] == max(values.values()) and len(set(values.values())) > 1
    best = load_file(tmp_path / f"checkpoint-{state['best_global_step']}" / "adapter_model.safetensors")
    assert equal(adapter(tmp_path), best)


def test_training_that_diverges_ends_in_one_line_and_leaves_no_weights_that_are_no_numbers(
    tmp_path, checkpoint, photos, capsys
):
    options = {"do_train": True, "max_steps": 6, "learning_rate": 1e30, "save_steps": 1, "max_grad_norm": 0}
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, model=checkpoint, data=photos, **options)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 1 and "Training has diverged" in said and "lower --learning_rate" in said
    assert not (tmp_path / "adapter_model.safetensors").exists()
    saved = list(tmp_path.rglob("adapter_model.safetensors"))
    assert saved and all(tensor.isfinite().all() for file in saved for tensor in load_file(file).values())


@pytest.mark.parametrize("saving", ["no", "steps"])
def test_training_that_diverges_in_its_last_step_leaves_nothing(tmp_path, checkpoint, photos, capsys, saving):
    options = {"do_train": True, "max_steps": 1, "learning_rate": 1e30, "warmup_steps": 0, "save_strategy": saving}
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, model=checkpoint, data=photos, **options)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 1 and "Training has diverged: the loss is nan after step 1" in said
    assert not [*tmp_path.rglob("*.safetensors")]


def test_a_metric_that_has_nothing_to_measure_ends_no_run(tmp_path, checkpoint):
    """Photos of nothing but void, and categories of one kind alone."""
    for name, value in (("training", 1), ("void", 255)):
        write_photo(tmp_path / name / "images" / "0.jpg", seed=value)
        write_values(tmp_path / name / "labels" / "0.png", quarters(value, value, value, value))
        (tmp_path / name / "classes.txt").write_text("cat\ndog\n")
    options = {
        "train_format": "label_maps", "train_data": tmp_path / "training", "eval_data": tmp_path / "void",
        "do_train": True, "max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1,
        "load_best_model_at_end": True, "metric_for_best_model": "miou",
    }  # fmt: skip
    run(tmp_path / "run", model=checkpoint, data=None, **options)
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["global_step"] == 2 and state["best_model_checkpoint"] is None
    with pytest.raises(SystemExit):
        run(tmp_path / "stuff", model=checkpoint, data=None, **options | {"metric_for_best_model": "pq_stuff"})


# Recipes and flags


@pytest.mark.parametrize("ending", ["yaml", "json"])
def test_a_recipe_is_overruled_by_the_flags_behind_it(tmp_path, checkpoint, photos, ending):
    recipe = {
        "model": str(checkpoint), "train_format": "coco_panoptic", "train_data": str(photos),
        "train_split": "train2017", "output_dir": str(tmp_path / "run"), "do_train": True, "max_steps": 3,
        "logging_steps": 1, "use_cpu": True, "report_to": "none", "image_projections": ["q_proj", "k_proj"],
        "image_layers": [0, 1], "fisa_config": {"mask_coverage_threshold": 0.5}, "flip": False, "eval_data": None,
    }  # fmt: skip
    path = tmp_path / f"recipe.{ending}"
    path.write_text(yaml.safe_dump(recipe) if ending == "yaml" else json.dumps(recipe))
    train_and_evaluate([str(path), "--max_steps", "2"])
    assert list(losses(tmp_path / "run")) == [1, 2]
    names = set(adapter(tmp_path / "run"))
    assert any("layers.1.self_attn.k_proj" in name for name in names)
    assert not any("layers.2.self_attn" in name for name in names)


def test_a_recipe_becomes_flags(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "model: a b\nlearning_rate: 3.0e-4\nimage_layers: [0, 2]\nfisa_config: {seve_layers: [1]}\nbf16: true\n"
    )
    assert with_recipe([str(path), "--seed", "3"]) == [
        "--model", "a b", "--learning_rate", "0.0003", "--image_layers", "0", "2",
        "--fisa_config", '{"seve_layers": [1]}', "--bf16", "true", "--seed", "3",
    ]  # fmt: skip
    assert with_recipe(["--seed", "3"]) == ["--seed", "3"]
    path.write_text("output_dir: 2024-05-01\nsave_strategy: no\nbf16: True\nflip: off\n")
    assert with_recipe([str(path)]) == [
        "--output_dir",
        "2024-05-01",
        "--save_strategy",
        "no",
        "--bf16",
        "true",
        "--flip",
        "false",
    ]


@pytest.mark.parametrize("ending", ["yaml", "json"])
@pytest.mark.parametrize("name", ["seed", "zoom"])
def test_a_flag_that_comes_twice_in_a_recipe_is_named(tmp_path, ending, name):
    path = tmp_path / f"recipe.{ending}"
    content = {"seed": '{"seed": 1, "bf16": true, "seed": 2}', "zoom": '{"fisa_config": {"zoom": 1, "zoom": 2}}'}
    path.write_text(content[name])
    with pytest.raises(ValueError, match=rf'recipe\.{ending} cannot be read as YAML or JSON: "{name}" comes twice'):
        with_recipe([str(path)])


def test_broken_data_stops_a_run_before_it_starts_or_is_left_out(tmp_path, checkpoint, photos, capsys):
    root = shutil.copytree(photos, tmp_path / "photos")
    (root / "train2017" / "000000000002.jpg").unlink()
    with pytest.raises(SystemExit):
        run(tmp_path / "run", model=checkpoint, data=root, do_train=True, max_steps=1)
    assert "000000000002.jpg: no such file" in capsys.readouterr().err
    run(tmp_path / "run", model=checkpoint, data=root, do_train=True, max_steps=1, skip_broken=True)
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()


def test_a_users_own_text_is_not_replaced_by_the_card(tmp_path, checkpoint, photos, caplog):
    """Nor is a card that somebody edited, in a run that goes on; and PEFT writes none of its own into either."""
    card, options = (
        tmp_path / "README.md",
        {"model": checkpoint, "data": photos, "do_train": True, "save_steps": 1, "logging_steps": 1},
    )
    card.write_text("# My project")
    run(tmp_path, **options, max_steps=1)
    assert card.read_text() == "# My project" and f"{card} was written or edited by hand and stays" in caplog.text
    card.unlink()
    resumed = options | {"resume_from_checkpoint": "true"}
    run(tmp_path, **resumed, max_steps=2)
    assert "at step 2" in card.read_text()
    run(tmp_path, **resumed, max_steps=3)
    assert "at step 3" in card.read_text()
    card.write_text(edited := card.read_text() + "Thanks!\n")
    run(tmp_path, **resumed, max_steps=4)
    assert card.read_text() == edited


def test_a_model_without_generator_trains_on_ground_truth_alone(tmp_path, checkpoint, photos, capsys):
    model = fisa.FisaForUniversalSegmentation.from_pretrained(checkpoint, mask_generator_config=None)
    model.save_pretrained(tmp_path / "model")
    FisaProcessor.from_pretrained(checkpoint).save_pretrained(tmp_path / "model")
    run(tmp_path / "run", model=tmp_path / "model", data=photos, do_train=True, max_steps=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "run2", model=tmp_path / "model", data=photos, do_train=True, mask_source="generator")
    assert "no mask generator" in capsys.readouterr().err
    evaluated = {"eval_split": "val2017", "do_eval": True}
    with pytest.raises(SystemExit):
        run(tmp_path / "run3", model=tmp_path / "model", data=photos, do_train=True, **evaluated)
    assert "--oracle generator" in capsys.readouterr().err and not (tmp_path / "run3").exists()


def write_hub_data(root, photos, *, files=1):
    """Four of the photos as a data set of the Hub, in so many Parquet files; returns flags to stream it with."""
    data = load_segmentation_dataset("coco_panoptic", str(photos), split="train2017")
    rows = [{"image": record["image"], "annotation": as_classes(record)} for record in (data[i] for i in range(4))]
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    (root / "data").mkdir()
    for file in range(files):
        part = datasets.Dataset.from_list(rows[file::files], features=features)
        part.to_parquet(root / "data" / f"train-{file}.parquet")
    (root / "classes.txt").write_text("_\nperson\ntree [stuff]\n")
    return {
        "train_format": "hub", "train_data": root / "data", "classes": root / "classes.txt", "streaming": True,
        "eval_split": "train", "do_train": True, "do_eval": True, "max_steps": 3, "logging_steps": 1,
    }  # fmt: skip


def test_data_of_the_hub_are_streamed(tmp_path, checkpoint, photos):
    options = write_hub_data(tmp_path, photos)
    report = run(tmp_path / "run", model=checkpoint, data=None, **options)
    assert report["num_images"] == 4 and len(losses(tmp_path / "run")) == 3
    fewer = run(tmp_path / "fewer", model=checkpoint, data=None, **options, max_eval_samples=3)
    assert fewer["num_images"] == 3


def test_a_stream_is_shared_out_among_processes_and_read_by_workers(tmp_path, checkpoint, photos):
    options = write_hub_data(tmp_path, photos, files=2)
    options |= {"optim": "sgd", "warmup_steps": 0, "max_grad_norm": 0}
    one = run(tmp_path / "one", model=checkpoint, data=None, per_device_train_batch_size=2, **options)
    flags = {"model": checkpoint, "use_cpu": True, "report_to": "none", "per_device_train_batch_size": 1, **options}
    launch(*as_arguments(flags | {"output_dir": tmp_path / "two"}), launcher_flags=["--multi_gpu"])
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["num_images"] == 4
    workers = options | {"adapter": tmp_path / "one", "do_train": None, "dataloader_num_workers": 2}
    again = run(tmp_path / "workers", model=checkpoint, data=None, **workers)
    assert again["panoptic"] == one["panoptic"] and again["semantic"] == one["semantic"]


def as_classes(record):
    ids = {info["id"]: 1 if info["category_id"] == 1 else 2 for info in record["segments_info"]}
    return Image.fromarray(np.vectorize(lambda i: ids.get(i, 0))(record["label"]).astype(np.uint8))
