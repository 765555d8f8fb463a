"""The same server as programs ask it."""

import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, permutations

import pytest
from PIL import Image
from transformers import pipeline

from fisa import FisaPipeline
from fisa.pretrained import patchwork
from tests.page.serving import serving


gradio_client = pytest.importorskip("gradio_client", reason="programs ask the page with Gradio's client")
httpx = pytest.importorskip("httpx")
psutil = pytest.importorskip("psutil")

SCENE = patchwork.SCENES / "easy.jpg"
KNOWN = ("bird", "fish", "water", "pizza", "guitar", "sunglasses", "brick wall")
MOST_GROWTH = 400 * 2**20


@pytest.fixture(scope="module")
def segmenter():
    model, processor = patchwork.load()
    return pipeline("image-segmentation", model, processor=processor, pipeline_class=FisaPipeline)


def asked(client, photo, words):
    return client.predict(gradio_client.handle_file(str(photo)), words, "panoptic", 0.4, 0, api_name="/segment")


def test_fifty_programs_at_once_get_the_answers_to_their_own_questions(served, segmenter):
    address, process, _ = served
    client = gradio_client.Client(address, verbose=False)
    questions = [", ".join(words) for words in islice(permutations(KNOWN, 3), 50)]
    before = psutil.Process(process.pid).memory_info().rss
    with ThreadPoolExecutor(50) as programs:
        answers = list(programs.map(lambda words: asked(client, SCENE, words), questions))
    assert psutil.Process(process.pid).memory_info().rss - before < MOST_GROWTH
    for words, answer in zip(questions, answers):
        wanted = segmenter(SCENE, candidate_labels=words, threshold=0.4, zoom=0, return_type="segmentation")
        found = {(segment["label"], round(segment["score"], 4), segment["area"]) for segment in answer["segments"]}
        assert found == {(segment.label, round(segment.score, 4), segment.area) for segment in wanted}
        assert set(answer["not_found"]) == set(words.split(", ")) - {segment.label for segment in wanted}
        assert (answer["photo"], answer["width"], answer["height"]) == ("easy.jpg", *wanted.size)


def test_a_program_is_told_what_is_wrong(served, tmp_path):
    client = gradio_client.Client(served[0], verbose=False)
    with pytest.raises(Exception, match="No words to look for"):
        asked(client, SCENE, "")
    with pytest.raises(Exception, match="No words to look for"):
        asked(client, SCENE, None)
    (tmp_path / "photo.jpg").write_text("no picture")
    with pytest.raises(Exception, match="not a picture that can be read"):
        asked(client, tmp_path / "photo.jpg", "dog")


def test_a_program_may_name_what_it_says(served):
    client = gradio_client.Client(served[0], verbose=False)
    photo = gradio_client.handle_file(str(SCENE))
    named = client.predict(threshold=0.4, task="panoptic", words="bird", zoom=0, photo=photo, api_name="/segment")
    assert named == asked(client, SCENE, "bird")


def test_who_finds_the_queue_full_is_told(segmenter, monkeypatch):
    """With one place in it instead of a hundred."""
    pytest.importorskip("gradio", reason="the page needs Gradio, the extra `app`")
    from fisa.page import layout

    may_answer, answer = threading.Event(), layout.answer
    monkeypatch.setattr(layout, "MOST_WAITING", 1)
    monkeypatch.setattr(layout, "answer", lambda *asked: may_answer.wait(60) and answer(*asked))
    page = layout.page_of(segmenter, about="")
    try:
        _, server, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
        address = f"{server}gradio_api/call/segment"
        question = {"data": [None, "bird", "panoptic", 0.4, 0]}
        replies = [httpx.post(address, json=question, timeout=60) for _ in range(3)]
        may_answer.set()
        taken = [reply for reply in replies if reply.status_code == 200]
        turned_away = [reply for reply in replies if reply.status_code == 503]
        assert taken and turned_away and len(taken) + len(turned_away) == 3, replies
        assert all("Queue is full" in reply.text for reply in turned_away)
        for reply in taken:
            assert "No photo" in httpx.get(f"{address}/{reply.json()['event_id']}", timeout=60).text
    finally:
        may_answer.set()
        page.close()


@pytest.mark.parametrize("mark", [{"meta": {"_type": "gradio.FileData"}}, {"meta": {}}, {}])
def test_files_of_the_server_are_not_for_programs(served, mark):
    """Whoever names a file instead of uploading one gets nothing."""
    question = {"data": [{"path": str(SCENE)} | mark, "bird", "panoptic", 0.4, 0]}
    address = f"{served[0]}/gradio_api/call/segment"
    event = httpx.post(address, json=question).json()["event_id"]
    answer = httpx.get(f"{address}/{event}", timeout=60).text
    assert answer.startswith("event: error") and "bird" not in answer


def test_addresses_are_not_fetched(served, tmp_path):
    """They could be of the server's own network, or never end."""
    client = gradio_client.Client(served[0], verbose=False)
    photo = {"path": "https://example.com/photo.jpg", "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(Exception, match="not fetched from addresses: upload the file"):
        client.predict(photo, "bird", "panoptic", 0.4, 0, api_name="/segment")


def test_stuff_is_left_out_of_instances(served):
    client = gradio_client.Client(served[0], verbose=False)
    photo = gradio_client.handle_file(str(SCENE))
    answer = client.predict(photo, "bird, water [stuff], pizza", "instance", 0.4, 0, api_name="/segment")
    assert answer["not_found"] == ["pizza"] and answer["left_out"] == ["water"]


def test_uploads_and_answers_are_deleted(segmenter, tmp_path, monkeypatch):
    """After a second instead of ten minutes."""
    pytest.importorskip("gradio", reason="the page needs Gradio, the extra `app`")
    from fisa.page import layout

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    monkeypatch.setattr(layout, "CHECK_SECONDS", 1)
    monkeypatch.setattr(layout, "KEPT_SECONDS", 1)
    photo = tmp_path / "mine.png"
    Image.open(SCENE).save(photo)
    page = layout.page_of(segmenter, about="", examples=[(SCENE, "bird")])
    try:
        _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, ssr_mode=False)
        client = gradio_client.Client(address, verbose=False)
        assert asked(client, photo, "bird")["segments"]
        deadline = time.monotonic() + 30
        while list((tmp_path / "uploads").rglob("mine.png")) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not list((tmp_path / "uploads").rglob("mine.png"))
        assert list((tmp_path / "uploads").rglob("easy.jpg"))  # the examples stay
    finally:
        page.close()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda end: end.name)
def test_nothing_of_an_upload_is_left_when_the_server_ends(tmp_path, end):
    """While a client is still there."""
    photo = tmp_path / "mine.png"
    Image.open(SCENE).save(photo)
    with serving(tmp_path) as (address, process, uploads):
        client = gradio_client.Client(address, verbose=False)
        assert asked(client, photo, "bird")["segments"] and list(uploads.rglob("mine.png"))
        process.send_signal(end)
        assert process.wait(timeout=60) == 0
        assert not [path for path in uploads.rglob("*") if path.is_file()]
