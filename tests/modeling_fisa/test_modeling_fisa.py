"""Both public models as ports to transformers: `ModelTester`, once for each kind of mask generator."""

from transformers import AutoModel, AutoModelForImageSegmentation, AutoModelForUniversalSegmentation

from fisa import FisaForUniversalSegmentation, FisaModel
from tests.configurations import tiny_config, tiny_generator_inputs, tiny_inputs
from tests.model_tester import ModelTester


class TestFisaModel(ModelTester):
    model_class = FisaModel
    auto_class = AutoModel
    # No text runs when embeddings are given, and the temperature belongs to the classification.
    unused_parameters = ("text_model", "text_projection", "logit_scale", "encoder.layers.2.self_attn.q_proj")

    def config(self):
        return tiny_config(seve_layers=[0, 1])

    def inputs(self):
        return tiny_inputs()


class TestFisaModelWithTextKeys(TestFisaModel):
    """With SEVE as the default reads it."""

    def config(self):
        return tiny_config(seve_layers=[0, 1], seve_tokens="mask_keys")


class TestWithReadyProposals(ModelTester):
    model_class = FisaForUniversalSegmentation
    auto_class = AutoModelForImageSegmentation
    main_output = "class_queries_logits"
    unused_parameters = ("text_model", "text_projection", "encoder.layers.2.self_attn.q_proj")

    def config(self):
        return tiny_config(seve_layers=[0])

    def inputs(self):
        return tiny_inputs()


class WithMaskGenerator(TestWithReadyProposals):
    __test__ = False
    auto_class = AutoModelForUniversalSegmentation
    frozen_modules = ("mask_generator",)
    generator: str

    def config(self):
        return tiny_config(self.generator, seve_layers=[0])

    def inputs(self):
        classified = tiny_inputs()
        return {
            "pixel_values": classified["pixel_values"],
            "class_embeds": classified["class_embeds"],
            **tiny_generator_inputs([(64, 64), (64, 64)], canvas=(64, 64)),
        }


class TestWithMask2Former(WithMaskGenerator):
    __test__ = True
    generator = "mask2former"
    # `SwinBackbone` of transformers holds functions that do not pickle.
    pickles = False


class TestWithMaskFormer(WithMaskGenerator):
    __test__ = True
    generator = "maskformer"


class TestWithEomt(WithMaskGenerator):
    __test__ = True
    generator = "eomt"
