"""What a model is validated on: never on the photos that it learns from, unless they are asked for by name."""

import json
import shutil

import datasets
import pytest
from PIL import Image

from fisa.data.formats import load_segmentation_dataset
from fisa.data.splits import hold_out, shared_photos
from fisa.evaluation import report
from fisa.train import train_and_evaluate
from fisa.training.arguments import DataArguments
from fisa.training.training_data import open_data, refuse_training_photos
from tests.data.made_files import (
    quarters,
    write_ade20k,
    write_cityscapes,
    write_coco_panoptic,
    write_photo,
    write_values,
    write_voc,
)
from tests.training.runs import as_arguments


def run(output, *, model, **options):
    flags = {"model": model, "output_dir": output, "use_cpu": True, "disable_tqdm": "true", "report_to": "none"}
    return train_and_evaluate(as_arguments(flags | options))


def write_label_maps(root, *, photos=1, split="", first=0):
    for number in range(first, first + photos):
        write_photo(root / "images" / split / f"{number}.jpg", seed=number)
        write_values(root / "labels" / split / f"{number}.png", quarters(0, 1, 255, number % 2))
    (root / "classes.txt").write_text("sky\ndog\n")
    return root


def write_undivided(root, format, *, photos=5, first=0):
    """Photos without splits, in each layout that has none."""
    if format == "label_maps":
        return write_label_maps(root, photos=photos, first=first)
    write_coco_panoptic(root, name="all", photos=photos)
    (root / "all").rename(root / "images")
    kind = format.removeprefix("coco_")
    for path in (root / "annotations").glob("*_all*"):
        path.rename(path.with_name(path.name.replace("_all", "")))
    if kind == "instances":
        content = json.loads((root / "annotations" / "panoptic.json").read_text())
        content["annotations"] = [
            {"id": image["id"], "image_id": image["id"], "category_id": 1, "segmentation": [[0, 0, 9, 0, 9, 9, 0, 9]]}
            for image in content["images"]
        ]
        (root / "annotations" / "instances.json").write_text(json.dumps(content))
    return root


@pytest.mark.parametrize("format", ["label_maps", "coco_panoptic", "coco_instances"])
@pytest.mark.parametrize("stage", [{"do_train": True, "do_eval": True, "max_steps": 1}, {"do_eval": True}], ids=str)
def test_training_photos_are_no_validation_photos(tmp_path, checkpoint, capsys, format, stage):
    root = write_undivided(tmp_path / "photos", format)
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", model=checkpoint, train_format=format, train_data=root, **stage)
    assert stop.value.code == 2 and not (tmp_path / "run").exists()
    message = capsys.readouterr().err
    assert all(way in message for way in ("--eval_data", "--eval_holdout 0.1", "--eval_split train"))


def test_training_photos_in_another_format_are_no_validation_photos(tmp_path, checkpoint, capsys):
    root = write_undivided(tmp_path / "photos", "coco_instances")
    options = {"train_format": "coco_panoptic", "train_data": root, "eval_format": "coco_instances", "do_eval": True}
    with pytest.raises(SystemExit):
        run(tmp_path / "run", model=checkpoint, **options)
    assert "would be the training photos" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(tmp_path / "run", model=checkpoint, **options, eval_holdout=0.5)
    assert "--eval_format" in capsys.readouterr().err


@pytest.mark.parametrize("train_split", ["train+validation", "train + validation[:10%]"])
def test_a_split_that_is_part_of_the_training_photos_is_no_validation(train_split):
    options = DataArguments(train_format="hub", train_data="a/b", train_split=train_split)
    with pytest.raises(ValueError, match="would be the training photos"):
        refuse_training_photos(options)
    refuse_training_photos(DataArguments(train_format="hub", train_data="a/b"))
    slices = {"train_split": "train[:90%]", "eval_split": "train[90%:]"}
    refuse_training_photos(DataArguments(train_format="hub", train_data="a/b", **slices))


def test_the_same_split_is_not_both_by_default(tmp_path, checkpoint, capsys):
    root = write_label_maps(tmp_path / "photos", split="validation")
    options = {"train_format": "label_maps", "train_data": root, "train_split": "validation", "do_train": True}
    with pytest.raises(SystemExit):
        run(tmp_path / "run", model=checkpoint, **options, do_eval=True)
    assert "--eval_holdout" in capsys.readouterr().err


def test_a_share_is_held_out_and_the_report_says_so(tmp_path, checkpoint):
    root = write_undivided(tmp_path / "photos", "label_maps")
    options = {"train_format": "label_maps", "train_data": root, "eval_holdout": 0.4, "do_eval": True}
    trained = run(tmp_path / "run", model=checkpoint, **options, do_train=True, max_steps=1)
    assert trained["num_images"] == 2 and trained["data"] == "photos (40% held out of train)"
    assert trained["data"] in (tmp_path / "run" / "README.md").read_text()
    later = run(tmp_path / "later", model=checkpoint, **options, adapter=tmp_path / "run")
    assert later["semantic"] == trained["semantic"]


