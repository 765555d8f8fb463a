"""FisaForUniversalSegmentation: a frozen mask generator, [`FisaModel`] behind it, and scores."""

import pickle
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from transformers.utils import can_return_tuple, logging

from fisa.acceleration.offloaded_weights import brought_in
from fisa.modeling_fisa.assembled_fisa import AssembledFisa
from fisa.modeling_fisa.encoded_vocabulary import OTHERS, EncodedVocabulary, StoredVocabulary
from fisa.modeling_fisa.fisa_model import FisaModel
from fisa.modeling_fisa.generator_opinion import GeneratorOpinion
from fisa.modeling_fisa.loss_fisa import mask_classification_loss
from fisa.modeling_fisa.mask_classification import class_logits, joint_log_probs, split_off_others
from fisa.modeling_fisa.mask_generation import MaskProposals, generate_proposals, ready_proposals
from fisa.modeling_fisa.outputs_fisa import FisaModelOutput, FisaOutput
from fisa.modeling_fisa.pretrained_fisa import FisaPreTrainedModel
from fisa.modeling_fisa.proposal_matching import ground_truth_proposals, labels_of_proposals
from fisa.modeling_fisa.vocabulary_model import STORING
from fisa.modeling_fisa.zoom import WINDOWS_AT_A_TIME, choose_closeups, flat_photos
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.original_photos import OriginalPhoto

# Saved again, a model that was loaded from the Hub's code takes along what this file imports.
from fisa.processing.pipeline_fisa import FisaPipeline  # noqa: F401


logger = logging.get_logger(__name__)

SCORES_AT_A_TIME = 2**18
"""So many, and what is computed from them, stay in a processor's cache."""


