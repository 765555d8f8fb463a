"""SimoConfig: the parts of a model that SIMO (strategic image-mask optimisation) trains."""

from dataclasses import dataclass
from typing import Literal, get_args


ImageProjection = Literal["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@dataclass(frozen=True)
class SimoConfig:
    """The leaves that SIMO trains; all others stay frozen.

    Args:
        image_projections (defaults to `("q_proj",)`):
            Projections of CLIP's image stream: `"q_proj"`, `"k_proj"`, `"v_proj"`, `"out_proj"` of its attention,
            `"fc1"`, `"fc2"` of its MLP. Only image tokens use the query projection; mask tokens also use the others.
            Training any of them changes CLIP's image embeddings; an empty tuple leaves these unchanged.
        image_layers (`tuple[int, ...]`, *optional*):
            The layers in which they are trained, counted from 0. `None`: all layers. The last layer's `"q_proj"` is
            never trained, because no mask token reads what it changes.
        mask_queries (`bool`, defaults to `True`):
            The mask tokens' query projections, in all layers.
        mask_position (`bool`, defaults to `True`):
            The mask tokens' position.
        semantic_guidance (`bool`, defaults to `True`):
            SEVE, if the model has it.

    Raises:
        ValueError: a projection is unknown, or there is nothing to train.

    Example:

    ```python
    >>> SimoConfig(image_projections=("q_proj", "v_proj"), image_layers=(0, 1)).semantic_guidance
    True
    ```
    """

    image_projections: tuple[ImageProjection, ...] = ("q_proj",)
    image_layers: tuple[int, ...] | None = None
    mask_queries: bool = True
    mask_position: bool = True
    semantic_guidance: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.image_projections if name not in get_args(ImageProjection)]
        if unknown:
            raise ValueError(
                f"`image_projections` names {', '.join(unknown)}; "
                f"CLIP's image layers have {', '.join(get_args(ImageProjection))}."
            )
        if not (self.image_projections or self.mask_queries or self.mask_position or self.semantic_guidance):
            raise ValueError("Everything is switched off: SIMO needs at least one part to train.")


__all__ = ["SimoConfig"]