def test_the_photos_held_out_are_the_same_ones_and_none_is_trained_on(tmp_path):
    data = load_segmentation_dataset(
        "label_maps", str(write_undivided(tmp_path, "label_maps", photos=20)), split="train"
    )
    names = [[part.image_id(i) for i in range(len(part))] for part in hold_out(data, 0.25)]
    assert [len(part) for part in names] == [15, 5]
    assert sorted(names[0] + names[1]) == sorted(data.image_id(i) for i in range(20))
    again = [[part.image_id(i) for i in range(len(part))] for part in hold_out(data.select(range(20)), 0.25)]
    assert again == names
    with pytest.raises(ValueError, match="two or more"):
        hold_out(data.select([0]), 0.5)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"eval_split": "train"}, "photos (train, the training photos)"),
        ({"eval_data": "others"}, "others"),
    ],
    ids=["asked for", "another folder"],
)
def test_the_report_names_what_was_evaluated(tmp_path, checkpoint, monkeypatch, options, name):
    monkeypatch.chdir(tmp_path)
    for folder, first in (("photos", 0), ("others", 2)):
        write_undivided(tmp_path / folder, "label_maps", photos=2, first=first)
    options = {"train_format": "label_maps", "train_data": "photos", "do_train": True, "do_eval": True} | options
    assert run(tmp_path / "run", model=checkpoint, max_steps=1, **options)["data"] == name
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["data"] == name


@pytest.mark.parametrize("options", [{"eval_holdout": 1}, {"eval_holdout": 0.5, "eval_data": "others"}], ids=str)
def test_what_cannot_be_held_out_is_refused(tmp_path, checkpoint, capsys, options):
    root = write_undivided(tmp_path / "photos", "label_maps")
    with pytest.raises(SystemExit):
        run(tmp_path / "run", model=checkpoint, train_format="label_maps", train_data=root, do_eval=True, **options)
    assert "--eval_holdout" in capsys.readouterr().err


WRITERS = {
    "label_maps": lambda root: write_undivided(root, "label_maps"),
    "coco_panoptic": lambda root: write_undivided(root, "coco_panoptic"),
    "coco_instances": lambda root: write_undivided(root, "coco_instances"),
    "ade20k": lambda root: write_ade20k(root, quarters(0, 1, 13, 150)),
    "voc_20": write_voc,
    "cityscapes": write_cityscapes,
}


@pytest.mark.parametrize("format", WRITERS)
def test_no_format_takes_a_split_that_does_not_exist(tmp_path, format):
    root = WRITERS[format](tmp_path)
    load_segmentation_dataset(format, str(root or tmp_path), split="validation")
    with pytest.raises(ValueError, match="nonsense"):
        load_segmentation_dataset(format, str(root or tmp_path), split="nonsense")


def test_a_folder_with_one_split_has_no_other(tmp_path):
    write_label_maps(tmp_path, split="train")
    with pytest.raises(ValueError, match="validation"):
        load_segmentation_dataset("label_maps", str(tmp_path), split="validation")


def label_maps(root):
    return load_segmentation_dataset("label_maps", str(root), split="train")


def test_copies_of_the_training_photos_are_no_validation_photos(tmp_path, checkpoint, capsys):
    root = write_label_maps(tmp_path / "photos", photos=3)
    copies = shutil.copytree(root, tmp_path / "copies")
    for folder in ("images", "labels"):
        for number, path in enumerate(sorted((copies / folder).iterdir())):
            path.rename(path.with_name(f"renamed_{number}{path.suffix}"))
    options = {"train_format": "label_maps", "train_data": root, "eval_data": copies, "do_train": True}
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "run", model=checkpoint, **options, do_eval=True)
    said = " ".join(capsys.readouterr().err.split())
    assert stop.value.code == 2 and not (tmp_path / "run").exists()
    assert "3 of 3 validation photos are training photos, byte for byte: renamed_0, renamed_1, renamed_2." in said
    assert "--eval_holdout 0.1" in said


def test_one_copy_among_many_is_warned_of(tmp_path, caplog):
    training = write_label_maps(tmp_path / "photos", photos=3)
    others = write_label_maps(tmp_path / "others", photos=5, first=10)
    shutil.copy(training / "images" / "2.jpg", others / "images" / "13.jpg")
    options = DataArguments(train_format="label_maps", train_data=str(training), eval_data=str(others))
    assert open_data(options, trains=True, evaluates=True).trained_on == 1
    assert "1 of 5 validation photos are training photos, byte for byte: 13." in caplog.text
    caplog.clear()
    open_data(options, trains=False, evaluates=True)
    (others / "images" / "13.jpg").write_bytes((others / "images" / "12.jpg").read_bytes())
    open_data(options, trains=True, evaluates=True)
    assert "training photos" not in caplog.text


