"""The image processor: from any photo it makes the view that CLIP reads and the view that the mask generator reads,
and turns the model's outputs into segments. It works on PIL alone, with or without torchvision."""

import math
import reprlib
import warnings
from functools import partial
from typing import Any

import numpy as np
import torch
from huggingface_hub.dataclasses import validate_typed_dict
from huggingface_hub.errors import StrictDataclassError
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_backends import PilBackend
from transformers.image_transforms import get_size_with_aspect_ratio
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
    ChannelDimension,
    ImageInput,
    PILImageResampling,
    SizeDict,
)
from transformers.processing_utils import Unpack
from transformers.utils import TensorType

from fisa.configuration.setting_names import refuse_misspelt
from fisa.processing.image_settings import FisaImageProcessorKwargs, checked_size, settings_of
from fisa.processing.mask_labels import InstanceClasses, masks_and_classes
from fisa.processing.original_photos import OriginalPhoto
from fisa.processing.photos import Photo, read_photos
from fisa.processing.post_processor import PostProcessor
from fisa.processing.setting_values import THRESHOLDS, count, share
from fisa.processing.stored_settings import naming_file, refuse_no_dictionary


class FisaImageProcessor(PostProcessor, PilBackend):
    r"""Make a model's image inputs from photos, and segments from its outputs.

    A photo is a PIL image, a NumPy array or torch tensor of shape (H, W), (H, W, C) or (C, H, W), a path, a URL or the
    bytes of a file. Grey, palette, CMYK and 16-bit photos become RGB, transparency is laid over white, and the model
    sees photos upright, as EXIF says; see [`~fisa.processing.photos.load_photo`].

    A call takes one photo, a list or any other collection of them, or an array of shape (B, H, W, C) or (B, C, H, W),
    and returns:

    - `pixel_values` (B, 3, H, W), float32: the whole photo, squashed to `size`, as CLIP reads it;
    - `mask_generator_pixel_values` (B, 3, Hc, Wc), float32: the photo as the mask generator reads it, at the top left
      of a canvas that depends on the settings only, never on the batch;
    - `mask_generator_pixel_mask` (B, Hc, Wc), bool: where the photo is;
    - `photo_orientation` (B,), int64, only if a PIL image among them has to be turned: the EXIF orientation of its
      pixels. The model hands it on, and `post_process_*` turns the results back: they lie on the pixels of the PIL
      image, and `target_sizes` takes `image.size[::-1]`. Results of paths, URLs and bytes lie on the upright photo,
      and a warning says so where EXIF turns it;
    - `photos`, an [`~fisa.processing.original_photos.OriginalPhoto`] for each, and `zoom` (B,), int64, with a `zoom`
      above 0: what the model needs to read proposals a second time;
    - `mask_labels` (N, H, W) float32 and `class_labels` (N,) int64, a list with one of each per photo, for
      `segmentation_maps`, as transformers' Mask2Former makes them.

    Every photo is resized from the original for each view. One original is held at a time, with `zoom` all of them.

    Settings: [`FisaImageProcessorKwargs`].

    Raises:
        ValueError: a photo cannot be read; the message says which, what was found and what to do.

    Example:

    ```python
    >>> from fisa import FisaImageProcessor

    >>> images = FisaImageProcessor.from_pretrained("my-fisa")
    >>> images("photo.jpg", return_tensors="pt")["pixel_values"].shape
    torch.Size([1, 3, 96, 96])
    ```
    """

    valid_kwargs = FisaImageProcessorKwargs
    model_input_names = ["pixel_values", "mask_generator_pixel_values", "mask_generator_pixel_mask"]

    size = SizeDict(height=224, width=224)
    resample = PILImageResampling.BICUBIC
    image_mean = OPENAI_CLIP_MEAN
    image_std = OPENAI_CLIP_STD
    do_rescale = True
    rescale_factor = 1 / 255
    do_normalize = True
    mask_generator_size = SizeDict(shortest_edge=800, longest_edge=1333)
    mask_generator_size_divisor = 32
    mask_generator_resample = PILImageResampling.BILINEAR
    mask_generator_image_mean = IMAGENET_DEFAULT_MEAN
    mask_generator_image_std = IMAGENET_DEFAULT_STD
    mask_generator_pads_with_black = False
    zoom = 0
    zoom_size = None
    threshold = 0.5
    mask_threshold = 0.5
    overlap_mask_area_threshold = 0.8
    min_score = 0.0
    post_processing_rule = "open_vocabulary"
    do_resize = True
    do_convert_rgb = True
    do_reduce_labels = False

    def __init__(self, **kwargs: Unpack[FisaImageProcessorKwargs]):
        settings: Any = FisaImageProcessorKwargs
        known = settings.__annotations__
        refuse_misspelt(kwargs, known=known, owner="FisaImageProcessor")
        for name in [name for name in kwargs if name in known]:
            try:
                validate_typed_dict(settings, {name: kwargs[name]})
            except StrictDataclassError as error:
                kind = known[name].__name__ if isinstance(known[name], type) else known[name]
                raise ValueError(f"`{name}` is {reprlib.repr(kwargs[name])}; it must be of type {kind}.") from error
        for name in THRESHOLDS:
            share(name, kwargs.get(name, 0))
        super().__init__(**kwargs)

    @classmethod
    def get_image_processor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """As transformers' own; called by `from_pretrained` for what a folder or the Hub stores.

        Raises:
            ValueError: what is stored cannot be read as settings; the message names file and setting.
        """
        with naming_file(pretrained_model_name_or_path):
            settings, options = super().get_image_processor_dict(pretrained_model_name_or_path, **kwargs)
            refuse_no_dictionary(settings, name="image_processor")
            cls(**{name: settings[name] for name in FisaImageProcessorKwargs.__annotations__ if name in settings})
        return settings, options

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As transformers' own; called with what `from_pretrained` was given.

        Raises:
            TypeError: a misspelt setting.
        """
        refuse_misspelt(kwargs, known=FisaImageProcessorKwargs.__annotations__, owner="FisaImageProcessor")
        return super().from_dict(image_processor_dict, **kwargs)

    @classmethod
    def from_clip_and_mask_generator(cls, clip: Any, mask_generator: Any = None) -> "FisaImageProcessor":
        """Copy what a CLIP model and a mask generator expect of their images.

        Args:
            clip (`str`, `os.PathLike`, image processor or processor):
                A folder, a name on the Hub, or what was loaded from it. Its crop becomes `size`: photos are squashed.
            mask_generator (the same, *optional*):
                Of Mask2Former, MaskFormer or EoMT. `None`: no view for a generator is made.
        """
        return cls(**settings_of(clip, mask_generator))

    def mask_generator_view(self, pixel_values: torch.Tensor) -> BatchFeature:
        """The mask generator's view made from CLIP's, and no finer, where the photos are no longer at hand.

        Args:
            pixel_values (`torch.Tensor` of shape `(batch_size, 3, height, width)`): as this processor makes them.

        Returns:
            [`BatchFeature`] with `mask_generator_pixel_values` and `mask_generator_pixel_mask`, on the same device.

        Example:

        ```python
        >>> view = processor.mask_generator_view(inputs["pixel_values"])
        >>> outputs = model(pixel_values=inputs["pixel_values"], **view)
        ```
        """
        pixels = pixel_values.detach().float().cpu().numpy()
        if self.do_normalize:
            pixels = pixels * np.reshape(self.image_std, (-1, 1, 1)) + np.reshape(self.image_mean, (-1, 1, 1))
        pixels = (pixels / self.rescale_factor).round().clip(0, 255).astype(np.uint8)
        photos = [Image.fromarray(photo) for photo in pixels.transpose(0, 2, 3, 1)]
        inputs = self(photos, do_rescale=True, rescale_factor=1 / 255, zoom=0, return_tensors="pt")
        inputs.pop("pixel_values")
        return inputs.to(pixel_values.device)

    def _standardize_kwargs(
        self, size: Any = None, mask_generator_size: Any = None, zoom_size: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs = super()._standardize_kwargs(**kwargs)
        kwargs["size"] = checked_size("size", size, {"height", "width"})
        kwargs["zoom_size"] = (
            kwargs["size"] if zoom_size is None else checked_size("zoom_size", zoom_size, {"height", "width"})
        )
        kwargs["zoom"] = count("zoom", kwargs["zoom"])
        if mask_generator_size is not None:
            mask_generator_size = checked_size(
                "mask_generator_size", mask_generator_size, {"height", "width"}, {"shortest_edge", "longest_edge"}
            )
        kwargs["mask_generator_size"] = mask_generator_size
        if kwargs.pop("do_convert_rgb", True) is False:
            raise ValueError("`do_convert_rgb` is False, and CLIP reads only RGB; leave it at True.")
        if kwargs.pop("do_resize", True) is False:
            raise ValueError(
                "`do_resize` is False, and CLIP reads photos of one size; set `size`, and leave it at True."
            )
        kwargs["do_reduce_labels"] = bool(kwargs.pop("reduce_labels", False) or kwargs.get("do_reduce_labels"))
        return {name: tuple(value) if isinstance(value, list) else value for name, value in kwargs.items()}

    def preprocess(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        instance_id_to_semantic_id: InstanceClasses | None = None,
        **kwargs: Unpack[FisaImageProcessorKwargs],
    ) -> BatchFeature:
        """What a call of the processor does.

        Args:
            images: photos; see [`FisaImageProcessor`].
            segmentation_maps (*optional*):
                For training: the id of each pixel of each photo, (H, W), on the pixels that the caller holds.
            instance_id_to_semantic_id (`Mapping[int, int]`, or one for each photo, *optional*):
                The class of each id. Not given: ids are classes.
            kwargs: settings of this call.

        Example:

        ```python
        >>> inputs = processor(photo, segmentation_maps=ids, instance_id_to_semantic_id={1: 0, 2: 0, 3: 4})
        >>> inputs["mask_labels"][0].shape, inputs["class_labels"][0].tolist()
        ((3, 224, 224), [0, 0, 4])
        ```
        """
        return super().preprocess(images, segmentation_maps, instance_id_to_semantic_id, **kwargs)

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        segmentation_maps: ImageInput | None = None,
        instance_id_to_semantic_id: InstanceClasses | None = None,
        *,
        input_data_format: str | ChannelDimension | None,
        return_tensors: str | TensorType | None,
        **settings: Any,
    ) -> BatchFeature:
        photos = read_photos(images, input_data_format=input_data_format)
        views = list(map(partial(self._views, settings), photos))  # a loop's variable would keep a photo too long
        if not views:
            raise ValueError("There is no image to process: an empty list was given.")
        originals = [photo for view in views if (photo := view.pop("photo", None)) is not None]
        data = {name: np.stack([view[name] for view in views]) for name in views[0]}
        orientations, photo_sizes = data["photo_orientation"], data.pop("photo_size")
        if (orientations == 1).all():
            del data["photo_orientation"]
        inputs = BatchFeature(data, tensor_type=return_tensors)
        if originals:
            inputs["photos"] = originals
        if segmentation_maps is not None:
            mask_labels, class_labels = masks_and_classes(
                segmentation_maps,
                photo_sizes=photo_sizes.tolist(),
                orientations=orientations.tolist(),
                size=settings["size"],
                instance_id_to_semantic_id=instance_id_to_semantic_id,
                ignore_index=settings["ignore_index"],
                do_reduce_labels=settings["do_reduce_labels"],
            )
            # Photos have different numbers of masks, which make no array.
            for name, labels in (("mask_labels", mask_labels), ("class_labels", class_labels)):
                inputs[name] = [BatchFeature({name: label}, tensor_type=return_tensors)[name] for label in labels]
        return inputs

    def _views(self, settings: dict[str, Any], photo: Photo) -> dict[str, Any]:
        _warn_of_assumptions(settings, photo)
        views: dict[str, Any] = {"pixel_values": self._clip_view(photo.image, settings, photo.white, settings["size"])}
        if settings["zoom"]:
            view_of = partial(self._clip_view, settings=settings, white=photo.white, size=settings["zoom_size"])
            views |= {"photo": OriginalPhoto(photo.image, view_of), "zoom": np.array(settings["zoom"])}
        if settings["mask_generator_size"] is not None:
            views |= self._mask_generator_views(settings, photo)
        size = np.array((photo.image.height, photo.image.width))
        return views | {"photo_orientation": np.array(photo.orientation_of_results), "photo_size": size}

    def _clip_view(self, image: Image.Image, settings: dict[str, Any], white: int, size: SizeDict) -> np.ndarray:
        return self._normalized(self.resize(image, size, settings["resample"]), settings, white=white)

    def _mask_generator_views(self, settings: dict[str, Any], photo: Photo) -> dict[str, np.ndarray]:
        size, divisor = settings["mask_generator_size"], settings["mask_generator_size_divisor"]
        size_on_canvas = _size_on_canvas(photo.image, size, divisor)
        resized = self.resize(photo.image, size_on_canvas, settings["mask_generator_resample"])
        (canvas,), (mask,) = self.pad([resized], _canvas_size(size, divisor), return_mask=True)
        canvas = self._normalized(canvas, settings, white=photo.white, prefix="mask_generator_")
        mask = mask.astype(bool)
        if not settings["mask_generator_pads_with_black"]:
            canvas *= mask
        return {"mask_generator_pixel_values": canvas, "mask_generator_pixel_mask": mask}

    def _normalized(self, pixels: np.ndarray, settings: dict[str, Any], *, white: int, prefix: str = "") -> np.ndarray:
        if settings["do_rescale"]:
            pixels = self.rescale(pixels, settings["rescale_factor"])
        elif white != 255:
            pixels = self.rescale(pixels, white / 255)
        if settings["do_normalize"]:
            pixels = self.normalize(pixels, settings[f"{prefix}image_mean"], settings[f"{prefix}image_std"])
        return pixels.astype(np.float32)


def _warn_of_assumptions(settings: dict[str, Any], photo: Photo) -> None:
    if photo.is_file and photo.exif_orientation != 1:
        warnings.warn(
            f"EXIF orientation {photo.exif_orientation} turns a photo that was given as a file: results lie on the "
            f"upright photo, {photo.image.height} x {photo.image.width} pixels (height x width), which is what "
            "`target_sizes` takes. Open it with PIL to have them on the pixels as they are stored.",
            stacklevel=2,
        )
    expects_0_to_1 = settings["do_normalize"] and np.max(settings["image_mean"]) <= 1
    if expects_0_to_1 and not settings["do_rescale"] and photo.white != 1:
        warnings.warn(
            f"`do_rescale=False` leaves the pixels of this photo in 0 to {photo.white}, and `image_mean` is that of "
            "pixels from 0 to 1. Pass the photo divided by its white, or leave `do_rescale` on.",
            stacklevel=2,
        )


def _canvas_size(size: SizeDict, divisor: int) -> SizeDict:
    return _rounded_up(size.get("height", size["longest_edge"]), size.get("width", size["longest_edge"]), divisor)


def _size_on_canvas(photo: Image.Image, size: SizeDict, divisor: int) -> SizeDict:
    if size.height:
        return _canvas_size(size, divisor)
    sides = get_size_with_aspect_ratio((photo.height, photo.width), size["shortest_edge"], size["longest_edge"])
    # Its rounding can leave no pixel to the short side of a very long photo, and one too many to the long side.
    height, width = (min(max(side, 1), size["longest_edge"]) for side in sides)
    return _rounded_up(height, width, divisor)


def _rounded_up(height: int, width: int, divisor: int) -> SizeDict:
    divisor = max(divisor, 1)
    return SizeDict(height=math.ceil(height / divisor) * divisor, width=math.ceil(width / divisor) * divisor)
