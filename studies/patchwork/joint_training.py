"""`python -m fisa.studies.patchwork.joint_training`: what a frozen generator saves.

Trains generator and classifier as one, as segmenters of an open vocabulary usually are: a generator that knows nothing
and SIMO with SEVE on Patchwork's CLIP, each photo's mask loss and classification loss in one step. Scenes are painted
anew, so that there are enough. Prints the figures on `validation` after each stretch of processor time.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from fisa import train
from fisa.modeling_fisa.loss_fisa import IGNORED
from fisa.modeling_fisa.modeling_fisa import FisaForUniversalSegmentation
from fisa.pretrained.patchwork import CHECKPOINT
from fisa.processing.processing_fisa import FisaProcessor
from fisa.studies.patchwork.dataset import PACK, write_split
from fisa.studies.patchwork.generator_pretraining import new_generator
from fisa.studies.patchwork.optimizer import MuonAdamW, muon_groups
from fisa.studies.patchwork.reproduce import CATEGORIES, RECIPE, SHARED_FLAGS, as_flags, figures
from fisa.training.trainer import FisaTrainer


CANVAS = 96
"""Pixels per side that the generator sees, as in the first part of its pre-training."""

GENERATOR = {"lr": 1e-3, "weight_decay": 0.05}
"""Its learning rate and decay in pre-training."""


class JointTrainer(FisaTrainer):
    """Trains the adapter and, with Muon, all of the mask generator. `history.json` tells what each evaluation
    measured, at which step and after how many seconds of the processor."""

    def __init__(self, *arguments: Any, **named_arguments: Any):
        super().__init__(*arguments, **named_arguments)
        self.history: dict[int, dict[str, float]] = {}
        self._not_counted = time.process_time()

    @property
    def generator(self) -> torch.nn.Module:
        return self.accelerator.unwrap_model(self.model).get_base_model().mask_generator

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The adapter's parameters as in any run, the generator's as in pre-training."""
        if self.optimizer is None:
            adapter = super().create_optimizer(model).param_groups
            kept = [{name: group[name] for name in ("params", "lr", "weight_decay")} for group in adapter]
            self.generator.requires_grad_(True)
            self.optimizer = MuonAdamW(kept + [group | GENERATOR for group in muon_groups(self.generator)])
        return self.optimizer

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **_: Any
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The generator's loss and, on the masks that it has just proposed, the classifier's."""
        pixels = inputs.pop("mask_generator_pixel_values")
        inputs.pop("mask_generator_pixel_mask")
        masks = [masks[labels != IGNORED] for masks, labels in zip(inputs["mask_labels"], inputs["class_labels"])]
        proposals = self.generator(
            pixel_values=pixels,
            mask_labels=[of_photo.float() for of_photo in masks],
            class_labels=[torch.zeros(len(of_photo), dtype=torch.long) for of_photo in masks],  # the classifier names
        )
        outputs = model(**inputs, mask_proposals=proposals.masks_queries_logits.detach())
        loss = proposals.loss + outputs.loss
        return (loss, outputs) if return_outputs else loss

    def evaluate(self, *arguments: Any, **named_arguments: Any) -> dict[str, float]:
        """As ever; its own time is not counted as training's."""
        began = time.process_time()
        metrics = super().evaluate(*arguments, **named_arguments)
        spent = {"cpu_seconds": began - self._not_counted}
        self.history.setdefault(self.state.global_step, spent | figures(self.report))
        path = Path(self.args.output_dir) / "history.json"
        path.write_text(json.dumps(self.history, indent=1) + "\n", encoding="utf-8")
        self._not_counted += time.process_time() - began
        return metrics


def write_base(folder: Path) -> None:
    """Patchwork's model with a generator that knows nothing."""
    torch.manual_seed(0)
    model = FisaForUniversalSegmentation.from_pretrained(CHECKPOINT)
    model.mask_generator.load_state_dict(new_generator().state_dict())
    model.save_pretrained(folder)
    processor = FisaProcessor.from_pretrained(CHECKPOINT)
    processor.image_processor.mask_generator_size = {"height": CANVAS, "width": CANVAS}
    processor.save_pretrained(folder)


def train_jointly(output: Path, data: Path, *, steps: int, evaluations: int) -> dict[str, dict[str, float]]:
    """Train both as one.

    Args:
        output: a new folder.
        data: scenes to train on, as [`~fisa.studies.patchwork.dataset.write_split`] writes them.
        steps: of 16 scenes.
        evaluations: of `validation`, the last one after the last step.

    Returns:
        What each evaluation measured, by its step, with the `cpu_seconds` of training until then.
    """
    write_base(output / "base")
    flags = SHARED_FLAGS | {"model": output / "base", "train_data": data, "classes": CATEGORIES.with_name("seen.json")}
    flags |= {"eval_data": PACK, "eval_split": "validation", "eval_classes": CATEGORIES, "output_dir": output}
    flags |= {"mask_source": "generator", "max_steps": steps, "per_device_train_batch_size": 16}
    flags |= {"eval_strategy": "steps", "eval_steps": steps // evaluations + 1, "save_strategy": "no"}
    train.train_and_evaluate([str(RECIPE), *as_flags(flags)], trainer_class=JointTrainer)
    return json.loads((output / "history.json").read_text(encoding="utf-8"))


def main() -> None:
    """Train both as one, and print what was measured after how many seconds of the processor."""
    parser = argparse.ArgumentParser(prog="python -m fisa.studies.patchwork.joint_training", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("runs/patchwork/joint"))
    parser.add_argument("--steps", type=int, default=1600, help="of 16 scenes (%(default)s)")
    parser.add_argument("--scenes", type=int, default=12_000, help="painted to train on (%(default)s)")
    parser.add_argument("--evaluations", type=int, default=4, help="(%(default)s)")
    options = parser.parse_args()
    data = options.output / "scenes"
    write_split("train", data, num_scenes=options.scenes)
    history = train_jointly(options.output, data, steps=options.steps, evaluations=options.evaluations)
    print(json.dumps(history, indent=1))


if __name__ == "__main__":
    main()
