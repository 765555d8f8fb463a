"""Training that is kept from forgetting: what whole photos' embeddings have moved by, and a run that minds it."""

import pytest
import torch
from peft import PeftModel

from fisa import FisaForUniversalSegmentation, SimoConfig, get_simo_model
from fisa.training.trainer import representation_shift
from tests.models import tiny_segmentation_model
from tests.training.runs import run


PIXELS = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_shift_is_one_minus_the_cosine_between_the_embeddings_with_and_without_the_adapter():
    model = tiny_segmentation_model()
    before = model.fisa.get_image_features(PIXELS).pooler_output
    adapted = get_simo_model(model)
    assert representation_shift(adapted, PIXELS) == pytest.approx(0, abs=1e-6)
    for name, parameter in adapted.named_parameters():
        if parameter.requires_grad and "q_proj" in name:
            parameter.add_(torch.randn_like(parameter))
    after = adapted.get_base_model().fisa.get_image_features(PIXELS).pooler_output
    cosines = [torch.dot(a, b) / (a.norm() * b.norm()) for a, b in zip(after, before)]
    assert cosines[0] < 0.999
    torch.testing.assert_close(representation_shift(adapted, PIXELS), 1 - sum(cosines) / 4)


def test_only_the_image_stream_is_held_back():
    adapted = get_simo_model(tiny_segmentation_model(), SimoConfig())
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    representation_shift(adapted, PIXELS).backward()
    moved = {name for name, p in adapted.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert moved and all("vision_model" in name for name in moved)


def test_a_run_that_minds_it_moves_them_less(tmp_path, checkpoint, photos):
    shifts = {}
    projections = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
    for weight in (0, 10):
        folder = tmp_path / str(weight)
        options = {"do_train": True, "max_steps": 20, "learning_rate": 0.005, "image_projections": projections}
        run(folder, model=checkpoint, data=photos, distillation_weight=weight, **options)
        base = FisaForUniversalSegmentation.from_pretrained(checkpoint)
        size = base.config.vision_config.image_size
        pixels = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            shifts[weight] = representation_shift(PeftModel.from_pretrained(base, folder), pixels).item()
    assert 0 < shifts[10] < shifts[0] / 2
