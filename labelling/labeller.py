"""Photos in, rows out: what a folder, a `datasets.Dataset` and Ray Data call alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from os import PathLike
from threading import Barrier
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from transformers import pipeline

import fisa
from fisa.data.categories import categories_of
from fisa.labelling.room import Room
from fisa.pretrained.presets import load as load_preset
from fisa.pretrained.presets import preset_of
from fisa.processing.class_names import quoted
from fisa.processing.coco_panoptic import numbered, panoptic_png
from fisa.processing.extras import library
from fisa.processing.failures import is_out_of_memory, reason_of
from fisa.processing.files import weights_digest
from fisa.processing.photos import Photo, read_photo
from fisa.processing.pipeline_fisa import ARGUMENTS, DOWNLOAD_LIMITS, FisaPipeline, checked_arguments
from fisa.processing.segmentation import Segmentation
from fisa.processing.vocabulary import Class, Vocabulary, VocabularyLike


T = TypeVar("T")

# What a labeller says itself: the words are its `labels`, and a map has no other classes.
OWN = {"return_type": "segmentation", "include_others": False}
OPTIONS = tuple(name for name in ARGUMENTS if name not in (*OWN, "candidate_labels"))
# What has no influence on results.
WITHOUT_INFLUENCE = ("text_cache", *DOWNLOAD_LIMITS, "_name_or_path", "transformers_version")
COLUMNS = ("label", "segments_info", "problem")  # of rows that are labelled
MOST_CALLS = 8  # each needs the memory of a photo in the model
STACK, STACKED_CALLS = 8, 2  # away from the CPU: while one stack is in the model, the next is prepared


def _start_all(workers: ThreadPoolExecutor, count: int) -> None:
    """Start the threads before there is work: one that Ctrl-C meets in the middle of its start works on, and nobody
    waits for it."""
    together = Barrier(count)
    try:
        for started in [workers.submit(together.wait) for _ in range(count)]:
            started.result()
    finally:
        together.abort()


class Labeller:
    """Segments photos wherever they come from; threads may share one.

    On the CPU, `batch_size` photos are segmented at once, each in a thread of its own: a stack of photos would have
    other last digits than each photo alone. On other devices `batch_size` photos are stacked; stacks are filled up to
    that number, so that a photo's neighbours make no difference. When memory runs out, the number halves.

    A labeller that was given the model's name can be pickled: the model is loaded where it is used.

    Args:
        model (`str`, `os.PathLike` or [`FisaPipeline`]): a folder, a name on the Hub, a preset, or a loaded pipeline.
        labels (*optional*): the classes, as [`Vocabulary.parse`] takes them. If not given, those that the pipeline was
            made with (`candidate_labels`) or that are stored in the model.
        batch_size (`int`, *optional*): twice the threads that PyTorch has, 8 at most, or 8 photos to a stack, if not
            given.
        options: of the pipeline's call: `subtask`, `threshold` and others. What is not given is as the pipeline was
            made with.

    Raises:
        TypeError: there is no such option. ValueError: a value makes no sense.

    Example:

    ```python
    >>> import datasets
    >>> from fisa.labelling import Labeller

    >>> photos = datasets.Dataset.from_dict({"image": ["photo.jpg"]})
    >>> rows = photos.map(Labeller("my-fisa", labels="dog, grass"), batched=True, batch_size=16)
    >>> rows.cast_column("label", datasets.Image())[0]["label"].size
    (640, 480)
    ```
    """

    def __init__(
        self,
        model: str | PathLike | FisaPipeline,
        *,
        labels: VocabularyLike | None = None,
        batch_size: int | None = None,
        **options: Any,
    ):
        self._model = model
        self._labels = None if labels is None else Vocabulary.parse(labels)
        self._batch_size = batch_size
        if unknown := set(options) - set(OPTIONS):
            takes = ", ".join(("labels", "batch_size", *OPTIONS))
            raise TypeError(f"Labeller has no option {', '.join(sorted(unknown))}; it takes {takes}.")
        self._options = checked_arguments(options)

    def __getstate__(self) -> dict[str, Any]:
        cached = ("pipeline", "vocabulary", "categories", "room", "download_limits")
        return {name: value for name, value in vars(self).items() if name not in cached}

    def __call__(self, rows: Any) -> Any:
        """Label a batch of rows.

        Args:
            rows: a mapping with columns of one length, or a table of Arrow, pandas or Polars; `image` holds photos as
                [`load_photo`] takes them.

        Returns:
            A dictionary with these columns or, of a table, one of Arrow; and further columns: `label`, the PNG of each
            photo's panoptic map as COCO has it, in bytes; `segments_info`, its segments, whose `category_id` counts
            the classes from 1; and `problem`, which says why a photo could not be labelled (`label` is `None` then),
            or is `None`.

        Arrow makes columns of the same types of them, whatever a batch holds. A batch that `datasets` has not decoded
        yet keeps its columns, and the further ones alone are returned.

        Raises:
            ValueError: the rows have no column `image`, or columns of such names. TypeError: this is a row, no batch.
        """
        if hasattr(rows, "__arrow_c_stream__"):
            return self._labelled_table(rows)
        if taken := [name for name in COLUMNS if name in rows]:
            raise ValueError(
                f"The rows have {' and '.join(taken)} already, which labels go into: rename or remove them."
            )
        try:
            photos = rows["image"]
        except KeyError as error:
            raise ValueError("The rows have no column image: rename the one that holds the photos.") from error
        if photos is None or isinstance(photos, str | bytes | Mapping | Image.Image):
            raise TypeError("This is one row, and a labeller takes batches of them: `map(labeller, batched=True)`.")
        with self.workers() as workers:
            labelled = workers.map(self._label_as_row, stacks(list(photos), self.room.stack))
            columns = list(zip(*(row for stack in labelled for row in stack))) or [(), (), ()]
        labels = {name: _Column(name, values) for name, values in zip(COLUMNS, columns)}
        # A data set keeps its columns itself; copies of them it would encode anew.
        given = rows if isinstance(rows, dict) else {}
        return given | {"image": _encodable(photos)} | labels if given else labels

    @contextmanager
    def workers(self, count: int | None = None, *, photos: int | None = None) -> Iterator[ThreadPoolExecutor]:
        """Threads that may call [`label`], between which PyTorch's own threads are shared out.

        Args:
            count (`int`, *optional*): as many as there are calls of the model at once, if not given.
            photos (`int`, *optional*): how many there are in all: a few may have several of PyTorch's threads each.
        """
        threads = torch.get_num_threads()
        calls = self.room.calls if photos is None else max(1, min(self.room.calls, photos))
        each = max(1, threads // calls)
        try:
            with ThreadPoolExecutor(count or calls, initializer=torch.set_num_threads, initargs=(each,)) as workers:
                _start_all(workers, count or calls)
                yield workers
        finally:
            torch.set_num_threads(threads)

    def label(self, images: Sequence[Any]) -> list[tuple[Image.Image, Segmentation] | Exception]:
        """Read and segment photos.

        Args:
            images: as [`load_photo`] takes them, or functions that return such.

        Returns:
            For each photo the photo itself, upright, and its segmentation; or the error that kept it from both.
        """
        photos = [self.read(image) for image in images]
        results: list[tuple[Image.Image, Segmentation] | Exception] = []
        for photo, result in zip(photos, self.segment(photos)):
            if isinstance(photo, Exception):
                results.append(photo)
            else:
                results.append(result if isinstance(result, Exception) else (photo.image, result))
        return results

    def read(self, image: Any) -> Photo | Exception:
        """Read a photo, with the digest of its file; `image` is as in [`label`]."""
        try:
            return read_photo(image() if callable(image) else image, digested=True, **self.download_limits)
        except Exception as error:  # whatever a decoder raises concerns this photo alone
            return error

    def segment(self, photos: Sequence[Photo | Exception]) -> list[Segmentation | Exception]:
        """Segment photos that were read; errors come back where they stand."""
        segmented = iter(self._segment_each([photo.image for photo in photos if not isinstance(photo, Exception)]))
        return [photo if isinstance(photo, Exception) else next(segmented) for photo in photos]

    @cached_property
    def pipeline(self) -> FisaPipeline:
        """What segments, loaded."""
        if isinstance(self._model, FisaPipeline):
            return self._model
        if preset_of(name := str(self._model)):
            model, processor = load_preset(name)
            return pipeline("image-segmentation", model=model, processor=processor, pipeline_class=FisaPipeline)
        return pipeline("image-segmentation", model=str(self._model), pipeline_class=FisaPipeline)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What is looked for.

        Raises:
            ValueError: no labels were given and the model stores none.
        """
        if self._asked is not None:
            return self._asked
        config = self.pipeline.model.config
        if not config.num_prompts:
            raise ValueError("This model stores no classes of its own; name some as `labels`.")
        return Vocabulary.parse(config.vocabulary)

    @cached_property
    def categories(self) -> list[dict[str, Any]]:
        """The classes as COCO has them, `id` counted from 1."""
        return [category.to_dict() for category in categories_of(self.vocabulary, first_id=1)]

    @cached_property
    def download_limits(self) -> dict[str, Any]:
        """`timeout` and `max_download_bytes`, where they are given."""
        in_use = self.pipeline.arguments_in_use(**self._options)
        return {name: in_use[name] for name in DOWNLOAD_LIMITS if name in in_use}

    @property
    def names_missing(self) -> bool:
        """Whether words were asked for, so that those which are not on a photo are worth naming."""
        return self._asked is not None

    @property
    def _asked(self) -> Vocabulary | None:
        """The words asked for, here or where the pipeline was made; `None` where those stored are looked for."""
        return self._labels if self._labels is not None else self.pipeline.arguments_in_use().get("vocabulary")

    @cached_property
    def room(self) -> Room:
        """How many photos are in the model at once."""
        if self.pipeline.device.type == "cpu":
            return Room(calls=self._batch_size or min(2 * torch.get_num_threads(), MOST_CALLS), stack=1)
        return Room(calls=STACKED_CALLS, stack=self._batch_size or STACK)

    def settings(self) -> dict[str, Any]:
        """All that results depend on, as plain data for JSON: two labellers of equal settings label alike."""
        model, processor = self.pipeline.model, self.pipeline.processor
        in_use = self.pipeline.arguments_in_use(**self._options)
        weights = ((name, _sample(weight)) for name, weight in model.state_dict().items() if not weight.is_meta)
        settings = {
            "version": fisa.__version__,
            "labels": self.vocabulary.to_config(),
            **{name: in_use[name] for name in OPTIONS if name in in_use},
            "device": self.pipeline.device.type,  # another rounds in another way
            "dtype": f"{model.dtype} {model.config.classifier_dtype}",
            "model": weights_digest(_plain(model.config.to_dict()), weights),
            "prompt templates": list(processor.prompt_templates),
            "image processor": processor.image_processor.to_dict(),
        }
        return _plain(settings)

    def _segment_each(self, photos: Sequence[Image.Image]) -> list[Segmentation | Exception]:
        try:
            return list(self._segment(photos))
        except Exception as error:
            if len(photos) > 1:  # find out which of them it is
                return [result for photo in photos for result in self._segment_each([photo])]
            return [error]

    def _segment(self, photos: Sequence[Image.Image]) -> list[Segmentation]:
        found: list[Segmentation] = []
        while len(found) < len(photos):
            with self.room.taken() as stack:
                try:
                    found += self._together(photos[len(found) : len(found) + stack], stack)
                except Exception as error:
                    if not is_out_of_memory(error) or not self.room.halve():
                        raise
        return found

    def _together(self, photos: Sequence[Image.Image], stack: int) -> list[Segmentation]:
        filled = [*photos, *[photos[-1]] * (stack - len(photos))]
        options = self._options | OWN
        if self._labels is not None:
            options["candidate_labels"] = self._labels
        if stack == 1:
            found = [self.pipeline(filled[0], **options)]
        else:
            found = self.pipeline(filled, batch_size=stack, **options)[: len(photos)]
        names = dict(enumerate(self.vocabulary.names))
        if any(names.get(segment.class_id) != segment.label for segmentation in found for segment in segmentation):
            raise ValueError(
                f"The model stores other words by now than {quoted(list(names.values()))}, which this labeller began "
                "with: make a new one, or give it `labels`."
            )
        return found

    def _labelled_table(self, rows: Any) -> Any:
        arrow = library("pyarrow", extra="formats", purpose="Labelling tables")
        table = arrow.table(rows)
        needed = {name: table[name].to_pylist() for name in table.column_names if name in ("image", *COLUMNS)}
        labels = self(needed)
        for name in COLUMNS:
            table = table.append_column(name, arrow.chunked_array([arrow.array(labels[name])]))
        return table

    def _label_as_row(self, images: Sequence[Any]) -> list[tuple[bytes | None, list[dict[str, Any]], str | None]]:
        return [self._row(result) for result in self.label(images)]

    def _row(
        self, result: tuple[Image.Image, Segmentation] | Exception
    ) -> tuple[bytes | None, list[dict[str, Any]], str | None]:
        if isinstance(result, Exception):
            return None, [], reason_of(result)
        ids, infos = numbered(**result[1].to_panoptic([category["id"] for category in self.categories]))
        return panoptic_png(ids), infos, None


