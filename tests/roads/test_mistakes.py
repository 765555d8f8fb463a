"""Mistakes that people make, and what they are told: what was found, and what to do.

Disks that are full, places without permission and damaged models: tests/commands/test_mistakes.py, test_folders.py;
adapters of another base: test_adapters.py; columns of data sets: test_inputs.py; the Hub: test_names_on_the_hub.py.
"""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPModel,
    CLIPTextModel,
    CLIPVisionModelWithProjection,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    pipeline,
)

from fisa import FisaForUniversalSegmentation, FisaPipeline, FisaProcessor, SimoConfig, get_simo_model, train
from fisa.commands import export, segment
from fisa.miniature import miniature
from fisa.processing.lettering import FONTS
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
    "words in quotes of their own": Command('photo.png --labels "dog",_"cat"', '"dog"', "only with commas between"),
    "words as a list of JSON": Command('photo.png --labels ["dog"]', '["dog"]', "only with commas between"),
    "words with bars": Command("photo.png --labels dog|cat", "dog|cat", "only with commas between"),
    "a mark in round brackets": Command("photo.png --labels sky_(stuff)", "sky (stuff)", "in square brackets"),
    "a misspelt mark": Command("photo.png --labels sky_[stuf]", "sky [stuf]", "[thing] or [stuff]"),
    "no word": Command("photo.png --labels _", "vocabulary is empty", "name at least one class"),
    "a word twice": Command("photo.png --labels dog,_Dog", '"Dog" of class "Dog" is already', "Keep each name once"),
    "words in a table": Command("photo.png --labels-file words.csv", "found '.csv'", ".txt or a .json"),
    "words in a folder": Command("photo.png --labels-file deep", "that is a folder", "Name a .txt or .json"),
    "words in JSON cut short": Command("photo.png --labels-file cut.json", "no JSON", "line 1 column 8"),
    "words in another encoding": Command("photo.png --labels-file utf16.txt", "no text in UTF-8", "Save it"),
    "words from nowhere": Command("photo.png --model bare", "stores no classes", "--labels or --labels-file"),
    # options
    "a split of no data set": Command("photo.png --split test", "--split", "of --dataset"),
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
        "--model model --clip clip --train_data good", "Name the model", ", or --clip"
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
    "a model as an adapter": fisa_train("--model model --adapter model --train_data good", "is none", "--model"),
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
    "a generator beside a model": fisa_train(
        "--model model --mask_generator generator --train_data good", "has its own", "leave one of the two out"
    ),
    "layers of what is not trained": fisa_train(
        "--model model --image_layers 0 --image_stream false --train_data good", "--image_layers", "--image_stream"
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
    "--eval_data good --oracle generator": "--eval_data, --oracle will not be used: nothing is evaluated without",
    "--eval_steps 2": "--eval_steps will not be used: it needs --eval_strategy steps",
}


def label_maps(folder: Path, *, value: int = 1, size: tuple[int, int] = (32, 32), classes: str = "dog\nsky\n") -> Path:
    """Two photos, each with a label map that has 0 and a value."""
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    labels = np.zeros(size[::-1], dtype=np.uint8)
    labels[4:] = value
    for number in range(2):
        Image.effect_noise((32, 32), 50 + number).convert("RGB").save(folder / "images" / f"{number}.png")
        Image.fromarray(labels).save(folder / "labels" / f"{number}.png")
    (folder / "classes.txt").write_text(classes)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory, checkpoint, parts_folder, photo) -> Path:
    """Photos, models, words and data, good ones and bad ones."""
    place = tmp_path_factory.mktemp("mistakes")
    photo.resize((160, 120)).save(place / "photo.png")
    for folder in ("empty", "deep/er"):
        (place / folder).mkdir(parents=True)
    shutil.copy(place / "photo.png", place / "deep" / "er" / "photo.png")
    shutil.copytree(checkpoint, place / "model")
    shutil.copytree(parts_folder / "clip", place / "clip")
    shutil.copytree(parts_folder / "mask_generator", place / "generator")
    clip = CLIPModel.from_pretrained(place / "clip")
    CLIPVisionModelWithProjection(clip.config.vision_config).save_pretrained(place / "vision")
    CLIPTextModel(clip.config.text_config).save_pretrained(place / "text")
    narrow = {"hidden_sizes": [8] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8}
    SegformerForSemanticSegmentation(SegformerConfig(**narrow)).save_pretrained(place / "segformer")
    for part in miniature():
        part.save_pretrained(place / "bare")
    for name, content in (("words.csv", b"dog"), ("cut.json", b'{"dog":'), ("nothing.txt", b"")):
        (place / name).write_bytes(content)
    shutil.copy(FONTS / "DroidSansFallback.ttf", place / "any.ttf")
    (place / "utf16.txt").write_text("dog", encoding="utf-16")
    label_maps(place / "good")
    label_maps(place / "small", size=(9, 9))
    label_maps(place / "unknown", value=7)
    label_maps(place / "twice", classes="dog\ndog\n")
    (label_maps(place / "nameless") / "classes.txt").unlink()
    (label_maps(place / "unlabelled") / "labels" / "1.png").unlink()
    Image.new("RGB", (32, 32)).save(label_maps(place / "colour") / "labels" / "1.png")
    return place


