"""Runs that are killed go on: one command in a loop starts, goes on, and falls back to the newest whole checkpoint."""

import multiprocessing
import random
import shutil
import time

import pytest

from fisa import FisaForUniversalSegmentation, get_simo_model
from fisa.miniature import miniature
from fisa.training.checkpoints import ORIGIN, damage_of, newest_whole_checkpoint
from fisa.training.trainer import FisaTrainer
from fisa.training.training_arguments import FisaTrainingArguments
from tests.training.runs import adapter, equal, run


STEPS = 4


def train(output, checkpoint, photos, **options):
    run(
        output, model=checkpoint, data=photos, do_train=True, max_steps=STEPS, save_steps=1,
        resume_from_checkpoint="true", **options,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory, checkpoint, photos):
    """A new folder that `--resume_from_checkpoint true` started in."""
    output = tmp_path_factory.mktemp("finished") / "new"
    train(output, checkpoint, photos)
    return output


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def steps(folder):
    return sorted(int(path.name.removeprefix("checkpoint-")) for path in folder.glob("checkpoint-*"))


def test_nothing_but_whole_checkpoints_is_left(finished):
    assert steps(finished) == [1, 2, 3, 4] and not list(finished.glob(".checkpoint*"))
    assert not [damage for path in finished.glob("checkpoint-*") if (damage := damage_of(path))]


def test_a_finished_run_ends_again_with_the_same_adapter(finished, folder, checkpoint, photos):
    train(folder, checkpoint, photos)
    assert equal(adapter(folder), adapter(finished))