def _encodable(photos: Any) -> Any:
    """Photos as Arrow takes them: neither an array of objects, as NumPy holds photos of several sizes, nor arrays of
    which some alone have an axis of channels."""
    is_of_objects = isinstance(photos, np.ndarray) and photos.dtype == object
    if not is_of_objects or not all(isinstance(photo, np.ndarray) for photo in photos):
        return photos
    is_mixed = len({photo.ndim for photo in photos}) > 1
    return [Image.fromarray(photo) if is_mixed else photo for photo in photos]


class _Column(list):
    """A column of labels, from which Arrow makes an array whose type does not depend on what is in it.

    A data set has the types of its first batch, in which all may be well or nothing found; of plain lists it would
    make columns of nulls then, and stop at the first photo that cannot be read.
    """

    def __init__(self, name: str, values: Iterable[Any]):
        super().__init__(values)
        self.name = name

    def __arrow_array__(self, type: Any = None) -> Any:
        arrow = library("pyarrow", extra="formats", purpose="Labelling data sets")
        whole = dict.fromkeys(("id", "category_id", "area", "iscrowd"), arrow.int64())
        segment = arrow.struct(whole | {"bbox": arrow.list_(arrow.int64()), "score": arrow.float64()})
        types = {"label": arrow.binary(), "segments_info": arrow.list_(segment), "problem": arrow.string()}
        return arrow.array(list(self), type or types[self.name])


def stacks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of this size; the last one may be shorter."""
    iterator = iter(items)
    while stack := list(islice(iterator, size)):
        yield stack


def _sample(weight: torch.Tensor) -> torch.Tensor:
    """A few numbers of a weight, which training would move."""
    return weight.flatten()[:: -(-weight.numel() // 64) or 1]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items() if name not in WITHOUT_INFLUENCE}
    if isinstance(value, Vocabulary | Class):
        return value.to_config()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
