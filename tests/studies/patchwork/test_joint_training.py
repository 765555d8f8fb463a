"""Generator and classifier trained as one."""

import torch

from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.studies.patchwork.dataset import PACK
from fisa.studies.patchwork.joint_training import train_jointly


def test_both_are_trained_and_nothing_else(tmp_path):
    found = train_jointly(tmp_path, PACK, steps=3, evaluations=2)
    assert list(found) == ["2", "3"]
    assert 0 < found["2"]["cpu_seconds"] < found["3"]["cpu_seconds"]
    assert 0 <= found["3"]["pq"] <= 100 and 0 <= found["3"]["miou_unseen"] <= 100
    before, after = (
        dict(FisaForUniversalSegmentation.from_pretrained(tmp_path / folder).named_parameters())
        for folder in ("base", "merged")
    )
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    generator = {name for name in before if name.startswith("mask_generator.")}
    assert changed - generator and all("q_proj" in name or "mask_encoder" in name for name in changed - generator)
    assert len(changed & generator) > 0.9 * len(generator)  # of the last decoder layer not all is used
