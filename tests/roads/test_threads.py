"""One model, one processor and one pipeline, shared by threads that start together: answers as in turn."""

import random
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle
from threading import Barrier, Event

import numpy as np
import pytest
import torch
from PIL import Image

from fisa import FisaPipeline
from fisa.miniature import miniature


THREADS, CALLS = 8, 100
WORDS = [f"{colour} {thing}" for colour in ("red", "blue", "old") for thing in ("dog", "car", "sky", "road", "wall")]
# More than the 77 tokens that the miniature's tokenizer, of single characters, reads.
LONG = "a house with a red roof, a green door, two windows, a garden and a very long description"
ALL = [*WORDS, LONG]
STORED = (["dog", "sky", "car"], ["wall", "tree", "road"], ["river", "sun", "boat", "cloud", "house"])
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def in_threads(task, *, calls: int = CALLS) -> list:
    """Results of `task(thread, call)` of all threads, which begin at the same moment."""
    barrier = Barrier(THREADS)

    def run(thread: int) -> list:
        barrier.wait()
        return [task(thread, call) for call in range(calls)]

    with ThreadPoolExecutor(THREADS) as pool:
        return [result for results in pool.map(run, range(THREADS)) for result in results]


def chosen(thread: int, call: int) -> list[str]:
    return random.Random(1000 * thread + call).sample(ALL, 3)


JOBS = [chosen(thread, call) for thread in range(THREADS) for call in range(CALLS)]


@pytest.fixture
def one_thread_each():
    """Of torch's own: more than there are cores would measure their quarrel."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:Prompts of more than")
@torch.no_grad()
def test_a_shared_model_encodes_each_calls_own_words(one_thread_each):
    model, processor = miniature()
    other, _ = miniature()
    expected = {word: other.encode_vocabulary(processor, [word]).class_embeds[0] for word in ALL}
    answers = in_threads(lambda *job: model.encode_vocabulary(processor, chosen(*job)).class_embeds)
    for words, embeds in zip(JOBS, answers, strict=True):
        torch.testing.assert_close(embeds, torch.stack([expected[word] for word in words]), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Prompts of more than")
def test_a_shared_processor_tokenizes_each_calls_own_words():
    _, processor = miniature()
    answers = in_threads(lambda *job: processor(text=chosen(*job))["input_ids"])
    _, other = miniature()
    for words, tokens in zip(JOBS, answers, strict=True):
        assert np.array_equal(tokens, other(text=words)["input_ids"])


@pytest.mark.filterwarnings("ignore:Prompts of more than")
def test_a_shared_pipeline_answers_each_call_with_its_own_words(one_thread_each):
    model, processor = miniature()

    def answers(pipeline, words):
        segments = pipeline(PHOTO, candidate_labels=words, threshold=0.0, overlap_mask_area_threshold=0.0)
        assert {segment["label"] for segment in segments} <= set(words)
        return [(segment["label"], round(segment["score"], 4), segment["mask"].tobytes()) for segment in segments]

    shared = FisaPipeline(model=model, processor=processor)
    together = in_threads(lambda *job: answers(shared, chosen(*job)), calls=2)
    other_model, other_processor = miniature()
    alone = FisaPipeline(model=other_model, processor=other_processor)
    in_turn = [answers(alone, chosen(thread, call)) for thread in range(THREADS) for call in range(2)]
    assert together == in_turn
    assert any(together)


@contextmanager
def stored_in_turn(model, processor):
    """Another thread stores one vocabulary after the other all the while, switched to and fro as often as can be."""
    texts, done, interval = [model.fisa.vocabulary_texts(processor, words) for words in STORED], Event(), 2e-5

    def store() -> None:
        for stored in cycle(texts):
            if done.wait(0.001):
                return
            model.fisa.store_vocabulary(*stored)

    before = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    try:
        with ThreadPoolExecutor(1) as pool:
            storing = pool.submit(store)
            try:
                yield
            finally:
                done.set()
            storing.result()
    finally:
        sys.setswitchinterval(before)


def test_an_answer_is_in_the_words_of_one_vocabulary_whatever_another_thread_stores(one_thread_each):
    model, processor = miniature()
    segmenter = FisaPipeline(model=model, processor=processor)

    def answer(**words) -> tuple:
        segments = segmenter(PHOTO, threshold=0.0, overlap_mask_area_threshold=0.0, **words)
        return tuple((segment["label"], round(segment["score"], 4), segment["mask"].tobytes()) for segment in segments)

    possible = [answer(candidate_labels=words, others=None) for words in STORED]
    assert len(set(possible)) == len(STORED)
    model.set_vocabulary(processor, STORED[0])
    with stored_in_turn(model, processor):
        answers = [answer() for _ in range(20)]
    assert set(answers) <= set(possible)


def test_what_competes_is_what_the_model_says_whatever_another_thread_stores():
    model, processor = miniature()  # with which nothing competes
    with stored_in_turn(model, processor):
        rivals = {model.competition("dog, sky", "auto").others for _ in range(3000)}
    assert rivals == {()}
