"""One form for all files of segmentations: what `fisa-segment` and `fisa-train` write is alike, key by key."""

import json

import numpy as np
from hotcoco.panoptic import pq_compute
from PIL import Image

from fisa.commands import segment
from fisa.train import train_and_evaluate
from tests.data.made_files import write_coco_panoptic


def forms(value):
    """A file's content with the type of each value in its place, and one item of each list."""
    if isinstance(value, dict):
        return {name: forms(item) for name, item in value.items()}
    if isinstance(value, list):
        kinds = [forms(item) for item in value]
        assert all(kind == kinds[0] for kind in kinds), kinds
        return kinds[:1]
    return type(value).__name__


def read(path):
    """A file's content, without ids that commands choose for themselves, numbers or the data set's own names, and
    without digests of photos, which `fisa-segment` notes."""
    content = json.loads(path.read_text())
    for image, annotation in zip(content["images"], content["annotations"], strict=True):
        assert image.pop("id") == annotation.pop("image_id")
        image.pop("sha256", None)
        with Image.open(path.with_suffix("") / annotation["file_name"]) as png:
            assert png.size == (image["width"], image["height"])
    for category in content["categories"]:
        category["synonyms"] = []
    return content


def test_readers_of_coco_panoptic_take_files_with_words_that_were_not_found(tmp_path, checkpoint, photo):
    photo.save(tmp_path / "photo.png")
    words = ["--labels", "house, tree, sky [stuff]", "--others", "dog, grass", "--threshold", "0"]
    output = tmp_path / "segments"
    arguments = [*words, "--model", str(checkpoint), "--output", str(output)]
    assert segment.main([str(tmp_path / "photo.png"), *arguments]) == 0
    path = output / "panoptic.json"
    content = json.loads(path.read_text())
    [annotation] = content["annotations"]
    ids = np.asarray(Image.open(output / "panoptic" / annotation["file_name"])).astype(int) @ (1, 256, 256**2)
    areas = dict(zip(*(column.tolist() for column in np.unique(ids, return_counts=True))))
    assert areas.pop(0) > 0  # what others won
    assert areas == {info["id"]: info["area"] for info in annotation["segments_info"]}
    named = {info["category_id"] for info in annotation["segments_info"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    assert named and annotation["not_found"] == [names[number] for number in names if number not in named] != []
    quality = pq_compute(path, path)
    assert quality["All"]["pq"] == 1 and quality["All"]["n"] == len(named)
    del annotation["not_found"]
    (output / "plain.json").write_text(json.dumps(content))
    assert pq_compute(output / "plain.json", path, gt_folder=output / "panoptic") == quality


def test_segment_and_train_write_one_form(tmp_path, checkpoint):
    write_coco_panoptic(tmp_path / "data", name="val2017", photos=2)
    photos = next((tmp_path / "data").rglob("*.jpg")).parent
    arguments = ["--labels", "person, grass", "--model", str(checkpoint), "--threshold", "0"]
    assert segment.main([str(photos), *arguments, "--output", str(tmp_path / "segments")]) == 0
    train_and_evaluate(
        [
            *("--model", str(checkpoint), "--eval_format", "coco_panoptic", "--eval_data", str(tmp_path / "data")),
            *("--do_predict", "--use_cpu", "--output_dir", str(tmp_path / "results")),
        ]
    )
    results = tmp_path / "results"
    files = [tmp_path / "segments" / "panoptic.json", results / "predictions.json"]
    files += [results / "samples" / "prediction.json"]
    one, *others = (forms(read(path)) for path in files)
    assert one["images"] == [{"file_name": "str", "height": "int", "width": "int"}]
    assert one["categories"] == [{"id": "int", "name": "str", "isthing": "int", "synonyms": []}]
    [annotation] = one["annotations"]
    assert annotation.pop("not_found") == ["str"]  # beside COCO's own keys, where words were asked for
    assert annotation["segments_info"][0] == {
        "id": "int", "category_id": "int", "area": "int", "bbox": ["int"], "iscrowd": "int", "score": "float",
    }  # fmt: skip
    assert others == [one, one]
