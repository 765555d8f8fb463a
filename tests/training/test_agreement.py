"""Runs of `train.py` that must agree: resumed, in parts, in other precision, with workers, by several processes."""

import json
import math

import pytest
import torch

from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_PREFIX, ADAPTER_VOCABULARY, CLASSES
from fisa.train import Run, train_and_evaluate
from fisa.training.arguments import DataArguments, ModelArguments
from fisa.training.training_arguments import FisaTrainingArguments
from tests.training.runs import (
    EASILY_MATCHED,
    SOURCES,
    WITH_SEGMENTS,
    adapter,
    as_arguments,
    equal,
    launch,
    losses,
    run,
)


@pytest.mark.parametrize("source", SOURCES)
def test_twenty_steps_are_ten_and_ten_more(tmp_path, checkpoint, photos, source):
    def train(output, **options):
        cache = {"proposal_cache": tmp_path / "cache"} if source == "cache" else {}
        common = {
            "mask_source": source, "do_train": True, "max_steps": 20, "logging_steps": 1, "save_steps": 10,
            "per_device_train_batch_size": 2, "fisa_config": EASILY_MATCHED,
        }  # fmt: skip
        run(output, model=checkpoint, data=photos, **common, **cache, **options)
        return losses(output)

    whole = train(tmp_path / "whole")
    (tmp_path / "whole" / "checkpoint-20").rename(tmp_path / "gone")  # as if stopped after step 10
    resumed = train(tmp_path / "whole", resume_from_checkpoint="true")
    assert len(set(whole.values())) > 10
    assert resumed == whole
    named = train(tmp_path / "named", resume_from_checkpoint=tmp_path / "whole" / "checkpoint-10")
    assert {step: named[step] for step in range(11, 21)} == {step: whole[step] for step in range(11, 21)}
    assert equal(adapter(tmp_path / "whole"), adapter(tmp_path / "named"))


@pytest.mark.parametrize("source", SOURCES)
def test_steps_run_the_text_tower_never_and_the_generator_only_in_the_loop(tmp_path, checkpoint, photos, source):
    options = {"train_format": "coco_panoptic", "train_data": str(photos), "train_split": "train2017"}
    options |= {"mask_source": source, "proposal_cache": str(tmp_path / "cache")}
    settings = {"output_dir": str(tmp_path / "run"), "do_train": True, "max_steps": 3, "use_cpu": True}
    prepared = Run(
        ModelArguments(model=str(checkpoint)),
        DataArguments(**options),
        FisaTrainingArguments(**settings, report_to="none", disable_tqdm=True),
    )
    model, calls = prepared.model.get_base_model(), []
    for part in (model.fisa.text_model, model.mask_generator, model.fisa.visual_projection):
        part.register_forward_hook(lambda part, *_: calls.append(type(part).__name__))
    prepared.train()
    assert calls.count("CLIPTextModel") == 0 and calls.count("Linear") > 0
    assert (calls.count("Mask2FormerForUniversalSegmentation") > 0) == (source == "generator")


def test_the_cache_trains_as_the_generator_in_the_loop_does(tmp_path, checkpoint, photos):
    """Photos mirrored and as they are, with segments and without."""
    for name, config in (("plain", EASILY_MATCHED), ("segments", WITH_SEGMENTS)):
        options = {"do_train": True, "max_steps": 6, "logging_steps": 1, "per_device_train_batch_size": 3, "color": 0}
        options["fisa_config"] = config
        run(tmp_path / name / "loop", model=checkpoint, data=photos, mask_source="generator", **options)
        options["proposal_cache"] = tmp_path / name / "cache"
        for cached in ("made", "read"):
            run(tmp_path / name / cached, model=checkpoint, data=photos, **options)
            wanted = pytest.approx(losses(tmp_path / name / "loop"), abs=1e-4)
            assert losses(tmp_path / name / cached) == wanted


def test_a_cache_without_segments_is_refused_in_a_line(tmp_path, checkpoint, photos, capsys):
    options = {"do_train": True, "max_steps": 1, "proposal_cache": tmp_path / "cache"}
    run(tmp_path / "run", model=checkpoint, data=photos, fisa_config=EASILY_MATCHED, **options)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "other", model=checkpoint, data=photos, fisa_config=WITH_SEGMENTS, **options)
    message = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2 and "patch segments: nothing there, of all proposals now" in message


def test_the_same_seed_gives_the_same_adapter_and_another_another(tmp_path, checkpoint, photos):
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        run(tmp_path / name, model=checkpoint, data=photos, do_train=True, max_steps=3, seed=seed)
    assert equal(adapter(tmp_path / "one"), adapter(tmp_path / "same"))
    assert not equal(adapter(tmp_path / "one"), adapter(tmp_path / "other"))


