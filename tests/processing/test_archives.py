"""Photos in tar archives: which they are, and what is said of archives that are damaged."""

import io
import os
import tarfile

import numpy as np
import pytest

from fisa.processing.archives import find_member, photos_in_archive, read_member
from fisa.processing.photos import load_photo
from tests.drawn_picture import draw_picture


ENDINGS = {".jpg", ".png"}


def png(angle: int) -> bytes:
    file = io.BytesIO()
    draw_picture().rotate(angle).resize((60, 40)).save(file, format="PNG")
    return file.getvalue()


def write_archive(path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 7
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def names(archive):
    return [address.removeprefix("tar://").removesuffix(f"::{archive}") for address in photos_in_archive(
        archive, endings=ENDINGS
    )]  # fmt: skip


def test_photos_are_read_as_from_files(tmp_path):
    files = {f"deep/{number}::x.png": png(10 * number) for number in range(3)}
    archive = write_archive(tmp_path / "shard.tar", files)
    for address, content in zip(photos_in_archive(archive, endings=ENDINGS), files.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(load_photo(address)), np.asarray(load_photo(content)))
    assert find_member(archive, "deep/1::x.png")[1:3] == (len(files["deep/1::x.png"]), 7)


def test_what_says_something_of_a_photo_is_none(tmp_path):
    files = ["7.jpg", "7.seg.png", "7.json", "7.txt", "holiday.2024.jpg", "._8.jpg", "8.jpg", "deep/7.seg.png"]
    archive = write_archive(tmp_path / "shard.tar", dict.fromkeys(files, b""))
    assert names(archive) == ["7.jpg", "holiday.2024.jpg", "8.jpg", "deep/7.seg.png"]


def test_links_and_names_that_come_twice(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png(3))
    os.link(tmp_path / "a.png", tmp_path / "c.png")
    archive = str(tmp_path / "shard.tar")
    with tarfile.open(archive, "w") as file:
        for name in ("a.png", "c.png", "b.png"):
            file.add(tmp_path / name, name)
        (tmp_path / "b.png").write_bytes(png(5))
        file.add(tmp_path / "b.png", "b.png")
    assert names(archive) == ["a.png", "c.png", "b.png"]
    assert read_member(archive, "c.png") == png(3) and read_member(archive, "b.png") == png(5)


def test_links_are_photos_or_say_where_they_lead(tmp_path):
    """As `tar` writes them: before and behind their files, with dots, from folder to folder, out of the archive."""
    links = {
        "./first.png": "deep/b.png", "./deep/up.png": "../a.png", "./deep/again.png": "up.png",
        "./gone.png": "/data/x.png", "./round.png": "about.png", "./about.png": "round.png", "./folder": "deep",
        "./far.png": "folder/b.png", "./deep/self": "self", "./lost.png": "deep/self/c.png",
    }  # fmt: skip
    archive = str(tmp_path / "shard.tar")
    with tarfile.open(archive, "w") as file:
        for name, target in (
            list(links.items())[:1] + [("./a.png", None), ("./deep/b.png", None)] + list(links.items())[1:]
        ):
            info, content = tarfile.TarInfo(name), b"" if target else png(3 + len(name))
            info.size, info.mtime = len(content), 7
            if target:
                info.type, info.linkname = tarfile.SYMTYPE, target
            file.addfile(info, io.BytesIO(content))
        info = tarfile.TarInfo("./hard.png")
        info.type, info.linkname = tarfile.LNKTYPE, "./first.png"
        file.addfile(info)
    assert names(archive) == [
        "./first.png", "./a.png", "./deep/b.png", "./deep/up.png", "./deep/again.png", "./gone.png", "./round.png",
        "./about.png", "./far.png", "./lost.png", "./hard.png",
    ]  # fmt: skip
    for name in ("./first.png", "./hard.png", "./far.png"):
        assert read_member(archive, name) == png(3 + len("./deep/b.png"))
    for name in ("./deep/up.png", "./deep/again.png"):
        assert read_member(archive, name) == png(3 + len("./a.png"))
    for name, target in (("gone", "/data/x.png"), ("round", r"\./about.png"), ("lost", r"\./deep/self/c.png")):
        with pytest.raises(
            ValueError, match=f"'./{name}.png' is a link to '{target}', and the archive has no such file"
        ):
            load_photo(f"tar://./{name}.png::{archive}")


@pytest.mark.parametrize("holes", ["in the middle", "everywhere", "at the end"])
def test_holes_are_zeros(tmp_path, holes):
    """As `tar --sparse` writes them; Python's own `tarfile` says what is in them."""
    pieces = {"in the middle": [(0, 700), (2000, 400)], "everywhere": [(2400, 0)], "at the end": [(0, 9)]}[holes]
    stored = bytes(range(1, 256)) * 10
    info, plain, path = tarfile.TarInfo("a.png"), tarfile.TarInfo("b.png"), tmp_path / "shard.tar"
    info.size, plain.size = sum(length for _, length in pieces), 300
    info.pax_headers = {
        "GNU.sparse.size": "2400", "GNU.sparse.map": ",".join(str(number) for piece in pieces for number in piece)
    }  # fmt: skip
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        file.addfile(info, io.BytesIO(stored))
        file.addfile(plain, io.BytesIO(stored))
    with tarfile.open(path) as file:
        wanted = file.extractfile("a.png").read()
    assert len(wanted) == 2400 and wanted.count(0) == 2400 - info.size
    assert read_member(str(path), "a.png") == wanted and read_member(str(path), "b.png") == stored[:300]
    assert names(str(path)) == ["a.png", "b.png"] and find_member(str(path), "a.png").size == 2400


def test_colons_are_part_of_any_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in ("a::b", "b", ":c"):
        (tmp_path / place).mkdir()
    contents = {
        archive: {name: png(angle + place) for place, name in enumerate(("dog.png", "x::dog.png", "y:.png"))}
        for angle, archive in zip((10, 20, 30), ("a::b/0.tar", "b/0.tar", ":c/0.tar"))
    }
    for archive, files in contents.items():
        write_archive(archive, files)
        for address, content in zip(photos_in_archive(archive, endings=ENDINGS), files.values(), strict=True):
            np.testing.assert_array_equal(np.asarray(load_photo(address)), np.asarray(load_photo(content)))
    with pytest.raises(ValueError, match="b/0.tar has no file 'cat.png'"):
        load_photo("tar://cat.png::b/0.tar")
    with pytest.raises(ValueError, match="No such file"):
        load_photo("tar://x::cat.png::none/0.tar")


@pytest.mark.parametrize(
    "kind", ["cut in a file", "cut between files", "damaged head", "damaged numbers", "compressed", "no archive"]
)
def test_damaged_archives_give_what_is_whole_and_say_so(tmp_path, kind):
    files = {f"{number}.png": png(number) for number in range(4)}
    archive = write_archive(tmp_path / "shard.tar", files)
    content = (tmp_path / "shard.tar").read_bytes()
    last = find_member(archive, "3.png").offset
    numberless = tarfile.TarInfo("3.png")
    numberless.pax_headers = {"GNU.sparse.map": "0,x"}
    whole, broken = {
        "damaged numbers": (3, content[: last - 512] + numberless.tobuf(tarfile.PAX_FORMAT) + content[last:]),
        "cut in a file": (3, content[: last + 100]),
        "cut between files": (3, content[: last - 512]),
        "damaged head": (3, content[: last - 512] + b"x" * 512 + content[last:]),
        "compressed": (0, b"\x1f\x8b" + content),
        "no archive": (0, b"hello"),
    }[kind]
    (tmp_path / "shard.tar").write_bytes(broken)
    assert names(archive) == [*list(files)[:whole], archive]
    with pytest.raises(ValueError, match="the archive is damaged (behind '2.png'|at its start)"):
        load_photo(archive)
    if whole:
        assert read_member(archive, "2.png") == files["2.png"]
        with pytest.raises(ValueError, match="has no file '3.png'; the archive is damaged"):
            load_photo(f"tar://3.png::{archive}")


def test_archives_that_are_not_there(tmp_path):
    with pytest.raises(ValueError, match="cannot be read as an image: .*No such file"):
        load_photo(f"tar://1.png::{tmp_path / 'none.tar'}")
    empty = write_archive(tmp_path / "empty.tar", {"notes.txt": b""})
    assert names(empty) == [empty]
    with pytest.raises(ValueError, match="an archive without a photo"):
        load_photo(empty)