@pytest.mark.parametrize("damage", ["empty", "adapter_model.safetensors", "optimizer.pt"])
def test_the_newest_whole_checkpoint_is_taken(finished, folder, checkpoint, photos, caplog, damage):
    newest = folder / f"checkpoint-{STEPS}"
    if damage == "empty":
        for file in newest.iterdir():
            file.unlink()
    else:
        content = (newest / damage).read_bytes()
        (newest / damage).write_bytes(content[: len(content) // 2])
    train(folder, checkpoint, photos)
    assert equal(adapter(folder), adapter(finished)) and damage_of(newest) is None
    assert f"{newest} is not whole and is left out" in caplog.text
    assert damage == "empty" or f"{damage} is damaged" in caplog.text


@pytest.mark.parametrize("file", ["rng_state.pth", "scheduler.pt", "trainer_state.json", "adapter_config.json"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_named(finished, tmp_path, file, kept):
    cut = shutil.copytree(finished / "checkpoint-1", tmp_path / "cut")
    content = (cut / file).read_bytes()
    (cut / file).write_bytes(content[: int(kept * len(content))])
    assert damage_of(cut) == f"{file} is damaged"


def test_a_named_checkpoint_that_is_damaged_is_refused_in_one_line(folder, checkpoint, photos, capsys):
    named = folder / "checkpoint-2"
    (named / "optimizer.pt").write_bytes(b"")
    with pytest.raises(SystemExit) as ended:
        run(folder, model=checkpoint, data=photos, do_train=True, resume_from_checkpoint=named)
    assert ended.value.code == 2
    assert f"{named} cannot be resumed from: optimizer.pt is damaged" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "differing"),
    [
        ({"max_train_samples": 3}, "another set of photos or classes"),
        ({"image_stream": "false"}, "another set of trained weights"),
        ({"lora_rank": 2}, "another set of trained weights"),
        ({"model": "other"}, "another base model"),
        ({"model": "other generator"}, "another base model"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_run_is_refused_and_left(
    folder, checkpoint, photos, tmp_path, capsys, options, differing
):
    if "model" in options:
        model, processor = miniature(seed=7)
        if options["model"] == "other generator":
            generator, model = model.mask_generator, FisaForUniversalSegmentation.from_pretrained(checkpoint)
            model.mask_generator = generator
        for part in (model, processor):
            part.save_pretrained(tmp_path / "other")
        options, checkpoint = {}, tmp_path / "other"
    before = adapter(folder)
    with pytest.raises(SystemExit) as ended:
        train(folder, checkpoint, photos, **options)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and f"checkpoint-{STEPS} does not belong to this run: it has {differing}." in said
    assert equal(adapter(folder), before)


def test_a_longer_run_goes_on(folder, checkpoint, photos):
    run(
        folder, model=checkpoint, data=photos, do_train=True, max_steps=STEPS + 1, save_steps=1,
        resume_from_checkpoint="true", learning_rate=0.1,
    )  # fmt: skip
    assert steps(folder)[-1] == STEPS + 1


def test_a_checkpoint_that_says_nothing_of_its_run_is_gone_on_from_with_a_warning(folder, checkpoint, photos, caplog):
    """Earlier versions wrote such."""
    (folder / f"checkpoint-{STEPS}" / ORIGIN).unlink()
    train(folder, checkpoint, photos)
    assert caplog.text.count("does not say what it was trained from") == 1


STOPS = {
    "do_train": True, "max_steps": 12, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1,
    "metric_for_best_model": "pq_stuff", "early_stopping_patience": 2, "load_best_model_at_end": True,
    "resume_from_checkpoint": "true",
}  # fmt: skip


@pytest.mark.parametrize("left", [1, 2, 3])
def test_early_stopping_counts_on_where_it_was(tmp_path, checkpoint, photos, left):
    """The miniature finds nothing, whatever it learns: the first evaluation stays the best, and two more are waited
    for. `left` checkpoints are left of a run that was killed, in a folder that was then moved."""
    run(tmp_path / "whole", model=checkpoint, data=photos, **STOPS)
    assert steps(tmp_path / "whole") == [1, 2, 3]
    moved = tmp_path / "moved"
    for step in range(1, left + 1):
        shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", moved / f"checkpoint-{step}")
    (tmp_path / "whole").rename(tmp_path / "renamed")
    run(moved, model=checkpoint, data=photos, **STOPS)
    assert steps(moved) == [1, 2, 3] and equal(adapter(moved), adapter(tmp_path / "renamed"))
    assert equal(adapter(moved), adapter(moved / "checkpoint-1"))


def test_a_run_that_was_stopped_early_goes_on_with_more_patience(tmp_path, checkpoint, photos):
    run(tmp_path, model=checkpoint, data=photos, **STOPS)
    run(tmp_path, model=checkpoint, data=photos, **STOPS | {"early_stopping_patience": 4})
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damaged", [True, False], ids=["damaged checkpoints", "no checkpoint"])
def test_a_finished_adapter_without_a_checkpoint_is_not_trained_over(folder, checkpoint, photos, capsys, damaged):
    for path in folder.glob("checkpoint-*"):
        if damaged:
            (path / "trainer_state.json").write_bytes(b"")
        else:
            shutil.rmtree(path)
    before = adapter(folder)
    with pytest.raises(SystemExit):
        train(folder, checkpoint, photos)
    assert "of an earlier run and no whole checkpoint to go on from: name another" in capsys.readouterr().err
    assert equal(adapter(folder), before)


def test_ten_kills_while_checkpoints_are_saved_lose_nothing(checkpoint, tmp_path):
    """Killed at random moments after a checkpoint was begun, in processes that start quickly: forks of one that has
    everything imported. It has computed nothing, as this one may have: PyTorch's threads do not outlive a fork."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__])
    moments = random.Random(0)
    reached = 0
    for _ in range(10):
        child = processes.Process(target=train_on_nothing, args=(checkpoint, tmp_path))
        child.start()
        patience = time.monotonic() + 60
        while not list(tmp_path.glob(f"checkpoint-{reached + 1}")) and time.monotonic() < patience:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.05))
        child.kill()
        child.join()
        newest = newest_whole_checkpoint(tmp_path)
        assert newest is not None and newest == tmp_path / f"checkpoint-{max(steps(tmp_path))}"
        assert max(steps(tmp_path)) > reached
        reached = max(steps(tmp_path))


def train_on_nothing(checkpoint, folder):
    """Train for ever, as far as the newest checkpoint in the folder lets it, on one photo of noise."""
    import torch

    example = {
        "pixel_values": torch.randn(3, 64, 64),
        "mask_labels": [torch.ones(1, 64, 64)],
        "class_labels": [torch.zeros(1, dtype=torch.long)],
    }
    FisaTrainer(
        get_simo_model(FisaForUniversalSegmentation.from_pretrained(checkpoint)),
        FisaTrainingArguments(
            str(folder), max_steps=10000, save_steps=1, save_total_limit=3, per_device_train_batch_size=1,
            use_cpu=True, report_to="none", disable_tqdm=True,
        ),
        train_dataset=[example] * 4,
        data_collator=lambda examples: examples[0] | {"pixel_values": examples[0]["pixel_values"][None]},
    ).train(resume_from_checkpoint=True)  # fmt: skip