@pytest.mark.parametrize("source", ["ground_truth", "generator"])
def test_accumulated_gradients_are_those_of_one_batch(tmp_path, checkpoint, photos, source):
    common = {"mask_source": source, "do_train": True, "max_steps": 3, "optim": "sgd", "logging_steps": 1}
    common |= {"warmup_steps": 0, "max_grad_norm": 0, "fisa_config": EASILY_MATCHED}
    run(tmp_path / "whole", model=checkpoint, data=photos, per_device_train_batch_size=6, **common)
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 3}
    run(tmp_path / "parts", model=checkpoint, data=photos, **parts, **common)
    whole, accumulated = losses(tmp_path / "whole"), losses(tmp_path / "parts")
    assert min(whole.values()) > 0 and accumulated == pytest.approx(whole, abs=1e-4)
    for name, tensor in adapter(tmp_path / "whole").items():
        torch.testing.assert_close(tensor, adapter(tmp_path / "parts")[name], atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("error:.*is deprecated:FutureWarning")
def test_activation_checkpointing_changes_nothing_and_warns_of_nothing(tmp_path, checkpoint, photos):
    common = {"do_train": True, "max_steps": 3, "logging_steps": 1, "fisa_config": WITH_SEGMENTS}
    run(tmp_path / "plain", model=checkpoint, data=photos, **common)
    run(tmp_path / "checkpointed", model=checkpoint, data=photos, activation_checkpointing=True, **common)
    assert losses(tmp_path / "checkpointed") == pytest.approx(losses(tmp_path / "plain"), abs=1e-5)


def test_evaluations_run_in_the_precision_of_training(tmp_path, checkpoint, photos):
    prepared = Run(
        ModelArguments(model=str(checkpoint)),
        DataArguments(eval_format="coco_panoptic", eval_data=str(photos), max_eval_samples=1),
        FisaTrainingArguments(str(tmp_path), do_eval=True, bf16=True, use_cpu=True, report_to="none"),
    )
    in_half = []
    prepared.model.fisa.register_forward_hook(lambda *_: in_half.append(torch.is_autocast_enabled("cpu")))
    prepared.evaluate()
    assert in_half == [True]


@pytest.mark.parametrize("source", SOURCES)
def test_bfloat16_stays_near_float32(tmp_path, checkpoint, photos, source):
    common = {"mask_source": source, "do_train": True, "do_eval": True, "max_steps": 3, "logging_steps": 1}
    common["fisa_config"] = WITH_SEGMENTS
    if source == "cache":
        common["proposal_cache"] = tmp_path / "cache"
    run(tmp_path / "full", model=checkpoint, data=photos, **common)
    report = run(tmp_path / "half", model=checkpoint, data=photos, bf16=True, **common)
    half, full = losses(tmp_path / "half"), losses(tmp_path / "full")
    assert all(math.isfinite(loss) for loss in half.values()) and report["num_images"] == 3
    assert half != full and half == pytest.approx(full, abs=0.15)
    names_of_classes = f"{ADAPTER_PREFIX}{ADAPTER_VOCABULARY}.{CLASSES}"
    kinds = {name: tensor.dtype for name, tensor in adapter(tmp_path / "half").items() if name != names_of_classes}
    assert kinds and set(kinds.values()) == {torch.float32}


@pytest.mark.parametrize("persistent", [False, True])
def test_training_does_not_depend_on_workers(tmp_path, checkpoint, photos, persistent):
    common = {"do_train": True, "max_steps": 6, "logging_steps": 1, "per_device_train_batch_size": 3}  # three passes
    run(tmp_path / "none", model=checkpoint, data=photos, **common)
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": str(persistent)}
    run(tmp_path / "two", model=checkpoint, data=photos, **common, **workers)
    assert losses(tmp_path / "two") == losses(tmp_path / "none")


def test_evaluation_does_not_depend_on_workers(tmp_path, checkpoint, photos):
    reports = [
        run(tmp_path / str(workers), model=checkpoint, data=photos, do_eval=True, dataloader_num_workers=workers)
        for workers in (0, 2)
    ]
    assert reports[0] == reports[1]


def test_two_processes_train_and_evaluate_as_one(tmp_path, checkpoint, photos):
    """Under accelerate's launcher, with gloo between the processes, which build the cache together."""
    common = {"do_train": True, "max_steps": 3, "logging_steps": 1, "fisa_config": WITH_SEGMENTS}
    common |= {"optim": "sgd", "warmup_steps": 0, "max_grad_norm": 0, "eval_strategy": "no", "start_share": 0.5}
    common["proposal_cache"] = tmp_path / "cache"
    options = {
        "model": checkpoint, "output_dir": tmp_path / "two", "use_cpu": True, "report_to": "none",
        "train_format": "coco_panoptic", "train_data": photos, "train_split": "train2017",
        "per_device_train_batch_size": 3, **common,
    }  # fmt: skip
    launch(*as_arguments(options), launcher_flags=["--multi_gpu"])
    run(tmp_path / "one", model=checkpoint, data=photos, per_device_train_batch_size=6, **common)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert two == pytest.approx(one, abs=1e-4)
    for name, tensor in adapter(tmp_path / "one").items():
        torch.testing.assert_close(tensor, adapter(tmp_path / "two")[name], atol=1e-4, rtol=1e-3)
    # The evaluation itself, of one and the same adapter, gives the same to the last digit.
    options = {"model": checkpoint, "adapter": tmp_path / "one", "eval_format": "coco_panoptic", "eval_data": photos}
    options |= {"do_eval": True, "use_cpu": True, "report_to": "none", "per_device_eval_batch_size": 2}
    flags = as_arguments(options | {"output_dir": tmp_path / "evaluated by two"})
    launch(*flags, launcher_flags=["--multi_gpu"])
    evaluated_by_two = json.loads((tmp_path / "evaluated by two" / "metrics.json").read_text())
    assert evaluated_by_two == train_and_evaluate(
        as_arguments(options | {"output_dir": tmp_path / "evaluated by one"})
    )


def test_a_launcher_that_starts_one_process_of_two_is_told_on(tmp_path, checkpoint, photos):
    options = {"model": checkpoint, "output_dir": tmp_path, "eval_format": "coco_panoptic", "eval_data": photos}
    flags = as_arguments(options | {"do_eval": True, "report_to": "none"})
    assert "Running in one process" in launch(*flags, launcher_flags=["--cpu"])


def test_a_launcher_that_is_asked_for_one_process_is_told_nothing(tmp_path, checkpoint, photos, monkeypatch, caplog):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")  # as `accelerate launch --cpu` does
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    run(tmp_path, model=checkpoint, data=photos, do_eval=True)
    assert "Running in one process" not in caplog.text
