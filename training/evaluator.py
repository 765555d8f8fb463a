"""The evaluation loop: from photos to panoptic quality, mask AP and mIoU, exact however many processes share it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm
from transformers import BatchFeature

from fisa.data.categories import vocabulary_of
from fisa.data.segmentation_datasets import SegmentationDataset, StreamedSegmentationDataset
from fisa.evaluation.mask_average_precision import MaskAveragePrecision
from fisa.evaluation.mean_iou import MeanIoU
from fisa.evaluation.panoptic_quality import PanopticQuality
from fisa.evaluation.predictors import PREDICTORS, Predictor
from fisa.evaluation.samples import SampleWriter
from fisa.evaluation.segmentation_metric import SegmentationMetric, as_reference
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.modeling_fisa.outputs_fisa import FisaOutput
from fisa.processing.coco_panoptic import CocoPanopticWriter, remove_unfinished
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.segmentation import Segmentation


METRICS = {"panoptic": PanopticQuality, "instance": MaskAveragePrecision, "semantic": MeanIoU}


class Evaluator:
    """Evaluates models on one data set, with its categories as the vocabulary.

    The data set says what pixels without ground truth are (`unlabelled`), for all metrics alike: void, which counts
    in none, or background, on which every prediction is wrong. Where there is background, mIoU measures the panoptic
    map, since a semantic one has a class for every pixel.

    Args:
        data: the ground truth.
        processor: prepares the photos and turns outputs into segmentations, by its own settings.
        name: of the data set, for reports.
        oracle: the part that the ground truth replaces, to see what limits the results, one of `PREDICTORS`: `"none"`,
            `"classifier"`, `"generator"` or `"both"`.
        trained_on: how many of the photos the model was trained on, for reports.
        samples: a folder for the first few photos with ground truth and prediction, for reports.
        predictions: a JSON file for all panoptic predictions, in COCO's format, with their PNGs beside it. They take
            the place of an earlier evaluation's when all of them are there.

    Raises:
        ValueError: an unknown oracle.

    Example:

        >>> evaluator = Evaluator(data, processor, name="my photos (validation)")
        >>> report = evaluator.evaluate(model.eval(), evaluator.loader(batch_size=4, num_workers=2))
        >>> report["panoptic"]["all"]["pq"], report["instance"]["ap"], report["semantic"]["miou"]  # in percent
    """

    def __init__(
        self,
        data: SegmentationDataset | StreamedSegmentationDataset,
        processor: FisaProcessor,
        *,
        name: str,
        oracle: str = "none",
        trained_on: int = 0,
        samples: Path | None = None,
        predictions: Path | None = None,
    ):
        if oracle not in PREDICTORS:
            raise ValueError(f"There is no oracle {oracle!r}; there are {', '.join(map(repr, PREDICTORS))}.")
        self.data, self.processor, self.name, self.oracle = data, processor, name, oracle
        self.trained_on, self.samples, self.predictions = trained_on, samples, predictions
        self.categories = [category.to_dict() for category in data.categories]
        self.vocabulary = vocabulary_of(data.categories)
        # Mask AP is over things.
        self.tasks = [
            task for task in METRICS if task != "instance" or any(category.isthing for category in data.categories)
        ]
        self._predictor_class = PREDICTORS[oracle]

    def loader(self, *, batch_size: int, num_workers: int) -> DataLoader:
        """This process's share of the photos, in whole batches. Each photo's batch, and with it the last digit of its
        result, is the same in any number of processes. No photo comes twice.

        Args:
            batch_size: photos per batch; an oracle takes them one by one.
            num_workers: processes that prepare them.
        """
        state = PartialState()
        if self._predictor_class.one_photo_per_batch:
            batch_size = 1
        collate = partial(_collated, predictor_class=self._predictor_class, processor=self.processor)
        options = {"collate_fn": collate, "num_workers": num_workers}
        if isinstance(self.data, IterableDataset):
            # Several workers would each number their part of the stream from 0, and photos are known by these numbers.
            options["num_workers"] = min(num_workers, 1)
            return DataLoader(_ShareOfStream(self.data, batch_size), batch_size=batch_size, **options)
        batches = torch.arange(len(self.data)).split(batch_size)
        own_batches = [batch.tolist() for batch in batches[state.process_index :: state.num_processes]]
        return DataLoader(_Records(self.data), batch_sampler=own_batches, **options)

    @torch.no_grad()
    def evaluate(
        self,
        model: FisaForUniversalSegmentation,
        loader: DataLoader,
        *,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> dict[str, Any]:
        """Run the model over the loader's photos and merge the figures of all processes.

        Args:
            model: in evaluation mode.
            loader: from [`Evaluator.loader`].
            autocast: makes the context that the model runs in, for mixed precision.

        Returns:
            The metrics by task, `num_images`, `oracle`, `data` and, where there are such photos, `trained_on`: plain
            data for JSON, the same in every process.
        """
        state = PartialState()
        options = {"categories": self.categories, "unlabelled": self.data.unlabelled}
        metrics = {task: METRICS[task](**options) for task in self.tasks}
        if self.predictions:
            with state.main_process_first():
                if state.is_main_process:  # and no process writes before they are gone
                    remove_unfinished(self.predictions)
        files = self.predictions and CocoPanopticWriter(self.predictions, self.categories)
        samples = self.samples and state.is_main_process and SampleWriter(self.samples, self._plainly_named())
        predictor = self._predictor_class(
            model, self.processor, categories=self.categories, vocabulary=self.vocabulary
        )
        count = 0
        for records, inputs in tqdm(loader, desc="evaluating", unit="batch", disable=not state.is_main_process):
            inputs = BatchFeature(inputs).to(model.device)
            with autocast():
                outputs = predictor(records, inputs)
            for record, prediction in zip(records, self._predictions(records, outputs)):
                count += 1
                reference = as_reference(record)
                for task, metric in metrics.items():
                    metric.add(prediction=prediction[task], reference=reference)
                if files:
                    files.add(
                        record["image_id"],
                        file_name=record.get("file_name", record["image_id"]),
                        **prediction["panoptic"],
                    )
                if samples:
                    samples.add(record["image_id"], record["image"], prediction["panoptic"], reference)
        figures = {task: _merged(metric).compute() for task, metric in metrics.items()}
        entries = files and gather_object(files.entries)
        if state.is_main_process:
            if samples:
                samples.close()
            if files:
                files.close(entries)
        of_what = {"num_images": sum(gather_object([count])), "oracle": self.oracle, "data": self.name}
        return figures | of_what | ({"trained_on": self.trained_on} if self.trained_on else {})

    def _predictions(self, records: Sequence[Mapping[str, Any]], outputs: FisaOutput) -> Iterator[dict[str, Any]]:
        """For each photo its prediction as each metric takes it."""
        sizes = [record["label"].shape for record in records]
        segment = partial(self.processor.post_process_segmentation, outputs, target_sizes=sizes)
        panoptic = segment("panoptic")
        if self.data.unlabelled == "background":
            semantic = [_classes_of_segments(segments) for segments in panoptic]
        else:
            semantic = self.processor.post_process_semantic_segmentation(outputs, target_sizes=sizes)
        # The metric sorts by score and looks at all of them: a threshold could only lower it.
        instance = (
            segment("instance", threshold=0.0, min_score=0.0) if "instance" in self.tasks else [None] * len(records)
        )
        category_ids = [category["id"] for category in self.categories]
        for segments, classes, instances in zip(panoptic, semantic, instance):
            yield {
                "panoptic": segments.to_panoptic(category_ids),
                "semantic": classes.cpu().numpy(),
                "instance": None if instances is None else _instances(instances, category_ids),
            }

    def _plainly_named(self) -> list[dict[str, Any]]:
        return [category | {"name": item.name} for category, item in zip(self.categories, self.vocabulary)]


def _instances(segmentation: Segmentation, category_ids: Sequence[int]) -> dict[str, Any]:
    return {
        "masks": map(segmentation.mask, segmentation),
        "category_ids": [category_ids[segment.class_id] for segment in segmentation],
        "scores": [segment.score for segment in segmentation],
    }


def _classes_of_segments(segmentation: Segmentation) -> torch.Tensor:
    """The class index of each pixel's segment, −1 where there is none."""
    class_ids = torch.tensor([-1, *(segment.class_id for segment in segmentation)], device=segmentation.ids.device)
    return class_ids[segmentation.ids.long()]


def _merged(metric: SegmentationMetric) -> SegmentationMetric:
    metric.merge(gather_object([metric.state()]))
    return metric


class _Records(Dataset):
    """The records alone, so that the loader does not take a data set's other attributes for those of a sampler."""

    def __init__(self, data: SegmentationDataset):
        self.data = data

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.data[index]


class _ShareOfStream(IterableDataset):
    """Every n-th batch of a stream, for one of n processes."""

    def __init__(self, data: StreamedSegmentationDataset, batch_size: int):
        self.data, self.batch_size = data, batch_size
        state = PartialState()
        self.process_index, self.num_processes = state.process_index, state.num_processes

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for index, record in enumerate(self.data):
            if index // self.batch_size % self.num_processes == self.process_index:
                yield record


def _collated(
    records: list[dict[str, Any]], *, predictor_class: type[Predictor], processor: FisaProcessor
) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    return records, predictor_class.prepare(processor, records)
