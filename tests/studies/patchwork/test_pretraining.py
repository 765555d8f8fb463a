"""Pre-training: the optimizer against torch's own, the tokenizer, and short runs that continue and measure."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers.models.mask2former.modeling_mask2former import Mask2FormerForUniversalSegmentationOutput

from fisa.studies.patchwork.clip_pretraining import (
    FRAMED,
    PORTRAIT,
    SCENE,
    CaptionCollator,
    CaptionedPictures,
    deepened,
    new_clip,
    word_tokenizer,
)
from fisa.studies.patchwork.generator_pretraining import (
    MaskedPictures,
    calibrate_objectness,
    masks_and_kinds,
    new_generator,
    proposal_quality,
    reliability,
)
from fisa.studies.patchwork.glyphs import ARTISTS
from fisa.studies.patchwork.losses import CLIP, GENERATOR, losses
from fisa.studies.patchwork.optimizer import MuonAdamW, orthogonalised
from fisa.studies.patchwork.pretrain import main
from fisa.studies.patchwork.scenes import Painter, SceneKind
from fisa.studies.patchwork.words import CATEGORIES, WORDS


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (64, 16)])
def test_orthogonalised_matrices_have_singular_values_near_one_and_the_same_vectors(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonalised(matrix)
    kept = values > 0.1 * values.max()  # the least singular values of a square matrix need more iterations
    aligned = (left.T @ found @ right.T)[kept][:, kept]
    assert torch.linalg.svdvals(aligned).min() > 0.6 and torch.linalg.svdvals(aligned).max() < 1.25
    assert (aligned - aligned.diag().diag()).abs().max() < 1e-4


def test_other_parameters_move_as_with_torch_s_adamw():
    torch.manual_seed(0)
    layers = [nn.Linear(4, 3) for _ in range(2)]
    layers[1].load_state_dict(layers[0].state_dict())
    settings = {"lr": 0.1, "weight_decay": 0.05, "betas": (0.9, 0.98)}
    mine = MuonAdamW([{"params": list(layers[0].parameters()), "orthogonal": False}], **settings)
    theirs = torch.optim.AdamW(layers[1].parameters(), **settings)
    for _ in range(5):
        inputs = torch.randn(8, 4)
        for layer, optimizer in zip(layers, (mine, theirs)):
            optimizer.zero_grad()
            layer(inputs).square().sum().backward()
            optimizer.step()
    assert torch.equal(layers[0].weight, layers[1].weight) and torch.equal(layers[0].bias, layers[1].bias)


def test_a_matrix_learns():
    torch.manual_seed(0)
    layer, target, inputs = nn.Linear(8, 8, bias=False), torch.randn(8, 8), torch.randn(64, 8)
    optimizer = MuonAdamW([{"params": [layer.weight], "orthogonal": True}], lr=0.05, weight_decay=0)
    losses = []
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 0.2 * (1 - step / 200)
        optimizer.zero_grad()
        loss = (layer(inputs) - inputs @ target.T).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 50


def test_words_are_a_token_or_two_and_any_other_can_be_spelt():
    tokenizer = word_tokenizer()
    lengths = [len(tokenizer.tokenize(word.name)) for word in WORDS]
    assert max(lengths) <= 4 and sum(lengths) / len(lengths) < 1.6
    for text in ("dog", "zebra crossing", "smörgåsbord"):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert tokenizer("DOG")["input_ids"] == tokenizer("dog")["input_ids"]


def test_the_tokenizer_is_the_same_in_every_process():
    """A run that is continued makes it anew, and its embeddings were learned with the first one."""
    room = "fisa.studies.patchwork.clip_pretraining"
    script = f"import json; from {room} import word_tokenizer; print(json.dumps(word_tokenizer().get_vocab()))"
    elsewhere = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(elsewhere.splitlines()[-1]) == word_tokenizer().get_vocab()


def test_captions_tell_what_is_on_the_pictures(glyphs):
    painters = [Painter("noto", seed=1, glyph_folder=glyphs), Painter("twemoji", seed=2, glyph_folder=glyphs)]
    pictures = CaptionedPictures(painters, num_pictures=64, batch_size=4, portraits=0.5)
    scenes = [pictures[index] for index in range(56, 60)]
    batch = CaptionCollator(word_tokenizer())(scenes)
    assert batch["pixel_values"].shape == (4, 3, 96, 96) and batch["targets"].shape == (4, len(WORDS))
    torch.testing.assert_close(batch["targets"].sum(dim=1), torch.ones(4))
    for target, scene in zip(batch["targets"], scenes):
        words = sorted({info["category_id"] - 1 for info in scene.segments_info})
        kinds = [[word for word in words if WORDS[word].is_thing == kind] for kind in (True, False)]
        assert target.nonzero().flatten().tolist() == kinds[0] + kinds[1]
        assert target[kinds[0]].unique().item() == pytest.approx(4 * target[kinds[1]].unique().item())
    assert {pictures.kind(index).side for index in range(32)} == {PORTRAIT.side}
    assert {pictures.kind(index) for index in range(32, 64)} == {PORTRAIT, FRAMED, SCENE}


def test_a_framed_thing_is_in_the_middle_with_what_is_around_it(glyphs):
    pictures = CaptionedPictures(
        [Painter("noto", seed=1, glyph_folder=glyphs)], num_pictures=256, batch_size=4, portraits=0
    )
    frames = [pictures[index] for index in range(256) if pictures.kind(index) is FRAMED]
    assert len(frames) == 128 and {frame.image.shape for frame in frames} == {(48, 48, 3)}
    middle = [set(np.unique(frame.label[14:34, 14:34])) for frame in frames]
    named = [{info["id"] for info in frame.segments_info} for frame in frames]
    assert all(ids & shown for ids, shown in zip(named, middle))
    crowded = [sum(WORDS[index].is_thing for index in frame.class_indices) > 1 for frame in frames]
    assert 0.2 < sum(crowded) / len(crowded) < 0.8
    for frame, ids in zip(frames, named):
        shares = np.bincount(frame.label.ravel()) / frame.label.size
        assert all(shares[i] < 0.05 for i in np.unique(frame.label) if i not in ids)


def test_a_deepened_clip_sees_as_before_and_its_new_layers_learn():
    torch.manual_seed(0)
    clip = new_clip(word_tokenizer()).eval()
    deeper = deepened(clip, num_layers=6).eval()
    pixels = torch.randn(2, 3, 96, 96)
    before, after = (model.get_image_features(pixel_values=pixels).pooler_output for model in (clip, deeper))
    assert deeper.config.vision_config.num_hidden_layers == 6 and clip.config.vision_config.num_hidden_layers == 4
    assert torch.equal(before, after)
    after.square().sum().backward()
    added = [layer.mlp.fc2 for layer in deeper.vision_model.encoder.layers if not layer.mlp.fc2.weight.any()]
    assert len(added) == 2 and all(projection.weight.grad.any() for projection in added)


def test_masks_are_those_of_the_scene(glyphs):
    pictures = MaskedPictures(Painter("noto", seed=1, glyph_folder=glyphs), num_pictures=8)
    scenes = [pictures[index] for index in range(3)]
    batch = masks_and_kinds(scenes, canvas=120)
    assert batch["pixel_values"].shape == (3, 3, 120, 120)
    for masks, labels, scene in zip(batch["mask_labels"], batch["class_labels"], scenes):
        assert torch.equal(masks.sum(dim=0), torch.ones(192, 192))
        is_thing = [CATEGORIES[info["category_id"] - 1].isthing for info in scene.segments_info]
        assert labels.tolist() == [int(not thing) for thing in is_thing]


def test_proposals_are_counted_as_fitting_or_spare(glyphs):
    """A generator that proposes each segment of its one scene twice, and nothing else but an empty mask."""
    painter = Painter("noto", seed=1, glyph_folder=glyphs)
    scene = painter.paint(SceneKind(), 0)
    masks = torch.stack([torch.from_numpy(scene.label == info["id"]) for info in scene.segments_info]).float()
    proposals = torch.cat([masks, masks, torch.zeros_like(masks[:1])])
    likely = torch.tensor([9.0] * len(masks) * 2 + [-9.0])

    class Copyist(nn.Module):
        def forward(self, pixel_values):
            kinds = torch.stack([likely, likely, torch.zeros_like(likely)], dim=-1)
            return Mask2FormerForUniversalSegmentationOutput(
                class_queries_logits=kinds[None], masks_queries_logits=20 * proposals[None] - 10
            )

    found = proposal_quality(Copyist(), painter, num_pictures=1, canvas=96)
    assert found.pop("spare") == len(masks) and set(found.values()) == {1.0}


def test_calibrated_objectness_is_the_share_of_proposals_that_fit(glyphs):
    """A generator that is sure of all its proposals: two of the three likelier ones fit, one of the three others."""
    painter = Painter("noto", seed=1, glyph_folder=glyphs)
    scenes = [painter.paint(SceneKind(), number) for number in range(4)]
    proposals = torch.zeros(4, 6, 192, 192)
    for place, segment_id in ((0, 1), (1, 2), (3, 3)):
        proposals[:, place] = torch.stack([torch.from_numpy(scene.label == segment_id) for scene in scenes])

    class TooSure(nn.Module):
        def __init__(self):
            super().__init__()
            self.class_predictor = nn.Linear(1, 3)
            self.class_predictor.load_state_dict({"weight": torch.zeros(3, 1), "bias": torch.zeros(3)})
            self.class_predictor.weight[0] = 1

        def forward(self, pixel_values):
            likely = torch.tensor([5.0, 5, 5, 4, 4, 4])[None, :, None].expand(len(pixel_values), -1, -1)
            return Mask2FormerForUniversalSegmentationOutput(
                class_queries_logits=self.class_predictor(likely), masks_queries_logits=20 * proposals - 10
            )

    with torch.no_grad():
        model = TooSure()
        before = model(torch.zeros(4)).class_queries_logits.softmax(dim=-1)[..., -1]
        calibrate_objectness(model, scenes)
        after = model(torch.zeros(4)).class_queries_logits.softmax(dim=-1)[..., -1]
    assert (1 - before).min() > 0.9
    wanted = torch.tensor([2.0, 2, 2, 1, 1, 1]).expand(4, -1) / 3
    torch.testing.assert_close(1 - after, wanted, atol=0.01, rtol=0)
    likelier, others = sorted(
        reliability(model, painter, num_pictures=4, canvas=96), key=lambda row: row["objectness"], reverse=True
    )
    assert (likelier["proposals"], likelier["fits"]) == (12, pytest.approx(2 / 3))
    assert (others["proposals"], others["fits"], others["objectness"]) == (
        12,
        pytest.approx(1 / 3),
        pytest.approx(1 / 3, abs=0.01),
    )


def test_a_generator_that_goes_on_counts_spare_proposals_as_a_new_one_does(tmp_path, glyphs, monkeypatch):
    """A buffer of the old weights says what a proposal that fits nothing counts."""
    monkeypatch.setenv("FISA_GLYPHS", str(glyphs))
    monkeypatch.setattr("fisa.studies.patchwork.pretrain.CHECKED_PICTURES", 1)
    old = new_generator()
    old.criterion.empty_weight[-1] = 0.1
    old.save_pretrained(tmp_path / "old")
    flags = ["--max_steps=1", "--per_device_train_batch_size=1", "--learning_rate=0", "--report_to=none"]
    main(["generator", f"--output_dir={tmp_path / 'new'}", f"--start_from={tmp_path / 'old'}", "--canvas=96", *flags])
    new = load_file(tmp_path / "new" / "model.safetensors")
    assert new.pop("criterion.empty_weight").tolist() == [1, 1, 1]
    before = load_file(tmp_path / "old" / "model.safetensors")
    assert all(torch.equal(weight, before[name]) for name, weight in new.items())


def test_a_new_clip_has_finite_gradients_everywhere(glyphs):
    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    clip = new_clip(tokenizer)
    pictures = CaptionedPictures(
        [Painter("noto", seed=1, glyph_folder=glyphs)], num_pictures=4, batch_size=4, portraits=1
    )
    batch = CaptionCollator(tokenizer)([pictures[index] for index in range(4)])
    targets = batch.pop("targets")
    logits = clip(**batch, interpolate_pos_encoding=True).logits_per_image
    nn.functional.cross_entropy(logits, targets).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in clip.parameters())


@pytest.mark.parametrize("part, measure", [("clip", "top1"), ("generator", "proposals")])
def test_four_steps_are_two_and_two_more(tmp_path, glyphs, monkeypatch, part, measure):
    monkeypatch.setenv("FISA_GLYPHS", str(glyphs))
    monkeypatch.setattr("fisa.studies.patchwork.pretrain.CHECKED_PICTURES", 8)

    def run(*flags):
        options = {"output_dir": tmp_path, "max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 2}
        options |= {"disable_tqdm": "true", "report_to": "none"}
        main([part, *(f"--{name}={value}" for name, value in options.items()), *flags])
        return load_file(tmp_path / "model.safetensors")

    whole = run()
    found = json.loads((tmp_path / "measured.json").read_text())[measure]
    assert set(found) == (set(ARTISTS) if part == "clip" else {"noto", "twemoji", "fluent"})
    (tmp_path / "checkpoint-4").rename(tmp_path / "gone")
    resumed = run("--resume_from_checkpoint=true")
    assert whole.keys() == resumed.keys()
    # In the last bits they differ: AdamW and Muon make much of gradients that are nothing but rounding. What had
    # started anew would be wholly different.
    whole, resumed = (torch.cat([w[name].flatten().float() for name in sorted(w)]) for w in (whole, resumed))
    assert (resumed - whole).norm() < 0.01 * whole.norm()


def test_what_is_saved_lies_between_the_start_and_the_end(tmp_path, glyphs, monkeypatch):
    monkeypatch.setenv("FISA_GLYPHS", str(glyphs))
    monkeypatch.setattr("fisa.studies.patchwork.pretrain.CHECKED_PICTURES", 2)
    flags = ["--max_steps=2", "--per_device_train_batch_size=2", "--report_to=none", "--learning_rate=1e-3"]

    def run(name, *more):
        main(["clip", f"--output_dir={tmp_path / name}", *flags, *more])
        return load_file(tmp_path / name / "model.safetensors")

    start = run("start")
    end, half = (
        run(name, f"--start_from={tmp_path / 'start'}", f"--start_share={share}")
        for name, share in (("end", 0), ("half", 0.5))
    )
    moved = [name for name in start if not torch.equal(start[name], end[name])]
    assert moved
    for name in moved:
        torch.testing.assert_close(half[name], (start[name] + end[name]) / 2, atol=1e-5, rtol=1e-4)


def test_a_part_that_there_is_not_is_answered_with_those_there_are():
    with pytest.raises(SystemExit, match="clip, generator, objectness"):
        main(["decoder"])


def test_the_logs_that_ship_are_drawn_one_after_the_other():
    for axes, runs in zip(losses().axes, (CLIP, GENERATOR)):
        steps = [line.get_xdata() for line in axes.get_lines()]
        assert len(steps) == len(runs)
        assert all(before[-1] < after[0] for before, after in pairwise(steps))
