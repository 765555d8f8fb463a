"""FisaPipeline: transformers' image segmentation pipeline with the class names as an argument of the call."""

import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset, IterableDataset, get_worker_info
from transformers import BatchFeature, ImageSegmentationPipeline, PreTrainedModel, PreTrainedTokenizerBase

from fisa.processing.downloads import limit
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.others import Others, given_others, is_auto
from fisa.processing.photos import is_collection, read_photo
from fisa.processing.post_processing import Subtask
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.segmentation import Segmentation
from fisa.processing.setting_values import THRESHOLDS, count, share, switch
from fisa.processing.vocabulary import Vocabulary


SUBTASKS = ("panoptic", "instance", "semantic")
DOWNLOAD_LIMITS = ("timeout", "max_download_bytes")
RETURN_TYPES = ("segments", "segmentation")
UNREADABLE = (OSError, TypeError, ValueError)
WORDS = ("candidate_labels", "others", "include_others", "text_cache")
CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(THRESHOLDS, share),
    **dict.fromkeys(DOWNLOAD_LIMITS, limit),
    "include_others": switch,
    "zoom": count,
}
ARGUMENTS = (*WORDS, "zoom", "subtask", "return_type", *THRESHOLDS, *DOWNLOAD_LIMITS)


class _OneOfMany(NamedTuple):
    """A photo and its place among those of a call, for errors to name."""

    place: int
    image: Any


class _Numbered(Dataset):
    """A data set whose photos know their places; those that it cannot read are the errors that say why."""

    def __init__(self, photos: Any):
        self.photos = photos

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> _OneOfMany:
        try:
            return _OneOfMany(index, self.photos[index])
        except UNREADABLE as error:
            return _OneOfMany(index, error)


class _End(NamedTuple):
    """What iterating over photos ended with, and has its turn behind them."""

    error: Exception


def _numbered(photos: Iterable[Any]) -> Iterator[_OneOfMany]:
    """Photos that know their places. An error of the iterable itself does not overtake the photos of its batch."""
    place = 0
    try:
        for place, image in enumerate(photos, start=1):
            yield _OneOfMany(place - 1, image)
    except Exception as error:
        yield _OneOfMany(place, _End(error if get_worker_info() is None else _sendable(error)))


def _sendable(error: Exception) -> Exception:
    """An error as a worker can send it, with a note of where it was raised, which is lost on the way."""
    try:
        sent = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever it holds, or its class asks for
        sent = RuntimeError(f"{type(error).__name__}: {error}")
    sent.add_note("".join(["In a worker:\n", *traceback.format_exception(error)]))
    return sent


class _Names:
    """The names of a batch's classes, which the library finds again in each photo that it takes out of the batch."""

    def __init__(self, id2label: Mapping[int, str]):
        self.id2label = id2label

    def __getitem__(self, place: int) -> "_Names":
        return self


