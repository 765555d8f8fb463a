"""FisaProcessor: photos and class names in, the model's inputs out."""

import hashlib
import os
import threading
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np
from transformers import AutoTokenizer, BatchFeature
from transformers.image_utils import ImageInput
from transformers.processing_utils import AudioKwargs, ProcessorMixin, VideosKwargs
from transformers.tokenization_utils_base import LARGE_INTEGER
from transformers.utils import TensorType

from fisa.configuration.setting_names import refuse_misspelt, refuse_unknown
from fisa.processing.class_names import quoted
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.image_settings import FisaImageProcessorKwargs
from fisa.processing.mask_labels import InstanceClasses
from fisa.processing.parts import refuse_other_parts
from fisa.processing.segmentation import Segmentation
from fisa.processing.stored_settings import naming_file, refuse_no_dictionary
from fisa.processing.vocabulary import Vocabulary, VocabularyLike, resolve_templates


_CLIP_CONTEXT_LENGTH = 77
_NAMES_AT_A_TIME = 1024
# A tokenizer keeps truncation and padding as its own state and refuses to change it while another thread reads.
_TOKENIZING = threading.Lock()


class FisaTextKwargs(TypedDict, total=False):
    """How prompts are tokenised; see [`FisaProcessor.tokenize`]."""

    padding: bool | str | None
    truncation: bool | str | None
    max_length: int | None
    return_tensors: str | TensorType | None


class FisaProcessorKwargs(TypedDict, total=False):
    """The settings of a call: those of images and of text, by their names or in a dictionary for each kind.

    transformers looks up all four kinds that its `ProcessingKwargs` names; FISA reads two.
    """

    images_kwargs: FisaImageProcessorKwargs
    text_kwargs: FisaTextKwargs
    videos_kwargs: VideosKwargs
    audio_kwargs: AudioKwargs


def _refuse_folder_without_tokenizer(folder: Any = "", *_: Any, **options: Any) -> None:
    """transformers would look for the file of another tokenizer, and say that sentencepiece is missing."""
    if not os.path.isdir(folder) or options.get("subfolder") or options.get("tokenizer"):
        return
    files = ("tokenizer.json", "tokenizer_config.json", "vocab.json")
    if not any(os.path.isfile(os.path.join(folder, name)) for name in files):
        raise OSError(
            f"{folder} holds no FisaProcessor: there is no tokenizer. Save the processor beside its model, by "
            "processor.save_pretrained(folder), or name the folder that fisa-train wrote."
        )


