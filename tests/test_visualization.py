"""Pictures of segmentations, looked at pixel by pixel; COCO's panoptic format against COCO's own files."""

import io
import json
import math
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from fisa.processing.coco_panoptic import numbered, panoptic_png, panoptic_to_rgb, rgb_to_panoptic, segments_info
from fisa.processing.drawing import FILL_OPACITY, paint
from fisa.processing.palette import instance_colors
from fisa.processing.segmentation import Segmentation
from fisa.visualization import class_colors, draw_segments


def segment(label, size, box, score=0.9):
    mask = Image.new("L", size)
    mask.paste(255, box)
    return {"label": label, "score": score, "mask": mask}


def box_of(changed):
    rows, columns = np.nonzero(changed)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def strokes(photo, picture):
    """Where text was written on the photo: nearly white, as neither photo nor fills nor contours are here."""
    return (np.asarray(picture)[: photo.height, : photo.width] > 180).all(-1)


def color_of(name):
    """In the pictures of this process, where nobody said what was asked for."""
    return class_colors([name])[name]


class TestDrawSegments:
    def test_fills_segments_with_their_classes_colours_and_leaves_the_rest(self):
        photo = Image.new("RGB", (400, 300), (90, 90, 90))
        segments = [segment("dog", photo.size, (20, 20, 180, 280)), segment("cat", photo.size, (250, 20, 380, 280))]
        picture = np.asarray(draw_segments(photo, segments))
        assert (picture[30:270, 190:240] == 90).all()
        for x, name in [(30, "dog"), (260, "cat")]:
            assert np.allclose(picture[40, x], np.mean([(90, 90, 90), color_of(name)], axis=0), atol=1.5)
        assert (picture[20, 100] == color_of("dog")).all()  # the contour

    def test_writes_the_label_well_inside_its_segment(self):
        photo = Image.new("RGB", (400, 300), (90, 90, 90))
        for box in [(20, 20, 180, 120), (200, 100, 390, 290)]:
            left, top, right, bottom = box_of(strokes(photo, draw_segments(photo, [segment("dog", photo.size, box)])))
            assert box[0] < left < right < box[2] and box[1] < top < bottom < box[3]
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            assert abs((left + right) / 2 - middle[0]) < 10 and abs((top + bottom) / 2 - middle[1]) < 10

    def test_labels_keep_clear_of_each_other(self):
        # Two segments around the same centre: a disc and the frame about it.
        photo = Image.new("RGB", (300, 300), (90, 90, 90))
        inner, outer = (
            segment("dog", photo.size, (130, 130, 170, 170)),
            segment("cat", photo.size, (90, 90, 210, 210)),
        )
        alone = [strokes(photo, draw_segments(photo, [one])) for one in (inner, outer)]
        assert (alone[0] & alone[1]).any()
        both = strokes(photo, draw_segments(photo, [outer, inner]))
        assert both.sum() == alone[0].sum() + alone[1].sum()

    def test_scores_are_written_where_there_are_any(self):
        photo = Image.new("RGB", (300, 200), (90, 90, 90))
        with_score, without = (
            strokes(photo, draw_segments(photo, [segment("dog", photo.size, (0, 0, 300, 200), score)])).sum()
            for score in (0.75, None)
        )
        assert with_score > without > 0

    def test_legend_holds_every_class_once_with_its_colour(self):
        photo = Image.new("RGB", (640, 400), (90, 90, 90))
        segments = [segment("dog", photo.size, (i * 40, 0, i * 40 + 30, 90)) for i in range(12)]
        segments.append(segment("sky", photo.size, (0, 200, 640, 400)))
        picture = np.asarray(draw_segments(photo, segments))
        assert picture.shape[1] == 640 and 430 < picture.shape[0] < 500
        legend = picture[400:]
        for name in ("dog", "sky"):
            left, top, right, bottom = box_of((legend == color_of(name)).all(-1))
            assert right - left == bottom - top >= 12
        assert (legend.max(-1) < 60).any()  # names

    def test_columns_of_the_legend_keep_clear_of_each_other(self):
        photo = Image.new("RGB", (1200, 200), (90, 90, 90))
        names = ["giraffe", "elephant", "aeroplane", "traffic light", "wine glass", "cell phone"]
        segments = [segment(name, photo.size, (i * 200, 0, i * 200 + 150, 90)) for i, name in enumerate(names)]
        legend = np.asarray(draw_segments(photo, segments))[200:]
        swatches = [box_of((legend == color_of(name)).all(-1)) for name in names]
        assert len({left for left, *_ in swatches}) > 2
        for left, top, right, bottom in swatches:
            before = legend[top:bottom, max(0, left - round(1.5 * (right - left))) : left]
            assert (before.min(-1) > 235).all()

    def test_long_names_are_shortened_to_twenty_times_the_letters_height(self):
        photo = Image.new("RGB", (64, 64), (90, 90, 90))
        widths = [
            draw_segments(photo, [segment("m" * count, photo.size, (0, 0, 64, 64))]).width for count in (5, 30, 300)
        ]
        em = 12  # of so small a photo
        assert widths[0] < widths[1] == widths[2] <= round(28.6 * em)

    def test_nothing_found_leaves_the_photo_and_says_so(self):
        photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 300, 3), dtype=np.uint8))
        picture = np.asarray(draw_segments(photo, []))
        assert (picture[:120] == np.asarray(photo)).all()
        assert picture.shape[0] > 120 and len(np.unique(picture[120:])) > 10

    @pytest.mark.parametrize("mode", ["L", "1", "RGBA", "P", "I;16", "CMYK"])
    def test_photos_of_any_mode(self, mode):
        photo = Image.new(mode, (64, 48))
        picture = draw_segments(photo, [segment("dog", photo.size, (8, 8, 40, 40))])
        assert picture.mode == "RGB" and picture.width >= 64 and picture.height > 48

    @pytest.mark.parametrize("size", [(1, 1), (1, 500), (900, 2), (5000, 3000)])
    def test_photos_of_any_size(self, size):
        photo = Image.new("L", size, 90)
        picture = draw_segments(
            photo, [segment("dog", size, (0, 0, *size)), segment("a dog’s tail", size, (0, 0, 1, 1))]
        )
        assert picture.width >= size[0] and picture.height > size[1]

    def test_text_grows_with_the_photo(self):
        heights = []
        for width in (400, 1600):
            photo = Image.new("RGB", (width, width), (90, 90, 90))
            _, top, _, bottom = box_of(
                strokes(photo, draw_segments(photo, [segment("dog", photo.size, (0, 0, width, width))]))
            )
            heights.append(bottom - top)
        assert heights[1] > 2.5 * heights[0]

    @pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (4000, 1500), (4000, 400)])
    def test_text_on_a_photo_of_4000_pixels_is_read_on_a_screen(self, size):
        photo = Image.new("RGB", size, (90, 90, 90))
        picture = draw_segments(photo, [segment("HHH", size, (0, 0, *size), None)])
        _, top, _, bottom = box_of(strokes(photo, picture))
        shrunk = 1200 / max(size)  # to a window
        assert (bottom - top) * shrunk >= 8

    def test_forty_segments_have_forty_colours(self):
        photo = Image.new("RGB", (800, 500), (90, 90, 90))
        segments = [
            segment(f"thing {i}", photo.size, (i % 8 * 100 + 5, i // 8 * 100 + 5, i % 8 * 100 + 95, i // 8 * 100 + 95))
            for i in range(40)
        ]
        picture = np.asarray(Segmentation.from_masks(segments, size=photo.size).plot(photo))
        fills = {tuple(picture[i // 8 * 100 + 12, i % 8 * 100 + 12].tolist()) for i in range(40)}
        legend = {tuple(color) for color in picture[500:].reshape(-1, 3).tolist()}
        assert len(fills) == 40 and {color_of(f"thing {i}") for i in range(40)} <= legend

    def test_colours_and_a_font_of_ones_own(self):
        photo = Image.new("RGB", (300, 200), (90, 90, 90))
        segments = [segment("dog", photo.size, (20, 20, 280, 180)), segment("cat", photo.size, (0, 0, 15, 15))]
        own = np.asarray(draw_segments(photo, segments, colors={"dog": (1, 2, 3)}))
        assert (own[20, 100] == (1, 2, 3)).all() and (own[205:] == color_of("cat")).all(-1).any()
        font = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSerif.ttf"
        assert (strokes(photo, draw_segments(photo, segments, font=font)) != strokes(photo, own)).any()
        with pytest.raises(ValueError, match="no font file"):
            draw_segments(photo, segments, font="nothing.ttf")

    def test_labels_of_any_length(self):
        photo = Image.new("RGB", (120, 90), (90, 90, 90))
        labels = ["", "two\nlines", "犬", "word " * 100]
        segments = [segment(label, photo.size, (0, 20 * i, 120, 20 * i + 20)) for i, label in enumerate(labels)]
        assert draw_segments(photo, segments).width < 600

    def test_hidden_segments_do_no_harm(self):
        photo = Image.new("RGB", (120, 90), (90, 90, 90))
        shown = segment("cat", photo.size, (0, 0, 120, 90))
        draw_segments(
            photo, [segment("dog", photo.size, (5, 5, 60, 60)), shown, segment("cow", photo.size, (0, 0, 0, 0))]
        )

    def test_a_mask_of_another_size_is_refused(self):
        with pytest.raises(ValueError, match=r"segment 0 \('dog'\) is \(30, 40\) and the photo \(40, 30\)"):
            draw_segments(Image.new("RGB", (40, 30)), [segment("dog", (30, 40), (0, 0, 5, 5))])

    def test_real_photos(self, coco_sample):
        annotations = json.loads((coco_sample / "annotations" / "panoptic.json").read_text())
        names = {category["id"]: category["name"] for category in annotations["categories"]}
        for entry, info in zip(annotations["annotations"], annotations["images"]):
            photo = Image.open(coco_sample / "images" / info["file_name"])
            ids = rgb_to_panoptic(Image.open(coco_sample / "annotations" / "panoptic" / entry["file_name"]))
            segments = [
                {"label": names[item["category_id"]], "score": None, "mask": Image.fromarray(ids == item["id"])}
                for item in entry["segments_info"]
            ]
            picture = np.asarray(draw_segments(photo, segments))[: photo.height]
            unpainted = (picture == np.asarray(photo)).all(-1)
            assert unpainted[ids == 0].mean() > 0.8 and unpainted[ids > 0].mean() < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (120, 90), (700, 900)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_fills_and_contours_are_those_of_the_plain_rule(size, dtype):
    random = np.random.default_rng(0)
    count = 250 if dtype == torch.uint8 else 300  # more than a byte holds
    blocks = random.integers(0, count + 1, [-(-side // 9) for side in size]).repeat(9, 0).repeat(9, 1)
    ids = blocks[: size[0], : size[1]]
    photo = Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8))
    # Names that take no ink: what is left are fills and contours.
    segmentation = Segmentation.from_map(
        torch.from_numpy(ids).to(dtype), labels=[" " * number for number in range(count)]
    )
    labels = [segment.label for segment in segmentation]
    of_classes = class_colors(labels)
    picture = paint(photo, segmentation.ids.numpy(), segmentation.segments, colors=of_classes)
    picture = np.asarray(picture).astype(int)
    width = max(1, round(max(12, round(math.sqrt(size[0] * size[1]) / 40)) / 14))
    lowest, highest = (f(ids, 2 * width + 1, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter))
    share = np.where(ids == 0, 0, np.where(lowest == highest, FILL_OPACITY, 255))[..., None] / 255
    colors = np.array([(0, 0, 0), *instance_colors(labels, of_classes)])[ids]
    assert np.abs(picture - (share * colors + (1 - share) * np.asarray(photo))).max() <= 1


class TestCocoPanoptic:
    @pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (60, 80)])
    def test_pngs_hold_what_pillow_s_hold(self, size):
        random = np.random.default_rng(0)
        for ids in (random.integers(0, 256**3, size), np.zeros(size, int), random.integers(0, 5, size).cumsum(1)):
            content = panoptic_png(ids)
            Image.open(io.BytesIO(content)).verify()  # its checksums
            picture = Image.open(io.BytesIO(content))
            assert picture.mode == "RGB" and (rgb_to_panoptic(picture) == ids).all()

    def test_any_ids_are_numbered_in_the_order_of_the_segments(self):
        ids = np.random.default_rng(0).integers(-1, 9, (50, 60))
        ids[ids == 8] = 2**40
        infos = [
            {"id": number, "category_id": category} for number, category in ((7, 3), (2**40, 4), (100, 5), (0, 6))
        ]
        found, described = numbered(ids, infos)
        expected = sum(number * (ids == info["id"]) for number, info in enumerate(infos, start=1))
        assert (found == expected).all() and found.dtype == np.int32
        assert [(info["id"], info["category_id"]) for info in described] == [(1, 3), (2, 4), (4, 6)]
        for info in described:
            rows, columns = np.nonzero(expected == info["id"])
            corner, far_corner = (columns.min(), rows.min()), (columns.max() + 1, rows.max() + 1)
            assert info["area"] == len(rows) and info["bbox"] == [*corner, *np.subtract(far_corner, corner)]

    def test_round_trip_of_all_bytes(self):
        ids = np.array([[0, 1, 255, 256], [65535, 65536, 16777214, 16777215]])
        rgb = panoptic_to_rgb(ids)
        assert rgb.dtype == np.uint8 and rgb[0, 3].tolist() == [0, 1, 0]
        assert (rgb_to_panoptic(rgb) == ids).all()

    def test_coco_s_own_files(self, coco_sample):
        annotations = json.loads((coco_sample / "annotations" / "panoptic.json").read_text())
        for entry in annotations["annotations"]:
            rgb = np.asarray(Image.open(coco_sample / "annotations" / "panoptic" / entry["file_name"]))
            ids = rgb_to_panoptic(rgb)
            assert (panoptic_to_rgb(ids) == rgb).all()
            expected = [item | {"iscrowd": 0} for item in entry["segments_info"]]
            found = segments_info(ids, {item["id"]: item["category_id"] for item in expected})
            assert found == sorted(expected, key=lambda item: item["id"])

    def test_segments_of_a_small_map(self):
        ids = np.array([[0, 2, 2], [1, 2, 0]])
        assert json.loads(json.dumps(segments_info(ids, [7, 9]))) == [
            {"id": 1, "category_id": 7, "area": 1, "bbox": [0, 1, 1, 1], "iscrowd": 0},
            {"id": 2, "category_id": 9, "area": 3, "bbox": [1, 0, 2, 2], "iscrowd": 0},
        ]
        assert segments_info(np.zeros((4, 4), dtype=int), []) == []

    @pytest.mark.parametrize("ids", [[[-1, 5]], [[5, 256**3]]])
    def test_ids_that_a_png_cannot_hold_are_refused(self, ids):
        with pytest.raises(ValueError, match="0 to 16777215"):
            panoptic_to_rgb(np.array(ids))

    def test_segments_without_a_category_are_refused(self):
        with pytest.raises(ValueError, match="segment 2"):
            segments_info(np.array([[1, 2]]), [5])
