"""What SEVE's bound on texts does to scores: `python -m fisa.studies.benchmarks.vocabulary_bound [--quick]`.

The shipped model names the true masks of the shipped validation scenes among its own words and many others: names of
public data sets, then pairs of words. Each way to bound SEVE's texts is held against SEVE attending to all of them.
Prints a JSON line for each: the largest and the mean change of a mask's class probabilities (mean: total variation,
half the sum over classes), how many masks change their name, and how many are named correctly, among all words and
among the model's own. `like_photo` and `like_masks` keep as many texts by similarity to CLIP's embedding of the photo
and to the best that a first pass could give, the mask embeddings of SEVE unbounded.
"""

import argparse
import json
import random
from collections.abc import Iterator
from itertools import product

import numpy as np
import torch
from torch import nn

from fisa import FisaForUniversalSegmentation, FisaProcessor
from fisa.evaluation.oracle import perfect_masks
from fisa.modeling_fisa.encoded_vocabulary import EncodedVocabulary
from fisa.modeling_fisa.mask_classification import class_logits
from fisa.modeling_fisa.semantic_guidance import guiding_texts
from fisa.pretrained import patchwork
from fisa.processing.class_lists import FIRST_IDS, class_list
from fisa.studies.benchmarks.measure import machine
from fisa.studies.patchwork.dataset import load_patchwork
from fisa.studies.patchwork.words import WORDS


CASES = ((10_000, 1024), (10_000, 4096), (100_000, 1024), (100_000, 4096))
Scene = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.benchmarks.vocabulary_bound", description=__doc__)
    parser.add_argument("--scenes", type=int, default=120, help="of the shipped validation scenes (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="ten scenes, ten thousand words")
    options = parser.parse_args()
    cases, num_scenes = (CASES[:2], 10) if options.quick else (CASES, options.scenes)
    model, processor = patchwork.load()
    scenes = list(true_masks(processor, num_scenes))
    for num_words, bound in cases:
        for line in measure(model, processor, scenes, num_words=num_words, bound=bound):
            print(json.dumps(line | machine()), flush=True)


@torch.no_grad()
def measure(
    model: FisaForUniversalSegmentation, processor: FisaProcessor, scenes: list[Scene], *, num_words: int, bound: int
) -> Iterator[dict[str, object]]:
    """What each way to keep `bound` of the texts of `num_words` classes changes."""
    words = [{"name": word.name, "synonyms": word.synonyms} for word in WORDS]
    vocabulary = [*words, *other_words(num_words - len(words))]
    encoded = model.encode_vocabulary(processor, vocabulary)
    texts = encoded.class_embeds
    model.config.seve_max_texts = len(texts)  # `guiding_texts` is called below instead
    changes: dict[str, list[torch.Tensor]] = {}
    for pixels, masks, truth in scenes:
        whole = model.fisa(pixels, masks, class_embeds=texts).mask_embeds
        kept = {
            "all": texts,
            "sample": guiding_texts(texts, at_most=bound),
            "like_photo": texts[most_like(model.fisa.get_image_features(pixels).pooler_output, texts, bound)],
            "like_masks": texts[most_like(whole[0], texts, bound)],
        }
        before = probabilities(model, whole, encoded)
        for name, guides in kept.items():
            embeds = model.fisa(pixels, masks, class_embeds=guides).mask_embeds
            after = probabilities(model, embeds, encoded)
            changes.setdefault(name, []).append(changed(before, after, truth))
    for name, values in changes.items():
        of_masks = torch.cat(values)
        largest = of_masks[:, 0].max().item()
        _, mean, renamed, true, true_of_own = of_masks.mean(dim=0).tolist()
        yield {
            "benchmark": "vocabulary_bound",
            "classes": num_words,
            "texts": len(texts),
            "bound": bound,
            "kept": name,
            "masks": len(of_masks),
            "largest_change": largest,
            "mean_change": mean,
            "renamed": renamed,
            "true": true,
            "true_among_own": true_of_own,
        }


def other_words(count: int) -> list[str]:
    """Names of public data sets that Patchwork does not have, and pairs of all of these, drawn at random."""
    own = [name for word in WORDS for name in (word.name, *word.synonyms)]
    public = [name for data_set in FIRST_IDS for name in class_list(data_set).prompts()]
    pairs = [f"{first} {second}" for first, second in product(own + public[:400], repeat=2)]
    random.Random(0).shuffle(pairs)
    taken, chosen = {name.casefold() for name in own}, []
    for name in [*public, *pairs]:
        if name.casefold() not in taken:
            taken.add(name.casefold())
            chosen.append(name)
    return chosen[:count]


def true_masks(processor: FisaProcessor, count: int) -> Iterator[Scene]:
    """Pixels `(1, 3, h, w)`, masks `(1, G, H, W)` and their classes `(G,)` of each validation scene."""
    for scene in load_patchwork("validation").select(range(count)):
        reference = {"segmentation": np.asarray(scene["label"]), "segments_info": scene["segments_info"]}
        masks, segments = perfect_masks(reference)
        pixels = processor(images=scene["image"], return_tensors="pt")["pixel_values"]
        yield pixels, torch.from_numpy(masks)[None], torch.tensor([info["category_id"] - 1 for info in segments])


def most_like(queries: torch.Tensor, texts: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the texts with the highest cosine to any of the queries `(N, projection_dim)`."""
    queries, texts = nn.functional.normalize(queries, dim=-1), nn.functional.normalize(texts, dim=-1)
    return (queries @ texts.T).amax(dim=0).topk(count).indices


def probabilities(
    model: FisaForUniversalSegmentation, mask_embeds: torch.Tensor, vocabulary: EncodedVocabulary
) -> torch.Tensor:
    """p(class) of each mask among all classes, `(G, num_classes)`."""
    return class_logits(mask_embeds, vocabulary, logit_scale=model.fisa.logit_scale)[0].softmax(dim=-1)


def changed(before: torch.Tensor, after: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Of each mask: largest change, total variation, and whether it is renamed, true, true among the model's words."""
    change = (after - before).abs()
    label = after.argmax(dim=-1)
    flags = (label != before.argmax(dim=-1), label == truth, after[:, : len(WORDS)].argmax(dim=-1) == truth)
    return torch.stack([change.amax(dim=-1), change.sum(dim=-1) / 2, *(flag.float() for flag in flags)], dim=-1)


if __name__ == "__main__":
    main()
