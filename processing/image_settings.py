"""The settings of the image processor: what they mean, and those that CLIP and a mask generator bring along."""

import os
from typing import Any, TypedDict

import numpy as np
from transformers import AutoImageProcessor
from transformers.image_processing_utils import get_size_dict
from transformers.image_utils import ChannelDimension, PILImageResampling, SizeDict
from transformers.utils import TensorType


Numbers = float | int | list[float | int] | tuple[float | int, ...]


class FisaImageProcessorKwargs(TypedDict, total=False):
    r"""The settings of a [`FisaImageProcessor`]; each can be given to a single call as well.

    Args:
        size (`dict[str, int]`, defaults to `{"height": 224, "width": 224}`):
            What CLIP sees: the whole photo, squashed to this size, without a crop.
        resample (`int` or `PILImageResampling`, defaults to `BICUBIC`):
            The filter that resizes CLIP's view.
        image_mean, image_std (`list[float]`, default to CLIP's):
            Subtracted from the pixels of CLIP's view, and what the rest is divided by.
        do_rescale (`bool`, defaults to `True`), rescale_factor (`float`, defaults to `1 / 255`):
            Whether the pixels of both views (0 to 255) are multiplied by the factor first. Without it they keep the
            scale of the photo that was given: 0 to 1 for floating point of that range, 0 to 255 for 8 bits.
        do_normalize (`bool`, defaults to `True`):
            Whether mean and standard deviation are applied to both views.
        mask_generator_size (`dict[str, int]`, *optional*, defaults to `{"shortest_edge": 800, "longest_edge": 1333}`):
            What the mask generator sees: the photo with these bounds on its edges, its aspect ratio kept, at the top
            left of a square canvas of the longest edge; or, as `{"height": ..., "width": ...}`, the photo squashed.
            `None`: there is no generator, and its view is not made.
        mask_generator_size_divisor (`int`, defaults to 32):
            The sides of the generator's view are rounded up to a multiple of this (by resizing), the canvas too.
        mask_generator_resample (`int` or `PILImageResampling`, defaults to `BILINEAR`):
            The filter that resizes the generator's view.
        mask_generator_image_mean, mask_generator_image_std (`list[float]`, default to ImageNet's):
            As for CLIP's view.
        mask_generator_pads_with_black (`bool`, defaults to `False`):
            What the canvas is where there is no photo: black before normalising, as EoMT learnt it, or else zero after
            it, as Mask2Former and MaskFormer did.
        zoom (`int`, defaults to 0):
            How many proposals of each photo the model reads a second time, in windows of the original photo around
            them; see [`~fisa.modeling_fisa.zoom`]. 0: none, and the original is not handed over.
        zoom_size (`dict[str, int]`, *optional*):
            What CLIP sees of such a window: best the size that it was pre-trained at. `None`: that of `size`.
        threshold, mask_threshold, overlap_mask_area_threshold (`float`, default to 0.5, 0.5 and 0.8):
            What `post_process_*` uses where the call does not say; see there.
        min_score (`float`, defaults to 0.0):
            The lowest score of a segment, likewise.
        post_processing_rule (`"open_vocabulary"` or `"closed_vocabulary"`, defaults to the former):
            Which proposals become segments: see [`~fisa.processing.post_processing.Rule`].
        do_resize, do_convert_rgb (`bool`, default to `True`):
            Photos of every size and kind become RGB of these sizes; `False` is refused.
        ignore_index (`int`, *optional*), do_reduce_labels (`bool`, defaults to `False`):
            For segmentation maps, as Mask2Former has them: the id that has no mask; and whether id 0 is background,
            which has none, and all classes count one less. `reduce_labels` is the latter's older name.
        input_data_format (`str` or `ChannelDimension`, *optional*):
            `"channels_first"` or `"channels_last"`, for arrays whose shape leaves it open.
        return_tensors (`str`, *optional*):
            `"pt"` for torch tensors; NumPy arrays otherwise.
    """

    size: int | list[int] | tuple[int, ...] | dict[str, int] | SizeDict
    resample: PILImageResampling | int
    image_mean: Numbers
    image_std: Numbers
    do_rescale: bool
    rescale_factor: float | int
    do_normalize: bool
    mask_generator_size: int | list[int] | tuple[int, ...] | dict[str, int] | SizeDict | None
    mask_generator_size_divisor: int
    mask_generator_resample: PILImageResampling | int
    mask_generator_image_mean: Numbers
    mask_generator_image_std: Numbers
    mask_generator_pads_with_black: bool
    zoom: int
    zoom_size: int | list[int] | tuple[int, ...] | dict[str, int] | SizeDict | None
    threshold: float | int
    mask_threshold: float | int
    overlap_mask_area_threshold: float | int
    min_score: float | int
    post_processing_rule: str
    do_resize: bool
    do_convert_rgb: bool
    ignore_index: int | None
    do_reduce_labels: bool
    reduce_labels: bool
    input_data_format: str | ChannelDimension | None
    return_tensors: str | TensorType | None