class FisaForUniversalSegmentation(AssembledFisa):
    """FISA whole: a frozen mask generator finds the masks, CLIP with mask tokens names them with any words.

    The generator is never trained here: it runs without gradients and stays in evaluation mode.

    Example:

    ```python
    >>> import torch
    >>> from PIL import Image
    >>> from fisa import FisaForUniversalSegmentation, FisaProcessor

    >>> model = FisaForUniversalSegmentation.from_pretrained(folder).eval()
    >>> processor = FisaProcessor.from_pretrained(folder)
    >>> photo = Image.open("photo.jpg")
    >>> with torch.no_grad():
    ...     outputs = model(**processor(images=photo, text=["dog", "frisbee", "grass"], return_tensors="pt"))
    >>> (result,) = processor.post_process_panoptic_segmentation(outputs, target_sizes=[photo.size[::-1]])
    >>> result["segmentation"].shape, result["segments_info"][0]["label_id"]
    (torch.Size([480, 640]), 2)
    ```
    """

    _remembered: tuple[tuple[torch.Tensor | None, ...], bytes, EncodedVocabulary] | None = None

    def _encoded(self, texts: StoredVocabulary) -> EncodedVocabulary:
        return self._opinion.encoded(texts, device=self.device)

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        mask_generator_pixel_values: torch.FloatTensor | None = None,
        mask_generator_pixel_mask: torch.Tensor | None = None,
        mask_proposals: torch.Tensor | None = None,
        objectness: torch.Tensor | None = None,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        prompt_class_ids: torch.LongTensor | None = None,
        class_embeds: torch.FloatTensor | None = None,
        class_is_thing: torch.BoolTensor | None = None,
        class_kinds: torch.LongTensor | None = None,
        generator_class_ids: torch.LongTensor | None = None,
        other_embeds: torch.FloatTensor | None = None,
        prompt_other_ids: torch.LongTensor | None = None,
        other_is_thing: torch.BoolTensor | None = None,
        other_kinds: torch.LongTensor | None = None,
        other_generator_class_ids: torch.LongTensor | None = None,
        mask_labels: torch.Tensor | Sequence[torch.Tensor] | None = None,
        class_labels: torch.LongTensor | Sequence[torch.LongTensor] | None = None,
        class_log_priors: torch.FloatTensor | None = None,
        patch_segments: torch.LongTensor | None = None,
        photo_orientation: torch.LongTensor | None = None,
        zoom: int | torch.LongTensor | None = None,
        photos: Sequence[OriginalPhoto] | None = None,
        output_hidden_states: bool | Collection[int] | None = None,
        output_attentions: bool | None = None,
    ) -> FisaOutput:
        r"""
        [`FisaProcessor`] makes all of this from photos and words.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`):
                Photos as CLIP wants them.
            mask_generator_pixel_values (`torch.FloatTensor` of shape `(batch_size, 3, height, width)`, *optional*):
                The same photos as the mask generator wants them, top left on a common canvas. If neither they nor
                `mask_proposals` are given, they are made from `pixel_values`, which are coarser; a warning says so; or
            mask_generator_pixel_mask (`torch.BoolTensor` of shape `(batch_size, height, width)`, *optional*):
                True on the photo, False on the canvas around it.
            mask_proposals (`torch.Tensor` of shape `(batch_size, num_proposals, height, width)`, *optional*):
                ready proposals, each spanning its photo: boolean or integer masks, or logits. No generator runs then.
            objectness (`torch.FloatTensor` of shape `(batch_size, num_proposals)`, *optional*):
                Of the ready proposals, in [0, 1]; 1 if not given.
            input_ids, attention_mask (`torch.LongTensor` of shape `(num_prompts, num_templates, length)`, *optional*):
                The vocabulary as tokenised prompts; or
            class_embeds (`torch.FloatTensor` of shape `(num_prompts, projection_dim)`, *optional*):
                as ready text embeddings, also `(batch_size, num_prompts, projection_dim)`; or neither: the stored one.
            prompt_class_ids (`torch.LongTensor` of shape `(num_prompts,)`, *optional*):
                Which class each prompt names, 0 to num_classes − 1; each its own if not given.
            class_is_thing (`torch.BoolTensor` of shape `(num_classes,)`, *optional*):
                Handed on to post-processing, where stuff of one class becomes one segment.
            class_kinds (`torch.LongTensor` of shape `(num_classes,)`, *optional*):
                What is known of the kind of each class: 1 a thing, 0 stuff, −1 unknown. Compared with the generator's
                opinion if `kind_weight` > 0; if not given, `class_is_thing` is taken for knowledge.
            generator_class_ids (`torch.LongTensor` of shape `(num_classes,)`, *optional*):
                The generator's index of each class, −1 where it does not know it; read if `ensemble_weight` > 0.
            other_embeds (`torch.FloatTensor` of shape `(num_other_prompts, projection_dim)`, *optional*):
                Text embeddings of words that compete with the classes and are not returned; if neither these nor
                classes are given, those that are stored with the vocabulary.
            prompt_other_ids, other_is_thing, other_kinds, other_generator_class_ids (*optional*):
                As `prompt_class_ids`, `class_is_thing` (all things if not given), `class_kinds` and
                `generator_class_ids`.
            mask_labels (`Sequence[torch.Tensor]`, *optional*):
                For training: the ground-truth masks of each photo, `(num_masks, height, width)`, boolean or 0 and 1,
                each spanning its photo. The proposals are matched to them. With `pixel_values` alone they are
                classified themselves, and the loss is theirs; the other outputs are those of the generator's
                proposals, except in training mode with gradients, where the generator does not run.
            class_labels (`Sequence[torch.LongTensor]` or `torch.LongTensor`, *optional*):
                The class of each ground-truth mask, `(num_masks,)` per photo; or, without `mask_labels`, of each
                proposal, `(batch_size, num_proposals)`. −100: a mask that is ignored, such as void or a crowd.
            class_log_priors (`torch.FloatTensor` of shape `(num_classes,)`, *optional*):
                Added to the logits in the loss alone, also `(batch_size, num_classes)`: how frequent each class is in
                training, as a logarithm, so that the model need not learn it (logit adjustment, arXiv 2007.07314).
            patch_segments (`torch.LongTensor` of shape `(batch_size, num_patches)`, *optional*):
                Which segment each patch of CLIP's view belongs to, row by row, any numbers; for ready proposals that
                are only some of a photo's, as those of a proposal cache are. Read if `segment_attention_penalty` > 0;
                if not given, each patch belongs to the likeliest of the proposals at hand.
            photo_orientation (`torch.LongTensor` of shape `(batch_size,)`, *optional*):
                Handed on to post-processing, which turns results back to how the caller holds the photo; see
                [`FisaImageProcessor`].
            zoom (`int` or `torch.LongTensor` of shape `(batch_size,)`, *optional*):
                How many proposals of each photo are read a second time, in windows of `photos`; 0 and not given: none.
                `class_queries_logits` then averages both readings; see [`~fisa.modeling_fisa.zoom`].
            photos (`Sequence[OriginalPhoto]`, *optional*):
                The photos with all their pixels, for `zoom`: the processor hands over both, called with `zoom=`.
        """
        if not pixel_values.is_floating_point():
            raise TypeError(
                f"`pixel_values` are {pixel_values.dtype}, as photos are: FisaProcessor makes what CLIP wants."
            )
        if mask_labels is not None and class_labels is None:
            raise ValueError("`mask_labels` came without `class_labels`: pass the class of each mask as well.")
        if mask_proposals is None:
            _refuse_alone({"objectness": objectness}, of="`mask_proposals`")
        truth: MaskProposals | None = None
        if mask_labels is not None and mask_proposals is None and mask_generator_pixel_values is None:
            truth, truth_labels = ground_truth_proposals(mask_labels, class_labels)
        if truth is not None and self.training and torch.is_grad_enabled():
            proposals = truth
        else:
            proposals = self._proposals(
                pixel_values, mask_generator_pixel_values, mask_generator_pixel_mask, mask_proposals, objectness
            )
        vocabulary = self._vocabulary(
            input_ids,
            attention_mask,
            class_embeds,
            prompt_class_ids=prompt_class_ids,
            class_is_thing=class_is_thing,
            class_kinds=class_kinds,
            generator_class_ids=generator_class_ids,
        )
        vocabulary = _with_others(
            vocabulary,
            other_embeds,
            prompt_class_ids=prompt_other_ids,
            class_is_thing=other_is_thing,
            class_kinds=other_kinds,
            generator_class_ids=other_generator_class_ids,
        )
        everything, num_classes = vocabulary.everything, vocabulary.num_classes
        encoded, logits = self._classify(
            pixel_values,
            proposals,
            everything,
            patch_segments=patch_segments,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
        )
        readings = logits
        if zoom is not None and torch.as_tensor(zoom).any():
            readings = self._zoomed(logits, pixel_values, proposals, everything, zoom=zoom, photos=photos)
        loss = None
        if truth is not None:
            of_truth = logits
            if truth is not proposals:
                _, of_truth = self._classify(pixel_values, truth, everything, patch_segments=patch_segments)
            loss = self._loss(of_truth[..., :num_classes], truth, None, truth_labels, class_log_priors)
        elif class_labels is not None:
            loss = self._loss(logits[..., :num_classes], proposals, mask_labels, class_labels, class_log_priors)
        joint, others_logits = self._joint_log_probs(readings, proposals, everything), None
        if vocabulary.others is not None:
            joint, others_logits = split_off_others(joint, num_classes=num_classes)
        is_thing = everything.class_is_thing
        is_thing = None if is_thing is None else is_thing.expand(logits.shape[0], -1)
        return FisaOutput(
            loss=loss,
            class_queries_logits=joint,
            masks_queries_logits=proposals.mask_logits,
            objectness=proposals.objectness,
            logits_per_mask=logits[..., :num_classes],
            class_is_thing=None if is_thing is None else is_thing[:, :num_classes],
            others_queries_logits=others_logits,
            other_is_thing=None if is_thing is None or others_logits is None else is_thing[:, num_classes:],
            proposal_sizes=proposals.sizes,
            photo_orientation=photo_orientation,
            class_embeds=vocabulary.class_embeds.expand(logits.shape[0], -1, -1),
            **{key: value for key, value in encoded.items() if key not in ("last_hidden_state", "class_embeds")},
        )

    def _classify(
        self, pixel_values: torch.Tensor, proposals: MaskProposals, vocabulary: EncodedVocabulary, **options: Any
    ) -> tuple[FisaModelOutput, torch.Tensor]:
        """What CLIP makes of proposals, and its logits `(batch_size, num_proposals, num_classes)`."""
        with self._classifier_precision():
            encoded = self.fisa(
                pixel_values,
                proposals.mask_logits,
                proposal_sizes=proposals.sizes,
                objectness=proposals.claims(),
                class_embeds=vocabulary.class_embeds,
                output_image_tokens=False,
                return_dict=True,
                **options,
            )
        with brought_in(self.fisa):
            logit_scale = self.fisa.logit_scale
        return encoded, class_logits(encoded.mask_embeds, vocabulary, logit_scale=logit_scale)

    def _zoomed(
        self,
        logits: torch.Tensor,
        pixel_values: torch.Tensor,
        proposals: MaskProposals,
        vocabulary: EncodedVocabulary,
        *,
        zoom: int | torch.Tensor,
        photos: Sequence[OriginalPhoto] | None,
    ) -> torch.Tensor:
        """The same logits, but for the proposals that are read a second time: there, the mean of the log-probabilities
        of both readings."""
        photos = flat_photos(photos, count=len(logits))
        closeups = choose_closeups(
            proposals,
            photo_sizes=[photo.size for photo in photos],
            zoom=torch.as_tensor(zoom).expand(len(photos)),
            floor=self.config.objectness_floor,
        )
        again = []
        for part in closeups.split(WINDOWS_AT_A_TIME):
            windows = part.pixel_values(photos).to(pixel_values)
            alone = part.proposals_alone(
                proposals,
                image_size=(windows.shape[-2], windows.shape[-1]),
                patch_size=self.fisa.vision_model.embeddings.patch_size,
                threshold=self.config.mask_coverage_threshold,
            )
            again.append(self._classify(windows, alone, part.vocabularies(vocabulary))[1].squeeze(1))
        return closeups.average(logits, again)

    def _proposals(
        self,
        pixel_values: torch.Tensor,
        generator_pixel_values: torch.Tensor | None,
        generator_pixel_mask: torch.Tensor | None,
        masks: torch.Tensor | None,
        objectness: torch.Tensor | None,
    ) -> MaskProposals:
        """Ready-made proposals, else the generator's, from its own view of the photos or, without one, from CLIP's."""
        if masks is not None:
            return ready_proposals(masks, objectness=objectness)
        if self.mask_generator is None:
            raise ValueError("No masks to classify: pass `mask_proposals` (this model has no mask generator).")
        if generator_pixel_values is not None:
            proposals = generate_proposals(
                self.mask_generator, generator_pixel_values, pixel_mask=generator_pixel_mask
            )
        else:
            view = self._image_processor.mask_generator_view(pixel_values)
            proposals = generate_proposals(
                self.mask_generator,
                view["mask_generator_pixel_values"],
                pixel_mask=view["mask_generator_pixel_mask"],
            ).without_padding()
        return proposals.likely(floor=self.config.objectness_floor)

    @cached_property
    def _image_processor(self) -> FisaImageProcessor:
        """That of the folder that the model was loaded from: it knows how CLIP's view was made."""
        folder = self.name_or_path
        try:
            if not folder:
                raise OSError("the model was not loaded from a folder")
            revision = getattr(self.config, "_commit_hash", None)  # that of the weights, on the Hub
            processor = FisaImageProcessor.from_pretrained(folder, revision=revision or "main")
        except OSError as error:
            raise ValueError(
                "No masks to classify: pass `mask_generator_pixel_values` (FisaProcessor makes them) or "
                f"`mask_proposals`. They cannot be made from `pixel_values`: {error}"
            ) from error
        logger.warning(
            "`pixel_values` came alone, and the mask generator's view is made from them. Masks are finer from "
            "`mask_generator_pixel_values`, which FisaProcessor and its image processor make from the photo itself."
        )
        return processor

    def _vocabulary(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        class_embeds: torch.Tensor | None,
        **classes: Any,
    ) -> EncodedVocabulary:
        """The vocabulary of a call: its prompts or its ready embeddings, else the stored one."""
        if input_ids is not None or class_embeds is not None:
            texts = self.fisa.resolve_class_embeds(input_ids, attention_mask, class_embeds)
            assert texts is not None
            return EncodedVocabulary(texts, **classes)
        _refuse_alone(classes, of="`input_ids` or `class_embeds`")
        if torch.compiler.is_compiling() and self.fisa.class_embeds is not None:
            return self._opinion.encoded(self.fisa.stored_vocabulary, device=self.device)
        return self.encoded_vocabulary

    @property
    @torch.inference_mode(False)  # it may be trained with later
    def encoded_vocabulary(self) -> EncodedVocabulary:
        """The stored vocabulary as `forward` takes it, with its names. Whoever passes it on gets answers in its words,
        whatever another thread stores in the meantime.

        It is read anew where it has changed, or what the generator makes of it: to read a hundred thousand names takes
        longer than to see a photo.

        Raises:
            `ValueError`: none is stored.

        Example:

        ```python
        >>> stored = model.encoded_vocabulary
        >>> outputs = model(**processor(images=photo, return_tensors="pt"), **stored)
        >>> (segmentation,) = processor.post_process_segmentation(outputs, id2label=stored.id2label)
        ```
        """
        with STORING:
            texts = self.fisa.class_embeds, self.fisa.other_embeds
            if texts[0] is None:
                raise ValueError(
                    "No classes to choose from: pass `input_ids` or `class_embeds` (FisaProcessor and "
                    "`encode_vocabulary` make them), or store a vocabulary with "
                    "`model.set_vocabulary(processor, [...])`."
                )
            facts = pickle.dumps(
                (self.config.stored_vocabulary, self._opinion.grounds, [_version(embeds) for embeds in texts])
            )
            remembered = self._remembered
            if (
                remembered is None
                or any(was is not now for was, now in zip(remembered[0], texts))
                or remembered[1] != facts
            ):
                encoded = self._opinion.encoded(self.fisa.stored_vocabulary, device=self.device)
                self._remembered = remembered = texts, facts, encoded
            return remembered[2]

    @property
    def _opinion(self) -> GeneratorOpinion:
        return GeneratorOpinion(self.config, self.mask_generator)

    def _classifier_precision(self) -> AbstractContextManager:
        dtype = self.config.classifier_dtype
        return nullcontext() if dtype is None else torch.autocast(self.device.type, dtype=getattr(torch, dtype))

    def _loss(
        self,
        logits: torch.Tensor,
        proposals: MaskProposals,
        mask_labels: torch.Tensor | Sequence[torch.Tensor] | None,
        class_labels: torch.Tensor | Sequence[torch.Tensor],
        class_log_priors: torch.Tensor | None,
    ) -> torch.Tensor:
        if mask_labels is not None:
            class_labels = labels_of_proposals(
                proposals,
                mask_labels,
                class_labels,
                matcher=self.config.proposal_matcher,
                iou_threshold=self.config.proposal_matcher_iou,
            )
        elif not isinstance(class_labels, torch.Tensor):
            raise ValueError(
                f"`class_labels` is a {type(class_labels).__name__} and `mask_labels` are missing: pass the masks of "
                "these classes as well, or a tensor (batch_size, num_proposals) with the class of each proposal."
            )
        adjusted = logits if class_log_priors is None else logits + class_log_priors.unsqueeze(-2)
        return mask_classification_loss(adjusted, class_labels)

    def _joint_log_probs(
        self, logits: torch.Tensor, proposals: MaskProposals, vocabulary: EncodedVocabulary
    ) -> torch.Tensor:
        """What [`joint_log_probs`] returns, `(batch_size, num_proposals, num_classes + 1)`. Of a large vocabulary, few
        proposals at a time: what is computed on the way is never all in memory."""
        batch_size, num_proposals, num_classes = logits.shape
        # Asked for first: a trace that compares sizes would hold for these sizes alone.
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or logits.numel() <= SCORES_AT_A_TIME:
            log_probs = self._opinion.weigh(logits.log_softmax(dim=-1), proposals.class_logits, vocabulary)
            return joint_log_probs(log_probs, proposals.objectness)
        at_a_time = max(1, SCORES_AT_A_TIME // (batch_size * num_classes))
        joint = logits.new_empty(batch_size, num_proposals, num_classes + 1)
        for start in range(0, num_proposals, at_a_time):
            some = slice(start, start + at_a_time)
            opinion = None if proposals.class_logits is None else proposals.class_logits[:, some]
            log_probs = self._opinion.weigh(logits[:, some].log_softmax(dim=-1), opinion, vocabulary)
            joint[:, some] = joint_log_probs(log_probs, proposals.objectness[:, some])
        return joint


def _with_others(
    vocabulary: EncodedVocabulary, other_embeds: torch.Tensor | None, **of_others: Any
) -> EncodedVocabulary:
    """The vocabulary with the others of a call, if the call has any."""
    if other_embeds is None:
        _refuse_alone({OTHERS[name]: value for name, value in of_others.items()}, of="`other_embeds`")
        return vocabulary
    return replace(vocabulary, others=EncodedVocabulary(other_embeds, **of_others))


def _refuse_alone(given: Mapping[str, Any], *, of: str) -> None:
    """Refuse arguments that describe another one, which is missing: they would change nothing."""
    if alone := [f"`{name}`" for name, value in given.items() if value is not None]:
        raise ValueError(f"{', '.join(alone)} came without {of}, to which they belong: pass both or neither.")


def _version(tensor: torch.Tensor | None) -> int | None:
    """Counts what was written into a tensor in place."""
    return None if tensor is None or tensor.is_inference() else tensor._version


__all__ = ["FisaForUniversalSegmentation", "FisaModel", "FisaPreTrainedModel"]
