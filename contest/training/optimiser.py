"""Optimiser, learning rate over the steps, and loss of a recipe."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from contest.candidate import Recipe
from contest.datasets import Batch
from contest.errors import UsageError

_TRIANGLE = ((0.0, 0.23, 1.0), (0.2, 1.0, 0.07))
"""Shares of the run and of the learning rate, corner by corner."""


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Nesterov SGD or AdamW; weights decay, whatever has at most one dimension (biases, batch norm, quantiser
    steps) does not, except batch norms' biases with a rate of their own."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError("the model has no parameters to train")
    rate, factor = recipe.learning_rate, recipe.norm_bias_rate
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    fast = {id(norm.bias) for norm in norms if factor != 1}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1 and id(p) not in fast], "weight_decay": 0.0},
        {
            "params": [p for p in parameters if id(p) in fast],
            "weight_decay": recipe.weight_decay / (factor or 1.0),
            "lr": rate * factor,
        },
    ]
    groups = [group for group in groups if group["params"]]
    # The fused CPU kernel saves 0.1 ms of a step of 100 ms, but takes a gradient whose strides differ from
    # its parameter's for the wrong elements without a word (torch 2.15); the CUDA one checks.
    fused = all(parameter.is_cuda for parameter in parameters)
    if recipe.optimiser == "sgd":
        nesterov = recipe.momentum > 0
        return torch.optim.SGD(
            groups, recipe.learning_rate, recipe.momentum, nesterov=nesterov, foreach=not fused, fused=fused
        )
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, recipe.learning_rate, foreach=not fused, fused=fused)
    raise UsageError(f"optimiser is '{recipe.optimiser}'; it must be sgd or adamw")


def make_schedule(optimiser: torch.optim.Optimizer, recipe: Recipe, steps: int, per_epoch: int) -> LRScheduler:
    """The learning rate of each of `steps` steps, `per_epoch` of them an epoch.

    `cosine` (to 0) and `constant` rise linearly for `warmup_epochs` first; `onecycle` is PyTorch's, which
    rises for 30 % of the run and takes no warm-up besides; `triangle` goes from a fifth to 1 in 23 % of the run and
    falls to 7 % (Jordan 2024, arXiv 2404.00498).
    """
    if recipe.schedule == "onecycle":
        largest = [group["lr"] for group in optimiser.param_groups]
        return OneCycleLR(optimiser, largest, total_steps=max(steps, 1), cycle_momentum=False)
    if recipe.schedule == "triangle":
        return LambdaLR(optimiser, lambda step: float(np.interp(step / max(steps, 1), *_TRIANGLE)))
    if recipe.schedule not in ("cosine", "constant"):
        raise UsageError(f"schedule is '{recipe.schedule}'; it must be cosine, onecycle, triangle or constant")
    warmup = min(round(recipe.warmup_epochs * per_epoch), steps - 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if recipe.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    return LambdaLR(optimiser, factor)


def loss_of(logits: Tensor, batch: Batch, recipe: Recipe) -> Tensor:
    """Cross-entropy with label smoothing and, with a teacher, `distillation` parts of Hinton's soft loss:
    temperature^2 x KL(teacher || student), both softened (Hinton 2015, arXiv 1503.02531, section 2)."""
    logits, targets = logits.float(), batch.targets
    if targets.is_floating_point():  # a network may have outputs that no training image has as its class
        targets = F.pad(targets, (0, logits.shape[1] - targets.shape[1]))
    loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    if batch.soft is None:
        return loss
    student = F.log_softmax(logits / recipe.temperature, dim=1)
    soft = F.kl_div(student, batch.soft, reduction="batchmean") * recipe.temperature**2
    return torch.lerp(loss, soft, recipe.distillation)
