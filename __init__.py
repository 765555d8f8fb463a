"""FISA: open-vocabulary segmentation for transformers. Everything public, from one place.

Importing the package registers its classes with transformers' Auto classes and pipelines, so that `AutoModel`,
`AutoProcessor` and `pipeline` load a FISA checkpoint as they load any other.
"""

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageSegmentation,
    AutoModelForUniversalSegmentation,
    AutoProcessor,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES
from transformers.pipelines import PIPELINE_REGISTRY

from fisa.configuration.configuration_fisa import FisaConfig
from fisa.configuration.configuration_simo import SimoConfig
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation, FisaModel, FisaPreTrainedModel
from fisa.modeling_fisa.outputs_fisa import FisaModelOutput, FisaOutput
from fisa.modeling_fisa.simo import get_simo_model
from fisa.processing.image_processing_fisa import FisaImageProcessor
from fisa.processing.pipeline_fisa import FisaPipeline
from fisa.processing.processing_fisa import FisaProcessor
from fisa.processing.stock_pipeline import refuse_dropped_arguments
from fisa.processing.vocabulary import PROMPT_TEMPLATES, Class, Vocabulary


__version__ = "0.2.0"

__all__ = [
    "PROMPT_TEMPLATES",
    "Class",
    "FisaConfig",
    "FisaForUniversalSegmentation",
    "FisaImageProcessor",
    "FisaModel",
    "FisaModelOutput",
    "FisaOutput",
    "FisaPipeline",
    "FisaPreTrainedModel",
    "FisaProcessor",
    "SimoConfig",
    "Vocabulary",
    "get_simo_model",
]

AutoConfig.register(FisaConfig.model_type, FisaConfig, exist_ok=True)
AutoModel.register(FisaConfig, FisaModel, exist_ok=True)
AutoModelForUniversalSegmentation.register(FisaConfig, FisaForUniversalSegmentation, exist_ok=True)
AutoModelForImageSegmentation.register(FisaConfig, FisaForUniversalSegmentation, exist_ok=True)
# One class, on PIL, for either back-end: the same photo gives the same numbers with torchvision and without.
AutoImageProcessor.register(
    FisaConfig, image_processor_classes={"torchvision": FisaImageProcessor, "pil": FisaImageProcessor}, exist_ok=True
)
AutoProcessor.register(FisaConfig, FisaProcessor, exist_ok=True)
# The stock pipeline looks a model's name up in this list and, not finding it, reports it as unsupported.
MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES.setdefault(FisaConfig.model_type, FisaForUniversalSegmentation.__name__)
if FisaPipeline.task not in PIPELINE_REGISTRY.supported_tasks:
    PIPELINE_REGISTRY.register_pipeline(
        FisaPipeline.task, pipeline_class=FisaPipeline, pt_model=AutoModelForUniversalSegmentation, type="image"
    )
refuse_dropped_arguments()
