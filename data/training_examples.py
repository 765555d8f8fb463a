"""From records to batches: each photo with its training masks and its own vocabulary, drawn again in each pass."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from fisa.data.augmentation import Augmentation
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.data.training_masks import MaskSource
from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.processing.processing_fisa import FisaProcessor


@dataclass(frozen=True)
class VocabularySampler:
    """Draws the vocabulary that a photo is trained with: its own classes and random others, under any of their names.

    With one list of classes for all photos SEVE would learn that list by heart. There is one vocabulary per photo and
    not per batch, so that they vary more and a photo's loss does not depend on its neighbours.

    Args:
        prompt_class_ids: the class of each name, `(S,)`; names of a class are next to each other.
    """

    prompt_class_ids: Sequence[int]

    def draw(self, present: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw an order of all classes, those on the photo first; the batch cuts it off at its vocabulary's size.

        Args:
            present: class indices on the photo, each once.

        Returns:
            the classes in their order `(C,)`, and one name of each `(C,)`, an index into the S names.
        """
        firsts = np.flatnonzero(np.diff(self.prompt_class_ids, prepend=-1))
        counts = np.diff(firsts, append=len(self.prompt_class_ids))
        others = random.permutation(np.setdiff1d(np.arange(len(firsts)), present))
        classes = np.concatenate([present, others])
        names = firsts + (random.random(len(firsts)) * counts).astype(np.int64)
        return classes, names[classes]


@dataclass(frozen=True)
class ExampleMaker:
    """Makes training examples of records. What is random depends on the seed, the pass and the photo alone, so that a
    run that is resumed, or shared out between processes and workers, sees what it would have seen.

    Args:
        processor: prepares the photos.
        masks: where the training masks come from.
        class_indices: class index of each category id.
        sampler: draws the vocabularies.
        augmentation: changes the photos.
        seed: of everything random.
    """

    processor: FisaProcessor
    masks: MaskSource
    class_indices: Mapping[int, int]
    sampler: VocabularySampler
    augmentation: Augmentation
    seed: int

    def __call__(self, record: Mapping[str, Any], *, index: int, epoch: int) -> dict[str, Any]:
        """One example.

        Returns:
            `pixel_values (3, H, W)`, what the source of masks gives, with `class_labels` as places in `prompt_ids`
            `(C,)`, names in the order of the photo's vocabulary, of which the first `num_present` are on the photo.
        """
        random = np.random.default_rng((self.seed, epoch, index))
        change = self.augmentation.draw(random)
        present = sorted({self.class_indices[s["category_id"]] for s in record["segments_info"] if not s["iscrowd"]})
        classes, prompt_ids = self.sampler.draw(np.array(present, np.int64), random)

        example = self.masks(record, change, index=index)
        places = np.empty(len(classes), np.int64)
        places[classes] = np.arange(len(classes))
        labels = example["class_labels"]
        labels = torch.where(labels == IGNORED, IGNORED, torch.from_numpy(places)[labels.clamp(min=0)])
        # Only the generator needs its own, larger view of the photo.
        size = self.processor.image_processor.mask_generator_size if self.masks.wants_generator_view else None
        inputs = self.processor.image_processor(
            change.photo(record["image"]), return_tensors="pt", mask_generator_size=size, zoom=0
        )
        return {
            **example,
            **{name: tensor[0] for name, tensor in inputs.items()},
            "class_labels": labels,
            "prompt_ids": torch.from_numpy(prompt_ids),
            "num_present": len(present),
        }


class _Passes:
    """Knows which pass over the data this is. The number lies in shared memory, for worker processes that outlive a
    pass."""

    def __init__(self):
        self._epoch = torch.zeros((), dtype=torch.long).share_memory_()

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each pass."""
        self._epoch.fill_(epoch)


class TrainingExamples(_Passes, Dataset):
    """Training examples of a data set, drawn again in each pass."""

    def __init__(self, data: SegmentationDataset, maker: ExampleMaker):
        super().__init__()
        self.data, self.maker = data, maker

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.maker.masks.needs_label:
            record = self.data[index]
        else:
            record = {"image": self.data.image(index), "segments_info": self.data.segments_info(index)}
        return self.maker(record, index=index, epoch=self.epoch)


class StreamedTrainingExamples(_Passes, IterableDataset):
    """Training examples of a data set that comes in as a stream."""

    def __init__(self, data: StreamedSegmentationDataset, maker: ExampleMaker):
        super().__init__()
        self.data, self.maker = data, maker

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index, record in enumerate(self.data):
            yield self.maker(record, index=index, epoch=self.epoch)


@dataclass(frozen=True)
class TrainingCollator:
    """Makes a batch of examples.

    Args:
        prompt_embeds: text embeddings of all S names, `(S, projection_dim)`, computed once: the text tower is frozen.
        vocabulary_size: how many classes a photo chooses from; more where a photo of the batch has more.
        log_priors: what is added to the logits of each name in the loss, `(S,)`; see [`log_frequencies`].
    """

    prompt_embeds: torch.Tensor
    vocabulary_size: int
    log_priors: torch.Tensor | None = None

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """Returns what `forward` takes: with `class_embeds (B, K, projection_dim)`, and either ready
        `mask_proposals (B, N, rows, columns)` and `class_labels (B, N)`, padded with proposals that teach nothing,
        with `patch_segments (B, rows * columns)` where the examples have them, or the generator's inputs and lists of
        `mask_labels` and `class_labels`."""
        size = max(self.vocabulary_size, *(example["num_present"] for example in examples))
        prompt_ids = torch.stack([example["prompt_ids"] for example in examples])[:, :size]
        batch = {
            name: torch.stack([example[name] for example in examples])
            for name in (
                "pixel_values",
                "mask_generator_pixel_values",
                "mask_generator_pixel_mask",
                "patch_segments",
            )
            if name in examples[0]
        }
        batch["class_embeds"] = self.prompt_embeds[prompt_ids]
        if self.log_priors is not None:
            batch["class_log_priors"] = self.log_priors[prompt_ids]
        masks, labels = ([example.get(name) for example in examples] for name in ("mask_proposals", "class_labels"))
        if "mask_labels" in examples[0]:
            return batch | {"mask_labels": [example["mask_labels"] for example in examples], "class_labels": labels}
        # At least one, so that every parameter takes part in every step: processes that train together need that.
        count = max(1, *(len(label) for label in labels))
        return batch | {
            "mask_proposals": torch.stack([_padded(mask, count, False) for mask in masks]),
            "class_labels": torch.stack([_padded(label, count, IGNORED) for label in labels]),
        }


def log_frequencies(data: SegmentationDataset, class_indices: Mapping[int, int]) -> torch.Tensor:
    """Logarithm of each class' share of the segments, crowds left out and one added to every class: `(C,)`, float32.

    Args:
        class_indices: class index of each category id.
    """
    segments = (segment for index in range(len(data)) for segment in data.segments_info(index))
    occurrences = Counter(class_indices[segment["category_id"]] for segment in segments if not segment["iscrowd"])
    counts = torch.tensor([1.0 + occurrences[index] for index in range(len(class_indices))])
    return (counts / counts.sum()).log()


def _padded(tensor: torch.Tensor, length: int, value: bool | int) -> torch.Tensor:
    return torch.cat([tensor, tensor.new_full((length - len(tensor), *tensor.shape[1:]), value)])
