"""Photos of every kind come out in RGB, right side up, with the values that they had."""

import base64
import hashlib
import http.server
import io
import os
import threading
import urllib.parse

import datasets
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from fisa.processing.photos import load_photo, read_photo, read_photos
from tests.quiet import raising_on_any_warning


HEIGHT, WIDTH = 24, 40


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(H, W, 3), uint8: smooth, different in every corner and channel."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    red, green = rows * 255 // (HEIGHT - 1), columns * 255 // (WIDTH - 1)
    return np.stack([red, green, (red + 255 - green) // 2], axis=-1).astype(np.uint8)


def saved(image: Image.Image, file_format: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    buffer.seek(0)
    return buffer


def reopened(image: Image.Image, file_format: str, **options) -> Image.Image:
    return Image.open(saved(image, file_format, **options))


def values(photo: Image.Image) -> np.ndarray:
    assert photo.mode == "RGB"
    return np.asarray(photo)


def test_rgb_is_left_alone_and_not_copied(pixels):
    photo = Image.fromarray(pixels)
    assert load_photo(photo) is photo


@pytest.mark.parametrize(
    "convert",
    [
        lambda a: a,
        lambda a: a.transpose(2, 0, 1),
        lambda a: a[:, ::-1][:, ::-1],
        lambda a: a.astype(np.int64),
        lambda a: a.astype(np.float32),
        lambda a: a.astype(np.float64) / 255,
        lambda a: (a / 255).astype(np.float16),
        lambda a: a.astype(np.uint16) * 257,
        lambda a: a.astype(">u2") * 257,
        lambda a: a.astype(np.int32) * 257,
        lambda a: np.concatenate([a, np.full((HEIGHT, WIDTH, 1), 255, np.uint8)], axis=-1),
        torch.from_numpy,
        lambda a: torch.from_numpy(a).permute(2, 0, 1),
        lambda a: torch.from_numpy(a).permute(2, 0, 1) / 255,
        lambda a: (torch.from_numpy(a) / 255).requires_grad_(),
        lambda a: torch.from_numpy(a).double(),
        lambda a: torch.from_numpy(a).permute(2, 0, 1).int(),
    ],
)
def test_arrays_and_tensors_of_every_type_and_layout(pixels, convert):
    np.testing.assert_array_equal(values(load_photo(convert(pixels))), pixels)


def test_bfloat16(pixels):
    photo = load_photo((torch.from_numpy(pixels) / 255).bfloat16())
    np.testing.assert_allclose(values(photo).astype(int), pixels, atol=1)


def test_grey_arrays_have_three_equal_channels(pixels):
    grey = pixels[..., 0]
    for array in (grey, grey[..., None], grey[None], torch.from_numpy(grey), torch.from_numpy(grey)[None]):
        np.testing.assert_array_equal(values(load_photo(array)), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(values(load_photo(grey > 100))[..., 1], np.where(grey > 100, 255, 0))


@pytest.mark.parametrize(
    "array", [np.zeros((1, 1), np.uint8), np.zeros((1, 1, 3)), torch.zeros(3, 1, 1), torch.zeros(1, 1, 1)]
)
def test_a_single_pixel(array):
    assert load_photo(array).size == (1, 1)


def test_input_data_format_settles_what_a_shape_leaves_open():
    array = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
    assert load_photo(array).size == (5, 3)
    assert load_photo(torch.from_numpy(array)).size == (3, 5)
    assert load_photo(array, input_data_format="channels_first").size == (3, 5)
    with pytest.raises(ValueError, match=r"\(3, 5, 7\)"):
        load_photo(np.zeros((3, 5, 7)), input_data_format="channels_last")


def test_grey_and_grey_with_alpha(pixels):
    grey = Image.fromarray(pixels[..., 0])
    np.testing.assert_array_equal(values(load_photo(grey)), np.stack([pixels[..., 0]] * 3, axis=-1))
    transparent = Image.merge("LA", [grey, Image.new("L", grey.size, 0)])
    assert (values(load_photo(transparent)) == 255).all()
    assert (values(load_photo(np.asarray(transparent))) == 255).all()


def test_transparency_shows_white(pixels):
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, 10:20], alpha[:, 20:] = 128, 255
    rgba = np.dstack([pixels, alpha])
    expected = pixels * (alpha[..., None] / 255) + 255 * (1 - alpha[..., None] / 255)
    for image in (Image.fromarray(rgba), reopened(Image.fromarray(rgba), "PNG"), rgba, torch.from_numpy(rgba)):
        np.testing.assert_allclose(values(load_photo(image)).astype(float), expected, atol=1)


def test_transparency_of_high_photos():
    rgba = np.random.default_rng(0).integers(0, 256, (2100, 3, 4), dtype=np.uint8)
    white = Image.new("RGBA", (3, 2100), "white")
    expected = Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB")
    np.testing.assert_array_equal(values(load_photo(rgba)), np.asarray(expected))


def test_palettes_with_and_without_transparency(pixels):
    palette = Image.fromarray(pixels).quantize(16)
    plain = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(values(load_photo(reopened(palette, "PNG"))), plain)
    seen_through = reopened(palette, "PNG", transparency=3)
    expected = np.where((np.asarray(palette) == 3)[..., None], 255, plain)
    np.testing.assert_array_equal(values(load_photo(seen_through)), expected)
    np.testing.assert_array_equal(values(load_photo(reopened(palette, "GIF", transparency=3))), expected)


def test_a_transparent_colour(pixels):
    pixels = pixels.copy()
    pixels[:5] = (1, 2, 3)
    photo = load_photo(reopened(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3)))
    assert (values(photo)[:5] == 255).all()
    np.testing.assert_array_equal(values(photo)[5:], pixels[5:])


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_and_not_clipped(file_format):
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    image = reopened(Image.fromarray(grey.astype(np.uint16)), file_format)
    assert image.mode.startswith("I")
    np.testing.assert_allclose(values(load_photo(image))[..., 0].astype(float), grey / 257, atol=0.51)


def test_32_bit_modes(pixels):
    grey = pixels[..., 0]
    for array in (
        grey.astype(np.int32),
        grey.astype(np.float32),
        grey.astype(np.float32) / 255,
        grey.astype(np.int32) * 257,
    ):
        np.testing.assert_array_equal(values(load_photo(Image.fromarray(array)))[..., 2], grey)


@pytest.mark.parametrize("mode", ["1", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_other_modes(pixels, mode):
    image = Image.fromarray(pixels)
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    np.testing.assert_array_equal(values(load_photo(image)), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_keeps_its_colours(pixels):
    image = reopened(Image.fromarray(pixels).convert("CMYK"), "JPEG", quality=100, subsampling=0)
    assert image.mode == "CMYK"
    np.testing.assert_allclose(values(load_photo(image)).astype(int), pixels, atol=8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_exif_rotation_is_applied(pixels, orientation, file_format):
    # How a camera held that way stores the upright scene: the EXIF standard's table, row 0 and column 0 of each case.
    upright = pixels
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = reopened(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif)
    np.testing.assert_array_equal(values(load_photo(image)), upright)


def test_a_rotated_16_bit_photo():
    grey = np.linspace(0, 65535, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photo = load_photo(reopened(Image.fromarray(grey), "PNG", exif=exif))
    np.testing.assert_allclose(values(photo)[..., 0].astype(float), np.rot90(grey, -1) / 257, atol=0.51)


def test_the_callers_photo_is_not_changed(pixels):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = reopened(Image.fromarray(pixels), "PNG", exif=exif)
    load_photo(image)
    assert image.getexif()[ExifTags.Base.Orientation] == 6 and image.size == (WIDTH, HEIGHT)
    array = pixels / 255
    before = array.copy()
    load_photo(array)
    np.testing.assert_array_equal(array, before)


@pytest.fixture(scope="module")
def server(pixels, tmp_path_factory):
    """A real web server on this machine, with photo.png and a redirect to it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content = saved(Image.fromarray(np.dstack([pixels, np.full((HEIGHT, WIDTH), 128, np.uint8)])), "PNG").read()

        def do_GET(self):
            self.send_response({"/photo.png": 200, "/moved.png": 302}.get(self.path, 404))
            if self.path == "/moved.png":
                self.send_header("Location", "/photo.png")
            self.end_headers()
            if self.path == "/photo.png":
                self.wfile.write(self.content)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_paths_and_urls_give_what_the_file_holds(pixels, server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    rgba = Image.fromarray(np.dstack([pixels, np.full((HEIGHT, WIDTH), 128, np.uint8)]))
    path = tmp_path / "photo.png"
    rgba.save(path)
    inline = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    expected = values(load_photo(rgba))
    for source in (path, str(path), inline, f"{server}/photo.png", f"{server}/moved.png"):
        np.testing.assert_array_equal(values(load_photo(source, timeout=10)), expected)


def test_greys_that_are_multiplied_by_their_opacity():
    half_clear = Image.new("LA", (3, 2), (200, 100))
    np.testing.assert_array_equal(load_photo(half_clear.convert("La")), load_photo(half_clear))


def test_files_in_every_wrapping(pixels, tmp_path):
    path = tmp_path / "a b#1%20é.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    text = base64.b64encode(content).decode()
    wrappings = {
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "BytesIO": io.BytesIO(content),
        "open file": path.open("rb"),
        "file://": path.as_uri(),
        "file:/, as Java writes it": path.as_uri().replace("file://", "file:"),
        "FILE://": path.as_uri().replace("file:", "FILE:"),
        "base64": text,
        "base64 in lines": base64.encodebytes(content).decode(),
        "data URI": f"data:image/png;base64,{text}",
        "data URI without a type": f"data:;base64,{text}",
        "data URI in per cent": "data:image/png," + urllib.parse.quote(content),
        "undecoded column": {"bytes": content, "path": "elsewhere.png"},
        "undecoded column of paths": {"bytes": None, "path": str(path)},
    }
    for name, source in wrappings.items():
        np.testing.assert_array_equal(values(load_photo(source)), pixels, err_msg=name)
        np.testing.assert_array_equal(values(next(read_photos(source)).image), pixels, err_msg=name)


@pytest.mark.parametrize(
    ("source", "quote"),
    [
        ("absent", "No such file"),
        ("/absent/" + "aaaa" * 20, "No such file"),
        (base64.b64encode(b"no photo at all " * 200).decode(), "nor is it the base64 text"),
        ("s3://bucket/a.png", "addresses start with http"),
        ("a\0b", "null"),
        (b"", "no image format"),
        ({"bytes": None, "path": None}, "NoneType"),
    ],
)
def test_what_is_no_file_is_named_in_one_line(source, quote):
    with pytest.raises((TypeError, ValueError)) as error:
        load_photo(source)
    assert quote in str(error.value) and len(str(error.value)) < 500 and "\n" not in str(error.value)


def test_what_cannot_be_read_is_quoted(server, tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    text = tmp_path / "notes.txt"
    text.write_text("no photo")
    truncated = tmp_path / "half.png"
    content = saved(Image.effect_noise((64, 64), 50), "PNG").read()
    truncated.write_bytes(content[: len(content) // 2])
    for source in (text, truncated, tmp_path / "absent.jpg", f"{server}/absent.png", "data:image/png;base64,AAAA"):
        with pytest.raises(ValueError) as error:
            load_photo(source, timeout=10)
        assert str(source) in str(error.value)


@pytest.mark.parametrize(
    ("image", "quote"),
    [
        (np.zeros((7, 7, 5)), "(7, 7, 5)"),
        (np.zeros(4), "(4,)"),
        (np.zeros((0, 4, 3)), "0 x 4"),
        (Image.new("RGB", (4, 0)), "0 x 4"),
        (np.full((4, 4, 3), -1.0), "-1.0"),
        (np.full((4, 4, 3), 300.0), "300.0"),
        (np.full((4, 4, 3), np.nan), "nan"),
        (np.full((4, 4, 3), np.inf), "inf"),
        (np.full((4, 4, 3), -1), "-1"),
        (np.full((4, 4, 3), 70000), "70000"),
        (np.full((4, 4, 3), 1j), "complex"),
        (np.full((4, 4, 3), "a"), "<U1"),
    ],
)
def test_refuses_what_is_no_photo(image, quote):
    with pytest.raises(ValueError) as error:
        load_photo(image)
    assert quote in str(error.value)


@pytest.mark.parametrize(
    ("array", "white"),
    [
        (lambda a: a.astype(np.uint16), 255),
        (lambda a: np.round(a / 255 * 1023).astype(np.uint16), 1023),
        (lambda a: np.round(a / 255 * 4095).astype(np.uint16), 4095),
        (lambda a: np.round(a / 255 * 16383).astype(np.uint16), 16383),
        (lambda a: np.round(a / 255 * 4095).astype(np.int32), 4095),
        (lambda a: torch.from_numpy(np.round(a / 255 * 4095).astype(np.int32)), 4095),
    ],
)
def test_fewer_bits_than_the_type_holds_are_read_as_such_and_said(pixels, array, white):
    with pytest.warns(UserWarning, match=f"taken as a photo of 0 to {white}"):
        photo = load_photo(array(pixels))
    np.testing.assert_array_equal(values(photo), pixels)


def test_12_bits_in_a_16_bit_file(pixels):
    image = reopened(Image.fromarray(np.round(pixels[..., 0] / 255 * 4095).astype(np.uint16)), "PNG")
    with pytest.warns(UserWarning, match="taken as a photo of 0 to 4095"):
        photo = load_photo(image)
    np.testing.assert_array_equal(values(photo)[..., 0], pixels[..., 0])


def test_what_is_certain_is_not_said(pixels):
    with raising_on_any_warning():
        for array in (pixels, pixels / 255, pixels * 1.0, pixels.astype(np.uint16) * 257, pixels > 100, pixels * 0.0):
            load_photo(array)
        load_photo(np.zeros((4, 4), np.uint16))


def test_a_floating_point_photo_a_little_brighter_than_1_is_said_to_be_dim(pixels):
    with pytest.warns(UserWarning, match=r"1\.2.*0 to 255.*clip the pixels to 0\.\.1"):
        load_photo(pixels / 255 * 1.2)


@pytest.mark.parametrize(
    "mean_and_std", [(OPENAI_CLIP_MEAN, OPENAI_CLIP_STD), (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]
)
def test_normalised_pixels_are_refused(pixels, mean_and_std):
    mean, std = map(np.array, mean_and_std)
    with pytest.raises(ValueError, match="before normalisation"):
        load_photo((pixels / 255 - mean) / std)


def test_a_single_pixel_that_is_no_number_is_refused(pixels):
    for value in (np.nan, np.inf):
        array = pixels / 255
        array[3, 4, 1] = value
        with pytest.raises(ValueError, match="must be numbers"):
            load_photo(array)
        with pytest.raises(ValueError, match="Image 1: .*Pixel values must be numbers"):
            list(read_photos([pixels, Image.fromarray(array[..., 1].astype(np.float32))]))


def test_a_little_overshoot_is_clipped(pixels):
    array = pixels / 255.0
    array[0, 0], array[1, 1] = 1.004, -0.004
    photo = values(load_photo(array))
    assert (photo[0, 0] == 255).all() and (photo[1, 1] == 0).all()
    np.testing.assert_array_equal(photo[2:], pixels[2:])


def test_lists_nested_lists_and_batches_are_read_one_at_a_time(pixels):
    photo = Image.fromarray(pixels)
    assert len(list(read_photos(photo))) == len(list(read_photos(pixels))) == 1
    assert len(list(read_photos([photo, [pixels, (photo,)], np.stack([pixels] * 3)]))) == 6
    assert len(list(read_photos(torch.zeros(5, 3, 4, 4)))) == 5
    assert len(list(read_photos(item for item in (photo, pixels)))) == 2
    column = datasets.Dataset.from_dict({"image": [photo, photo]}, datasets.Features({"image": datasets.Image()}))
    assert len(list(read_photos(column["image"]))) == 2
    photos = read_photos([photo, None])
    assert next(photos).image is photo
    with pytest.raises(ValueError, match="Image 1: .*NoneType"):
        next(photos)


def test_a_pipe_is_read_and_digested():
    content = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(content, "PNG")
    end, start = os.pipe()
    os.write(start, content.getvalue())
    os.close(start)
    with open(end, "rb") as pipe:
        photo = read_photo(pipe, digested=True)
    assert photo.digest == hashlib.sha256(content.getvalue()).hexdigest() and photo.image.size == (4, 3)


def test_a_file_that_can_only_read_and_seek_is_digested(tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(content, "PNG")

    class Plain:
        read, seek, tell = content.read, content.seek, content.tell

    photo = read_photo(Plain(), digested=True)
    assert photo.digest == hashlib.sha256(content.getvalue()).hexdigest() and photo.image.size == (4, 3)