class FisaPipeline(ImageSegmentationPipeline):
    """Segment photos with any class names.

    ```python
    >>> from transformers import pipeline
    >>> import fisa

    >>> segmenter = pipeline("open-vocabulary-image-segmentation", model=folder)
    >>> segments = segmenter("photo.jpg", candidate_labels=["red car", "road", "sky"])
    >>> segments[0]["label"], segments[0]["score"], segments[0]["mask"].size
    ('road', 0.97, (640, 480))
    ```
    """

    processor: FisaProcessor

    task = "open-vocabulary-image-segmentation"
    _load_processor = None  # where there is none to load, it is put together of parts
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        processor: FisaProcessor | None = None,
        image_processor: FisaImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        **kwargs: Any,
    ):
        """What `transformers.pipeline` calls.

        Args:
            model ([`FisaForUniversalSegmentation`])
            processor ([`FisaProcessor`], *optional*): or its parts, `image_processor` and
                `tokenizer`; what is not given is read from where the model was loaded.

        Raises:
            ValueError: a part was neither given nor is there a place to read it from.
        """
        if processor is None:
            processor = _processor_of_parts(image_processor, tokenizer, folder=model.config.name_or_path)
        super().__init__(
            model=model, processor=processor, image_processor=image_processor, tokenizer=tokenizer, **kwargs
        )

    def save_pretrained(self, save_directory: str | PathLike, **kwargs: Any) -> None:
        """Save model and processor, prompt templates included: what `pipeline(..., model=save_directory)` loads.

        Args:
            save_directory (`str` or `os.PathLike`)
            kwargs: of the model's and the processor's `save_pretrained`.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.processor.save_pretrained(save_directory, **kwargs)

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Find and name the segments of one photo or several.

        Args:
            inputs:
                A photo, as [`~fisa.processing.photos.load_photo`] takes it (PIL image, array, path, URL, bytes, base64
                and others), or several: a list or tuple, an array with a batch axis, a generator, a torch dataset
                (`KeyDataset` too), a column of a `datasets.Dataset`, or such a data set with a column `image`.
            candidate_labels (*optional*):
                The classes to choose from, for this call alone: a list of names or [`Class`]es, a dictionary from
                names to lists of synonyms, or a string with commas. The model's stored vocabulary if not given.
            others (`"auto"`, words, a file or `None`, *optional*):
                Words that compete with the classes and whose segments are left out, less those that are among the
                classes: a list in any form that `candidate_labels` has, a file of them, `None` for none, or `"auto"`
                for what the model knows and, unless its config says otherwise, a list of everyday things and stuff.
                Not given: `"auto"` with `candidate_labels`, and what is stored with a stored vocabulary.
            include_others (`bool`, defaults to `False`):
                Return the segments of others too: `is_other` tells them.
            text_cache (`str` or `os.PathLike`, *optional*):
                A folder that keeps the encoded `candidate_labels` for other processes: for long lists of them.
            zoom (`int`, *optional*):
                How many proposals of each photo are read a second time, in windows of the photo itself; 0: none. The
                processor's setting if not given.
            subtask (`"panoptic"`, `"instance"` or `"semantic"`, defaults to `"panoptic"`):
                Things and stuff without overlaps, things alone, or one mask per class.
            return_type (`"segments"` or `"segmentation"`, defaults to `"segments"`):
                A list of dictionaries as transformers' pipelines return it, or one
                [`~fisa.processing.segmentation.Segmentation`] per photo.
            threshold (`float`, *optional*):
                Least objectness of a segment, in [0, 1]. The processor's if not given, like the next two.
            mask_threshold (`float`, *optional*):
                Least probability at which a pixel counts towards a mask's own area, in [0, 1].
            overlap_mask_area_threshold (`float`, *optional*):
                Least share of its own area that a segment must keep where others win pixels from it, in [0, 1].
            min_score (`float`, *optional*):
                Least score of a segment, in [0, 1]: the probability of its class among all words that compete, times
                its objectness. The processor's if not given.
            timeout (`float`, *optional*, defaults to 60): seconds that a download may take, from start to end.
            max_download_bytes (`int`, *optional*, defaults to 100 million): bytes of a download, decompressed.
            batch_size (`int`, *optional*): photos that the model sees at a time.

        Returns:
            A list of segments; for several photos, a list of one such list per photo, or an iterator over them where
            the photos come from a generator or data set. Each segment has `label` (`str`), `score` (`float`, in
            [0, 1]; `None` for semantic masks) and `mask` (`PIL.Image`, mode "L", 255 inside, of the photo's size). An
            empty list is a valid answer; a warning then says why.

            The model sees photos upright, as EXIF says. Masks lie on the pixels that the caller holds: those of a PIL
            image as they are, and those of a file as viewers show it, upright.

        Raises:
            ValueError: a photo cannot be read; among several, the message says which, and `next()` of an iterator goes
                on behind it. Or a setting makes no sense.
        """
        if isinstance(inputs, list | tuple | np.ndarray | torch.Tensor) and is_collection(inputs):
            inputs = [_OneOfMany(index, image) for index, image in enumerate(inputs)]
            if not inputs:
                return []
        elif is_collection(inputs) or isinstance(inputs, Dataset):
            # The library takes generators and torch's data sets alone.
            inputs = _Numbered(inputs) if _has_places(inputs) else _numbered(inputs)
        return super().__call__(inputs, **kwargs)

    def arguments_in_use(self, **kwargs: Any) -> dict[str, Any]:
        """What a call with these arguments runs with: these, and for the rest what the pipeline was made with.

        Args:
            kwargs: as a call takes them.

        Returns:
            By name; the classes, if any are asked for, as `vocabulary`, a [`Vocabulary`].

        Raises:
            TypeError: there is no such argument. ValueError: a value makes no sense.
        """
        made_with = (self._preprocess_params, self._forward_params, self._postprocess_params)
        return {
            name: value
            for arguments in (*made_with, *self._sanitize_parameters(**kwargs))
            for name, value in arguments.items()
        }

    def check_model_type(self, supported_models: Any) -> None:
        """Any FISA model is fine; the list of names that the library holds knows its own models alone."""

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = checked_arguments(kwargs)
        preprocess = {name: given.pop(name) for name in (*DOWNLOAD_LIMITS, "zoom") if name in given}
        forward: dict[str, Any] = {name: given.pop(name) for name in ("others", "text_cache") if name in given}
        if "candidate_labels" in given:
            forward["vocabulary"] = self.processor.parse_vocabulary(given.pop("candidate_labels"))
        return preprocess, forward, given

    def preprocess(self, image: Any, zoom: int | None = None, **download_limits: Any) -> BatchFeature:
        if not isinstance(image, _OneOfMany):
            return self._inputs(image, zoom, **download_limits)
        problem: Exception
        try:
            if isinstance(image.image, Exception):
                raise image.image
            if not isinstance(image.image, _End):
                return self._inputs(image.image, zoom, **download_limits)
            problem = image.image.error
        except UNREADABLE as error:
            problem = ValueError(f"Image {image.place}: {error}")
            problem.__cause__ = error
        # Raised at its turn: other photos of its batch have theirs.
        inputs = self._inputs(Image.new("RGB", (1, 1)), zoom)
        inputs["problem"] = problem
        return inputs

    def _inputs(self, image: Any, zoom: int | None, **download_limits: Any) -> BatchFeature:
        if isinstance(image, Mapping) and "image" in image:  # a row of a data set
            image = image["image"]
        photo = read_photo(image, **download_limits)
        settings: dict[str, Any] = {} if zoom is None else {"zoom": zoom}
        inputs = self.processor(images=photo.image, return_tensors="pt", **settings).to(self.dtype)
        orientation, (width, height) = photo.orientation_of_results, photo.image.size
        inputs["target_size"] = [(width, height) if orientation >= 5 else (height, width)]
        inputs["photo_orientation"] = torch.tensor([orientation])
        is_known = photo.is_file or orientation != 1  # an array's pixels may be stored ones
        inputs["photo"] = photo.as_held, orientation if is_known else None
        inputs["problem"] = None
        return inputs

    def _forward(
        self,
        model_inputs: dict[str, Any],
        vocabulary: Vocabulary | None = None,
        text_cache: Any = None,
        **given_others: Others,
    ) -> dict[str, Any]:
        beside = {name: model_inputs.pop(name) for name in ("target_size", "photo", "problem")}
        if isinstance(beside["problem"], Exception):  # a photo alone
            raise beside["problem"]
        words = self._words(vocabulary, **given_others)
        if words is None:
            # As it is now: another thread, or the next photos of an iterator, may come to another one.
            encoded = self.model.encoded_vocabulary
        else:
            asked, others = words
            encoded = self.model.encode_vocabulary(self.processor, asked, others=others, text_cache=text_cache)
        outputs = self.model(**model_inputs, **encoded)
        for name, value in (beside | {"names": _Names(encoded.id2label)}).items():
            outputs[name] = value
        return outputs

    def postprocess(
        self,
        model_outputs: Any,
        subtask: Subtask = "panoptic",
        return_type: str = "segments",
        include_others: bool = False,
        threshold: float | None = None,
        mask_threshold: float | None = None,
        overlap_mask_area_threshold: float | None = None,
        min_score: float | None = None,
    ) -> list[dict[str, Any]] | Segmentation:
        if model_outputs["problem"] is not None:
            raise model_outputs["problem"]
        (segmentation,) = self.processor.post_process_segmentation(
            model_outputs,
            subtask,
            target_sizes=model_outputs["target_size"],
            id2label=model_outputs["names"].id2label,
            include_others=include_others,
            threshold=threshold,
            mask_threshold=mask_threshold,
            overlap_mask_area_threshold=overlap_mask_area_threshold,
            min_score=min_score,
        )
        if return_type == "segmentation":
            photo, orientation = model_outputs["photo"]
            return replace(segmentation, photo=photo, orientation=orientation)
        return segmentation.to_segments()

    def _words(self, vocabulary: Vocabulary | None, **given_others: Others) -> tuple[Vocabulary, Others] | None:
        """The classes of a call and what competes with them; `None` where both are as stored."""
        if vocabulary is None and given_others and (stored := self.model.fisa.stored_vocabulary.classes):
            vocabulary = Vocabulary.parse(stored)
        return None if vocabulary is None else (vocabulary, given_others.get("others", "auto"))


