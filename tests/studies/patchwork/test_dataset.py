"""The data set: its splits, its shipped scenes, and that they are what the painter paints."""

import numpy as np
import pytest

from fisa.data.hub_datasets import hub
from fisa.pretrained.patchwork import SCENES
from fisa.processing.photos import load_photo
from fisa.studies.patchwork.dataset import PACK, SPLITS, load_patchwork
from fisa.studies.patchwork.glyphs import default_folder
from fisa.studies.patchwork.words import CATEGORIES, SEEN


SHIPPED = [name for name, split in SPLITS.items() if split.num_shipped]


@pytest.mark.parametrize("split", SHIPPED)
def test_shipped_scenes_are_whole(split):
    scenes = load_patchwork(split)
    assert len(scenes) == SPLITS[split].num_shipped
    found = set()
    for scene in scenes:
        ids = set(np.unique(np.asarray(scene["label"])).tolist())
        assert ids == {info["id"] for info in scene["segments_info"]}
        found |= {CATEGORIES[info["category_id"] - 1].name for info in scene["segments_info"]}
    if SPLITS[split].only_seen:
        assert found <= SEEN
    else:
        assert len(found - SEEN) > 60


def test_training_and_validation_share_no_seed():
    assert len({split.seed for split in SPLITS.values()}) == len(SPLITS)
    assert [name for name, split in SPLITS.items() if split.only_seen] == ["train"]


@pytest.mark.parametrize("classes, split", [("seen", "train"), ("categories", "validation")])
def test_the_package_s_own_reader_takes_them(classes, split):
    data = hub(str(PACK), split=split, classes=str(PACK / f"{classes}.json"), streaming=False).check()
    assert len(data) == SPLITS[split].num_shipped
    assert {category.name for category in data.categories} == (
        SEEN if classes == "seen" else {category.name for category in CATEGORIES}
    )


@pytest.mark.parametrize("split", SHIPPED)
def test_they_are_painted_again_from_their_seeds(split):
    if not default_folder().exists():
        pytest.skip("the pictograms have not been brought: python -m fisa.studies.patchwork.glyphs")
    shipped, painted = load_patchwork(split), load_patchwork(split, num_scenes=5)
    for one, other in zip(shipped, painted):
        assert one["segments_info"] == other["segments_info"]
        assert np.array_equal(np.asarray(one["label"]), np.asarray(other["label"]))
        # The pack is compressed with loss.
        assert np.abs(np.asarray(one["image"], float) - np.asarray(other["image"], float)).mean() < 8


def test_what_cannot_be_is_answered_with_what_can():
    with pytest.raises(ValueError, match="validation_shifted"):
        load_patchwork("tests")
    with pytest.raises(ValueError, match="num_scenes=1000"):
        load_patchwork("test")


def test_demo_scenes_are_pictures():
    pictures = sorted(SCENES.glob("*.jpg"))
    assert [path.stem for path in pictures] == ["easy", "hard", "shifted"]
    assert all(load_photo(path).size == (384, 384) for path in pictures)
