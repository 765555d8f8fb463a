"""Formats: what other libraries read is what the shipped model found."""

import base64
import json
import shutil
import zipfile
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import datasets
import hotcoco
import numpy as np
import pytest
import supervision
import torch
import yaml
from PIL import ExifTags, Image, ImageOps
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from supervision.dataset.utils import approximate_mask_with_polygons
from transformers import pipeline

from fisa import FisaPipeline
from fisa.data.formats import load_segmentation_dataset
from fisa.formats import FORMATS, Results, write
from fisa.formats.label_studio import brush_mask
from fisa.formats.polygons import outlines
from fisa.pretrained import patchwork
from fisa.processing.coco_panoptic import CocoPanopticWriter, rgb_to_panoptic
from fisa.processing.photos import load_photo
from fisa.processing.segmentation import Segmentation


WORDS = "tiger, cat, bird, fish, ladybug, mushroom, sand [stuff], wood [stuff], water [stuff]"


@pytest.fixture(scope="module")
def segmentations() -> dict[Path, Segmentation]:
    """What the shipped model finds on its scenes."""
    model, processor = patchwork.load()
    segmenter = pipeline("image-segmentation", model, processor=processor, pipeline_class=FisaPipeline)
    options = {"candidate_labels": WORDS, "return_type": "segmentation"}
    return {scene: segmenter(scene, **options) for scene in sorted(patchwork.SCENES.iterdir())}


@pytest.fixture(scope="module")
def results(segmentations, tmp_path_factory) -> Results:
    names = [word.removesuffix(" [stuff]") for word in WORDS.split(", ")]
    categories = [
        {"id": 10 * number, "name": name, "isthing": number <= 6} for number, name in enumerate(names, start=1)
    ]
    writer = CocoPanopticWriter(tmp_path_factory.mktemp("results") / "panoptic.json", categories)
    for scene, segmentation in segmentations.items():
        panoptic = segmentation.to_panoptic([category["id"] for category in categories])
        writer.add(scene.stem, file_name=str(scene), **panoptic)
    writer.close()
    return Results(writer.path)


def test_results_are_what_was_written(results, segmentations):
    assert len(results) == len(segmentations) == 3
    for photo, (scene, segmentation) in zip(results, segmentations.items()):
        assert (photo.source, photo.name) == (str(scene), scene.stem)
        assert photo.segmentation.segments and len(photo.segmentation) == len(segmentation)
        for found, expected in zip(photo.segmentation, segmentation):
            assert (found.label, found.class_id, found.score, found.is_thing, found.box) == (
                expected.label, expected.class_id, expected.score, expected.is_thing, expected.box
            )  # fmt: skip
        torch.testing.assert_close(photo.segmentation.ids, segmentation.ids, rtol=0, atol=0, check_dtype=False)


@pytest.mark.parametrize("reader", [COCO, hotcoco.COCO])
def test_coco_tools_decode_the_same_masks(reader, results, tmp_path):
    coco = reader(str(write(results, "coco", tmp_path)))
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    for photo in results:
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[photo.id]))
        assert [names[annotation["category_id"]] for annotation in annotations] == [
            s.label for s in photo.segmentation
        ]
        for segment, annotation in zip(photo.segmentation, annotations):
            mask = photo.segmentation.mask(segment)
            np.testing.assert_array_equal(coco.annToMask(annotation), mask)
            assert annotation["area"] == mask.sum() and annotation["score"] == segment.score
            assert list(annotation["bbox"]) == list(segment.box)
    identities = [annotation["id"] for annotation in coco.loadAnns(coco.getAnnIds())]
    assert len(set(identities)) == len(identities) == sum(len(photo.segmentation) for photo in results)


def test_supervision_reads_coco(results, tmp_path):
    data = supervision.DetectionDataset.from_coco(str(patchwork.SCENES), str(write(results, "coco", tmp_path)))
    for photo in results:
        detections = data.annotations[photo.source]
        assert [data.classes[number] for number in detections.class_id] == [s.label for s in photo.segmentation]
        for segment, mask in zip(photo.segmentation, detections.mask, strict=True):
            np.testing.assert_array_equal(mask, photo.segmentation.mask(segment))


