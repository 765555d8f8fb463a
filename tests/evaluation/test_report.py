"""What an evaluation leaves: COCO panoptic files that read back, samples, and the report of two of them."""

import json
import unicodedata

import numpy as np
import pytest
from PIL import Image

from fisa.data.formats import load_segmentation_dataset
from fisa.evaluation.headlines import headlines
from fisa.evaluation.report import GAP, PANEL_WIDTH, class_changes, draw_changes, main
from fisa.evaluation.samples import SampleWriter, read_samples
from fisa.processing.coco_panoptic import CocoPanopticWriter
from fisa.visualization import class_colors
from tests.evaluation.plain_metrics import CATEGORIES
from tests.quiet import raising_on_any_warning


LABEL = np.kron(np.array([[70_000, 2], [0, 9]]), np.ones((20, 30), int))
INFOS = [
    {"id": 70_000, "category_id": 1, "iscrowd": 0, "score": 0.75},
    {"id": 2, "category_id": 5, "iscrowd": 0},
    {"id": 9, "category_id": 9, "iscrowd": 1},
]
SEGMENTATION = {"segmentation": LABEL, "segments_info": INFOS}


# Files


def test_segmentations_read_back_as_coco_panoptic(tmp_path):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "images" / "street_1.png")
    (tmp_path / "annotations").mkdir()
    files = CocoPanopticWriter(tmp_path / "annotations" / "panoptic.json", CATEGORIES)
    files.add("street/1", file_name="street_1.png", **SEGMENTATION)
    files.close()
    record = load_segmentation_dataset("coco_panoptic", str(tmp_path), split="validation").check()[0]
    by_category = {info["category_id"]: (record["label"] == info["id"], info) for info in record["segments_info"]}
    for info in INFOS:
        mask, found = by_category[info["category_id"]]
        np.testing.assert_array_equal(mask, LABEL == info["id"])
        assert found["iscrowd"] == info["iscrowd"]
    content = json.loads((tmp_path / "annotations" / "panoptic.json").read_text())
    assert content["images"] == [{"id": "street/1", "file_name": "street_1.png", "height": 40, "width": 60}]
    [person] = [info for info in content["annotations"][0]["segments_info"] if info["category_id"] == 1]
    assert person["score"] == 0.75 and person["area"] == 600 and person["bbox"] == [0, 0, 30, 20]


