"""Which photos are found, and what their results are called."""

import os
import random
import shutil
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image

from fisa.labelling.overlays import write_overlay
from fisa.labelling.photo_search import PhotoKey, find_photos, photo_keys, result_names
from fisa.processing.photos import load_photo
from fisa.processing.segmentation import Segmentation


@pytest.fixture
def album(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.JPG", "deep/c[1].png", "deep/er/d.png", ".hidden/e.png", "notes.txt"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "album"


def names(found):
    return [os.path.relpath(path, "album") for path in found]


def test_folders_are_searched_and_their_folders_where_asked(album):
    assert names(find_photos(["album"])) == ["a.JPG", "b.png"]
    assert names(find_photos(["album"], recursive=True)) == ["a.JPG", "b.png", "deep/c[1].png", "deep/er/d.png"]


def test_folders_behind_links_are_searched_once(album):
    (album.parent / "disk").mkdir()
    (album.parent / "disk" / "f.png").write_bytes(b"")
    try:
        (album / "deep" / "link").symlink_to(album.parent / "disk")
        (album / "deep" / "back").symlink_to(album)
        (album / "deep" / "twin").symlink_to(album / "deep" / "er")
    except OSError:
        pytest.skip("no symbolic links may be made here")
    found = names(find_photos(["album"], recursive=True))
    assert found == ["a.JPG", "b.png", "deep/c[1].png", "deep/er/d.png", "deep/link/f.png"]


def test_a_link_renames_nothing_that_is_reached_without_it(album):
    before = find_photos(["album"], recursive=True)
    try:
        (album / ".a").symlink_to(album)
        (album / "a").symlink_to(album / "deep" / "er")
        (album / "deep" / "a").symlink_to(album)
    except OSError:
        pytest.skip("no symbolic links may be made here")
    assert find_photos(["album"], recursive=True) == before


@pytest.fixture
def as_nobody():
    """Runs what it is given as a user whom permissions bind, also where tests run as root."""

    def run(function, *arguments, **options):
        own = os.geteuid()
        if own == 0:
            os.seteuid(65534)
        try:
            return function(*arguments, **options)
        finally:
            os.seteuid(own)

    return run


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such permissions")
def test_a_folder_that_may_not_be_listed_is_named(album, as_nobody):
    os.chmod(album.parent, 0o755)
    os.chmod(album / "deep", 0)
    try:
        assert names(as_nobody(find_photos, ["album"], recursive=True)) == ["a.JPG", "b.png", "deep"]
        assert as_nobody(find_photos, ["album/deep"]) == ["album/deep"]
        for pattern in ("album/**/*.*", "album/**", "album/**/d.png", "album/d*/*/d.png", "album/deep/*"):
            assert "album/deep" in as_nobody(find_photos, [pattern, "album/b.png"]), pattern
        assert as_nobody(find_photos, ["album/*.*"]) == ["album/a.JPG", "album/b.png"]  # looks into no folder in it
        with pytest.raises(ValueError, match="'album/deep' cannot be read as an image: Permission denied"):
            as_nobody(load_photo, "album/deep")
    finally:
        os.chmod(album / "deep", 0o755)


def test_brackets_are_a_name_before_they_are_a_pattern(album):
    assert names(find_photos(["album/deep/c[1].png"])) == ["deep/c[1].png"]
    assert names(find_photos(["album/[ab].*"])) == ["a.JPG", "b.png"]


def test_results_are_no_photos_wherever_they_lie(album):
    nothing = Segmentation.from_map(torch.zeros(2, 2, dtype=torch.int32), labels=[])
    for name in ("b_overlay.png", "a_overlay.jpg", "deep/copied_overlay.png"):
        write_overlay(album / name, Image.new("RGB", (2, 2)), nothing)
    for name in ("mine_overlay.png", "mine_overlay.jpg"):
        Image.new("RGB", (2, 2)).save(album / name)
    (album / "panoptic").mkdir()
    (album / "panoptic" / "b.png").write_bytes(b"")
    assert "panoptic/b.png" in names(find_photos(["album"], recursive=True))  # any folder may be called so
    (album / "journal.jsonl").write_text("")
    photos = ["a.JPG", "b.png", "deep/c[1].png", "deep/er/d.png", "mine_overlay.jpg", "mine_overlay.png"]
    assert names(find_photos(["album"], recursive=True)) == photos
    assert names(find_photos(["album/*.png"])) == ["b.png", "mine_overlay.png"]
    assert names(find_photos(["album/b.png", "album/b_overlay.png"])) == ["b.png"]
    (album / "1").symlink_to(album / "panoptic")
    assert names(find_photos(["album"], recursive=True)) == photos
    with pytest.raises(ValueError, match="1 pictures that fisa-segment made"):
        find_photos(["album/1"])
    with pytest.raises(ValueError, match="1 pictures that fisa-segment made"):
        find_photos(["album/deep/*_overlay.png"])


def test_copies_that_a_killed_run_left_half_written_are_no_photos(album):
    before = find_photos(["album"], recursive=True)
    copy = album / "deep" / f"yolo.{'0f' * 16}.partial" / "images" / "b.png"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"")
    assert find_photos(["album"], recursive=True) == before
    assert names(find_photos(["album/**/*.png"])) == ["b.png", "deep/c[1].png", "deep/er/d.png"]