class FisaProcessor(ProcessorMixin):
    r"""A [`FisaImageProcessor`] for the photos, CLIP's tokenizer for the class names, and the prompt templates.

    Args:
        image_processor (`FisaImageProcessor`):
            Makes the image inputs, and segments from the model's outputs.
        tokenizer (`CLIPTokenizer`):
            Reads the prompts.
        prompt_templates (`str` or `Sequence[str]`, defaults to `"default"`):
            What each name is put into before CLIP reads it, averaged over: a key of `PROMPT_TEMPLATES` (`"default"`:
            "a photo of a {}"; `"scene"`: a longer set), a template with `{}`, or a list of templates.

    Raises:
        ValueError: a template has no `{}`.

    Example:

    ```python
    >>> from fisa import FisaProcessor

    >>> processor = FisaProcessor.from_pretrained("my-fisa")
    >>> inputs = processor(images=photo, text=["dog", "grass"], return_tensors="pt")
    >>> inputs["pixel_values"].shape, inputs["prompt_class_ids"].tolist()
    (torch.Size([1, 3, 96, 96]), [0, 1])
    ```
    """

    valid_processor_kwargs = FisaProcessorKwargs

    def __init__(
        self, image_processor: Any = None, tokenizer: Any = None, prompt_templates: str | Sequence[str] = "default"
    ):
        super().__init__(image_processor, tokenizer)
        self.prompt_templates = resolve_templates(prompt_templates)

    @classmethod
    def from_pretrained(cls, *arguments: Any, **options: Any) -> Any:
        """As transformers' own; settings of the image processor, of the tokenizer and `prompt_templates` take the
        place of the stored ones.

        ```python
        >>> processor = FisaProcessor.from_pretrained(folder, prompt_templates="scene", threshold=0.3)
        ```

        Raises:
            TypeError: a misspelt setting. OSError: a folder without a tokenizer.
        """
        known = ["image_processor", "tokenizer", "prompt_templates", *FisaImageProcessorKwargs.__annotations__]
        refuse_misspelt(options, known=known, owner="FisaProcessor")
        _refuse_folder_without_tokenizer(*arguments, **options)
        return super().from_pretrained(*arguments, **options)

    @classmethod
    def get_processor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As transformers' own; called by `from_pretrained` for what a folder or the Hub stores.

        Raises:
            ValueError: what is stored cannot be read as settings; the message names file and setting.
        """
        with naming_file(pretrained_model_name_or_path):
            settings, options = super().get_processor_dict(pretrained_model_name_or_path, **kwargs)
            images = settings.get("image_processor", {})
            refuse_no_dictionary(images, name="image_processor")
            refuse_no_dictionary(images.get("auto_map", {}), name="auto_map")
            if not isinstance(images.get("image_processor_type", ""), str):
                raise ValueError("`image_processor_type` is not the name of a class.")
            resolve_templates(settings.get("prompt_templates", "default"))
        return settings, options

    @classmethod
    def from_clip_and_mask_generator(
        cls, clip: Any, mask_generator: Any = None, *, prompt_templates: str | Sequence[str] = "default"
    ) -> "FisaProcessor":
        """The processor of a model made by `FisaForUniversalSegmentation.from_clip_and_mask_generator`.

        Args:
            clip (`str`, `os.PathLike` or `CLIPProcessor`):
                A folder with CLIP's processor, its name on the Hub, or the loaded processor.
            mask_generator (`str`, `os.PathLike` or image processor, *optional*):
                The same for the mask generator. `None`: the model has none and is given ready proposals.
            prompt_templates (`str` or `Sequence[str]`, defaults to `"default"`): see [`FisaProcessor`].
        """
        refuse_other_parts(clip, mask_generator)
        is_name = isinstance(clip, str | os.PathLike)
        return cls(
            image_processor=FisaImageProcessor.from_clip_and_mask_generator(clip, mask_generator),
            tokenizer=AutoTokenizer.from_pretrained(clip) if is_name else clip.tokenizer,
            prompt_templates=prompt_templates,
        )

    def __call__(
        self,
        images: ImageInput | None = None,
        text: VocabularyLike | None = None,
        *,
        segmentation_maps: ImageInput | None = None,
        instance_id_to_semantic_id: InstanceClasses | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Make the model's inputs.

        Args:
            images (*optional*):
                A photo, a list of photos or an array with a batch axis: PIL images, NumPy arrays, torch tensors, paths
                or URLs; see [`FisaImageProcessor`].
            text (*optional*):
                The classes, as [`Vocabulary.parse`] takes them: `"dog, grass"`, a list of names, a dictionary of
                synonyms and so on. Not given: the model uses its stored vocabulary.
            segmentation_maps, instance_id_to_semantic_id (*optional*):
                For training: the id of each pixel, and the class of each id; see [`FisaImageProcessor.preprocess`].
            kwargs:
                `return_tensors` (`"pt"` for torch tensors; NumPy arrays otherwise), any setting of
                [`FisaImageProcessorKwargs`], and `padding`, `truncation` and `max_length` of
                [`FisaProcessor.tokenize`]; also in dictionaries, `images_kwargs`, `text_kwargs` and `common_kwargs`.

        Returns:
            [`BatchFeature`] with, for `images`, what [`FisaImageProcessor`] returns, and for `text`, with S names and
            synonyms of C classes, T templates, and L tokens in the longest prompt:

            - `input_ids`, `attention_mask` (S, T, L), int64;
            - `prompt_class_ids` (S,), int64: the class of each name;
            - `class_is_thing` (C,), bool;
            - `class_kinds` (C,), int64: 1 for a known thing, 0 for known stuff, −1 where nobody said.

            A prompt that is longer than CLIP reads loses its end; a warning quotes it.

        Raises:
            ValueError: neither is given, a photo cannot be read, the vocabulary is refused, or a setting comes twice.
            TypeError: a setting that neither the image processor nor the tokenizer has.

        Example:

        ```python
        >>> inputs = processor(images="photo.jpg", text=["dog", "grass"], return_tensors="pt")
        >>> inputs["input_ids"].shape[:2], inputs["class_is_thing"].tolist()
        (torch.Size([2, 1]), [True, False])
        ```
        """
        _refuse_unknown_settings(kwargs)
        settings = self._merge_kwargs(tokenizer_init_kwargs=self.tokenizer.init_kwargs, **kwargs)
        if images is None and text is None:
            raise ValueError("Pass `images`, `text` (the class names), or both.")
        inputs = BatchFeature()
        if images is not None:
            inputs.update(
                self.image_processor(
                    images, segmentation_maps, instance_id_to_semantic_id, **settings["images_kwargs"]
                )
            )
        if text is not None:
            vocabulary = self.parse_vocabulary(text)
            options = {"return_tensors": None} | settings["text_kwargs"]
            inputs.update(self.tokenize(vocabulary.prompts(), **options))
            classes = {
                "prompt_class_ids": np.array(vocabulary.prompt_class_ids, np.int64),
                "class_is_thing": np.array(vocabulary.is_thing, bool),
                "class_kinds": np.array(vocabulary.kinds, np.int64),
            }
            inputs.update(BatchFeature(classes, tensor_type=options["return_tensors"]))
        return inputs

    def parse_vocabulary(self, labels: VocabularyLike) -> Vocabulary:
        """The classes, checked: see [`Vocabulary.parse`]."""
        return Vocabulary.parse(labels)

    def tokenize(
        self,
        names: Sequence[str],
        *,
        return_tensors: str | TensorType | None = "pt",
        padding: bool | str = True,
        truncation: bool | str = True,
        max_length: int | None = None,
    ) -> BatchFeature:
        """Put each name into each template and tokenise: the first two entries of what a call returns for `text`.

        Args:
            names (`Sequence[str]`): S names.
            return_tensors (`str`, *optional*, defaults to `"pt"`): NumPy arrays if `None`.
            padding (`bool` or `str`, defaults to `True`):
                `True` or `"longest"` pads to the longest prompt, `"max_length"` to `max_length`. `False` or
                `"do_not_pad"` is for prompts of one length.
            truncation (`bool` or `str`, defaults to `True`):
                `False` or `"do_not_truncate"` refuses prompts of more than `max_length` tokens.
            max_length (`int`, *optional*): as many tokens as CLIP reads if not given.

        Returns:
            [`BatchFeature`] with `input_ids` and `attention_mask` (S, T, L), int64.

        Raises:
            ValueError: prompts of different lengths without padding, ones that are too long without truncation, or
                names that are the same once the end of their prompts is cut off.
        """
        prompts, limit = self._prompts(names), max_length or self._context_length
        pads, truncates = padding not in (False, "do_not_pad"), truncation not in (False, "do_not_truncate")
        options = {"padding": padding if pads else True, "truncation": True, "max_length": limit}
        with _TOKENIZING:
            encoded = self.tokenizer(prompts, return_tensors="np", **options)
            lengths = encoded["attention_mask"].sum(axis=1)
            longer = self._cut_prompts(prompts, lengths, limit)
        if not pads and len(set(lengths)) > 1:
            raise ValueError(
                f"The prompts have {lengths.min()} to {lengths.max()} tokens, which make no array; leave `padding` at "
                "True."
            )
        if longer and not truncates:
            raise ValueError(
                f"Prompts of more than {limit} tokens: {quoted(longer)}. Shorten them, or leave `truncation` at True."
            )
        if longer:
            warnings.warn(
                f"Prompts of more than the {limit} tokens that CLIP reads lose their end: {quoted(longer)}. "
                f"Shorten the class names or the templates.",
                stacklevel=3,
            )
            _refuse_equal_tokens([(names, encoded["input_ids"].reshape(len(names), -1))])
        tokens = {
            name: encoded[name].astype(np.int64).reshape(len(names), len(self.prompt_templates), -1)
            for name in ("input_ids", "attention_mask")
        }
        return BatchFeature(tokens, tensor_type=return_tensors)

    def refuse_equal_prompts(self, names: Sequence[str]) -> None:
        """Refuse names that CLIP cannot tell apart because it reads no more than the beginning of their prompts.

        [`tokenize`] compares the names of one call; this compares any number of them in little memory.

        Raises:
            ValueError: two names are the same once the end of their prompts is cut off.

        Example:

        ```python
        >>> processor.refuse_equal_prompts(["long " * 100 + "dog", "long " * 100 + "cat"])
        ValueError: "long long …" and "long long …" are the same to CLIP, …
        ```
        """
        room = self._context_length - 2  # its first and last tokens are marks of its own
        long_names = [name for name in names if self._most_tokens(name) > room]
        starts = range(0, len(long_names), _NAMES_AT_A_TIME)
        batches = (long_names[start : start + _NAMES_AT_A_TIME] for start in starts)
        _refuse_equal_tokens((batch, self._full_length_tokens(batch)) for batch in batches)

    def post_process_segmentation(self, *args: Any, **kwargs: Any) -> list[Segmentation]:
        """See [`FisaImageProcessor.post_process_segmentation`]."""
        return self.image_processor.post_process_segmentation(*args, **kwargs)

    def post_process_panoptic_segmentation(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """See [`FisaImageProcessor.post_process_panoptic_segmentation`]."""
        return self.image_processor.post_process_panoptic_segmentation(*args, **kwargs)

    def post_process_instance_segmentation(self, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
        """See [`FisaImageProcessor.post_process_instance_segmentation`]."""
        return self.image_processor.post_process_instance_segmentation(*args, **kwargs)

    def post_process_semantic_segmentation(self, *args: Any, **kwargs: Any) -> list[Any]:
        """See [`FisaImageProcessor.post_process_semantic_segmentation`]."""
        return self.image_processor.post_process_semantic_segmentation(*args, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """What a call can return."""
        return [*super().model_input_names, "prompt_class_ids", "class_is_thing", "class_kinds"]

    @property
    def _context_length(self) -> int:
        limit = self.tokenizer.model_max_length
        return limit if limit < LARGE_INTEGER else _CLIP_CONTEXT_LENGTH

    def _prompts(self, names: Sequence[str]) -> list[str]:
        return [template.replace("{}", name) for name in names for template in self.prompt_templates]

    def _most_tokens(self, name: str) -> int:
        """A bound that costs no tokenising: CLIP's tokens stand for a byte or more."""
        longest = len(unicodedata.normalize("NFC", name).lower().encode())
        return max(template.count("{}") * longest + len(template.encode()) for template in self.prompt_templates)

    def _full_length_tokens(self, names: Sequence[str]) -> np.ndarray:
        options = {"padding": "max_length", "truncation": True, "max_length": self._context_length}
        with _TOKENIZING:
            encoded = self.tokenizer(self._prompts(names), return_tensors="np", **options)
        return encoded["input_ids"].reshape(len(names), -1)

    def _cut_prompts(self, prompts: Sequence[str], lengths: np.ndarray, limit: int) -> list[str]:
        full = [prompts[row] for row in np.flatnonzero(lengths >= limit).tolist()]
        return [prompt for prompt in full if len(self.tokenizer(prompt, verbose=False)["input_ids"]) > limit]


def _refuse_unknown_settings(settings: dict[str, Any]) -> None:
    owner = "FisaProcessor"
    kinds = {
        "images": set(FisaImageProcessorKwargs.__annotations__),
        "text": set(FisaTextKwargs.__annotations__),
    }
    for kind, known in kinds.items():
        refuse_unknown(settings.get(f"{kind}_kwargs") or (), known=known, owner=owner, purpose=kind)
    every = set().union(*kinds.values())
    refuse_unknown(settings.get("common_kwargs") or (), known=every, owner=owner, purpose="images and text")
    if "candidate_labels" in settings:
        raise TypeError("FisaProcessor takes class names as `text`; `candidate_labels` is what pipelines call them.")
    known = every | {"images_kwargs", "text_kwargs", "common_kwargs"}
    refuse_unknown(settings, known=known, owner=owner, purpose="images or text")


def _refuse_equal_tokens(batches: Iterable[tuple[Sequence[str], np.ndarray]]) -> None:
    """Refuse names whose rows of tokens are the same, within a batch or in two. Of each row a digest is kept."""
    first: dict[bytes, str] = {}
    for names, tokens in batches:
        for name, row in zip(names, tokens):
            twin = first.setdefault(hashlib.blake2b(row.tobytes(), digest_size=16).digest(), name)
            if twin != name:
                raise ValueError(
                    f'"{twin}" and "{name}" are the same to CLIP, which reads no more than the beginning of their '
                    "prompts. Shorten them so that they differ within it."
                )
