import pytest

from fisa.miniature import miniature


@pytest.fixture(scope="module")
def parts():
    """A model and its processor, whose proposals match what they are for."""
    model, processor = miniature(proposal_matcher_iou=0.05)  # a random generator's proposals fit nothing well
    return model.eval(), processor