@pytest.fixture
def here(place, monkeypatch) -> Path:
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="module")
def cached(place) -> None:
    """A cache of proposals, and another model than the one that it was made by."""
    model, processor = miniature()
    with torch.no_grad():
        next(model.mask_generator.parameters()).add_(0.1)
    for part in (model, processor):
        part.save_pretrained(place / "other")
    options = fisa_train("--model model --train_data good --proposal_cache cache --save_strategy no", "", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
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


def test_a_run_refuses_flags_of_a_new_adapter_beside_another(here, capsys, tmp_path):
    options = fisa_train("--model model --train_data good --save_strategy no --image_layers 0", "", "")
    train.main([*options.arguments.split(), "--output_dir", str(tmp_path / "first")])
    again = [*options.arguments.split(), "--adapter", str(tmp_path / "first"), "--output_dir", str(tmp_path / "again")]
    train.main(again)  # what it has is what the flags say
    for flags in (["--lora_rank", "4"], ["--mask_position", "false"]):
        with pytest.raises(SystemExit):
            train.main([*again, *flags])
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
def test_a_process_says_it_in_one_line(place, command, said):
    *_, last = walk(*command.split(), cwd=place, status=2).strip().splitlines()
    assert said in last


class Parts(NamedTuple):
    """What calls are made with."""

    model: FisaForUniversalSegmentation
    processor: FisaProcessor
    segmenter: FisaPipeline
    photo: Image.Image

    def inputs(self, **others: Any) -> dict[str, Any]:
        return {**self.processor(images=self.photo, return_tensors="pt"), **others}

    def segmentation(self) -> Any:
        return self.segmenter(self.photo, candidate_labels=["dog"], return_type="segmentation", threshold=0)


@pytest.fixture(scope="module")
def parts(place) -> Parts:
    segmenter = pipeline("image-segmentation", model=str(place / "model"), pipeline_class=FisaPipeline)
    return Parts(segmenter.model, segmenter.processor, segmenter, Image.open(place / "photo.png"))


class Call(NamedTuple):
    """What is called, with [`Parts`], and what its error must say."""

    call: Callable[[Parts], Any]
    error: type[Exception]
    found: str
    to_do: str


def together(clip: str, mask_generator: str) -> Callable[[Parts], Any]:
    return lambda parts: FisaForUniversalSegmentation.from_clip_and_mask_generator(clip, mask_generator)


def stock_pipeline(parts: Parts, **arguments: Any) -> Any:
    return pipeline("image-segmentation", parts.model, image_processor=parts.processor.image_processor, **arguments)


def nan_photo() -> np.ndarray:
    pixels = np.full((8, 8, 3), 0.5, dtype=np.float32)
    pixels[0, 0] = np.nan
    return pixels


CALLS = {
    # photos
    "NaN in a photo": Call(lambda of: of.segmenter(nan_photo()), ValueError, "found nan", "Replace NaN"),
    "a photo of no pixels": Call(
        lambda of: of.segmenter(Image.new("RGB", (0, 5))), ValueError, "The image is empty", "5 x 0 pixels"
    ),
    "a number for a photo": Call(lambda of: of.segmenter(3), TypeError, "found int", "Pass a PIL image"),
    "a folder for a photo": Call(lambda of: of.segmenter("empty"), ValueError, "'empty'", "Is a directory"),
    "a text for a photo": Call(
        lambda of: of.segmenter("words.csv"), ValueError, "no image format that Pillow knows", "JPEG or PNG"
    ),
    "one photo of two": Call(lambda of: of.segmenter([of.photo, "gone.png"]), ValueError, "Image 1", "gone.png"),
    # words
    "an empty list of words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels=[]), ValueError, "vocabulary is empty", "name at least one"
    ),
    "a set of words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels={"dog"}), TypeError, "found set", "an ordered list"
    ),
    "numbers for words": Call(
        lambda of: of.segmenter(of.photo, candidate_labels=[1]), TypeError, "found 1 (int)", "must be a name"
    ),
    "words before the processor": Call(
        lambda of: of.model.set_vocabulary(["dog"], of.processor), TypeError, "found list", "processor comes before"
    ),
    "a model without words": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("bare")(**of.inputs()),
        ValueError,
        "No classes to choose from",
        "model.set_vocabulary(processor",
    ),
    "a template without a place": Call(
        lambda of: FisaProcessor.from_pretrained("model", prompt_templates="a photo"), ValueError, "a photo", "{}"
    ),
    # options
    "a misspelt argument": Call(
        lambda of: of.segmenter(of.photo, treshold=0.3), TypeError, "no argument treshold", "threshold"
    ),
    "words for the stock pipeline": Call(
        lambda of: stock_pipeline(of)(of.photo, candidate_labels=["dog"], batch_size=1),
        TypeError,
        "no argument candidate_labels.",
        "pipeline_class=fisa.FisaPipeline",
    ),
    "words when the stock pipeline is made": Call(
        lambda of: stock_pipeline(of, text=["dog"]), TypeError, "no argument text.", "takes candidate_labels"
    ),
    "words for the processor by the pipeline's name": Call(
        lambda of: of.processor(images=of.photo, candidate_labels=["dog"]), TypeError, "candidate_labels", "`text`"
    ),
    "no such task": Call(lambda of: of.segmenter(of.photo, subtask="pan"), ValueError, "'pan'", "panoptic, instance"),
    "no such type": Call(
        lambda of: of.segmenter(of.photo, return_type="seg"), ValueError, "'seg'", "segments, segmentation"
    ),
    "a per cent": Call(lambda of: of.segmenter(of.photo, threshold=50), ValueError, "is 50", "in [0, 1]"),
    # models
    "CLIP's vision alone": Call(together("vision", "generator"), ValueError, "'clip_vision_model'", "both towers"),
    "CLIP's texts alone": Call(together("text", "generator"), ValueError, "'clip_text_model'", "both towers"),
    "FISA for CLIP": Call(together("model", "generator"), ValueError, "'fisa'", "must be a whole one"),
    "FISA for a generator": Call(together("clip", "model"), ValueError, "'fisa'", "'mask2former', 'maskformer'"),
    "SegFormer for a generator": Call(together("clip", "segformer"), ValueError, "'segformer'", "'mask2former',"),
    "a generator for FISA": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("generator"),
        ValueError,
        "'mask2former', not of FISA",
        "from_clip_and_mask_generator",
    ),
    "SegFormer for FISA": Call(
        lambda of: FisaForUniversalSegmentation.from_pretrained("segformer"),
        ValueError,
        "'segformer', not of FISA",
        "from_clip_and_mask_generator",
    ),
    "a processor from nowhere": Call(
        lambda of: FisaProcessor.from_pretrained("empty"), OSError, "there is no tokenizer", "save_pretrained(folder)"
    ),
    "another model in the pipeline": Call(
        lambda of: pipeline("image-segmentation", model="generator", pipeline_class=FisaPipeline),
        OSError,
        "there is no tokenizer",
        "save_pretrained(folder)",
    ),
    # tensors
    "a photo's bytes": Call(
        lambda of: of.model(**of.inputs(pixel_values=torch.zeros(1, 3, 96, 96, dtype=torch.uint8))),
        TypeError,
        "torch.uint8",
        "FisaProcessor makes",
    ),
    "masks of one photo": Call(
        lambda of: of.model(**of.inputs(mask_proposals=torch.zeros(4, 8, 8))), ValueError, "(4, 8, 8)", "it must be"
    ),
    "masks of other photos": Call(
        lambda of: of.model(**of.inputs(mask_proposals=torch.zeros(2, 4, 8, 8))), ValueError, "for 2 photos", "one set"
    ),
    "embeddings of another CLIP": Call(
        lambda of: of.model(**of.inputs(class_embeds=torch.zeros(2, 7))), ValueError, "(2, 7)", "projection_dim, 64"
    ),
    "masks without classes": Call(
        lambda of: of.model(**of.inputs(mask_labels=[torch.ones(1, 9, 9)])), ValueError, "without", "pass the class"
    ),
    "a class that is not there": Call(
        lambda of: of.model(**of.inputs(mask_labels=[torch.ones(1, 9, 9)], class_labels=[torch.tensor([9])])),
        ValueError,
        "holds 9",
        "from 0 to 2",
    ),
    "a label map of another size": Call(
        lambda of: of.processor(images=of.photo, segmentation_maps=np.zeros((5, 5), dtype=np.uint8)),
        ValueError,
        "5 x 5",
        "120 x 160",
    ),
    "sizes of two photos": Call(
        lambda of: of.processor.post_process_panoptic_segmentation(
            of.model(**of.inputs()), target_sizes=[(9, 9), (9, 9)]
        ),
        ValueError,
        "[(9, 9), (9, 9)]",
        "each of the 1 images",
    ),
    # training
    "an adapter on an adapter": Call(
        lambda of: get_simo_model(get_simo_model(miniature()[0])), TypeError, "PeftModel", "add_adapter"
    ),
    "an adapter on CLIP": Call(
        lambda of: get_simo_model(CLIPModel.from_pretrained("clip")), TypeError, "CLIPModel", "pass FISA's own model"
    ),
    "layers that are not there": Call(
        lambda of: get_simo_model(miniature()[0], SimoConfig(image_layers=(99,))), ValueError, "99", "layers"
    ),
    # results
    "a label nobody looked for": Call(lambda of: of.segmentation()["cat"], KeyError, "'cat'", "there are dog"),
    "a segment that is not there": Call(
        lambda of: of.segmentation()[999], IndexError, "no segment 999", "counted from"
    ),
    "a label for a segment": Call(
        lambda of: of.segmentation().crop("dog"), TypeError, "found 'dog'", "segmentation[0]"
    ),
    "another photo": Call(
        lambda of: of.segmentation().plot(Image.new("RGB", (5, 5))), ValueError, "(5, 5)", "the very image"
    ),
    "a picture of no format": Call(
        lambda of: of.segmentation().save("picture"), ValueError, "picture", ".png or .jpg"
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_says_what_it_found_and_what_to_do(here, parts, name):
    call, error, found, to_do = CALLS[name]
    with pytest.raises(error) as raised:
        call(parts)
    said = " ".join(str(raised.value).split())
    assert found in said and to_do in said


def test_the_parts_of_a_processor_are_those_of_a_model(here):
    with pytest.raises(ValueError, match="'mask2former'.*must be a whole one"):
        FisaProcessor.from_clip_and_mask_generator("generator", "clip")


def test_words_of_two_hundred_tokens_are_said_to_lose_their_end(parts):
    with pytest.warns(UserWarning, match=r"more than the 77 tokens that CLIP reads lose their end.*dog dog"):
        parts.segmenter(parts.photo, candidate_labels=[" ".join(["dog"] * 200)])


@pytest.mark.parametrize("words", [["dog, cat"], [" ".join(["cat"] * 200)]], ids=["a list in an item", "200 tokens"])
def test_ten_calls_warn_once(parts, words):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for _ in range(10):
            parts.segmenter(parts.photo, candidate_labels=words)
    assert len(said) == 1, [str(warning.message) for warning in said]
