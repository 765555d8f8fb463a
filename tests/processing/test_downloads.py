"""Downloads end: by bytes, by seconds, and by anything but the whole file from an http(s) address."""

import asyncio
import gzip
import http.server
import io
import threading
import time

import pytest
from PIL import Image

from fisa.processing.downloads import download, download_by_fsspec
from fisa.processing.photos import load_photo


PHOTO = io.BytesIO()
Image.new("RGB", (8, 6), "red").save(PHOTO, "PNG")
PHOTO = PHOTO.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """One way to misbehave per path."""

    sent = 0

    def do_GET(self):
        try:
            getattr(self, "answer_" + self.path.strip("/").partition("/")[0])()
        except OSError:  # the client has hung up
            pass

    def answer(self, status: int = 200, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def answer_photo(self):
        self.answer(content=PHOTO)

    def answer_gzip(self):
        self.answer(content=gzip.compress(PHOTO), Content_Encoding="gzip")

    def answer_bomb(self):
        self.answer(content=gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")

    def answer_twice(self):
        self.answer(content=gzip.compress(gzip.compress(PHOTO)), Content_Encoding="gzip, gzip")

    def answer_endless(self):
        self.answer()
        while Handler.sent < 50_000_000:
            self.wfile.write(bytes(1 << 16))
            Handler.sent += 1 << 16

    def answer_drip(self):
        self.answer()
        self.drip(PHOTO)

    def answer_slowhead(self):
        self.drip(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 60)

    def drip(self, content: bytes) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            time.sleep(0.1)

    def answer_short(self):
        self.answer(content=PHOTO[:40], Content_Length=str(len(PHOTO)))

    def answer_part(self):
        self.answer(206, PHOTO[:40], Content_Range=f"bytes 0-39/{len(PHOTO)}")

    def answer_file(self):
        self.answer(302, Location="file:///etc/hostname")

    def answer_ftp(self):
        self.answer(302, Location="ftp://127.0.0.1/photo.png")

    def answer_circle(self):
        self.answer(302, Location="/circle")

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        patch.setenv("NO_PROXY", "127.0.0.1")
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", ["photo", "gzip"])
def test_whole_files(server, path):
    assert download(f"{server}/{path}") == PHOTO
    assert download(f"{server}/{path}", max_bytes=len(PHOTO)) == PHOTO
    with pytest.raises(OSError, match=f"exceeds {len(PHOTO) - 1} bytes.*max_download_bytes"):
        download(f"{server}/{path}", max_bytes=len(PHOTO) - 1)


@pytest.mark.parametrize("path", ["endless", "bomb"])
def test_a_limit_of_bytes_after_decompression(server, path):
    with pytest.raises(ValueError, match=f"{path}.*exceeds 1000000 bytes.*max_download_bytes"):
        load_photo(f"{server}/{path}", max_download_bytes=1_000_000)
    assert Handler.sent < 20_000_000


@pytest.mark.parametrize("path", ["drip", "slowhead"])
def test_a_limit_of_seconds_for_the_whole_transfer(server, path):
    start = time.monotonic()
    with pytest.raises(ValueError, match=rf"{path}.*within 0\.5 seconds.*timeout"):
        load_photo(f"{server}/{path}", timeout=0.5)
    assert time.monotonic() - start < 4


@pytest.mark.parametrize(
    ("path", "quote"),
    [
        ("short", "without sending complete message body"),
        ("part", "206 Partial Content"),
        ("twice", "'gzip, gzip'"),
        ("file", "file://"),
        ("ftp", "ftp://"),
        ("circle", "redirects"),
    ],
)
def test_anything_but_the_whole_file_is_named(server, path, quote):
    with pytest.raises(ValueError) as error:
        load_photo(f"{server}/{path}", timeout=10)
    assert quote in str(error.value) and f"{server}/{path}" in str(error.value)


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/a.png", "s3://bucket/a.png", "http://", "https://[", "http://a b"]
)
def test_other_addresses_are_refused(address):
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_photo(address, timeout=5)


def test_downloads_inside_a_running_event_loop(server):
    async def notebook_cell() -> tuple[int, int]:
        return load_photo(f"{server}/photo").size

    assert asyncio.run(notebook_cell()) == (8, 6)


def test_a_damaged_archive_is_an_error_of_reading(tmp_path):
    (tmp_path / "photos.zip").write_bytes(b"PK no archive")
    with pytest.raises(OSError, match="the archive cannot be read"):
        download_by_fsspec(f"zip://a.jpg::file://{tmp_path / 'photos.zip'}")
