"""Flags of `train.py`: what it refuses, in one line, and that schedules take their settings."""

import json

import pytest

from fisa.train import train_and_evaluate
from tests.training.runs import adapter, as_arguments, run


@pytest.mark.parametrize(
    "options, named",
    [
        ({}, ["--do_train"]),
        ({"do_train": True, "train_format": None}, ["--train_format", "coco_panoptic"]),
        ({"do_train": True, "mask_source": "cache"}, ["--proposal_cache"]),
        ({"do_train": True, "proposal_cache": "x", "crop": 0.5}, ["--crop", "--mask_source"]),
        ({"do_train": True, "train_split": "test"}, ["panoptic_test.json", "split"]),
        ({"do_train": True, "image_layers": 9}, ["image_layers", "9"]),
        ({"do_train": True, "image_projections": "queries"}, ["queries", "q_proj"]),
        ({"do_train": True, "model": "/no/such/model"}, ["/no/such/model"]),
        ({"do_train": True, "clip": "a/clip"}, ["--clip", "--model"]),
        ({"do_train": True, "streaming": True}, ["--streaming"]),
        ({"do_train": True, "unknown_flag": 1}, ["--unknown_flag"]),
        ({"do_train": True, "crop": 0}, ["crop", "0"]),
        ({"do_eval": True, "bf16_full_eval": True}, ["--bf16_full_eval", "--bf16 or --fp16"]),
        ({"do_train": True, "label_smoothing_factor": 0.1}, ["--label_smoothing_factor has no effect"]),
        ({"do_train": True, "neftune_noise_alpha": 5}, ["--neftune_noise_alpha has no effect"]),
        ({"do_train": True, "remove_unused_columns": True}, ["--remove_unused_columns", "all columns"]),
        ({"do_train": True, "report_to": "neptune"}, ["--report_to neptune", "not installed", "tensorboard, none"]),
        ({"do_train": True, "lr_scheduler_type": "cosine_with_min_lr"}, ["--lr_scheduler_kwargs {}", "min_lr"]),
        ({"do_train": True, "lr_scheduler_type": "warmup_stable_decay"}, ["num_decay_steps"]),
        ({"do_train": True, "dataloader_persistent_workers": True}, ["--dataloader_num_workers"]),
        ({"do_train": True, "vocabulary_size": 0}, ["--vocabulary_size was 0", "1 or more"]),
        ({"do_train": True, "learning_rate": -1}, ["--learning_rate was -1", "0 or more"]),
        ({"do_train": True, "fisa_config": "[1]"}, ["--fisa_config [1]", "it is not a mapping"]),
        ({"do_train": True, "fisa_config": '{"foo_bar": 1}'}, ["--fisa_config", "no field foo_bar"]),
        ({"do_train": True, "fisa_config": '{"seve_layers": "a"}'}, ["--fisa_config", "seve_layers"]),
        ({"do_train": True, "fisa_config": "{a:1}"}, ["--fisa_config {a:1}"]),
        ({"do_train": True, "fisa_config": '{"zoom": 1, "zoom": 2}'}, ["--fisa_config", '"zoom" comes twice']),
        ({"do_train": True, "max_steps": 0}, ["--max_steps was 0", "1 or more"]),
        ({"do_train": True, "num_train_epochs": 0}, ["--num_train_epochs was 0", "above 0"]),
        ({"do_train": True, "max_train_samples": 0}, ["--max_train_samples was 0", "1 or more"]),
        ({"do_train": True, "logit_adjustment": "nan"}, ["--logit_adjustment was nan", "0 to 1"]),
        ({"do_train": True, "distillation_weight": -1}, ["--distillation_weight was -1", "0 or more"]),
        ({"do_train": True, "dataloader_drop_last": True}, ["--dataloader_drop_last leaves nothing", "6 photos"]),
        ({"do_train": True, "push_to_hub": True}, ["needs its base there", "--model OWNER/NAME"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else " ".join(map(str, value.values())),
)
def test_what_cannot_be_is_answered_in_one_line(tmp_path, checkpoint, photos, capsys, options, named):
    flags = {
        "model": checkpoint, "output_dir": tmp_path, "use_cpu": True, "train_format": "coco_panoptic",
        "train_data": photos, "train_split": "train2017",
    } | options  # fmt: skip
    with pytest.raises((SystemExit, ValueError)) as caught:
        train_and_evaluate(as_arguments({name: value for name, value in flags.items() if value is not None}))
    message = capsys.readouterr().err + str(caught.value)
    assert [word for word in named if word not in message] == []


def test_an_optimizer_whose_package_is_not_there_is_named_in_one_line(tmp_path, checkpoint, photos, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, model=checkpoint, data=photos, do_train=True, optim="lomo", max_steps=1)
    assert stop.value.code == 1 and "lomo" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    "schedule, options",
    [
        ("polynomial", {"lr_end": 0.005}),
        ("cosine_with_min_lr", {"min_lr": 1e-5}),
        ("warmup_stable_decay", {"num_decay_steps": 1}),
    ],
)
def test_schedules_take_their_settings(tmp_path, checkpoint, photos, schedule, options):
    run(
        tmp_path, model=checkpoint, data=photos, do_train=True, max_steps=2, learning_rate=0.01,
        lr_scheduler_type=schedule, lr_scheduler_kwargs=json.dumps(options),
    )  # fmt: skip
    assert adapter(tmp_path)
