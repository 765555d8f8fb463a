"""FisaModel and FisaForUniversalSegmentation under transformers' common tests of models and configurations."""

import unittest

import pytest
import torch

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaModel
from tests.configurations import END_TOKEN, tiny_config, tiny_generator_inputs, tiny_inputs
from tests.transformers_common.archive import common, leave_out


pytestmark = pytest.mark.transformers_common
modeling, configuration = common("test_modeling_common"), common("test_configuration_common")

NOT_FOR_FISA = {
    "test_attention_outputs": "FISA returns the masks' hidden states beside the image's; the test counts outputs and "
    "expects one",
    "test_eager_matches_sdpa_inference": "it passes the photos alone, and FISA needs words and masks beside them; "
    "tests/model_tester.py holds eager and sdpa together",
    "test_model_get_set_embeddings": "CLIP's token embeddings cannot be replaced; "
    "tests/modeling_fisa/test_attention_by_name.py",
    "test_resize": "CLIP's token embeddings cannot be resized; tests/modeling_fisa/test_attention_by_name.py",
    "test_enable_input_require_grads_with_gradient_checkpointing": "it wants gradients at the token embeddings, which "
    "are frozen; tests/model_tester.py has those of the patch embedding",
}


class Tester:
    """What the mixins ask about a model."""

    batch_size = 2
    num_hidden_layers = 2
    hidden_size = 32
    num_attention_heads = 4
    seq_length = 17
    encoder_seq_length = 17
    key_length = 17
    is_training = True

    def __init__(self, generator: str | None = None):
        self.generator = generator

    def get_config(self) -> FisaConfig:
        return tiny_config(self.generator, vision={"num_hidden_layers": self.num_hidden_layers})

    def prepare_config_and_inputs_for_common(self):
        inputs = tiny_inputs(batch_size=self.batch_size)
        del inputs["class_embeds"]
        inputs["input_ids"] = torch.arange(3 * 8).view(3, 8)
        inputs["input_ids"][:, -1] = END_TOKEN
        if self.generator is not None:
            del inputs["mask_proposals"]
            inputs |= tiny_generator_inputs([(64, 64)] * self.batch_size, canvas=(64, 64))
        return self.get_config(), inputs


class CommonTests(modeling.ModelTesterMixin):
    _is_composite = True
    test_all_params_have_gradient = False  # the generator is frozen
    generator: str | None = None

    def setUp(self):
        self.model_tester = Tester(self.generator)


class FisaConfigTest(unittest.TestCase):
    def setUp(self):
        self.model_tester = Tester()

    def test_config(self):
        configuration.ConfigTester(
            self, config_class=FisaConfig, has_text_modality=False, seve_width=64, seve_layers=[1]
        ).run_common_tests()


@leave_out(NOT_FOR_FISA | {"test_training": "FisaModel has no loss"})
class FisaModelTest(CommonTests, unittest.TestCase):
    all_model_classes = (FisaModel,)


@leave_out(NOT_FOR_FISA)
class ReadyProposalsTest(CommonTests, unittest.TestCase):
    all_model_classes = (FisaForUniversalSegmentation,)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        labels = {"class_labels": torch.tensor([[0, 1, 2, 0], [2, 1, 0, 1]])}
        return inputs | labels if return_labels else inputs


@leave_out(NOT_FOR_FISA)
class OwnGeneratorTest(CommonTests, unittest.TestCase):
    all_model_classes = (FisaForUniversalSegmentation,)
    generator = "mask2former"

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = super()._prepare_for_class(inputs_dict, model_class)
        masks = [(torch.arange(16) // 8 == half).expand(2, 16, 16) for half in range(2)]
        labels = {"mask_labels": masks, "class_labels": [torch.tensor([0, 1]), torch.tensor([2, 1])]}
        return inputs | labels if return_labels else inputs