def test_files_of_several_processes_make_one_list(tmp_path):
    shares = [CocoPanopticWriter(tmp_path / "all.json", CATEGORIES) for _ in range(2)]
    for number in range(4):
        shares[number % 2].add(str(number), file_name=f"{number}.jpg", **SEGMENTATION)
    shares[0].close(shares[1].entries + shares[0].entries)
    content = json.loads((tmp_path / "all.json").read_text())
    assert [annotation["image_id"] for annotation in content["annotations"]] == ["0", "1", "2", "3"]
    assert [image["file_name"] for image in content["images"]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert all((tmp_path / "all" / annotation["file_name"]).exists() for annotation in content["annotations"])


def test_no_photo_of_any_process_takes_the_file_of_another(tmp_path, caplog):
    """Their names are one where slashes are none, on disks without capitals, in another spelling of Unicode, or they
    are too long; and two photos have one name."""
    ids = ["a/b", "a_b", "A_b", "caf\u00e9", "cafe\u0301", "x" * 300, "twice", "twice"]
    listed = []
    for processes in (1, 3):
        path = tmp_path / str(processes) / "all.json"
        writers = [CocoPanopticWriter(path, CATEGORIES) for _ in range(processes)]
        for number, image_id in enumerate(ids, start=1):
            segments, infos = np.ones((number, 2), int), [{"id": 1, "category_id": 1}]
            writer = writers[number % processes]
            writer.add(image_id, file_name="photo.jpg", segmentation=segments, segments_info=infos)
        writers[0].close([entry for writer in writers for entry in writer.entries])
        content = json.loads(path.read_text())
        names = [annotation["file_name"] for annotation in content["annotations"]]
        on_disk = {unicodedata.normalize("NFC", name).casefold() for name in names}
        assert len(on_disk) == len(ids) == len([*path.with_suffix("").iterdir()])
        assert "A_b.png" in names and all(len(name.encode()) < 255 for name in names)
        for image, name in zip(content["images"], names):
            with Image.open(path.with_suffix("") / name) as png:
                assert png.height == image["height"]
        listed.append({annotation["image_id"]: annotation["file_name"] for annotation in content["annotations"]})
    assert listed[0] == listed[1]
    assert '"twice"' in caplog.text


def test_samples_are_the_first_few(tmp_path):
    writer = SampleWriter(tmp_path, CATEGORIES, limit=2)
    for number in range(5):
        writer.add(str(number), Image.new("RGB", (60, 40), (number, 0, 0)), SEGMENTATION, SEGMENTATION)
    writer.close()
    samples = list(read_samples(tmp_path))
    assert [sample.image_id for sample in samples] == ["0", "1"]
    assert [segment.label for segment in samples[0].truth] == ["cat", "sky", "dog"]
    [cat, *_] = prediction = samples[0].prediction
    np.testing.assert_array_equal(prediction.mask(cat), LABEL == 70_000)


def test_names_that_are_one_on_disk_lose_nothing(tmp_path):
    writer = SampleWriter(tmp_path, CATEGORIES)
    for number, image_id in enumerate(("a/b", "a_b")):
        writer.add(image_id, Image.new("RGB", (60, 40), (200 * number, 0, 0)), SEGMENTATION, SEGMENTATION)
    writer.close()
    images = json.loads((tmp_path / "truth.json").read_text())["images"]
    assert len({image["file_name"] for image in images}) == 2
    assert all((tmp_path / image["file_name"]).exists() for image in images)
    reds = {sample.image_id: sample.photo.getpixel((0, 0))[0] for sample in read_samples(tmp_path)}
    assert reds["a/b"] < 10 and reds["a_b"] > 190


# Reports


def evaluation(folder, *, ious=(10.0, 20.0, None), data="photos (val)", oracle="none", samples=True, **more):
    folder.mkdir(parents=True)
    per_class = {category["name"]: {"iou": iou, "accuracy": iou} for category, iou in zip(CATEGORIES, ious)}
    report = {
        "panoptic": {"all": {"pq": ious[0], "sq": 50.0, "rq": 40.0, "n": 3}, "per_class": {}},
        "semantic": {"miou": ious[0], "pixel_accuracy": 60.0, "per_class": per_class},
        "num_images": 2,
        "data": data,
        "oracle": oracle,
    } | more
    (folder / "metrics.json").write_text(json.dumps(report))
    if samples:
        writer = SampleWriter(folder / "samples", CATEGORIES)
        for number in range(2):
            photo = Image.new("RGB", (60, 40), (40 * number, 90, 200))
            writer.add(str(number), photo, SEGMENTATION, SEGMENTATION)
        writer.close()
    return str(folder / "metrics.json")


def test_a_report_of_two_evaluations(tmp_path, capsys):
    before = evaluation(tmp_path / "before")
    after = evaluation(tmp_path / "after", ious=(30.5, 15.0, 40.0), oracle="classifier")
    folder = main([before, after, "--output", str(tmp_path / "report")])
    assert sorted(path.name for path in folder.iterdir()) == ["per_class.png", "report.md", "side_by_side.png"]
    text = (folder / "report.md").read_text()
    assert "| pq | 10.00 | 30.50 | +20.50 |" in text and "after (oracle: classifier)" in text
    assert "On 2 photos of photos (val)" in text
    assert "side_by_side.png" in capsys.readouterr().out


def test_both_predictions_are_drawn_in_the_same_colours(tmp_path):
    folder = main(
        [evaluation(tmp_path / "a"), evaluation(tmp_path / "b"), "--names", "A", "B", "--output", str(tmp_path / "r")]
    )
    sheet = np.asarray(Image.open(folder / "side_by_side.png").convert("RGB"))
    panels = [sheet[32:312, GAP + n * (PANEL_WIDTH + GAP) :][:, :PANEL_WIDTH] for n in range(4)]
    np.testing.assert_array_equal(panels[2], panels[3])
    np.testing.assert_array_equal(panels[1][:100, 300:], panels[2][:100, 300:])  # but for the score that a label shows
    assert (panels[0] != panels[1]).any()
    colors = {tuple(color) for color in sheet[600:].reshape(-1, 3).tolist()}
    names = sorted(category["name"] for category in CATEGORIES)
    assert set(class_colors(names, asked=names).values()) <= colors


def test_names_in_any_script_have_glyphs_in_the_chart_too(tmp_path):
    changes = [("猫", 3.0), ("قطة", -2.0), ("बिल्ली", 1.0), ("дом 🐈", 0.5)]
    with raising_on_any_warning():  # matplotlib warns of glyphs that it lacks
        draw_changes(changes, "PQ", names=("до", "после")).savefig(tmp_path / "chart.png")


def test_the_classes_that_changed_most_come_from_gain_to_loss():
    names = [f"class {number}" for number in range(60)]
    before = {"semantic": {"per_class": {name: {"iou": 50.0} for name in names}}}
    after = {"semantic": {"per_class": {name: {"iou": 50.0 + n - 30} for n, name in enumerate(names)}}}
    after["semantic"]["per_class"]["class 59"]["iou"] = None
    changes, measure = class_changes(before, after)
    assert measure == "IoU" and len(changes) == 24
    assert changes[0] == ("class 58", 28.0) and changes[-1] == ("class 0", -30.0)
    assert all(abs(change) >= 18 for _, change in changes)
    assert class_changes(before, before) == ([], "IoU")


def test_without_samples_or_common_metrics_the_rest_is_written(tmp_path):
    before = evaluation(tmp_path / "a", samples=False)
    after = evaluation(tmp_path / "b", samples=False)
    folder = main([before, after, "--output", str(tmp_path / "r")])
    assert [path.name for path in folder.iterdir()] == ["report.md"]


@pytest.mark.parametrize(
    "change, named",
    [
        ({"data": "other photos"}, ["photos (val)", "other photos"]),
        ({"num_images": 7}, ["num_images", "2", "7"]),
        ({"panoptic": None, "semantic": None}, ["no figures", "--do_eval"]),
    ],
    ids=["other data", "fewer photos", "no figures"],
)
def test_what_cannot_be_compared_is_refused(tmp_path, capsys, change, named):
    before, after = evaluation(tmp_path / "a"), evaluation(tmp_path / "b", **change)
    with pytest.raises(SystemExit):
        main([before, after, "--output", str(tmp_path / "r")])
    message = capsys.readouterr().err
    assert [word for word in named if word not in message] == []


def test_files_that_are_missing_or_no_json_are_named(tmp_path, capsys):
    before = evaluation(tmp_path / "a")
    (tmp_path / "broken.json").write_text("{")
    for path in (tmp_path / "nowhere.json", tmp_path / "broken.json"):
        with pytest.raises(SystemExit):
            main([before, str(path)])
        message = capsys.readouterr().err
        assert path.name in message and len(message.splitlines()) == 1


def test_a_misspelt_option_is_answered_by_the_nearest(capsys):
    with pytest.raises(SystemExit):
        main(["a.json", "b.json", "--out", "r"])  # no abbreviation is taken for another option
    assert "there is no option --out" in capsys.readouterr().err


def test_headlines_leave_out_what_was_not_measured():
    report = {"panoptic": {"all": {"pq": 1.0, "sq": None}}, "num_images": 3}
    assert headlines(report) == {"pq": 1.0}