def test_figures_of_shared_photos_say_so_wherever_they_go(tmp_path, checkpoint):
    training = write_label_maps(tmp_path / "photos", photos=3)
    others = write_label_maps(tmp_path / "others", photos=3, first=10)
    shutil.copy(training / "images" / "2.jpg", others / "images" / "11.jpg")
    trained, before = tmp_path / "trained", tmp_path / "before"
    options = {"model": checkpoint, "train_format": "label_maps", "train_data": training, "eval_data": others}
    run(trained, **options, do_train=True, do_eval=True, max_steps=1)
    del options["train_format"], options["train_data"]
    run(before, **options, eval_format="label_maps", do_eval=True)
    reports = [json.loads((folder / "metrics.json").read_text()) for folder in (before, trained)]
    assert "trained_on" not in reports[0] and reports[1]["trained_on"] == 1
    assert "On 3 photos of others, 1 of which it was trained on, in percent:" in (trained / "README.md").read_text()
    report.main(
        [*(str(folder / "metrics.json") for folder in (before, trained)), "--output", str(tmp_path / "report")]
    )
    assert "in percent. trained was trained on 1 of them." in (tmp_path / "report" / "report.md").read_text()


def test_only_the_photos_that_are_used_are_compared(tmp_path, caplog):
    training = write_label_maps(tmp_path / "photos", photos=3)
    others = write_label_maps(tmp_path / "others", photos=3, first=1)
    options = {"train_format": "label_maps", "train_data": str(training), "eval_data": str(others)}
    with pytest.raises(ValueError, match="2 of 3 validation photos are training photos"):
        open_data(DataArguments(**options), trains=True, evaluates=True)
    open_data(DataArguments(**options, max_train_samples=1), trains=True, evaluates=True)
    assert "training photos" not in caplog.text


def test_a_photo_that_is_there_twice_is_not_held_out_without_a_word(tmp_path, caplog):
    root = write_label_maps(tmp_path / "photos", photos=10)
    for folder, ending in (("images", "jpg"), ("labels", "png")):
        for number in range(10):
            path = root / folder / f"{number}.{ending}"
            shutil.copy(path, path.with_name(f"{number} (copy).{ending}"))
    options = DataArguments(train_format="label_maps", train_data=str(root), eval_holdout=0.5)
    for trains in (True, False):
        with pytest.raises(ValueError, match="of 10 validation photos are training photos"):
            open_data(options, trains=trains, evaluates=True)


def test_a_photo_that_was_saved_again_is_another(tmp_path):
    first = write_label_maps(tmp_path / "photos", photos=1)
    again = shutil.copytree(first, tmp_path / "again")
    Image.open(first / "images" / "0.jpg").save(again / "images" / "0.jpg", quality=50)
    assert shared_photos(label_maps(first), label_maps(again)) == []


@pytest.fixture
def rows_of_ten(tmp_path, monkeypatch):
    """A data set in the form of the Hub's, whose rows hold the photos of a folder of label maps as they are stored."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    root = write_label_maps(tmp_path / "photos", photos=10)
    rows = [
        {
            "image_id": number,
            "image": {"bytes": (root / "images" / f"{number}.jpg").read_bytes(), "path": f"{number}.jpg"},
            "label": {"bytes": (root / "labels" / f"{number}.png").read_bytes(), "path": None},
        }
        for number in range(10)
    ]
    columns = {"image_id": datasets.Value("int64"), "image": datasets.Image(), "label": datasets.Image()}
    (tmp_path / "rows").mkdir()
    table = datasets.Dataset.from_list(rows, features=datasets.Features(columns))
    table.to_parquet(tmp_path / "rows" / "train.parquet")
    return {
        "train_format": "hub", "train_data": str(tmp_path / "rows"), "classes": str(root / "classes.txt"),
    }  # fmt: skip


@pytest.mark.parametrize("trains", [True, False])
def test_slices_of_one_split_that_overlap_are_refused_or_warned_of(rows_of_ten, caplog, trains):
    def opened(train_split, eval_split):
        options = DataArguments(**rows_of_ten, train_split=train_split, eval_split=eval_split)
        open_data(options, trains=trains, evaluates=True)

    with pytest.raises(ValueError, match="3 of 5 validation photos are training photos, byte for byte: 5, 6, 7. "):
        opened("train[:80%]", "train[50%:]")
    opened("train[:80%]", "train[80%:]")
    opened("train[:50%]", "train[:50%]")  # asked for by name
    assert "training photos" not in caplog.text
    opened("train[:60%]", "train[50%:]")
    assert "1 of 5 validation photos are training photos, byte for byte: 5." in caplog.text


def test_photos_are_compared_across_formats(rows_of_ten, tmp_path):
    rows = load_segmentation_dataset("hub", rows_of_ten["train_data"], split="train", classes=rows_of_ten["classes"])
    files = label_maps(tmp_path / "photos")
    assert shared_photos(rows.select([3, 5]), files) == [3, 5]
    assert shared_photos(files.select([0]), rows.select([1, 0])) == [1]
