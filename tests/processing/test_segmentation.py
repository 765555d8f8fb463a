"""Segmentation: what it measures of a map, and the forms that others know."""

import dataclasses
import io
import sys

import numpy as np
import pytest
import supervision
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.segmentation import Segmentation
from fisa.visualization import draw_segments
from tests.processing.proposals import proposals


NAMES = {index: f"word {index}" for index in range(7)}


def test_areas_and_boxes_are_those_of_a_plain_loop():
    for seed in range(10):
        ids = torch.randint(0, 5, (9, 14), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
        ids[ids == 3] = 0  # a segment that is hidden entirely
        ids[: 1 + seed % 4] = 0
        for segment in Segmentation.from_map(ids, labels=["a", "b", "a", "c"]):
            pixels = [(x, y) for y in range(9) for x in range(14) if ids[y, x] == segment.id]
            columns, rows = zip(*pixels) if pixels else ((0, -1), (0, -1))
            box = min(columns), min(rows), max(columns) - min(columns) + 1, max(rows) - min(rows) + 1
            assert segment.area == len(pixels)
            assert segment.box == (box if pixels else (0, 0, 0, 0))


@pytest.mark.parametrize("rule", ["open_vocabulary", "closed_vocabulary"])
@pytest.mark.parametrize("subtask", ["panoptic", "instance"])
def test_transformers_dictionaries_are_made_of_it(rule, subtask):
    outputs = proposals(2, sharpness=4.0)
    outputs.class_is_thing = torch.tensor([[True, False, True, True, False, True, True]])
    processor = FisaImageProcessor(post_processing_rule=rule)
    options = {"threshold": 0.1, "overlap_mask_area_threshold": 0.2, "target_sizes": [(50, 40)]}
    (segmentation,) = processor.post_process_segmentation(outputs, subtask, id2label=NAMES, **options)
    (stock,) = getattr(processor, f"post_process_{subtask}_segmentation")(outputs, **options)
    assert len(segmentation) == len(stock["segments_info"]) > 1
    for segment, info in zip(segmentation, stock["segments_info"]):
        assert (segment.class_id, segment.score, segment.was_fused) == (
            info["label_id"], info["score"], info["was_fused"]
        )  # fmt: skip
        assert segment.label == NAMES[segment.class_id]
        assert segment.is_thing == outputs.class_is_thing[0, segment.class_id]
        np.testing.assert_array_equal(segmentation.mask(segment), stock["segmentation"] == info["id"])


def test_semantic_segments_are_the_classes_of_the_map():
    outputs = proposals(3, sharpness=4.0)
    processor = FisaImageProcessor()
    (segmentation,) = processor.post_process_segmentation(outputs, "semantic", target_sizes=[(50, 40)])
    (labels,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(50, 40)])
    assert [segment.class_id for segment in segmentation] == labels.unique().tolist()
    assert [segment.label for segment in segmentation] == [f"LABEL_{index}" for index in labels.unique().tolist()]
    for segment in segmentation:
        assert segment.score is None and segment.area == (labels == segment.class_id).sum()
        np.testing.assert_array_equal(segmentation.mask(segment), labels == segment.class_id)


def test_segments_of_a_pipeline_go_there_and_back():
    ids = torch.tensor([[1, 1, 0], [2, 2, 3]], dtype=torch.int32)
    segmentation = Segmentation.from_map(ids, labels=["dog", "grass", "dog"], scores=[0.5, None, 0.25])
    again = Segmentation.from_masks(segmentation.to_segments(), size=segmentation.size)
    assert torch.equal(again.ids, ids) and again.segments == segmentation.segments


def test_later_masks_lie_on_top_and_sizes_must_agree():
    whole, right = Image.new("L", (4, 2), 255), Image.new("L", (4, 2))
    right.paste(1, (2, 0, 4, 2))
    segments = [{"label": "sky", "mask": whole}, {"label": "kite", "score": 0.5, "mask": right}]
    assert Segmentation.from_masks(segments, size=(4, 2)).ids.tolist() == [[1, 1, 2, 2]] * 2
    with pytest.raises(ValueError, match=r"segment 0 \('sky'\) is \(4, 2\) and the photo \(2, 4\)"):
        Segmentation.from_masks(segments, size=(2, 4))


