"""SIMO trains chosen leaves of a model as a PEFT adapter, which is saved, loaded, switched and merged as usual."""

import re
from typing import TYPE_CHECKING

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.configuration.configuration_simo import SimoConfig
from fisa.modeling_fisa.pretrained_fisa import FisaPreTrainedModel


if TYPE_CHECKING:
    from peft import PeftModel


IMAGE_LEAVES = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "out_proj": "self_attn.out_proj",
    "fc1": "mlp.fc1",
    "fc2": "mlp.fc2",
}


def get_simo_model(
    model: FisaPreTrainedModel, config: SimoConfig | None = None, *, adapter_name: str = "default"
) -> "PeftModel":
    """Freeze a model except for the leaves that SIMO trains.

    The result is a PEFT model that trains copies of these leaves (`LNTuningConfig`, which takes any leaf, not only
    norms). Only the copies are saved; the base model does not change, and the copies can be switched off or merged.

    Args:
        model ([`FisaForUniversalSegmentation`] or [`FisaModel`])
        config ([`SimoConfig`], *optional*): which leaves are trained; `SimoConfig()` if not given.
        adapter_name (`str`): PEFT's name for the copies.

    Raises:
        `ValueError`: the config names layers that the model does not have, or whose training would change nothing.
        `TypeError`: the model is not FISA's, or has an adapter already.

    Example:

    ```python
    >>> simo_model = get_simo_model(model, SimoConfig(image_projections=()))
    >>> simo_model.print_trainable_parameters()
    trainable params: 25,152 || all params: 740,914 || trainable%: 3.3947
    ```
    """
    from peft import LNTuningConfig, get_peft_model  # an extra, needed for training only

    if not isinstance(getattr(model, "config", None), FisaConfig) or hasattr(model, "peft_config"):
        raise TypeError(
            f"A {type(model).__name__} cannot be adapted: pass FISA's own model without an adapter. One that has an "
            "adapter takes another by `add_adapter`, or becomes a plain model by `merge_and_unload`."
        )
    leaves = simo_target_modules(model.config, config or SimoConfig())
    return get_peft_model(model, LNTuningConfig(target_modules=leaves), adapter_name=adapter_name)


def simo_target_modules(model_config: FisaConfig, config: SimoConfig, *, norms: bool = True) -> str:
    """The leaves that SIMO trains, as the regular expression that PEFT's configurations take for `target_modules`.

    Args:
        model_config ([`FisaConfig`])
        config ([`SimoConfig`])
        norms (`bool`): whether SEVE's norms are included. LoRA takes linear layers and embeddings only.
    """
    num_layers = model_config.image_tower.num_hidden_layers
    leaves = [
        rf"vision_model\.encoder\.layers\.({_any_of(layers)})\.{re.escape(IMAGE_LEAVES[projection])}"
        for projection in config.image_projections
        if (layers := _image_layers(config, projection, num_layers))
    ]
    if config.mask_queries:
        leaves.append(r"mask_encoder\.layers\.\d+\.mask_attention\.query_proj")
    if config.mask_position:
        leaves.append(r"mask_encoder\.mask_position")
    if config.semantic_guidance:
        leaves.append(r"mask_encoder\.layers\.\d+\.semantic_guidance\." + (r"\w+" if norms else r"\w+_proj"))
    return rf"(fisa\.)?({_any_of(leaves)})"


def _any_of(patterns: list) -> str:
    return "|".join(map(str, patterns))


def _image_layers(config: SimoConfig, projection: str, num_layers: int) -> list[int]:
    """The layers in which an image projection is trained."""
    last = num_layers - 1
    if config.image_layers is None:
        return list(range(last if projection == "q_proj" else num_layers))
    wrong = [layer for layer in config.image_layers if not 0 <= layer < num_layers]
    if wrong:
        raise ValueError(f"`image_layers` names {wrong}; this CLIP's image tower has the layers 0 to {last}.")
    if projection == "q_proj" and last in config.image_layers:
        raise ValueError(
            f"`image_layers` names layer {last}, the last: its image queries change the image tokens only after "
            "the mask tokens have read them, so that training them does nothing. Leave it out."
        )
    return list(config.image_layers)
