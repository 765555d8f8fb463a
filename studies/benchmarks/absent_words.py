"""What is found of words that are not there, and of those that are: `python -m fisa.studies.benchmarks.absent_words
[--quick]`.

The shipped model looks for 1, 3 and 10 words in the shipped scenes of `validation` and `validation_shifted`: once for
words of Patchwork's that the scene does not show, once for some that it does, among others that it does not. Beside
them compete no others, the words that the model knows, which are Patchwork's, or these and the everyday list, most of
whose words its text tower has never read. Prints a JSON line for each:

- false segments per scene of absent words, and how many of the present words' segments are found, in percent, beside
  those that are found when all of Patchwork's words are asked for;
- the same for wider words, synonyms, spellings and plurals of `studies/patchwork/meanings.tsv`, one asked at a time,
  beside what is found of the same segments by their own names;
- how many of the segments with a score in each fifth are right;
- the time of a scene with others against that without.

A segment is right if it overlaps one of the asked words' by an IoU above 0.5. Each mask is read once (`zoom` 0).
"""

import argparse
import json
import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from fisa import Class, FisaForUniversalSegmentation, FisaProcessor, Vocabulary
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary
from fisa.pretrained import patchwork
from fisa.studies.benchmarks.measure import machine, paired_medians
from fisa.studies.patchwork.dataset import load_patchwork
from fisa.studies.patchwork.words import MEANINGS, WORDS, covered, vocabulary


SPLITS = ("validation", "validation_shifted")
ASKED = (1, 3, 10)
BINS = 5
OWN = {item.name: item for item in vocabulary()}
OTHERS = ("none", "known", "everyday")


@dataclass
class Scene:
    """A scene, its proposals, and its true segments.

    Attributes:
        inputs: what the model takes of it, proposals included.
        truth: the mask, (H, W) bool, and the word of each true segment.
        whole: the true segments that are found if all words are asked for.
        missed: the words of the segments then found that overlap none of theirs.
    """

    inputs: dict[str, torch.Tensor]
    truth: list[tuple[np.ndarray, str]]
    whole: set[int] = field(default_factory=set)
    missed: list[str] = field(default_factory=list)

    @property
    def present(self) -> set[str]:
        """The words that it shows."""
        return {word for _, word in self.truth}

    def of(self, words: Iterable[str]) -> set[int]:
        """Its true segments of some words."""
        return {number for number, (_, word) in enumerate(self.truth) if word in words}


