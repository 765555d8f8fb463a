"""Mask proposals, from a frozen universal segmentation model of transformers or ready-made from any source."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import AutoModelForUniversalSegmentation, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _get_model_class
from transformers.utils import ModelOutput

from fisa.acceleration.offloaded_weights import brought_in


# Large enough that a sigmoid gives 0 or 1 to within 1e-4, small enough for half precision.
BINARY_MASK_LOGIT = 10.0


@dataclass
class MaskProposals:
    """Class-agnostic proposals for a batch of photos.

    Attributes:
        mask_logits (`torch.Tensor` of shape `(batch_size, num_proposals, height, width)`)
        objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`): 1 − p(no object), float32.
        sizes (`torch.Tensor` of shape `(batch_size, 2)` or `None`):
            Height and width of the part of each mask that spans its photo, in mask pixels; `None`: all of it.
        class_logits (`torch.Tensor` of shape `(batch_size, num_proposals, num_known_classes)` or `None`):
            The generator's own logits for the classes that it was trained on.
        is_spare (`torch.Tensor` of shape `(batch_size, num_proposals)` or `None`):
            True for proposals below the floor that are kept because another photo of the batch has more; `None`: none.
    """

    mask_logits: torch.Tensor
    objectness: torch.Tensor
    sizes: torch.Tensor | None = None
    class_logits: torch.Tensor | None = None
    is_spare: torch.Tensor | None = None

    def likely(self, *, floor: float) -> "MaskProposals":
        """Keep the proposals whose objectness reaches a floor, at least one per photo, in their order.

        All photos keep the same number, that of the photo with the most such proposals: the others also keep their
        next likeliest. While tracing, all proposals are kept, and the others have an objectness of 0.
        """
        if floor == 0:
            return self
        if torch.compiler.is_compiling():  # how many there are, a trace cannot know
            lowest = self.objectness.amax(dim=1, keepdim=True).clamp(max=floor)
            return replace(
                self,
                objectness=self.objectness.masked_fill(self.objectness < lowest, 0.0),
                is_spare=self.objectness < floor,
            )
        count = int((self.objectness >= floor).sum(dim=1).amax().clamp(min=1))
        kept = self.objectness.topk(count, dim=1).indices.sort(dim=1).values
        photo = torch.arange(len(kept), device=kept.device)[:, None]
        return replace(
            self,
            mask_logits=self.mask_logits[photo, kept],
            objectness=self.objectness[photo, kept],
            class_logits=None if self.class_logits is None else self.class_logits[photo, kept],
            is_spare=self.objectness[photo, kept] < floor,
        )

    def claims(self) -> torch.Tensor:
        """The objectness `(batch_size, num_proposals)` with which proposals claim patches: 0 for spare ones, so that a
        photo's segments do not depend on its batch."""
        return self.objectness if self.is_spare is None else self.objectness.masked_fill(self.is_spare, 0.0)

    def without_padding(self) -> "MaskProposals":
        """Crop the masks to the largest photo. `sizes` is then `None` if all photos have one size."""
        if self.sizes is None:
            return self
        height, width = self.sizes.amax(dim=0).tolist()
        same = bool((self.sizes == self.sizes[0]).all())
        return replace(self, mask_logits=self.mask_logits[..., :height, :width], sizes=None if same else self.sizes)


def ready_proposals(masks: torch.Tensor, *, objectness: torch.Tensor | None) -> MaskProposals:
    """Wrap masks from another source: ground truth, SAM, another model.

    Args:
        masks (`torch.Tensor` of shape `(batch_size, num_proposals, height, width)`):
            Binary masks if boolean or integer; mask logits, positive inside the mask, if floating point.
        objectness (`torch.Tensor` of shape `(batch_size, num_proposals)`, *optional*):
            Probability that each proposal is an object; 1 if not given.

    Raises:
        `ValueError`: the shapes do not fit.
    """
    if masks.ndim != 4:
        raise ValueError(
            f"`mask_proposals` has shape {tuple(masks.shape)}; it must be (batch_size, num_proposals, height, width)."
        )
    if objectness is None:
        objectness = torch.ones(masks.shape[:2], device=masks.device)
    if objectness.shape != masks.shape[:2]:
        raise ValueError(
            f"`objectness` has shape {tuple(objectness.shape)}; for these masks it must be {tuple(masks.shape[:2])}."
        )
    if not masks.is_floating_point():
        masks = torch.where(masks > 0, BINARY_MASK_LOGIT, -BINARY_MASK_LOGIT)
    return MaskProposals(mask_logits=masks, objectness=objectness.float())


def has_attention(generator: type[PreTrainedModel], name: str | None) -> bool:
    """Whether a class of mask generators supports an `attn_implementation`.

    A generator without `"sdpa"`, such as Mask2Former or MaskFormer, supports only `"eager"`.
    """
    return name in (None, "eager") or generator._supports_sdpa


def new_mask_generator(config: PreTrainedConfig, *, common_attention: str | None = None) -> PreTrainedModel:
    """A mask generator with random weights.

    Args:
        config (`PreTrainedConfig`): for a model of `AutoModelForUniversalSegmentation`.
        common_attention (`str`, *optional*):
            The `attn_implementation` requested for all parts of FISA at once. A generator that does not support it
            uses its default; transformers refuses one that was requested for the generator alone.
    """
    model_class = _get_model_class(config, AutoModelForUniversalSegmentation._model_mapping)
    if config._attn_implementation == common_attention and not has_attention(model_class, common_attention):
        config._attn_implementation = None
    return AutoModelForUniversalSegmentation.from_config(config)


@torch.no_grad()
def generate_proposals(
    generator: PreTrainedModel, pixel_values: torch.Tensor, *, pixel_mask: torch.Tensor | None
) -> MaskProposals:
    """Run a frozen mask generator on photos that lie in the top left corner of a common canvas.

    Padding is cut off before the generator runs, and photos of one size run together, so that a photo's proposals do
    not depend on the other photos of the batch. A generator with a fixed `image_size` (EoMT) needs the padded canvas;
    its masks are cropped afterwards.

    Args:
        generator (`PreTrainedModel`): a model of `AutoModelForUniversalSegmentation`, in evaluation mode.
        pixel_values (`torch.Tensor` of shape `(batch_size, 3, height, width)`)
        pixel_mask (`torch.Tensor` of shape `(batch_size, height, width)`, *optional*):
            True on the photo, False on padding. `None` if there is no padding.
    """
    # EoMT reads the weight of its queries without calling them.
    with brought_in(*(child for child in generator.children() if isinstance(child, nn.Embedding))):
        return _generated(generator, pixel_values.to(generator.dtype), pixel_mask)


def _generated(
    generator: PreTrainedModel, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None
) -> MaskProposals:
    if pixel_mask is None:
        return _proposals(generator(pixel_values=pixel_values))

    photo_sizes = torch.stack([pixel_mask.any(dim=-1).sum(-1), pixel_mask.any(dim=-2).sum(-1)], dim=-1)
    if getattr(generator.config, "image_size", None) is not None:
        proposals = _proposals(generator(pixel_values=pixel_values))
        canvas = photo_sizes.new_tensor(pixel_values.shape[-2:])
        grid = photo_sizes.new_tensor(proposals.mask_logits.shape[-2:])
        proposals.sizes = ((photo_sizes * grid).float() / canvas).round().long().clamp(min=1)
        return proposals

    distinct_sizes, group_indices = photo_sizes.unique(dim=0, return_inverse=True)
    groups = [(group_indices == index).nonzero().flatten() for index in range(len(distinct_sizes))]
    by_size = [
        _proposals(generator(pixel_values=pixel_values[members, :, :height, :width]))
        for members, (height, width) in zip(groups, distinct_sizes.tolist())
    ]
    return by_size[0] if len(groups) == 1 else _in_batch_order(by_size, torch.cat(groups).argsort())


def _proposals(outputs: ModelOutput) -> MaskProposals:
    if "class_queries_logits" not in outputs or "masks_queries_logits" not in outputs:
        raise ValueError(
            f"The mask generator gave {type(outputs).__name__} with {', '.join(outputs)}; FISA needs "
            "`class_queries_logits` and `masks_queries_logits`, as Mask2Former, MaskFormer and EoMT give them."
        )
    class_logits = outputs["class_queries_logits"].float()
    # 1 − p(no object) as a sum over the classes, which loses no digits where an object is unlikely.
    objectness = class_logits.softmax(dim=-1)[..., :-1].sum(dim=-1).clamp(max=1)
    return MaskProposals(
        mask_logits=outputs["masks_queries_logits"], objectness=objectness, class_logits=class_logits[..., :-1]
    )


def _in_batch_order(groups: list[MaskProposals], order: torch.Tensor) -> MaskProposals:
    """Join the proposals of groups of photos, padding the masks to one size and undoing the grouping."""
    sizes = [group.mask_logits.shape[-2:] for group in groups]
    height, width = (max(side) for side in zip(*sizes))

    def padded(masks: torch.Tensor) -> torch.Tensor:
        padding = (0, width - masks.shape[-1], 0, height - masks.shape[-2])
        return nn.functional.pad(masks, padding, value=-BINARY_MASK_LOGIT)

    return MaskProposals(
        mask_logits=torch.cat([padded(group.mask_logits) for group in groups])[order],
        objectness=torch.cat([group.objectness for group in groups])[order],
        sizes=torch.cat(
            [order.new_tensor(size).expand(len(group.objectness), 2) for size, group in zip(sizes, groups)]
        )[order],
        class_logits=torch.cat([group.class_logits for group in groups if group.class_logits is not None])[order],
    )