def test_resizing_is_that_of_each_mask():
    ids = torch.randint(0, 4, (30, 40), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    segmentation = Segmentation.from_map(ids, labels=["a", "b", "c"])
    resized = segmentation.resized((17, 11))
    for before, after in zip(segmentation.to_segments(), resized.to_segments()):
        expected = before["mask"].resize((17, 11), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(after["mask"], expected)
    assert [segment.label for segment in resized] == ["a", "b", "c"]


def test_it_is_shown_in_a_line():
    ids = torch.zeros(480, 640, dtype=torch.int32)
    whole = Segmentation.from_map(
        ids, labels=["dog", "road"], scores=[0.906, None], are_others=[False, True], asked=("dog", "cat")
    )
    assert repr(whole) == "Segmentation(640x480: dog 0.91, road (other); not found: cat)"
    assert repr(Segmentation.from_map(ids, labels=[])) == "Segmentation(640x480: no segments)"
    many = Segmentation.from_map(ids, labels=["dog"] * 100, asked=tuple(f"word {index}" for index in range(100)))
    assert "dog, and 92 more; not found: word 0, " in repr(many) and len(repr(many)) < 200


@pytest.mark.parametrize("labels", [[], ["dog"]])
def test_a_map_with_more_segments_than_labels_is_refused(labels):
    with pytest.raises(ValueError, match=f"segment 2, and there are {len(labels)} labels"):
        Segmentation.from_map(torch.tensor([[0, 2]]), labels=labels)


@pytest.fixture
def segmentation() -> Segmentation:
    """Of a photo of 6 × 4 pixels: a dog over grass, a second dog that is hidden, and a bone that nobody found."""
    ids = torch.tensor([[0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [2, 1, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2]])
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Segmentation.from_map(
        ids,
        labels=["dog", "grass", "dog"],
        scores=[0.9, 0.8, 0.7],
        are_things=[True, False, True],
        photo=Image.fromarray(pixels),
        asked=("dog", "grass", "bone"),
    )


class TestSegmentsOfOne:
    def test_by_number_and_label(self, segmentation):
        first, second, third = segmentation
        assert len(segmentation) == 3 and segmentation[0] is first and segmentation[-1] is third
        assert segmentation[1:] == (second, third)
        assert segmentation["dog"] == (first, third) and segmentation["bone"] == ()

    def test_a_label_that_nobody_asked_for(self, segmentation):
        with pytest.raises(KeyError, match="'dgo' was not looked for; there are dog, grass, bone"):
            segmentation["dgo"]

    def test_in(self, segmentation):
        assert "dog" in segmentation and segmentation[1] in segmentation
        assert "bone" not in segmentation and 1 not in segmentation

    def test_crop(self, segmentation):
        cut = segmentation.crop(segmentation[0])
        assert (cut.mode, cut.size) == ("RGBA", (2, 2))
        expected = np.asarray(segmentation.photo)[1:3, 1:3]
        np.testing.assert_array_equal(np.asarray(cut.convert("RGB")), expected)
        assert np.asarray(cut)[..., 3].tolist() == [[255, 255], [255, 0]]

    def test_what_is_hidden_cannot_be_cut_out(self, segmentation):
        with pytest.raises(ValueError, match=r"Segment 3 \('dog'\) has no pixels"):
            segmentation.crop(segmentation[2])

    def test_a_segment_of_another_photo_has_no_place_here(self, segmentation):
        other = Segmentation.from_map(torch.tensor([[1, 1]]), labels=["dog"])
        for ask in (segmentation.mask, segmentation.crop):
            with pytest.raises(ValueError, match=r"Segment 1 \('dog'\) is not in Segmentation\(6x4"):
                ask(other[0])


class TestPictures:
    def test_of_the_photo_that_is_kept_or_given(self, segmentation):
        bare = dataclasses.replace(segmentation, photo=None)
        for picture in (segmentation.plot(), bare.plot(segmentation.photo)):
            np.testing.assert_array_equal(np.asarray(picture), np.asarray(draw_segments(segmentation.photo, bare)))
        assert segmentation.plot(legend=False).size == segmentation.photo.size
        with pytest.raises(ValueError, match="holds no photo; pass the one"):
            bare.plot()
        with pytest.raises(ValueError, match=r"\(6, 4\) and the photo \(4, 6\)"):
            bare.plot(segmentation.photo.rotate(90, expand=True))

    def test_colors_that_are_given(self, segmentation):
        picture = np.asarray(segmentation.plot(colors={"grass": np.array([36, 9, 200])}))
        assert (picture == (36, 9, 200)).all(axis=-1).any()
        for color in ("red", (1.0, 0, 0), (256, 0, 0), (1, 2)):
            with pytest.raises(ValueError, match=r"The colour of 'dog' was .*must be \(R, G, B\)"):
                segmentation.plot(colors={"dog": color})

    def test_save(self, segmentation, tmp_path):
        segmentation.save(tmp_path / "new" / "dog.PNG")
        with Image.open(tmp_path / "new" / "dog.PNG") as saved:
            assert saved.format == "PNG"
            np.testing.assert_array_equal(np.asarray(saved), np.asarray(segmentation.plot()))
        with pytest.raises(ValueError, match="no pictures that end in '.segments'"):
            segmentation.save(tmp_path / "dog.segments")
        assert [path.name for path in tmp_path.rglob("*")] == ["new", "dog.PNG"]

    def test_notebooks_show_it_where_there_is_a_photo(self, segmentation):
        png = Image.open(io.BytesIO(segmentation._repr_png_()))
        assert png.format == "PNG" and max(png.size) <= 1024
        assert dataclasses.replace(segmentation, photo=None)._repr_png_() is None


class TestHandedOn:
    def test_coco_tools_decode_it(self, segmentation):
        annotations = segmentation.to_coco([17, 193], image_id=5)
        assert [annotation["category_id"] for annotation in annotations] == [17, 193]  # what is hidden is left out
        for annotation, segment in zip(annotations, segmentation):
            np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), segmentation.mask(segment))
            assert annotation["area"] == coco_mask.area(annotation["segmentation"]) == segment.area
            assert coco_mask.toBbox(annotation["segmentation"]).tolist() == list(segment.box) == annotation["bbox"]
            assert (annotation["image_id"], annotation["score"]) == (5, segment.score)

    def test_coco_without_categories_or_scores(self):
        (annotation,) = Segmentation.from_map(torch.tensor([[1]]), labels=["dog"]).to_coco()
        assert annotation["category_id"] == 1 and "score" not in annotation

    def test_supervision_there_and_back(self, segmentation):
        detections = segmentation.to_supervision()
        assert detections.xyxy.tolist() == [[1, 1, 3, 3], [0, 2, 6, 4]]
        again = Segmentation.from_supervision(detections, size=segmentation.size, photo=segmentation.photo)
        torch.testing.assert_close(again.ids, segmentation.ids, check_dtype=False)
        assert again.segments == segmentation.segments[:2]
        assert again.plot().size == segmentation.plot().size

    def test_supervision_with_nothing(self):
        nothing = Segmentation.from_map(torch.zeros(4, 6, dtype=torch.int32), labels=[])
        again = Segmentation.from_supervision(nothing.to_supervision(), size=(6, 4))
        assert not len(again) and again.ids.shape == (4, 6)

    def test_detections_of_others(self, segmentation):
        boxes = supervision.Detections(np.array([[0.0, 0, 1, 1]]), class_id=np.array([0]))
        with pytest.raises(ValueError, match="1 detections have no masks"):
            Segmentation.from_supervision(boxes, size=(6, 4))
        detections = segmentation.to_supervision()
        with pytest.raises(ValueError, match=r"masks are \(6, 4\) and the photo \(4, 6\)"):
            Segmentation.from_supervision(detections, size=(4, 6))
        detections.data = {}
        with pytest.raises(ValueError, match="have no `class_name`"):
            Segmentation.from_supervision(detections, size=(6, 4))

    def test_pandas(self, segmentation):
        table = segmentation.to_pandas()
        assert table.columns.tolist()[:4] == ["id", "label", "class_id", "score"]
        assert table[["left", "top", "width", "height"]].values.tolist() == [
            list(segment.box) for segment in segmentation
        ]
        assert table.groupby("label")["area"].sum().to_dict() == {"dog": 3, "grass": 11}

    @pytest.mark.parametrize("module", ["hotcoco", "supervision", "pandas"])
    def test_without_its_library(self, module, segmentation, monkeypatch):
        monkeypatch.setitem(sys.modules, module, None)
        method = {"hotcoco": "to_coco", "supervision": "to_supervision", "pandas": "to_pandas"}[module]
        with pytest.raises(
            ImportError, match=rf'needs {module}: install the extra with `pip install "fisa\[formats\]"`'
        ):
            getattr(segmentation, method)()
