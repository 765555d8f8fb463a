"""A miniature, a data set and training examples of them, as `train.py` puts them together."""

from pathlib import Path

import torch

from fisa import FisaForUniversalSegmentation
from fisa.data.augmentation import Augmentation
from fisa.data.categories import vocabulary_of
from fisa.data.formats import load_segmentation_dataset
from fisa.data.proposal_caching import cached_proposals
from fisa.data.segmentation_datasets import SegmentationDataset
from fisa.data.training_examples import ExampleMaker, TrainingCollator, TrainingExamples, VocabularySampler
from fisa.data.training_masks import CacheSource, GeneratorSource, GroundTruthSource
from fisa.processing.processing_fisa import FisaProcessor
from tests.data.made_files import write_coco_panoptic


PLAIN = Augmentation()


def made_data(root: Path, *, photos: int = 2) -> SegmentationDataset:
    """COCO panoptic files, 16 × 12 pixels."""
    write_coco_panoptic(root, photos=photos)
    return load_segmentation_dataset("coco_panoptic", str(root), split="val2017")


def training_parts(
    model: FisaForUniversalSegmentation,
    processor: FisaProcessor,
    data: SegmentationDataset,
    *,
    source: str,
    cache: Path | None = None,
    augmentation: Augmentation = PLAIN,
    vocabulary_size: int = 3,
    seed: int = 0,
) -> tuple[TrainingExamples, TrainingCollator]:
    """Examples of a data set with the masks of a source, and the collator that makes batches of them."""
    class_indices = {category.id: index for index, category in enumerate(data.categories)}
    size = processor.image_processor.size
    if source == "ground_truth":
        masks = GroundTruthSource(
            config=model.config,
            class_indices=class_indices,
            image_size=(size["height"], size["width"]),
            unlabelled=data.unlabelled,
        )
    elif source == "generator":
        masks = GeneratorSource(class_indices=class_indices, unlabelled=data.unlabelled)
    else:
        proposals = cached_proposals(str(cache), data, model=model, processor=processor, flips=augmentation.flip)
        masks = CacheSource(cache=proposals, class_indices=class_indices)
    with torch.no_grad():
        encoded = model.encode_vocabulary(processor, vocabulary_of(data.categories))
    maker = ExampleMaker(
        processor=processor,
        masks=masks,
        class_indices=class_indices,
        sampler=VocabularySampler(encoded["prompt_class_ids"].tolist()),
        augmentation=augmentation,
        seed=seed,
    )
    return TrainingExamples(data, maker), TrainingCollator(encoded["class_embeds"], vocabulary_size=vocabulary_size)
