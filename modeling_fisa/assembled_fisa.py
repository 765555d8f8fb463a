"""AssembledFisa: a mask generator and [`FisaModel`] put together, and looked after as one model."""

from dataclasses import fields
from inspect import signature
from os import PathLike
from typing import Any, Self

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForUniversalSegmentation, CLIPModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file

from fisa.acceleration.deformable_attention import sum_samples_at_once
from fisa.acceleration.offloaded_weights import computing_device
from fisa.configuration.configuration_fisa import FisaConfig
from fisa.modeling_fisa.adapter_vocabulary import ADAPTER_PREFIX, pop_beside_weights, refuse_another_base
from fisa.modeling_fisa.fisa_model import FisaModel
from fisa.modeling_fisa.mask_generation import has_attention, new_mask_generator
from fisa.modeling_fisa.pretrained_fisa import FisaPreTrainedModel
from fisa.processing.parts import refuse_other_parts


class AssembledFisa(FisaPreTrainedModel):
    """A frozen mask generator and [`FisaModel`] in one model: how they are put together, frozen, moved and loaded.

    [`FisaForUniversalSegmentation`] says what they do in a call.

    Example:

    ```python
    >>> model = FisaForUniversalSegmentation.from_clip_and_mask_generator(clip_folder, mask_generator_folder)
    >>> type(model.fisa).__name__, type(model.mask_generator).__name__
    ('FisaModel', 'Mask2FormerForUniversalSegmentation')
    ```
    """

    def __init__(self, config: FisaConfig):
        common_attention = config._attn_implementation  # read before it is filled in
        super().__init__(config)
        self.fisa = FisaModel(config)
        self.mask_generator = None
        if isinstance(config.mask_generator_config, PreTrainedConfig):
            generator = new_mask_generator(config.mask_generator_config, common_attention=common_attention)
            self.mask_generator = sum_samples_at_once(generator)
        self.post_init()
        if self.mask_generator is not None and not self._generator_can_be_offloaded:
            self._no_split_modules = {*(self._no_split_modules or ()), type(self.mask_generator).__name__}
        self.freeze_untrained_parts()

    @property
    def _vocabulary_model(self) -> FisaModel:
        return self.fisa

    def _untrained_parts(self) -> list[nn.Module]:
        # The last layer's image queries change image tokens that no mask token reads any more.
        last_image_queries = self.fisa.vision_model.encoder.layers[-1].self_attn.q_proj
        generator = [] if self.mask_generator is None else [self.mask_generator]
        return [*self.fisa._untrained_parts(), last_image_queries, *generator]

    @classmethod
    def from_clip_and_mask_generator(
        cls,
        clip: str | PathLike | CLIPModel,
        mask_generator: str | PathLike | PreTrainedModel | None = None,
        **config_options: Any,
    ) -> Self:
        """Put a model together from a CLIP and a mask generator; their weights arrive unchanged.

        Args:
            clip: folder, Hub name or loaded `CLIPModel`.
            mask_generator: folder, Hub name or loaded model of `AutoModelForUniversalSegmentation` (Mask2Former,
                MaskFormer, EoMT). `None`: a model for ready proposals.
            config_options: fields of [`FisaConfig`], `seve_layers=[0, 1]` for example.

        Raises:
            `ValueError`: a folder or Hub name is of another kind of model.
            `TypeError`: an option that is not a field of the config.

        Example:

        ```python
        >>> model = FisaForUniversalSegmentation.from_clip_and_mask_generator(
        ...     "openai/clip-vit-large-patch14-336", "facebook/mask2former-swin-large-coco-panoptic"
        ... )
        ```
        """
        known = {field.name for field in fields(FisaConfig)}
        if unknown := sorted(set(config_options) - known):
            raise TypeError(f"FisaConfig has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        refuse_other_parts(clip, mask_generator)
        if isinstance(clip, (str, PathLike)):
            clip = CLIPModel.from_pretrained(clip)
        if isinstance(mask_generator, (str, PathLike)):
            generator: PreTrainedModel | None = AutoModelForUniversalSegmentation.from_pretrained(mask_generator)
        else:
            generator = mask_generator
        parts_options: dict[str, Any] = {
            "text_config": clip.config.text_config,
            "vision_config": clip.config.vision_config,
            "mask_generator_config": None if generator is None else generator.config,
            "projection_dim": clip.config.projection_dim,
            "logit_scale_init_value": clip.config.logit_scale_init_value,
            # No back-end is named for any part: each keeps the one that it was loaded with.
            "attn_implementation": {part: {} for part in FisaConfig.sub_configs},
        }
        config = FisaConfig(**parts_options, **config_options)
        # On the meta device nothing is allocated or initialised for the parts that are about to be put in place.
        with torch.device("meta"):
            model = cls(config)
        model.fisa.adopt_clip(clip)
        model.mask_generator = None if generator is None else sum_samples_at_once(generator)
        model.freeze_untrained_parts()
        return model.eval()

    @property
    def _generator_can_be_offloaded(self) -> bool:
        # By transformers' own mark of it.
        return self.mask_generator is not None and bool(type(self.mask_generator)._no_split_modules)

    def _check_offloading(self) -> None:
        """Refuse a generator that was offloaded and reads its weights in ways that accelerate cannot follow.

        Raises:
            `ValueError`: with the device map that works.
        """
        generator = self.mask_generator
        if generator is None or self._generator_can_be_offloaded or computing_device(generator) is None:
            return
        if any(parameter.is_meta for parameter in generator.parameters()):
            device = computing_device(generator)
            raise ValueError(
                f"{type(generator).__name__}, the mask generator, cannot be offloaded to the disk or another memory, "
                f'all else can: pass `device_map={{"mask_generator": "{device}", "fisa": "disk"}}` and an '
                "`offload_folder`."
            )

    def train(self, mode: bool = True) -> Self:
        """Training mode for CLIP's side; the frozen generator stays in evaluation mode."""
        super().train(mode)
        if self.mask_generator is not None:
            self.mask_generator.eval()
        return self

    def get_input_embeddings(self) -> nn.Module:
        return self.fisa.get_input_embeddings()

    def set_attn_implementation(
        self, attn_implementation: str | dict[str, Any], *arguments: Any, **options: Any
    ) -> None:
        """As transformers' own models; one name is for the parts that have a choice, and a generator without it keeps
        what it has."""
        if isinstance(attn_implementation, str) and self.mask_generator is not None:
            if not has_attention(type(self.mask_generator), attn_implementation):
                attn_implementation = dict.fromkeys(("", "text_config", "vision_config"), attn_implementation)
        super().set_attn_implementation(attn_implementation, *arguments, **options)

    def enable_input_require_grads(self) -> None:
        """Let gradients reach CLIP's patch embedding; the frozen generator is left alone."""
        self.fisa.enable_input_require_grads()

    def disable_input_require_grads(self) -> None:
        """Undo [`enable_input_require_grads`]."""
        self.fisa.disable_input_require_grads()

    def load_adapter(self, peft_model_id: str | None = None, *arguments: Any, **options: Any) -> Any:
        """As transformers' own models load an adapter, and with it the vocabulary that it was trained on."""
        from fisa.modeling_fisa.active_vocabulary import names_of_adapter  # needs PEFT, as adapters do

        bound = signature(super().load_adapter).bind(peft_model_id, *arguments, **options)
        tensors = bound.arguments.get("adapter_state_dict")
        if tensors is None and peft_model_id is not None:
            # An adapter in PyTorch's own format, which PEFT once wrote, is older than this.
            file = cached_file(
                peft_model_id,
                "adapter_model.safetensors",
                _raise_exceptions_for_missing_entries=False,
                **bound.arguments.get("adapter_kwargs") or {},
            )
            tensors = None if file is None else load_file(file)
        beside: dict[str, torch.Tensor] = {}
        if tensors is not None:  # what is not a weight would be reported as unexpected
            tensors = dict(tensors)
            beside = pop_beside_weights(tensors, ADAPTER_PREFIX)
        bound.arguments["adapter_state_dict"] = tensors
        try:
            report = super().load_adapter(*bound.args, **bound.kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"The adapter {peft_model_id or 'given'} does not fit the base {self.name_or_path}: their weights "
                "differ in size. It was trained on another base; load that one."
            ) from error
        refuse_another_base(
            adapter=peft_model_id or "given",
            base=self.name_or_path or "given",
            unexpected=report.unexpected_keys,
            missing=names_of_adapter(self, bound.arguments.get("adapter_name") or "default") & report.missing_keys,
        )
        self.fisa.take_over_from_adapter(beside)
        return report


__all__ = ["AssembledFisa"]
