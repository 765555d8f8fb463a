"""FisaImageProcessor and FisaProcessor under transformers' common tests of processors."""

import unittest

import pytest

from fisa import FisaImageProcessor, FisaProcessor
from fisa.miniature import character_clip_tokenizer
from tests.transformers_common.archive import common


pytestmark = pytest.mark.transformers_common
image_processing, processing = common("test_image_processing_common"), common("test_processing_common")


class ImageProcessorTester(image_processing.ImageProcessingTester):
    size = {"height": 18, "width": 18}
    mask_generator_size = {"shortest_edge": 32, "longest_edge": 64}

    def _get_image_processing_classes(self):
        return {"pil": FisaImageProcessor}


class FisaImageProcessorTest(image_processing.ImageProcessingTestMixin, unittest.TestCase):
    image_processor_tester_class = ImageProcessorTester


class FisaProcessorTest(processing.ProcessorTesterMixin, unittest.TestCase):
    processor_class = FisaProcessor

    @classmethod
    def _setup_tokenizer(cls):
        return character_clip_tokenizer(model_max_length=77)

    @classmethod
    def _setup_image_processor(cls):
        return FisaImageProcessor(size={"height": 32, "width": 32}, mask_generator_size=None)