@dataclass(frozen=True)
class Found:
    """A segment of a result: the word it is named by, its score, and the true segment it overlaps, if any."""

    word: str
    score: float
    overlaps: int | None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.absent_words", description=__doc__)
    parser.add_argument("--scenes", type=int, default=120, help="of each split (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="eight scenes of each split")
    options = parser.parse_args()
    search = Search(*patchwork.load())
    for split in SPLITS:
        scenes = list(search.scenes(split, count=8 if options.quick else options.scenes))
        for others in OTHERS:
            for line in (*asked_words(search, split, scenes, others), *other_meanings(search, split, scenes, others)):
                line = {"benchmark": "absent_words", "split": split, "others": others} | line
                print(json.dumps(line | machine()), flush=True)
    print(json.dumps({"benchmark": "absent_words", "case": "time"} | time_of_others(search) | machine()))


class Search:
    """Looks for words in scenes, with the shipped model."""

    def __init__(self, model: FisaForUniversalSegmentation, processor: FisaProcessor) -> None:
        self.model, self.processor = model, processor

    @torch.no_grad()
    def scenes(self, split: str, *, count: int) -> Iterator[Scene]:
        """The first scenes of a split, with what is found in them of all words."""
        for row in load_patchwork(split).select(range(count)):
            inputs = self.processor(images=row["image"], zoom=0, return_tensors="pt")
            outputs = self.model(**inputs)
            proposals = {"mask_proposals": outputs.masks_queries_logits, "objectness": outputs.objectness}
            label = np.asarray(row["label"])
            truth = [(label == info["id"], WORDS[info["category_id"] - 1].name) for info in row["segments_info"]]
            scene = Scene({"pixel_values": inputs["pixel_values"], **proposals}, truth)
            for found in self(scene, list(OWN.values()), others="none"):
                if found.overlaps in scene.of({found.word}):
                    scene.whole.add(found.overlaps)
                else:
                    scene.missed.append(found.word)
            yield scene

    @torch.no_grad()
    def __call__(self, scene: Scene, asked: list[Class], *, others: str) -> list[Found]:
        """What is found of the words that are asked for while others compete."""
        encoded = self.encode(asked, others=others)
        outputs = self.model(**scene.inputs, **encoded)
        (result,) = self.processor.post_process_segmentation(
            outputs, target_sizes=[scene.truth[0][0].shape], id2label=encoded.id2label
        )
        return [Found(segment.label, segment.score, overlapped(result.mask(segment), scene)) for segment in result]

    def encode(self, asked: list[Class], *, others: str) -> EncodedVocabulary:
        """The words and the others of one of `OTHERS`."""
        if others == "none":
            return self.model.encode_vocabulary(self.processor, Vocabulary(asked))
        self.model.config.default_others = others
        return self.model.encode_vocabulary(self.processor, Vocabulary(asked), others="auto")


def overlapped(mask: np.ndarray, scene: Scene) -> int | None:
    """The true segment that a mask overlaps by an IoU above 0.5: one at most, since they do not overlap each other."""
    for number, (truth, _) in enumerate(scene.truth):
        if 2 * (mask & truth).sum() > (mask | truth).sum():
            return number
    return None


def asked_words(search: Search, split: str, scenes: list[Scene], others: str) -> Iterator[dict[str, Any]]:
    """False segments of absent words, recall of present ones, and how far scores can be trusted."""
    right_by_score: dict[int, list[bool]] = defaultdict(list)
    for num_asked in ASKED:
        false = of_absent = num_true = num_found = num_found_of_whole = 0
        for number, scene in enumerate(scenes):
            draw = random.Random(f"{split} {number} {num_asked}")
            absent = [word for word in OWN if not covered(word) & scene.present]
            shown = draw.sample(sorted(scene.present), min(len(scene.present), (num_asked + 1) // 2))
            results = [
                search(scene, [OWN[word] for word in words], others=others)
                for words in (draw.sample(absent, num_asked), [*shown, *draw.sample(absent, num_asked - len(shown))])
            ]
            of_absent += len(results[0])
            for found in (found for result in results for found in result):
                is_right = found.overlaps in scene.of(covered(found.word))
                right_by_score[min(int(found.score * BINS), BINS - 1)].append(is_right)
            false += sum(found.overlaps not in scene.of(covered(found.word)) for found in results[1])
            num_true += len(scene.of(shown))
            num_found += len({found.overlaps for found in results[1] if found.overlaps in scene.of({found.word})})
            num_found_of_whole += len(scene.whole & scene.of(shown))
        yield {
            "asked": num_asked,
            "false_of_absent": of_absent / len(scenes),
            "false_beside_present": false / len(scenes),
            "recall": 100 * num_found / num_true,
            "recall_of_whole": 100 * num_found_of_whole / num_true,
        }
    for fifth, right in sorted(right_by_score.items()):
        yield {
            "case": "reliability",
            "scores_from": fifth / BINS,
            "segments": len(right),
            "right": sum(right) / len(right),
        }


def other_meanings(search: Search, split: str, scenes: list[Scene], others: str) -> Iterator[dict[str, Any]]:
    """Wider words, synonyms, spellings and plurals, one asked for at a time, against the scene's own words."""
    for relation in MEANINGS:
        num_true = num_found = num_found_of_whole = false = false_whole = num_asked = 0
        for number, scene in enumerate(scenes):
            words = [word for word, covers in MEANINGS[relation].items() if covers & scene.present]
            if not words:
                continue
            word = random.Random(f"{split} {number} {relation}").choice(words)
            covers = MEANINGS[relation][word]
            result, meant = search(scene, [Class(word)], others=others), scene.of(covers)
            num_asked += 1
            num_true += len(meant)
            num_found += len({found.overlaps for found in result} & meant)
            num_found_of_whole += len(scene.whole & meant)
            false += sum(found.overlaps not in meant for found in result)
            false_whole += sum(missed in covers for missed in scene.missed)
        yield {
            "case": relation,
            "asked": num_asked,
            "false": false / num_asked,
            "false_of_own_names": false_whole / num_asked,
            "recall": 100 * num_found / num_true,
            "recall_of_own_names": 100 * num_found_of_whole / num_true,
        }


@torch.no_grad()
def time_of_others(search: Search) -> dict[str, float]:
    """CPU seconds of a scene, from pixels to segments, with three words: alone, and with encoded others."""
    photo = load_patchwork("validation")[0]["image"]
    asked = [OWN[word] for word in ("dog", "pizza", "grass")]

    def segmented(encoded: EncodedVocabulary) -> Any:
        outputs = search.model(**search.processor(images=photo, zoom=0, return_tensors="pt"), **encoded)
        return search.processor.post_process_segmentation(
            outputs, target_sizes=[photo.size[::-1]], id2label=encoded.id2label
        )

    encoded = {others: search.encode(asked, others=others) for others in OTHERS}
    sides = {name: (lambda words=words: segmented(words)) for name, words in encoded.items()}
    seconds = paired_medians(sides, rounds=30, clock=time.process_time)
    return {f"{others}_seconds": median for others, median in seconds.items()}


if __name__ == "__main__":
    main()
