"""FisaPipeline: transformers' image segmentation pipeline with the class names as an argument of the call."""

from typing import Any

import torch
from PIL import Image
from transformers import ImageSegmentationPipeline

from fisa.processing.photos import load_photo


SUBTASKS = ("panoptic", "instance", "semantic")
THRESHOLDS = ("threshold", "mask_threshold", "overlap_mask_area_threshold")
ARGUMENTS = ("candidate_labels", "text_cache", "subtask", *THRESHOLDS, "timeout")


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

    task = "open-vocabulary-image-segmentation"
    _load_processor = True
    _load_image_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __call__(self, inputs: Any, **kwargs: Any) -> list[dict[str, Any]] | list[list[dict[str, Any]]]:
        """Find and name the segments of one photo or several.

        Args:
            inputs: a photo (PIL image, array, path or URL), a list of them, a generator or a dataset.
            candidate_labels (*optional*):
                The classes to choose from, for this call alone: a list of names or [`Class`]es, a dictionary from
                names to lists of synonyms, or a string with commas. The model's stored vocabulary if not given.
            text_cache (`str` or `os.PathLike`, *optional*):
                A folder that keeps the encoded `candidate_labels` for other processes: for long lists of them.
            subtask (`"panoptic"`, `"instance"` or `"semantic"`, defaults to `"panoptic"`):
                Things and stuff without overlaps, things alone, or one mask a class.
            threshold (`float`, *optional*):
                Least objectness of a segment, in [0, 1]. The processor's if not given, like the next two.
            mask_threshold (`float`, *optional*):
                Least probability at which a pixel counts towards a mask's own area, in [0, 1].
            overlap_mask_area_threshold (`float`, *optional*):
                Least share of its own area that a segment must keep where others win pixels from it, in [0, 1].
            timeout (`float`, *optional*): seconds to wait for a download.
            batch_size (`int`, *optional*): photos that the model sees at a time.

        Returns:
            A list of segments, or one such list a photo for several photos, each segment with `label` (`str`), `score`
            (`float`, in [0, 1]; `None` for semantic masks) and `mask` (`PIL.Image`, mode "L", 255 inside, of the
            photo's size). An empty list is a valid answer; a warning then says why.
        """
        return super().__call__(inputs, **kwargs)

    def check_model_type(self, supported_models: Any) -> None:
        """Any FISA model is fine; the list of names that the library holds knows its own models alone."""

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = set(kwargs) - set(ARGUMENTS)
        if unknown:
            raise TypeError(
                f"FisaPipeline has no argument {', '.join(sorted(unknown))}; it takes {', '.join(ARGUMENTS)}."
            )
        # Only what was given: the rest keeps the value that the pipeline was made with.
        given = {name: value for name, value in kwargs.items() if value is not None}
        if given.get("subtask", "panoptic") not in SUBTASKS:
            raise ValueError(f"`subtask` was {given['subtask']!r}; it must be one of {', '.join(SUBTASKS)}.")
        preprocess = {"timeout": given.pop("timeout")} if "timeout" in given else {}
        if "candidate_labels" in given:
            given["vocabulary"] = self.processor.parse_vocabulary(given.pop("candidate_labels"))
        forward = {"vocabulary": given["vocabulary"]} if "vocabulary" in given else {}
        if "text_cache" in given:
            forward["text_cache"] = given.pop("text_cache")
        return preprocess, forward, given

    def preprocess(self, image: Any, timeout: float | None = None) -> dict[str, Any]:
        photo = load_photo(image, timeout=timeout)
        inputs = self.processor(images=photo, return_tensors="pt").to(self.dtype)
        inputs["target_size"] = [(photo.height, photo.width)]
        return inputs

    def _forward(self, model_inputs: dict[str, Any], vocabulary: Any = None, text_cache: Any = None) -> dict[str, Any]:
        target_size = model_inputs.pop("target_size")
        encoded = {}
        if vocabulary is not None:
            encoded = self.model.encode_vocabulary(self.processor, vocabulary, text_cache=text_cache)
        outputs = self.model(**model_inputs, **encoded)
        outputs["target_size"] = target_size
        return outputs

    def postprocess(
        self, model_outputs: Any, vocabulary: Any = None, subtask: str = "panoptic", **thresholds: float
    ) -> list[dict[str, Any]]:
        id2label = self.model.config.id2label if vocabulary is None else dict(enumerate(vocabulary.names))
        target_sizes = model_outputs["target_size"]
        if subtask == "semantic":
            (labels,) = self.processor.post_process_semantic_segmentation(model_outputs, target_sizes=target_sizes)
            found = [(class_id, None, labels == class_id) for class_id in labels.unique().tolist()]
        else:
            post_process = getattr(self.processor, f"post_process_{subtask}_segmentation")
            (result,) = post_process(model_outputs, target_sizes=target_sizes, **thresholds)
            found = [
                (segment["label_id"], segment["score"], result["segmentation"] == segment["id"])
                for segment in result["segments_info"]
            ]
        return [
            {"score": score, "label": id2label[class_id], "mask": _mask_image(mask)} for class_id, score, mask in found
        ]


def _mask_image(mask: torch.Tensor) -> Image.Image:
    return Image.fromarray(mask.to(torch.uint8).mul(255).numpy(), mode="L")
