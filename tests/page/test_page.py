"""The page in a browser, as a person uses it: on a desk and on a phone, with words that are not words."""

import json
import zipfile

import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from fisa.pretrained import patchwork


WORDS = "bird, fish, water [stuff], pizza"
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LONGEST_WAIT = 60_000  # milliseconds


class Visit:
    """A page in a browser, and what a person does there."""

    def __init__(self, browser, address, viewport):
        self.page = browser.new_page(viewport=viewport)
        self.page.set_default_timeout(LONGEST_WAIT)
        self.requests, self.dialogs = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))
        self.page.goto(address)
        self.page.get_by_role("button", name="Find segments").wait_for()

    def upload(self, file):
        self.page.set_input_files("input[type=file]", file)
        self.page.get_by_label("Remove Image").first.wait_for()

    def ask(self, words):
        self.page.locator("#words textarea").fill(words)
        self.page.get_by_role("button", name="Find segments").click()

    def find(self, words):
        self.ask(words)
        self.page.locator("#segments img").wait_for()

    def notice(self, beginning):
        """What the page says instead of an answer, once it begins like this."""
        self.page.wait_for_function(
            "start => document.querySelector('#notice textarea')?.value.startsWith(start)", arg=beginning
        )
        return self.page.locator("#notice textarea").input_value()

    def faults(self):
        """What axe finds serious."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core looks for faults")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            (fault["id"], fault["nodes"][0]["html"]) for fault in found if fault["impact"] in ("serious", "critical")
        ]


@pytest.fixture(params=[DESK, PHONE], ids=["desk", "phone"])
def visit(served, browser, request):
    visit = Visit(browser, served[0], request.param)
    yield visit
    visit.page.close()


@pytest.fixture
def at_desk(served, browser):
    visit = Visit(browser, served[0], DESK)
    yield visit
    visit.page.close()


def test_upload_name_find_click_and_download(visit, tmp_path):
    assert not visit.faults()
    visit.upload(patchwork.SCENES / "easy.jpg")
    visit.find(WORDS)
    page = visit.page
    page.locator("#table").get_by_text("fish").first.wait_for()
    names = [line for line in page.locator("#table").inner_text().split() if line.isalpha() and line in WORDS]
    assert names == ["water", "bird", "fish"]
    assert page.locator("#missing textarea").input_value() == "pizza"

    picture = page.locator("#segments img")
    picture.scroll_into_view_if_needed()
    box = picture.bounding_box()
    picture.click(position={"x": 0.7 * box["width"], "y": 0.3 * box["height"]})
    page.wait_for_function("document.querySelector('#named textarea').value.startsWith('bird: score 0.')")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    assert not visit.faults()

    files = []
    for name in ("Picture", "COCO", "YOLO"):
        with page.expect_download() as started:
            page.get_by_role("button", name=name).or_(page.get_by_role("link", name=name)).first.click()
        files.append(tmp_path / started.value.suggested_filename)
        started.value.save_as(files[-1])
    assert [file.name for file in files] == ["easy_segments.png", "easy_coco.json", "easy_yolo.zip"]
    assert Image.open(files[0]).width == Image.open(patchwork.SCENES / "easy.jpg").width
    coco = json.loads(files[1].read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    areas = {names[entry["category_id"]]: coco_masks.area(entry["segmentation"]) for entry in coco["annotations"]}
    assert areas.keys() == {"water", "bird", "fish"} and max(areas, key=areas.get) == "water"
    with zipfile.ZipFile(files[2]) as archive:
        assert {"data.yaml", "images/easy.jpg", "labels/easy.txt"} <= set(archive.namelist())

    elsewhere = [url for url in visit.requests if "127.0.0.1" not in url and not url.startswith(("data:", "blob:"))]
    assert not elsewhere


def test_an_example_and_a_word_that_is_chosen(at_desk):
    page = at_desk.page
    page.get_by_text("bird, fish, water [stuff], sailboat", exact=False).first.click()
    page.wait_for_function("document.querySelector('#words textarea').value.startsWith('bird, fish')")
    page.locator("#words textarea").fill("bird,")
    page.get_by_label("Or choose a word that the model knows").click()
    page.keyboard.type("pizza")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#words textarea').value === 'bird, pizza'")


def test_words_are_text_and_never_html(at_desk):
    at_desk.upload(patchwork.SCENES / "easy.jpg")
    hostile = "<script>alert(1)</script>", '<img src=x onerror="alert(2)">', "طائر", "鸟", "🐟"
    at_desk.find(", ".join([*hostile, "bird"]))
    assert at_desk.page.locator("#missing textarea").input_value() == ", ".join(hostile)
    at_desk.ask("<b>a</b>, <b>a</b>")
    assert '"<b>a</b>" of class "<b>a</b>"' in at_desk.notice("Names that occur twice")
    at_desk.ask("a" * 5000)
    assert at_desk.notice("A name has 5,000 characters").endswith("Put commas between names.")
    assert not at_desk.dialogs and at_desk.page.locator("img[src='x']").count() == 0


def test_what_is_missing_or_broken_is_said_and_mended(at_desk):
    at_desk.ask(WORDS)
    at_desk.notice("No photo: upload one, paste one, or choose an example.")
    at_desk.page.set_input_files(
        "input[type=file]", {"name": "photo.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    )
    at_desk.page.get_by_label("Remove Image").first.wait_for()
    at_desk.ask(WORDS)
    at_desk.notice("This file is not a picture that can be read")
    at_desk.page.get_by_label("Remove Image").first.click()
    at_desk.upload(patchwork.SCENES / "easy.jpg")
    at_desk.ask(" , ")
    at_desk.notice("No words to look for")
    at_desk.find(WORDS)
    assert not at_desk.page.locator("#notice").is_visible()
