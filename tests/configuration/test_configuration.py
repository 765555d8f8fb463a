"""FisaConfig survives JSON, refuses what cannot be, and holds no field that nothing reads."""

import dataclasses
import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, PreTrainedConfig, SiglipVisionConfig

from fisa import FisaConfig, FisaForUniversalSegmentation, FisaModel
from fisa.pretrained.patchwork import CHECKPOINT
from tests.configurations import GENERATOR_KINDS, tiny_config, tiny_generator_inputs, tiny_inputs, tiny_text_config
from tests.models import randomise


VOCABULARY = [
    {"name": "dog", "synonyms": [], "is_thing": True, "kind_is_known": False},
    {"name": "sky", "synonyms": ["clouds", "heaven"], "is_thing": False, "kind_is_known": True},
]


# Round trips


@pytest.mark.parametrize("load", [FisaConfig.from_pretrained, AutoConfig.from_pretrained])
@pytest.mark.parametrize("generator", [*GENERATOR_KINDS, None])
def test_config_survives_json(tmp_path, generator, load):
    config = tiny_config(
        generator, seve_layers=[0, 2], seve_tokens="mask", mask_coverage_threshold=0.5, ensemble_weight=0.25
    )
    config.store_vocabulary(VOCABULARY)
    config.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert type(loaded) is FisaConfig
    assert loaded.vocabulary == VOCABULARY
    assert type(loaded.mask_generator_config) is type(config.mask_generator_config)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}
    again = FisaConfig.from_dict(json.loads(loaded.to_json_string(use_diff=False)))
    assert again.to_dict() | {"_name_or_path": ""} == config.to_dict() | {"_name_or_path": ""}


def test_a_written_config_names_its_generators_class_in_full(tmp_path):
    tiny_config("eomt").save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_type"] == "fisa"
    assert content["mask_generator_config"]["model_type"] == "eomt"
    assert content["mask_generator_config"]["num_queries"] == 5


def test_defaults_are_a_clip_without_generator_or_vocabulary():
    config = FisaConfig()
    assert config.mask_generator_config is None
    assert config.text_config.model_type == "clip_text_model"
    assert config.vision_config.model_type == "clip_vision_model"
    assert config.num_labels == config.num_prompts == 0 and config.vocabulary == []
    assert config.seve_layers == [0]


def test_the_shipped_checkpoint_reads_seve_as_the_default_does_in_its_last_layer():
    default, shipped = FisaConfig(), FisaConfig.from_pretrained(CHECKPOINT)
    assert shipped.seve_tokens == default.seve_tokens
    assert shipped.seve_layers == [shipped.vision_config.num_hidden_layers - 1]


