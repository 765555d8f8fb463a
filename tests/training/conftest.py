"""A few made photos, split as COCO splits its own."""

import pytest

from tests.data.made_files import write_coco_panoptic


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Six photos to train on and three to evaluate."""
    root = tmp_path_factory.mktemp("photos")
    write_coco_panoptic(root, name="train2017", photos=6)
    write_coco_panoptic(root, name="val2017", photos=3, seed=6)
    return root
