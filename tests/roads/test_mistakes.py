"""Mistakes that people make on command lines, and what they are told: what was found, and what to do.

Those in Python: test_mistaken_calls.py. Disks that are full, places without permission and damaged models:
tests/commands/test_mistakes.py, test_folders.py; adapters of another base: test_adapters.py; columns of data sets:
test_inputs.py; the Hub: test_names_on_the_hub.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from fisa import train
from fisa.commands import export, segment
from fisa.miniature import miniature
from tests.roads.walking import walk


class Command(NamedTuple):
    """Arguments, with blanks between, `_` for a blank in one, and what the error must hold."""

    arguments: str
    found: str
    to_do: str
    main: Callable = segment.main


def fisa_train(arguments: str, found: str, to_do: str) -> Command:
    given = "--output_dir run --use_cpu --do_train --max_steps 1 --report_to none --train_format label_maps"
    return Command(f"{given} {arguments}", found, to_do, train.main)


QUOTES = 'in quotes: --labels "red car, road, sky"'
COMMANDS = {
    # words
    "words without quotes": Command("photo.png --labels red car, road", "no option takes car, road", QUOTES),
    "words without quotes, a comma": Command("--labels dog, cat photo.png", '"dog," ends with a comma', QUOTES),
    "words without quotes or commas": Command("--labels dog cat photo.png", "cat: no such file", QUOTES),
    "words in quotes of their own": Command('photo.png --labels "dog",_"cat"', '"dog"', "only commas between them"),
    "words as a list of JSON": Command('photo.png --labels ["dog"]', '["dog"]', "only commas between them"),
    "words with bars": Command("photo.png --labels dog|cat", "dog|cat", "only commas between them"),
    "a mark in round brackets": Command("photo.png --labels sky_(stuff)", "sky (stuff)", "in square brackets"),
    "a misspelt mark": Command("photo.png --labels sky_[stuf]", "sky [stuf]", "[thing] or [stuff]"),
    "no word": Command("photo.png --labels _", "vocabulary is empty", "name at least one class"),
    "a word twice": Command("photo.png --labels dog,_Dog", '"Dog" of class "Dog" is already', "Keep each name once"),
    "words in a table": Command("photo.png --labels-file words.csv", "found '.csv'", ".txt or a .json"),
    "words in a folder": Command("photo.png --labels-file deep", "that is a folder", "Name a .txt or .json"),
    "words in JSON cut short": Command("photo.png --labels-file cut.json", "not JSON", "line 1 column 8"),
    "words in another encoding": Command("photo.png --labels-file utf16.txt", "not text in UTF-8", "Save it"),
    "words from nowhere": Command("photo.png --model bare", "stores no classes", "--labels or --labels-file"),
    # options
    "a split of no data set": Command("photo.png --split test", "--split", "go with --dataset"),
    "letters for no picture": Command("photo.png --no-overlay --font any.ttf", "--font", "leave one of the two out"),
    "a misspelt option": Command("photo.png --label dog", "no option --label", "did you mean --labels?"),
    "another program's option": Command("photo.png --text dog", "no option --text", "fisa-segment --help"),
    "an option of the old kind": Command("photo.png --gpu", "no option --gpu", "fisa-segment --help"),
    "a percentage": Command("photo.png --threshold 50", "50 is not", "a number between 0 and 1"),
    "a comma in a number": Command("photo.png --min-score 0,5", "0,5 is not", "a number between 0 and 1"),
    "half a photo": Command("photo.png --batch-size 1.5", "1.5 is not", "a whole number, 1 or more"),
    "another format": Command("photo.png --format csv", "'csv'", "choose from 'coco'"),
    "another precision": Command("photo.png --dtype fp16", "'fp16'", "'float16'"),
    "a GPU that is absent": Command("photo.png --device cuda:77", "cuda:77 cannot be used here", "leave --device out"),
    "a device of no such name": Command("photo.png --device gpu", "gpu cannot be used here", "Name one of these"),
    "a phone's device": Command("photo.png --device vulkan", "vulkan cannot be used", "finds cpu"),
    # photos
    "no photo": Command("--labels dog", "give photos or --dataset", "one of them"),
    "a photo that is not there": Command("gone.png --labels dog", "gone.png", "no such file"),
    "a folder of no photos": Command("empty --labels dog", "empty: no photo found there", "give files, folders"),
    "a folder of folders": Command("deep --labels dog", "the folders in it hold 1", "--recursive"),
    "a pattern of nothing": Command("*.tif --labels dog", "*.tif: no photo found there", "patterns or URLs"),
    "a list of nothing": Command("nothing.txt --labels dog", "nothing.txt is empty", "a path or an address per line"),
    # models
    "a folder without a model": Command("photo.png --model empty", "no file named config.json", "save_pretrained"),
    "a CLIP": Command("photo.png --model clip", "of type 'clip'", "fisa-train --clip"),
    "a mask generator": Command("photo.png --model generator", "of type 'mask2former'", "fisa-train --clip"),
    "a file of weights": Command("photo.png --model model/model.safetensors", "is a file", "name the folder"),
    "a variable that is not set": Command("photo.png --model= --labels dog", "it is empty", "name the folder"),
    "a model to export that is none": Command(
        "segformer --labels dog", "'segformer'", "fisa-train --clip", export.main
    ),
    # results
    "a file for the results": Command("photo.png --output photo.png", "photo.png is a file", "name a folder"),
    "a variable for the results": Command("photo.png --output=", "it is empty", "name a folder"),
    # training
    "data from nowhere": fisa_train("--model model --train_data gone", "gone: no such folder", "Name the one that"),
    "a photo as data": fisa_train("--model model --train_data photo.png", "no such folder", "Name the one that"),
    "no data": fisa_train("--model model", "Name the data", "--train_data"),
    "data without names": fisa_train(
        "--model model --train_data nameless", "classes.txt: no such file", "one per line"
    ),
    "labels that are missing": fisa_train("--model model --train_data unlabelled", "no such file", "--skip_broken"),
    "labels of another size": fisa_train("--model model --train_data small", "its label 9 x 9", "the same size"),
    "labels of an unknown class": fisa_train("--model model --train_data unknown", "values [7]", "--skip_broken"),
    "labels in colour": fisa_train("--model model --train_data colour", "a colour image (RGB)", "has one channel"),
    "a class twice": fisa_train("--model model --train_data twice", "occur twice", "Keep each name once"),
    "no model": fisa_train("--train_data good", "Name the model", "--model FOLDER"),
    "a model and its parts": fisa_train(
        "--model model --clip clip --train_data good", "both name the model", "leave one of them out"
    ),
    "parts the other way round": fisa_train(
        "--clip generator --mask_generator clip --train_data good", "'mask2former'", "must be a whole one"
    ),
    "a CLIP without its texts": fisa_train(
        "--clip vision --mask_generator generator --train_data good", "'clip_vision_model'", "both towers"
    ),
    "FISA as a CLIP": fisa_train(
        "--clip model --mask_generator generator --train_data good", "'fisa'", "must be a whole one"
    ),
    "another segmenter as a generator": fisa_train(
        "--clip clip --mask_generator segformer --train_data good", "'segformer'", "'mask2former', 'maskformer'"
    ),
    "a model as an adapter": fisa_train(
        "--model model --adapter model --train_data good", "is not an adapter", "--model"
    ),
    "a misspelt flag": fisa_train("--model model --learning_rat 1", "--learning_rat;", "did you mean --learning_rate"),
    "a word for a number": fisa_train("--model model --learning_rate fast", "'fast'", "--learning_rate"),
    "no photo at a time": fisa_train(
        "--model model --per_device_train_batch_size 0 --train_data good", "was 0", "1 or more"
    ),
    "half precision on a CPU": fisa_train("--model model --fp16 --train_data good", "--fp16 needs a GPU", "--bf16"),
    "no share": fisa_train("--model model --eval_holdout 7 --train_data good", "was 7.0", "above 0 and below 1"),
    "photos to learn from measured": fisa_train(
        "--model model --do_eval --train_data good", "would be the training photos", "--eval_holdout 0.1"
    ),
    "copies of photos to learn from measured": fisa_train(
        "--clip clip --mask_generator generator --do_eval --train_data good --eval_data copies",
        "2 of 2 validation photos are training photos",
        "--eval_holdout 0.1",
    ),
    "a generator beside a model": fisa_train(
        "--model model --mask_generator generator --train_data good", "has its own", "leave one of the two out"
    ),
    "layers of what is not trained": fisa_train(
        "--model model --image_layers 0 --image_stream false --train_data good", "--image_layers", "--image_stream"
    ),
    "training over an adapter": fisa_train(
        "--model model --train_data good --output_dir trained",
        "adapter_model.safetensors of an earlier run",
        "another",
    ),
    "the best of no evaluations": fisa_train(
        "--model model --load_best_model_at_end true --train_data good", "compares evaluations", "add --eval_strategy"
    ),
    "patience without evaluations": fisa_train(
        "--model model --early_stopping_patience 3 --train_data good", "compares evaluations", "add --eval_strategy"
    ),
    "a measure that nobody takes": fisa_train(
        "--model model --train_data good --eval_split train --save_strategy steps --save_steps 1 --eval_steps 1 "
        "--eval_strategy steps --load_best_model_at_end true --metric_for_best_model accuracy",
        "is accuracy",
        "one of pq",
    ),
    "a measure of things where there is none": fisa_train(
        "--model model --train_data stuff --eval_split train --do_eval --load_best_model_at_end true "
        "--eval_strategy steps --metric_for_best_model ap",
        "none of the categories is one",
        "name miou",
    ),
    "a resumed run without training": Command(
        "--model model --do_eval --eval_format label_maps --eval_data good --resume_from_checkpoint true",
        "goes on with training",
        "by --adapter",
        train.main,
    ),
    "a push of nothing": Command(
        "--model model --do_eval --eval_format label_maps --eval_data good --push_to_hub",
        "has trained",
        "add --do_train",
        train.main,
    ),
    "a checkpoint from nowhere": fisa_train(
        "--model model --resume_from_checkpoint gone --train_data good", "gone", "trainer_state.json is missing"
    ),
    "another model's cache": fisa_train(
        "--model other --train_data good --proposal_cache cache", "mask generator:", "Name another folder"
    ),
    "a recipe from nowhere": Command("gone.yaml", "No recipe 'gone.yaml'", "name a YAML or JSON file", train.main),
}


UNUSED = {
    "--proposal_cache none --mask_source ground_truth": "--proposal_cache will not be used: --mask_source",
    "--eval_data good --oracle generator": "--eval_data, --oracle will not be used: nothing is evaluated without",
    "--eval_steps 2": "--eval_steps will not be used: it needs --eval_strategy steps",
}


@pytest.fixture
def here(mistaken, monkeypatch) -> Path:
    monkeypatch.chdir(mistaken)
    return mistaken


@pytest.fixture(scope="module")
def cached(mistaken) -> None:
    """A cache of proposals, and another model than the one that it was made by."""
    model, processor = miniature()
    with torch.no_grad():
        next(model.mask_generator.parameters()).add_(0.1)
    for part in (model, processor):
        part.save_pretrained(mistaken / "other")
    options = fisa_train(
        "--model model --train_data good --proposal_cache cache --save_strategy no --output_dir before", "", ""
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(mistaken)
        train.main(options.arguments.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_what_it_found_and_what_to_do(here, capsys, request, name):
    command = COMMANDS[name]
    if "cache" in command.arguments:
        request.getfixturevalue("cached")
        capsys.readouterr()
    arguments = [
        argument if "--" in argument else argument.replace("_", " ") for argument in command.arguments.split()
    ]
    if command.main is not segment.main:
        arguments = command.arguments.split()
    elif "--model" not in command.arguments:
        arguments += ["--model", "model"]
    before = sorted(here.iterdir())
    with pytest.raises(SystemExit) as stop:
        command.main(arguments)
    said = capsys.readouterr().err
    assert stop.value.code == 2 and "Traceback" not in said
    last = said.strip().splitlines()[-1]
    assert command.found in last and command.to_do in last
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize("flags", UNUSED)
def test_a_run_says_which_flags_it_does_not_use(here, caplog, tmp_path, flags):
    options = fisa_train(f"--model model --train_data good --save_strategy no --output_dir {tmp_path}", "", "")
    train.main([*options.arguments.split(), *flags.split()])
    assert UNUSED[flags] in caplog.text


def test_an_evaluation_says_which_flags_of_training_it_does_not_use(here, caplog, tmp_path):
    evaluation = "--model model --do_eval --eval_format label_maps --eval_data good --use_cpu --report_to none"
    train.main([*evaluation.split(), "--output_dir", str(tmp_path / "plain")])
    assert "will not be used" not in caplog.text
    flags = "--lora_rank 4 --image_layers 0 --crop 0.5 --max_steps 7 --start_share 0.5"
    train.main([*evaluation.split(), *flags.split(), "--output_dir", str(tmp_path / "more")])
    [said] = [record.getMessage() for record in caplog.records if "will not be used" in record.getMessage()]
    flag_names, reason = said.split(" will not be used: ")
    assert set(flag_names.split(", ")) == {flag for flag in flags.split() if flag.startswith("--")}
    assert reason == "nothing is trained without --do_train."


def test_a_run_that_is_not_to_be_resumed_starts(here, recwarn, tmp_path):
    options = fisa_train("--model model --train_data good --save_strategy no", "", "")
    train.main([*options.arguments.split(), "--resume_from_checkpoint", "false", "--output_dir", str(tmp_path)])
    assert (tmp_path / "adapter_model.safetensors").is_file()
    assert not [warning for warning in recwarn if "pin_memory" in str(warning.message)]


def test_a_run_refuses_flags_of_a_new_adapter_beside_another(here, capsys, tmp_path):
    options = fisa_train("--model model --train_data good --save_strategy no --image_layers 0", "", "")
    first = [*options.arguments.split(), "--image_projections", "q_proj", "fc1"]
    train.main([*first, "--output_dir", str(tmp_path / "first")])
    again = [*first, "--adapter", str(tmp_path / "first"), "--output_dir"]
    train.main([*again, str(tmp_path / "same")])  # what it has is what the flags say
    train.main([*again, str(tmp_path / "turned"), "--image_projections", "fc1", "q_proj"])  # in whatever order
    for flags in (["--lora_rank", "4"], ["--mask_position", "false"]):
        with pytest.raises(SystemExit):
            train.main([*again, str(tmp_path / "other"), *flags])
        assert "would change nothing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("fisa-segment photo.png --model model --labels red car, road", QUOTES),
        ("fisa-train --train_data good --lr 1", "there is no option --lr; fisa-train --help lists the options."),
        ("fisa-export clip --output graph", "fisa-train --clip"),
        ("fisa-demo --gpu", "there is no option --gpu; fisa-demo --help lists the options."),
    ],
)
def test_a_process_says_it_in_one_line(mistaken, command, said):
    *_, last = walk(*command.split(), cwd=mistaken, status=2).strip().splitlines()
    assert said in last