def test_a_saved_config_states_its_reading_of_seve(tmp_path):
    """So that a folder keeps its own, whatever the default."""
    for tokens in ("mask_keys", "both"):
        FisaConfig(seve_tokens=tokens).save_pretrained(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["seve_tokens"] == tokens
        assert FisaConfig.from_pretrained(tmp_path).seve_tokens == tokens


def test_parts_may_be_given_as_dicts():
    config = FisaConfig(
        vision_config={"hidden_size": 64, "num_attention_heads": 4},
        mask_generator_config={"model_type": "eomt", "num_queries": 7},
    )
    assert config.vision_config.hidden_size == 64
    assert config.mask_generator_config.num_queries == 7


def test_a_tower_that_is_not_clips_is_refused_by_name():
    with pytest.raises(
        StrictDataclassClassValidationError, match=r"(?s)vision_config.*SiglipVisionConfig.*CLIPVision"
    ):
        FisaConfig(vision_config=SiglipVisionConfig())


def test_an_unknown_kind_of_generator_is_refused_by_name():
    with pytest.raises(ValueError, match="no-such-model"):
        FisaConfig(mask_generator_config={"model_type": "no-such-model"})


def test_two_configs_share_nothing():
    first, second = FisaConfig(), FisaConfig()
    first.seve_layers.append(1)
    first.id2label[0] = "dog"
    assert second.seve_layers == [0] and second.id2label == {}


# The stored vocabulary


def test_a_vocabulary_is_stored_class_by_class():
    config = tiny_config()
    config.store_vocabulary(VOCABULARY)
    assert config.id2label == {0: "dog", 1: "sky"} and config.label2id == {"dog": 0, "sky": 1}
    assert config.num_labels == 2
    assert config.class_names == [["dog"], ["sky", "clouds", "heaven"]]
    assert config.prompt_class_ids == [0, 1, 1, 1] and config.num_prompts == 4
    assert config.vocabulary == VOCABULARY


def test_a_smaller_vocabulary_replaces_a_larger_one():
    config = tiny_config()
    config.store_vocabulary(VOCABULARY)
    config.store_vocabulary(VOCABULARY[:1])
    assert config.vocabulary == VOCABULARY[:1] and config.label2id == {"dog": 0}


# What cannot be


@pytest.mark.parametrize(
    "options, named",
    [
        ({"mask_coverage_threshold": 1.5}, ["mask_coverage_threshold", "1.5", "[0, 1]"]),
        ({"mask_coverage_threshold": -0.1}, ["mask_coverage_threshold", "-0.1", "[0, 1]"]),
        ({"mask_coverage_threshold": float("nan")}, ["mask_coverage_threshold", "nan", "[0, 1]"]),
        ({"mask_coverage_threshold": "high"}, ["mask_coverage_threshold", "high", "float"]),
        ({"ensemble_weight": 2}, ["ensemble_weight", "2", "[0, 1]"]),
        ({"seve_tokens": "text"}, ["seve_tokens", "text", "both", "image", "mask"]),
        ({"seve_layers": [0, 3]}, ["seve_layers", "[0, 3]", "0 to 2"]),
        ({"seve_layers": [-1]}, ["seve_layers", "[-1]", "0 to 2"]),
        ({"seve_layers": [1, 1]}, ["seve_layers", "[1, 1]", "different"]),
        ({"seve_layers": 0}, ["seve_layers", "0", "list"]),
        ({"seve_width": 10, "seve_num_heads": 4}, ["seve_width", "10", "seve_num_heads", "4", "multiple"]),
        ({"seve_num_heads": 0}, ["seve_num_heads", "0"]),
        ({"seve_width": -8}, ["seve_width", "-8"]),
        ({"seve_max_texts": 0}, ["seve_max_texts", "0", "one"]),
        ({"projection_dim": "wide"}, ["projection_dim", "wide", "int"]),
        ({"id2label": {0: "a", 1: "b"}, "synonyms": [[]], "is_thing": [True]}, ["synonyms", "1", "id2label", "2"]),
        ({"id2label": {0: "a", 1: "b"}, "synonyms": [[], []], "is_thing": [True]}, ["is_thing", "1", "id2label", "2"]),
        ({"synonyms": [[]], "is_thing": [True]}, ["synonyms", "1", "id2label", "0"]),
        ({"id2label": {0: "a"}, "synonyms": [[]]}, ["is_thing", "synonyms"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_wrong_value_names_itself_what_it_was_and_what_is_allowed(options, named):
    with pytest.raises(Exception) as caught:
        tiny_config(**options)
    message = str(caught.value)
    assert [word for word in named if word not in message] == []


@pytest.mark.parametrize(
    "options",
    [
        {"mask_coverage_threshold": 0.0},
        {"mask_coverage_threshold": 1.0},
        {"ensemble_weight": 1.0},
        {"seve_layers": [2]},
        {"seve_width": 1, "seve_num_heads": 1},
        {"seve_max_texts": 1},
    ],
    ids=str,
)
def test_the_limits_themselves_are_allowed(options):
    assert {name: getattr(tiny_config(**options), name) for name in options} == options


def test_a_wrong_value_in_a_file_is_refused_too(tmp_path):
    tiny_config().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(content | {"mask_coverage_threshold": 3.0}))
    with pytest.raises(Exception, match="mask_coverage_threshold.*3.0"):
        FisaConfig.from_pretrained(tmp_path)


# Every field is read


def shapes(config: FisaConfig) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in FisaForUniversalSegmentation(config).state_dict().items()}


@torch.no_grad()
def scores(config: FisaConfig) -> torch.Tensor:
    model = randomise(FisaForUniversalSegmentation(config)).eval()
    inputs = tiny_inputs(batch_size=1)
    if config.mask_generator_config is not None:
        del inputs["mask_proposals"]
        inputs |= tiny_generator_inputs([(64, 64)], canvas=(64, 64))
    classes = {"generator_class_ids": torch.tensor([0, 1, -1]), "class_kinds": torch.tensor([1, 0, -1])}
    return model(**inputs, **classes).class_queries_logits


def loss(config: FisaConfig) -> float:
    model = randomise(FisaForUniversalSegmentation(config)).eval()
    inputs = tiny_inputs(batch_size=1)
    columns = torch.arange(17).expand(1, 13, 17)
    truth = torch.cat([columns < 8, columns >= 8])
    with torch.no_grad():
        outputs = model(**inputs, mask_labels=truth[None], class_labels=torch.tensor([[0, 1]]))
    return round(outputs.loss.item(), 4)


def initial_spread(config: FisaConfig) -> tuple[float, float]:
    torch.manual_seed(0)
    model = FisaModel(config)
    seve = model.mask_encoder.layers[0].semantic_guidance
    return round(seve.k_proj.weight.std().item(), 2), round(model.logit_scale.item(), 2)


def vocabulary(config: FisaConfig) -> tuple:
    model = FisaModel(config)
    stored = [None if texts is None else len(texts) for texts in (model.class_embeds, model.other_embeds)]
    return *stored, config.vocabulary


def automatic_others(config: FisaConfig) -> list[str]:
    return [other.name for other in FisaModel(config).competition("a", "auto").others]


TWO = {"id2label": {0: "a", 1: "b"}, "synonyms": [[], []], "is_thing": [True, True]}
MIXED = [True, False, True]
NARROW_TEXT = {**tiny_text_config().to_dict(), "hidden_size": 12}
# For each field: what to look at, and two configurations between which it must differ.
READ = {
    "text_config": (shapes, {}, {"text_config": NARROW_TEXT}),
    "vision_config": (shapes, {}, {"vision": {"hidden_size": 64}}),
    "mask_generator_config": (shapes, {}, {"generator": "eomt"}),
    "projection_dim": (shapes, {}, {"projection_dim": 24}),
    "logit_scale_init_value": (initial_spread, {}, {"logit_scale_init_value": 1.0}),
    "mask_coverage_threshold": (scores, {}, {"mask_coverage_threshold": 0.9}),
    "segment_attention_penalty": (scores, {}, {"segment_attention_penalty": 1.0}),
    "seve_layers": (scores, {}, {"seve_layers": []}),
    "seve_tokens": (scores, {}, {"seve_tokens": "image"}),
    "seve_num_heads": (scores, {}, {"seve_num_heads": 4}),
    "seve_width": (shapes, {}, {"seve_width": 24}),
    "seve_max_texts": (scores, {}, {"seve_max_texts": 2}),
    "objectness_floor": (scores, {"generator": "eomt"}, {"generator": "eomt", "objectness_floor": 1.0}),
    "classifier_dtype": (scores, {}, {"classifier_dtype": "bfloat16"}),
    "ensemble_weight": (scores, {"generator": "eomt"}, {"generator": "eomt", "ensemble_weight": 0.5}),
    "kind_weight": (
        scores,
        {"generator": "eomt", "generator_is_thing": MIXED},
        {"generator": "eomt", "generator_is_thing": MIXED, "kind_weight": 0.0},
    ),
    "generator_is_thing": (
        scores,
        {"generator": "eomt", "generator_is_thing": MIXED},
        {"generator": "eomt", "generator_is_thing": [False, True, False]},
    ),
    "proposal_matcher": (loss, {}, {"proposal_matcher": "hungarian"}),
    "proposal_matcher_iou": (loss, {"proposal_matcher_iou": 0.9}, {"proposal_matcher_iou": 0.01}),
    "initializer_range": (initial_spread, {}, {"initializer_range": 0.5}),
    "synonyms": (vocabulary, TWO, {**TWO, "synonyms": [["c"], []]}),
    "is_thing": (vocabulary, TWO, {**TWO, "is_thing": [True, False]}),
    "kind_is_known": (vocabulary, TWO, {**TWO, "kind_is_known": [True, False]}),
    "others": (vocabulary, TWO, {**TWO, "others": [{"name": "c", "synonyms": ["d"], "is_thing": True}]}),
    "default_others": (automatic_others, {}, {"default_others": ["c"]}),
}


def test_the_table_of_fields_is_complete():
    fields = {field.name for field in dataclasses.fields(FisaConfig)}
    assert fields - {field.name for field in dataclasses.fields(PreTrainedConfig)} == set(READ)


@pytest.mark.parametrize("field", READ)
def test_every_field_is_read(field):
    look, before, after = READ[field]
    first, second = look(tiny_config(**before)), look(tiny_config(**after))
    assert not (torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second)
