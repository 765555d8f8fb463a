"""SimoConfig refuses what cannot be trained."""

import pytest

from fisa import SimoConfig


def test_by_default_it_trains_queries_position_and_seve():
    config = SimoConfig()
    assert config.image_projections == ("q_proj",)
    assert config.mask_queries and config.mask_position and config.semantic_guidance


def test_an_unknown_projection_is_named():
    with pytest.raises(ValueError, match="names query, qkv; CLIP's image layers have q_proj, k_proj"):
        SimoConfig(image_projections=("query", "q_proj", "qkv"))


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="Everything is switched off"):
        SimoConfig(image_projections=(), mask_queries=False, mask_position=False, semantic_guidance=False)