def _has_places(photos: Any) -> bool:
    """Whether any photo can be had by its number, which an error then does not end."""
    if not isinstance(photos, Sized) or isinstance(photos, IterableDataset):
        return False
    return isinstance(photos, Dataset | Sequence) or hasattr(photos, "column_names")  # as `datasets.Dataset` has


def checked_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a pipeline's call, checked and in the form that it keeps; those not given, which are `None`, are
    left out.

    Raises:
        TypeError: there is no such argument. ValueError: a value makes no sense.
    """
    unknown = set(arguments) - set(ARGUMENTS)
    if unknown:
        raise TypeError(f"FisaPipeline has no argument {', '.join(sorted(unknown))}; it takes {', '.join(ARGUMENTS)}.")
    # No others are something else than those that the model chooses if nothing is said.
    given = {name: value for name, value in arguments.items() if value is not None or name == "others"}
    for name, choices in {"subtask": SUBTASKS, "return_type": RETURN_TYPES}.items():
        if name in given and given[name] not in choices:
            raise ValueError(f"`{name}` was {given[name]!r}; it must be one of {', '.join(choices)}.")
    if "others" in given and not is_auto(given["others"]):
        given["others"] = given_others(given["others"])  # once: an iterator ends, and a file may change
    return given | {name: check(name, given[name]) for name, check in CHECKS.items() if name in given}


def _processor_of_parts(
    image_processor: FisaImageProcessor | None, tokenizer: PreTrainedTokenizerBase | None, *, folder: str | None
) -> FisaProcessor:
    if image_processor is not None and tokenizer is not None:
        return FisaProcessor(image_processor=image_processor, tokenizer=tokenizer)
    if not folder:
        raise ValueError(
            "This model was not loaded from a folder or the Hub, where its processor would be: "
            "pass `processor=`, or `image_processor=` and `tokenizer=`."
        )
    processor = FisaProcessor.from_pretrained(folder)
    return FisaProcessor(
        image_processor=image_processor or processor.image_processor,
        tokenizer=tokenizer or processor.tokenizer,
        prompt_templates=processor.prompt_templates,
    )
