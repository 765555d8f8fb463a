"""FisaImageProcessor and FisaProcessor under transformers' common tests of processors."""

import unittest

import pytest
import torch

from fisa import FisaImageProcessor, FisaOutput, FisaProcessor
from fisa.miniature import character_clip_tokenizer
from tests.transformers_common.archive import common, leave_out


pytestmark = pytest.mark.transformers_common
image_processing, processing = common("test_image_processing_common"), common("test_processing_common")


ONLY_RGB = "CLIP reads only RGB: `do_convert_rgb=False` is refused; tests/processing/test_processing.py"
THREE_AXES = "tokens have three axes, (names, templates, length), and the test measures the second; "


class ImageProcessorTester(image_processing.ImageProcessingTester):
    def __init__(self, parent, **kwargs):
        super().__init__(parent, **kwargs)
        self.size = {"height": 18, "width": 18}
        self.mask_generator_size = {"shortest_edge": 32, "longest_edge": 64}
        self.num_labels = 3

    def _get_image_processing_classes(self):
        return {"pil": FisaImageProcessor}

    def prepare_post_process_semantic_segmentation_inputs(self):
        scores = torch.randn(self.batch_size, 5, self.num_labels + 1).log_softmax(dim=-1)
        masks = torch.randn(self.batch_size, 5, 9, 12)
        outputs = FisaOutput(class_queries_logits=scores, masks_queries_logits=masks)
        return {"outputs": outputs}, {"num_labels": self.num_labels, "height": 9, "width": 12}


@leave_out(
    {
        "test_call_numpy_4_channels": ONLY_RGB,
        "test_image_processor_from_dict_with_kwargs_has_attributes": ONLY_RGB,
        "test_new_models_require_torchvision_backend": "there is one class, of PIL, on purpose: the same photo gives "
        "the same numbers with torchvision installed or without",
    }
)
class FisaImageProcessorTest(
    image_processing.ImageProcessingTestMixin,
    image_processing.PostProcessSemanticSegmentationTestMixin,
    unittest.TestCase,
):
    image_processor_tester_class = ImageProcessorTester


@leave_out(
    {
        "test_subprocessor_defaults_preserved_by_kwargs_0_images": THREE_AXES
        + "tests/processing/test_processing.py has the tokenizer's own padding",
        "test_kwargs_overrides_default_subprocessor_kwargs_0_images": THREE_AXES
        + "tests/processing/test_processing.py has the call's padding",
        "test_subprocessor_defaults_0_text": "names are put into templates before the tokenizer reads them",
        "test_processor_text_has_no_visual": "words and photos do not come in pairs: all words are looked for in "
        "every photo, and a word that comes twice is refused",
    }
)
class FisaProcessorTest(processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = FisaProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return character_clip_tokenizer(model_max_length=128)

    @classmethod
    def _setup_image_processor(cls):
        return FisaImageProcessor(size={"height": 32, "width": 32}, mask_generator_size={"height": 32, "width": 32})