def test_polygons_are_the_masks_but_for_their_edges(results, tmp_path):
    path = write(results, "coco-polygons", tmp_path)
    coco, data = COCO(str(path)), supervision.DetectionDataset.from_coco(str(patchwork.SCENES), str(path))
    for photo in results:
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[photo.id]))
        read = zip(photo.segmentation, annotations, data.annotations[photo.source].mask, strict=True)
        for segment, annotation, by_supervision in read:
            assert all(isinstance(polygon, list) for polygon in annotation["segmentation"])
            mask = photo.segmentation.mask(segment)
            assert iou(by_supervision, mask) > 0.998  # parts of one or two pixels have no outline
            # To pycocotools the outline, through the middles of pixels, is half a pixel too small.
            assert iou(coco.annToMask(annotation).astype(bool), mask) > 0.93


def test_supervision_reads_yolo(results, tmp_path):
    folder = write(results, "yolo", tmp_path)
    data = supervision.DetectionDataset.from_yolo(
        str(folder / "images"), str(folder / "labels"), str(folder / "data.yaml")
    )
    assert data.classes == [category["name"] for category in results.categories]
    for photo in results:
        detections = data.annotations[str(folder / "images" / Path(photo.source).name)]
        segmentation = photo.segmentation
        assert set(detections.class_id.tolist()) == {segment.class_id for segment in segmentation}
        for class_id in set(detections.class_id.tolist()):
            # Parts of a segment are lines of their own, so that they are compared together.
            found = detections.mask[detections.class_id == class_id].any(0)
            expected = np.any([segmentation.mask(s) for s in segmentation if s.class_id == class_id], axis=0)
            assert iou(found, expected) > 0.998  # parts of one or two pixels have no outline


def test_yolo_has_what_ultralytics_looks_for(results, tmp_path):
    folder = write(results, "yolo", tmp_path)
    described = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    assert described["names"] == {place: category["name"] for place, category in enumerate(results.categories)}
    for photo in sorted((folder / described["train"]).iterdir()):
        assert photo.read_bytes() == (patchwork.SCENES / photo.name).read_bytes()
        lines = (folder / "labels" / f"{photo.stem}.txt").read_text().splitlines()
        coordinates = np.concatenate([np.array(line.split()[1:], dtype=float) for line in lines])
        assert lines and coordinates.min() >= 0 and coordinates.max() <= 1


def test_segments_too_thin_for_an_outline_have_that_of_their_box(tmp_path):
    """Among outlines, Ultralytics takes a box for two points; where a photo has boxes alone, it drops all outlines."""
    photo = tmp_path / "photo.png"
    Image.new("RGB", (8, 4)).save(photo)
    ids = np.zeros((4, 8), dtype=np.int32)
    ids[0, 0], ids[2, 1:7], ids[:, 7] = 1, 2, 3
    categories = [{"id": number, "name": f"{number}", "isthing": 1} for number in (1, 2, 3)]
    writer = CocoPanopticWriter(tmp_path / "panoptic.json", categories)
    infos = [{"id": number, "category_id": number, "score": 0.5} for number in (1, 2, 3)]
    writer.add("photo", file_name=str(photo), segmentation=ids, segments_info=infos)
    writer.close()
    results = Results(writer.path)
    lines = (write(results, "yolo", tmp_path) / "labels" / "photo.txt").read_text().splitlines()
    polygons = json.loads(write(results, "coco-polygons", tmp_path).read_text())["annotations"]
    for number, line, annotation in zip((1, 2, 3), lines, polygons, strict=True):
        class_id, *shares = line.split()
        corners = np.array(shares, dtype=float).reshape(-1, 2) * (8, 4)
        assert int(class_id) == number - 1
        assert corners.flatten().tolist() == annotation["segmentation"][0]
        runs = coco_mask.frPyObjects(annotation["segmentation"], 4, 8)
        assert np.array_equal(coco_mask.decode(runs)[..., 0] > 0, ids == number)


def test_outlines_are_those_of_the_whole_mask():
    chance = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        for top, left in ((0, 0), (3, 8), (10, 20)):
            mask = np.zeros((30, 40), dtype=bool)
            mask[top : top + 20, left : left + 20] = chance.random((20, 20)) < share
            whole = approximate_mask_with_polygons(mask, bridge_holes=True)
            for polygon, expected in zip(outlines(mask), whole, strict=True):
                np.testing.assert_array_equal(polygon, expected)


