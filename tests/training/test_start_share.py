"""`start_share`: what training leaves is the average of the trained weights and of those before training."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict

from fisa import FisaForUniversalSegmentation, SimoConfig, get_simo_model
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_VOCABULARY
from fisa.modeling_fisa.simo import simo_target_modules
from fisa.training.trainer import FisaTrainer
from fisa.training.training_arguments import FisaTrainingArguments
from tests.training.runs import adapter, equal, run


TRAIN = {"do_train": True, "max_steps": 4, "learning_rate": 0.01}


def base_of(checkpoint):
    return FisaForUniversalSegmentation.from_pretrained(checkpoint)


def untrained(checkpoint):
    return get_peft_model_state_dict(get_simo_model(base_of(checkpoint)))


def weights_of(tensors):
    return {name: tensor for name, tensor in tensors.items() if ADAPTER_VOCABULARY not in name}


def assert_average(found, *, trained, start, share=0.5):
    found, trained, start = (weights_of(tensors) for tensors in (found, trained, start))
    assert found.keys() == trained.keys() == start.keys()
    assert any(not torch.equal(trained[name], start[name]) for name in found)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, (1 - share) * trained[name] + share * start[name], atol=1e-6, rtol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, checkpoint, photos):
    """A run without `start_share`."""
    folder = tmp_path_factory.mktemp("trained")
    run(folder, model=checkpoint, data=photos, save_steps=2, **TRAIN)
    return folder


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_what_is_left_is_the_average(tmp_path, checkpoint, photos, trained, share):
    report = run(tmp_path, model=checkpoint, data=photos, start_share=share, do_eval=True, save_steps=2, **TRAIN)
    found = adapter(tmp_path)
    assert_average(found, trained=adapter(trained), start=untrained(checkpoint), share=share)
    # Checkpoints are of the training itself; the merged model and the evaluation of what is left.
    assert equal(adapter(tmp_path / "checkpoint-4"), adapter(trained / "checkpoint-4"))
    merged = FisaForUniversalSegmentation.from_pretrained(tmp_path / "merged").state_dict()
    assert equal(merged, PeftModel.from_pretrained(base_of(checkpoint), tmp_path).merge_and_unload().state_dict())
    assert report == run(tmp_path / "again", model=checkpoint, data=photos, adapter=tmp_path, do_eval=True)


def test_a_share_of_nothing_changes_no_bit(tmp_path, checkpoint, photos, trained):
    run(tmp_path, model=checkpoint, data=photos, start_share=0, **TRAIN)
    assert equal(adapter(tmp_path), adapter(trained))


def test_a_resumed_run_leaves_what_an_unbroken_one_does(tmp_path, checkpoint, photos, trained):
    options = TRAIN | {"start_share": 0.5}
    run(tmp_path / "whole", model=checkpoint, data=photos, **options)
    resumed = {"resume_from_checkpoint": trained / "checkpoint-2"}
    run(tmp_path / "resumed", model=checkpoint, data=photos, **options, **resumed)
    assert equal(adapter(tmp_path / "resumed"), adapter(tmp_path / "whole"))
    # A run that had ended already ends the same again, and takes no second share.
    run(tmp_path / "whole", model=checkpoint, data=photos, **options, resume_from_checkpoint="true")
    assert equal(adapter(tmp_path / "resumed"), adapter(tmp_path / "whole"))


def test_an_adapter_that_is_trained_on_is_averaged_with_itself(tmp_path, checkpoint, photos, trained):
    options = TRAIN | {"adapter": trained, "max_steps": 2}
    run(tmp_path / "plain", model=checkpoint, data=photos, **options)
    run(tmp_path / "average", model=checkpoint, data=photos, start_share=0.5, **options)
    assert_average(adapter(tmp_path / "average"), trained=adapter(tmp_path / "plain"), start=adapter(trained))


def test_the_best_checkpoint_is_what_is_averaged(tmp_path, checkpoint, photos):
    options = TRAIN | {
        "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "learning_rate": 0.05, "oracle": "generator",
        "load_best_model_at_end": True, "metric_for_best_model": "miou", "start_share": 0.5, "warmup_steps": 0,
    }  # fmt: skip
    run(tmp_path, model=checkpoint, data=photos, **options)
    best = json.loads((tmp_path / "trainer_state.json").read_text())["best_global_step"]
    assert 0 < best < 4
    assert_average(adapter(tmp_path), trained=adapter(tmp_path / f"checkpoint-{best}"), start=untrained(checkpoint))


def options_of(folder, **options):
    return FisaTrainingArguments(str(folder), use_cpu=True, report_to="none", **options)


def test_factors_of_changes_are_not_averaged(tmp_path, checkpoint, photos, capsys):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, model=checkpoint, data=photos, start_share=0.5, lora_rank=2, **TRAIN)
    assert stop.value.code == 2
    assert "whole weights, and an adapter of the kind LORA" in capsys.readouterr().err.splitlines()[-1]
    base = base_of(checkpoint)
    places = simo_target_modules(base.config, SimoConfig(), norms=False)
    model = get_peft_model(base, LoraConfig(target_modules=places, r=2))
    model.save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="whole weights, and an adapter of the kind LORA"):
        FisaTrainer(model, options_of(tmp_path, start_share=0.5))
    with pytest.raises(SystemExit):
        run(tmp_path, model=checkpoint, data=photos, start_share=0.5, adapter=tmp_path / "lora", **TRAIN)
    assert "an adapter of the kind LORA" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_what_is_no_share_is_refused_in_a_line(tmp_path, checkpoint, photos, capsys, share):
    with pytest.raises(ValueError, match=f"--start_share was {share}; it is a share, from 0 to below 1"):
        options_of(tmp_path, start_share=share)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path, model=checkpoint, data=photos, start_share=share, **TRAIN)
    assert stop.value.code == 2 and "--start_share was" in capsys.readouterr().err.splitlines()[-1]