def settings_of(clip: Any, mask_generator: Any = None) -> dict[str, Any]:
    """What a CLIP model and a mask generator expect of their images, as settings of a [`FisaImageProcessor`].

    Args:
        clip, mask_generator: as for [`FisaImageProcessor.from_clip_and_mask_generator`].
    """
    clip = _image_processor_of(clip)
    mean, std = _normalization(clip)
    settings = {
        "size": _square(clip.crop_size if getattr(clip, "do_center_crop", False) else clip.size),
        "resample": clip.resample,
        "image_mean": mean,
        "image_std": std,
        "mask_generator_size": None,
    }
    settings["zoom_size"] = settings["size"]
    if mask_generator is not None:
        mask_generator = _image_processor_of(mask_generator)
        mean, std = _normalization(mask_generator)
        settings |= {
            "mask_generator_size": _bounded(mask_generator.size),
            "mask_generator_size_divisor": getattr(mask_generator, "size_divisor", None) or 1,
            "mask_generator_resample": mask_generator.resample,
            "mask_generator_image_mean": mean,
            "mask_generator_image_std": std,
            "mask_generator_pads_with_black": hasattr(mask_generator, "do_split_image"),  # EoMT's alone
        }
    return settings


def checked_size(name: str, size: Any, *kinds: set[str]) -> SizeDict:
    """A size in pixels, in whatever form transformers takes it.

    Args:
        name (`str`): of the setting.
        size: a dictionary, a number or a pair of height and width.
        kinds (`set[str]`): the keys that it may have.

    Raises:
        ValueError: other keys, or a side below 1.

    Example:

    ```python
    >>> dict(checked_size("size", 224, {"height", "width"}))
    {'height': 224, 'width': 224}
    ```
    """
    if isinstance(size, list | tuple) and len(size) != 2:
        raise ValueError(f"`{name}` must be a pair of height and width where it is a list; found {size}.")
    size = get_size_dict(size, param_name=name)
    if set(size) not in kinds or any(not isinstance(side, int) or side < 1 for side in size.values()):
        choices = " or ".join(str(sorted(kind)) for kind in kinds)
        raise ValueError(f"`{name}` must have the keys {choices}, each at least 1; found {size}.")
    return SizeDict(**size)


def _image_processor_of(source: Any) -> Any:
    if isinstance(source, str | os.PathLike):
        return AutoImageProcessor.from_pretrained(source, backend="pil")
    return getattr(source, "image_processor", source)


def _square(size: SizeDict) -> dict[str, int]:
    return {side: size.get(side, size["shortest_edge"]) for side in ("height", "width")}


def _bounded(size: SizeDict) -> dict[str, int]:
    # EoMT's semantic checkpoints name the shortest edge only and mean the sides of a square.
    return dict(size) if size.height else {"longest_edge": size["shortest_edge"]} | dict(size)


def _normalization(processor: Any) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation of a processor for pixel values from 0 to 1, whether it rescales or not."""
    mean, std = (processor.image_mean, processor.image_std) if processor.do_normalize else (0.0, 1.0)
    white = 255 * processor.rescale_factor if processor.do_rescale else 255
    return tuple(tuple((np.broadcast_to(value, 3) / white).tolist()) for value in (mean, std))