def test_json_lines_have_a_photo_each(results, tmp_path):
    lines = write(results, "jsonl", tmp_path).read_text(encoding="utf-8").splitlines()
    for line, photo in zip(lines, results, strict=True):
        row = json.loads(line)
        assert (row["photo"], (row["width"], row["height"])) == (photo.source, photo.segmentation.size)
        for found, segment in zip(row["segments"], photo.segmentation, strict=True):
            assert (found["label"], found["score"], found["is_thing"]) == (
                segment.label, segment.score, segment.is_thing
            )  # fmt: skip
            mask = coco_mask.decode(found["segmentation"])
            np.testing.assert_array_equal(mask, photo.segmentation.mask(segment))


class TestParquet:
    def test_load_dataset_reads_it(self, results, tmp_path):
        folder = write(results, "parquet", tmp_path)
        rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        names = rows.features["segments_info"].feature["category_id"].names
        for row, photo in zip(rows, results, strict=True):
            np.testing.assert_array_equal(np.asarray(row["image"]), np.asarray(Image.open(photo.source)))
            ids = rgb_to_panoptic(np.asarray(row["label"]))
            np.testing.assert_array_equal(ids, photo.segmentation.ids)
            for info, segment in zip(row["segments_info"], photo.segmentation, strict=True):
                assert (info["id"], names[info["category_id"]], info["score"], info["isthing"]) == (
                    segment.id, segment.label, segment.score, segment.is_thing
                )  # fmt: skip

    def test_training_reads_it(self, results, tmp_path):
        data = load_segmentation_dataset("hub", str(write(results, "parquet", tmp_path)), split="train")
        assert [category.name for category in data.categories] == [category["name"] for category in results.categories]
        for record, photo in zip((data[index] for index in range(len(data))), results, strict=True):
            np.testing.assert_array_equal(record["label"], photo.segmentation.ids)

    def test_shards(self, results, tmp_path, monkeypatch):
        monkeypatch.setattr("fisa.formats.parquet.SHARD", 2)
        monkeypatch.setattr("fisa.formats.parquet.GROUP", 1)
        folder = write(results, "parquet", tmp_path)
        assert len(list((folder / "data").iterdir())) == 2
        rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
        assert rows["image_id"][:] == [photo.name for photo in results]