def test_photos_that_are_not_read_are_named_and_what_macos_adds_is_left_out(album):
    for name in ("phone.HEIC", "phone.heif", "new.jxl", "._b.png"):
        (album / name).write_bytes(b"")
    assert names(find_photos(["album"])) == ["a.JPG", "b.png", "new.jxl", "phone.HEIC", "phone.heif"]
    assert names(find_photos(["album/*b.png"])) == ["b.png"]


def test_lists_have_a_photo_per_line(album):
    text = "\ufeffalbum/b.png\r\n  HTTPS://example.com/a.jpg?size=1 \r\n\n# of May\n#\n#1.png\n album/b.png\t\n"
    Path(" of [1].png").write_bytes(b"")
    (album / "list.txt").write_bytes(text.encode() + b" of [1].png\n gone.png\ncaf\xe9.png")
    photos = ["album/b.png", "HTTPS://example.com/a.jpg?size=1", "#1.png", "album/b.png", " of [1].png", "gone.png"]
    photos += ["caf\udce9.png"]
    assert find_photos(["album/list.txt"]) == photos
    assert find_photos(["album/a.JPG", "album/list.txt"]) == ["album/a.JPG", *photos]
    with pytest.raises(ValueError, match="notes.txt is empty"):
        find_photos(["album/notes.txt"])
    (album / "notes.txt").write_text("album/b.png", encoding="utf-16")
    with pytest.raises(ValueError, match="notes.txt: it is not text in UTF-8. Save it"):
        find_photos(["album/notes.txt"])


def test_archives_are_places_where_they_are_named(album):
    with tarfile.open(album / "0.tar", "w") as archive:
        for name in ("a.JPG", "deep/er/d.png", "notes.txt"):
            archive.add(album / name, name)
    shutil.copy(album / "0.tar", album / "1.tar")
    inside = [f"tar://{name}::album/0.tar" for name in ("a.JPG", "deep/er/d.png")]
    both = inside + [address.replace("0.tar", "1.tar") for address in inside]
    assert find_photos(["album/0.tar"]) == inside and find_photos(["album/*.tar"]) == both
    (album / "list.txt").write_text("album/0.tar\nalbum/1.tar\n")
    assert find_photos(["album/list.txt"]) == both
    assert names(find_photos(["album"])) == names(find_photos(["album/*"])) == ["a.JPG", "b.png"]
    keys = photo_keys(both, album / "results")
    assert keys[0].place == "tar://a.JPG::../0.tar" and keys == photo_keys(both, album / "results")
    wanted = ["a", "d", *(name for name in result_names(keys)[2:])]
    assert result_names(keys) == wanted and len(set(wanted)) == 4


def test_photos_of_an_archive_in_a_folder_with_colons_keep_their_names(album, monkeypatch):
    (album / "a::b").mkdir()
    with tarfile.open(album / "a::b" / "0.tar", "w") as archive:
        for name in ("a.JPG", "deep/er/d.png"):
            archive.add(album / name, name)
    photos = find_photos(["album/a::b/0.tar"])
    keys = photo_keys(photos, album / "results")
    assert result_names(keys) == ["a", "d"]
    monkeypatch.chdir(album)
    assert photo_keys([photo.replace("album/", "") for photo in photos], album / "results") == keys


def test_names_do_not_depend_on_the_order_or_on_what_is_done():
    places = ["a/x.png", "b/x.png", "b/X.jpg", "c/y.png", "https://example.com/x.png?size=1", "z" * 250 + ".png"]
    keys = [*(PhotoKey(place) for place in places), PhotoKey("a/x.png", 2)]
    wanted = dict(zip(keys, result_names(keys)))
    assert wanted[keys[0]] == "x" and wanted[keys[3]] == "y" and wanted[keys[-1]] == "x-2"
    assert len({name.lower() for name in wanted.values()}) == len(keys)
    assert all(len(f"{name}_overlay.png.{'0' * 5}") < 256 for name in wanted.values())
    chance = random.Random(0)
    for _ in range(50):
        order = chance.sample(keys, len(keys))
        done = {key: wanted[key] for key in chance.sample(keys, chance.randrange(len(keys)))}
        assert dict(zip(order, result_names(order, done))) == wanted


def test_a_photo_that_comes_later_takes_no_name_that_is_given():
    earlier = {PhotoKey("b/x.png"): "x"}
    first, second = result_names([PhotoKey("a/x.png"), PhotoKey("b/x.png")], earlier)
    assert second == "x" and first.startswith("x-")


def test_photos_are_known_again_from_another_working_directory(album, monkeypatch):
    folder = album.parent / "out"
    before = photo_keys(["album/b.png", str(album / "a.JPG"), "https://example.com/x.png"], folder)
    monkeypatch.chdir(album)
    assert photo_keys(["b.png", "./a.JPG", "https://example.com/x.png"], folder) == before
