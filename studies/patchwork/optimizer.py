"""The optimizer that pre-trains Patchwork's models: Muon for the matrices inside its layers, AdamW for all else.

torch has a Muon, which orthogonalises in bfloat16: on a CPU that emulates it, five times the cost of the step itself.
This one stays in float32.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import Trainer


# Of the quintic iteration in Keller Jordan's Muon: singular values end between 0.7 and 1.2 after five steps.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


class MuonAdamW(torch.optim.AdamW):
    """AdamW, but in parameter groups with `orthogonal=True` Muon: each matrix moves along its momentum with all
    singular values made equal, by as much as AdamW would move it (Liu et al., arXiv 2502.16982)."""

    momentum = 0.95

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        for group in self.param_groups:
            if not group.get("orthogonal"):
                continue
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._muon_step(matrix, lr=group["lr"], weight_decay=group["weight_decay"])
                    matrix.grad = None  # AdamW leaves it alone
        return super().step(closure)

    def _muon_step(self, matrix: torch.Tensor, *, lr: float, weight_decay: float) -> None:
        state = self.state[matrix]
        if "momentum" not in state:
            # `step` is what AdamW looks for when its state is loaded.
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(matrix))
        momentum = state["momentum"].mul_(self.momentum).add_(matrix.grad)
        update = orthogonalised(matrix.grad + self.momentum * momentum)
        matrix.mul_(1 - lr * weight_decay).sub_(update, alpha=0.2 * lr * max(matrix.shape) ** 0.5)


def orthogonalised(matrix: torch.Tensor) -> torch.Tensor:
    """A matrix with the same singular vectors and singular values near 1, by Newton-Schulz iteration."""
    a, b, c = QUINTIC
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = wide @ wide.T
        wide = a * wide + (b * square + c * square @ square) @ wide
    return wide.T if matrix.shape[0] > matrix.shape[1] else wide


def muon_groups(model: nn.Module) -> list[dict[str, Any]]:
    """A model's parameters for [`MuonAdamW`]: the weights of linear layers inside `….layers.…` are for Muon."""
    matrices = [
        module.weight for name, module in model.named_modules() if isinstance(module, nn.Linear) and ".layers." in name
    ]
    inside = set(map(id, matrices))
    others = [parameter for parameter in model.parameters() if id(parameter) not in inside]
    return [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}]


class MuonTrainer(Trainer):
    """transformers' Trainer with [`MuonAdamW`]."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        # The Trainer's own reads the file's keys as they are, and models that transformers renames on saving (Swin)
        # would start anew.
        model = model or self.model
        model.load_state_dict(type(model).from_pretrained(resume_from_checkpoint).state_dict())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            options = self.args
            self.optimizer = MuonAdamW(
                muon_groups(model or self.model),
                lr=options.learning_rate,
                weight_decay=options.weight_decay,
                betas=(options.adam_beta1, options.adam_beta2),
            )
        return self.optimizer