def opacity(brush: list[int]) -> np.ndarray:
    """The fourth channel of a brush mask, read bit by bit as Label Studio's editor does."""
    bits, place = "".join(f"{byte:08b}" for byte in brush), 0

    def read(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    values, width = np.zeros(read(32), np.uint8), read(5) + 1
    sizes, done = [read(4) + 1 for _ in range(4)], 0
    while done < len(values):
        is_run, length = read(1), 1 + read(sizes[read(2)])
        values[done : done + length] = read(width) if is_run else [read(width) for _ in range(length)]
        done += length
    return values.reshape(-1, 4)[:, 3]


class TestLabelStudio:
    def test_brush_masks_are_the_masks(self, results, tmp_path):
        folder = write(results, "label-studio", tmp_path)
        tasks = json.loads((folder / "tasks.json").read_text())
        for task, photo in zip(tasks, results, strict=True):
            for region, segment in zip(task["predictions"][0]["result"], photo.segmentation, strict=True):
                assert region["value"]["brushlabels"] == [segment.label] and region["score"] == segment.score
                assert (region["original_width"], region["original_height"]) == photo.segmentation.size
                mask = photo.segmentation.mask(segment)
                np.testing.assert_array_equal(opacity(region["value"]["rle"]), 255 * mask.ravel())

    @pytest.mark.parametrize(
        "mask",
        [
            np.random.default_rng(0).random((37, 53)) > 0.5,
            np.pad(np.ones((300, 300), bool), ((0, 0), (0, 100))),  # runs longer than the format has at once
            np.ones((128, 128), bool),  # 2 ** 16 values
            np.arange(129 * 128).reshape(129, 128) > 0,
            np.zeros((3, 5), bool),
        ],
    )
    def test_masks_of_every_kind_of_run(self, mask):
        np.testing.assert_array_equal(opacity(brush_mask(mask)), 255 * mask.ravel())

    def test_photos_are_where_tasks_say(self, results, tmp_path):
        folder = write(results, "label-studio", tmp_path / "a folder")
        for task, photo in zip(json.loads((folder / "tasks.json").read_text()), results, strict=True):
            start, _, path = task["data"]["image"].partition("?d=")
            assert start == "/data/local-files/"
            assert (folder.parent / unquote(path)).read_bytes() == Path(photo.source).read_bytes()
        labels = ElementTree.parse(folder / "config.xml").findall("BrushLabels/Label")
        assert [label.get("value") for label in labels] == [category["name"] for category in results.categories]


def test_cvat_has_the_photos_and_their_masks(results, tmp_path):
    with zipfile.ZipFile(write(results, "cvat", tmp_path)) as archive:
        root = ElementTree.fromstring(archive.read("annotations.xml"))
        assert [label.text for label in root.findall("meta/task/labels/label/name")] == [
            category["name"] for category in results.categories
        ]
        for image, photo in zip(root.findall("image"), results, strict=True):
            assert archive.read(f"images/{image.get('name')}") == Path(photo.source).read_bytes()
            size = int(image.get("width")), int(image.get("height"))
            assert size == photo.segmentation.size
            for mask, segment in zip(image.findall("mask"), photo.segmentation, strict=True):
                assert mask.get("label") == segment.label
                left, top, width, height = (int(mask.get(name)) for name in ("left", "top", "width", "height"))
                counts = [int(count) for count in mask.get("rle").split(",")]
                found = np.zeros(size[::-1], bool)
                values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
                found[top : top + height, left : left + width] = values.reshape(height, width)
                np.testing.assert_array_equal(found, photo.segmentation.mask(segment))


def test_control_characters_of_a_photos_name_are_in_no_file(tmp_path):
    photo = tmp_path / "a\x01b\n\x1b.png"
    Image.new("RGB", (8, 6)).save(photo)
    writer = CocoPanopticWriter(tmp_path / "panoptic.json", [{"id": 1, "name": "dog", "isthing": 1}])
    infos = [{"id": 1, "category_id": 1, "score": 0.5}]
    ids = np.ones((6, 8), np.int32)
    writer.add(1, file_name=str(photo), segmentation=ids, segments_info=infos, stem=photo.stem)
    writer.close()
    results = Results(writer.path)
    with zipfile.ZipFile(write(results, "cvat", tmp_path)) as archive:
        (image,) = ElementTree.fromstring(archive.read("annotations.xml")).findall("image")
        assert archive.read(f"images/{image.get('name')}") == photo.read_bytes()
    assert image.get("name") == "a_b__.png"


@pytest.mark.parametrize("format", FORMATS)
class TestEveryFormat:
    def test_written_again_it_is_the_same(self, format, results, tmp_path):
        def content(path: Path) -> dict[str, bytes]:
            files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
            return {str(file.relative_to(tmp_path)): file.read_bytes() for file in files}

        first = content(write(results, format, tmp_path))
        assert first == content(write(results, format, tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == [FORMATS[format].place]

    def test_photos_without_segments(self, format, tmp_path):
        Image.new("RGB", (8, 6)).save(tmp_path / "photo.gif")
        writer = CocoPanopticWriter(tmp_path / "panoptic.json", [{"id": 1, "name": "dog", "isthing": 1}])
        nothing = Segmentation.from_map(torch.zeros(6, 8, dtype=torch.int32), labels=[])
        writer.add(1, file_name=str(tmp_path / "photo.gif"), **nothing.to_panoptic([1]))
        writer.close()
        assert write(Results(writer.path), format, tmp_path / "out").exists()


class TestRefused:
    def test_unknown_formats(self, results, tmp_path):
        with pytest.raises(ValueError, match="no format 'voc'; choose from coco"):
            write(results, "voc", tmp_path)

    def test_folders_of_other_things(self, results, tmp_path):
        (tmp_path / "yolo").mkdir()
        (tmp_path / "yolo" / "diary.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"yolo holds other files \(diary.txt\)"):
            write(results, "yolo", tmp_path)
        assert [path.name for path in tmp_path.rglob("*")] == ["yolo", "diary.txt"]

    @pytest.mark.parametrize("format", ["yolo", "parquet", "label_studio"])
    def test_data_sets_of_the_same_form_that_others_made(self, format, results, tmp_path):
        own = write(results, format.replace("_", "-"), tmp_path)
        (own / ".fisa").unlink()
        before = {path: path.stat().st_mtime_ns for path in own.rglob("*")}
        with pytest.raises(ValueError, match=f"{format} holds other files"):
            write(results, format.replace("_", "-"), tmp_path)
        assert {path: path.stat().st_mtime_ns for path in own.rglob("*")} == before

    def test_photos_that_are_gone(self, results, tmp_path):
        annotations = tmp_path / "panoptic.json"
        content = json.loads(results.maps.with_suffix(".json").read_text())
        content["images"][1]["file_name"] = str(tmp_path / "gone.jpg")
        annotations.write_text(json.dumps(content))
        annotations.with_suffix("").symlink_to(results.maps)
        with pytest.raises(ValueError, match="gone.jpg"):
            write(Results(annotations), "yolo", tmp_path)
        assert not (tmp_path / "yolo").exists() and not list(tmp_path.glob("*.partial"))

    def test_names_that_differ_by_folder_or_capitals_alone_stay_apart(self, results, tmp_path):
        """As other programs list maps; of [`Results`] each format takes the names of its files."""
        content = json.loads(results.maps.with_suffix(".json").read_text())
        names = ["one/photo.png", "two/photo.png", "Photo.png"]
        first = content["annotations"][0]
        content["annotations"] = [first | {"file_name": name} for name in names]
        for name in names:
            path = tmp_path / "panoptic" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(results.maps / first["file_name"], path)
        (tmp_path / "panoptic.json").write_text(json.dumps(content))
        photos = [photo.name for photo in Results(tmp_path / "panoptic.json")]
        assert photos[0] == "photo" and len({name.casefold() for name in photos}) == 3

    def test_other_files_than_cocos(self, tmp_path):
        (tmp_path / "panoptic.json").write_text('{"images": []}')
        with pytest.raises(ValueError, match="has no annotations, categories"):
            Results(tmp_path / "panoptic.json")


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_a_photo_that_its_address_holds_is_copied(tmp_path):
    photo = patchwork.SCENES / "easy.jpg"
    ids = torch.zeros(Image.open(photo).size[::-1], dtype=torch.int32)
    ids[:50, :60] = 1
    writer = CocoPanopticWriter(tmp_path / "panoptic.json", [{"id": 1, "name": "sky", "isthing": 0}])
    content = photo.read_bytes()
    address = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    writer.add(1, file_name=address, **Segmentation.from_map(ids, labels=["sky"]).to_panoptic([1]))
    writer.close()
    folder = write(Results(writer.path), "yolo", tmp_path)
    assert (folder / "images" / "1.jpg").read_bytes() == content


def saved(pixels: np.ndarray, path: Path, *, orientation: int = 1, **options) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(path, exif=exif, **options)
    return path


def test_copies_show_what_was_segmented(tmp_path):
    """To readers that know no transparency, no 16 bits, no floating point, and EXIF in JPEGs alone."""
    colours = np.asarray(Image.open(patchwork.SCENES / "easy.jpg").convert("RGB").resize((40, 30)))
    grey = colours[..., 0]
    seen_through = np.dstack([colours, np.where(grey > 128, 255, 0).astype(np.uint8)])
    files = {
        "as_it_is.jpg": saved(colours, tmp_path / "as_it_is.jpg", orientation=6),
        "is_as_it_was.png": saved(colours, tmp_path / "is_as_it_was.png"),
        "is_png.png": saved(colours, tmp_path / "is_png.jpg", format="PNG"),
        "floats.png": saved(np.float32(grey / 255), tmp_path / "floats.tif"),
        "integers.png": saved(np.int32(grey), tmp_path / "integers.tiff"),
        "12_bits.png": saved(np.uint16(grey) * 16, tmp_path / "12_bits.png"),
        "colours.png": saved(colours, tmp_path / "colours.tif"),
        "seen_through.png": saved(seen_through, tmp_path / "seen_through.png"),
        "turned.png": saved(colours, tmp_path / "turned.webp", orientation=6, lossless=True),
    }
    writer = CocoPanopticWriter(tmp_path / "panoptic.json", [{"id": 1, "name": "sky", "isthing": 0}])
    for path in files.values():
        ids = torch.ones(load_photo(path).size[::-1], dtype=torch.int32)
        writer.add(path.stem, file_name=str(path), **Segmentation.from_map(ids, labels=["sky"]).to_panoptic([1]))
    writer.close()
    images = write(Results(writer.path), "yolo", tmp_path) / "images"
    assert {path.name for path in images.iterdir()} == set(files)
    for name, path in files.items():
        if "is" in name:
            assert (images / name).read_bytes() == path.read_bytes()
        with Image.open(images / name) as copy:
            read = (ImageOps.exif_transpose(copy) if copy.format == "JPEG" else copy).convert("RGB")
        np.testing.assert_array_equal(read, load_photo(path))
