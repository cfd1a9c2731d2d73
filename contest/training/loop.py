"""The training loop with its optimiser and learning rate. Everything that trains for the contest trains here; the
laboratory trains other people's models on other people's batches (`contest.lab.training`)."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from contest.candidate import Recipe, check, plain
from contest.datasets import Batch, Batches, Images
from contest.errors import TrainingError, UsageError
from contest.networks.branches import add_branches, fold_branches
from contest.training import checkpoint as files
from contest.training.averaging import Average, Lookahead, refresh_statistics
from contest.training.device import (
    autocast,
    channels_last_gradients,
    cpu_convolutions,
    has_bf16,
    keep_memory,
    memory_errors,
)
from contest.training.evaluation import Epoch, History, Meter, ProgressBar, evaluate
from contest.training.muon import LENGTH, Muon, is_turned

FOLDING_IMAGES = 2000
"""Images that give the statistics of a convolution that was folded from branches."""
_TRIANGLE = ((0.0, 0.23, 1.0), (0.2, 1.0, 0.07))
"""Shares of the run and of the learning rate, corner by corner."""


def make_optimiser(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Nesterov SGD, AdamW, or SGD with the steps of `contest.training.muon`; weights decay, whatever has at most one
    dimension (biases, batch norm, quantiser steps) does not, except batch norms' biases with a rate of their own."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise UsageError("the model has no parameters to train")
    rate, factor = recipe.learning_rate, recipe.norm_bias_rate
    turned = {id(layer.weight) for layer in model.modules() if recipe.optimiser == "muon" and is_turned(layer)}
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    fast = {id(norm.bias) for norm in norms if factor != 1}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1 and id(p) not in turned], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1 and id(p) not in fast], "weight_decay": 0.0},
        {
            "params": [p for p in parameters if id(p) in fast],
            "weight_decay": recipe.weight_decay / (factor or 1.0),
            "lr": rate * factor,
        },
        {
            "params": [p for p in parameters if id(p) in turned],
            "weight_decay": 0.0,  # their length stays as it is
            "lr": rate * LENGTH,
            "turned": True,
            "beta": recipe.momentum,
            "momentum": 0.0,
            "nesterov": False,
        },
    ]
    groups = [group for group in groups if group["params"]]
    # The fused CPU kernel saves 0.1 ms of a step of 100 ms, but takes a gradient whose strides differ from
    # its parameter's for the wrong elements without a word (torch 2.15); the CUDA one checks.
    fused = all(parameter.is_cuda for parameter in parameters)
    if recipe.optimiser in ("sgd", "muon"):
        nesterov = recipe.momentum > 0
        kind = Muon if recipe.optimiser == "muon" else torch.optim.SGD
        return kind(groups, recipe.learning_rate, recipe.momentum, nesterov=nesterov, foreach=not fused, fused=fused)
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, recipe.learning_rate, foreach=not fused, fused=fused)
    raise UsageError(f"optimiser is '{recipe.optimiser}'; it must be sgd, muon or adamw")


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


def fit(
    model: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    validation: Images | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    checkpoint: Path | None = None,
    soft_labels: Tensor | None = None,
    begun: bool = False,
    before_epoch: Callable[[nn.Module, int, int], None] | None = None,
    before_step: Callable[[nn.Module, float], None] | None = None,
    after_step: Callable[[nn.Module], None] | None = None,
    on_step: Callable[[float], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    ends_at: float | None = None,
    progress: bool = False,
    bf16: bool | None = None,
    provenance: Mapping[str, str] | None = None,
) -> History:
    """Trains `model` in place on `device` and leaves it there in evaluation mode, with the averaged weights
    where the recipe averages.

    `checkpoint` is written after each epoch; where it exists, the run continues from it and ends with the
    network that an uninterrupted run ends with (on the CPU bit for bit); it holds `provenance`. `soft_labels` are the
    teacher's logits [N, classes]. `begun`: the weights are another training's, so that branches must not change at once
    what they compute. `after_step` is called after each step and whenever weights were averaged, to hold
    masks.
    `on_epoch` is called once the epoch's checkpoint is on disk; what it raises ends the run. `bf16` is
    autocast: None for where the hardware has it.

    `before_epoch` (the pipeline's masks need it) gets the model, the epoch's number from 0 and the number of epochs,
    also before the first epoch after a resume. `before_step` gets the model, its gradients made, and the share of the
    run that is done (0 to 1); what it adds to gradients counts. `on_step` gets that share about twice a second.

    `ends_at` is the time (Unix) at which the last step should have been made. Where steps turn out too slow for that,
    the rest of the run is gone through in longer strides (`Pace`): fewer batches an epoch, all of the schedule.

    Raises TrainingError for a loss or weights that are not finite, for too little memory and for a checkpoint
    of another run, UsageError for a recipe that makes no sense.
    """
    check(recipe)
    if recipe.distillation and recipe.epochs and soft_labels is None:
        raise UsageError(f"distillation is {recipe.distillation:g} but there are no soft labels of a teacher")
    keep_memory()
    device = torch.device(device)
    bf16 = has_bf16(device) if bf16 is None else bf16
    run = {**plain(recipe), "seed": seed, "images": len(images)}
    if recipe.branches and checkpoint and files.is_finished(checkpoint):
        done = files.load(checkpoint, run, {"model": model})
        model.to(device).eval()
        return History(tuple(done))
    if recipe.branches and recipe.epochs:
        add_branches(model, keep=begun)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(images, recipe, seed, device, soft_labels if recipe.distillation else None)
    training = _Training(model, recipe, batches, bf16, Pace(ends_at), before_step, after_step, on_step)
    history = files.load(checkpoint, run, training.parts()) if checkpoint and checkpoint.exists() else []
    training.step = min(len(history) * len(batches), training.steps)

    generators = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(generators),
        memory_errors(recipe),
        channels_last_gradients(model),
        cpu_convolutions(model, device),
        ProgressBar("training", training.steps, training.step, shown=progress) as bar,
    ):
        for number in range(len(history), training.epochs):
            if before_epoch:
                before_epoch(model, number, training.epochs)
            torch.manual_seed(seed * 1_000_003 + number)  # for dropout: from (seed, epoch), like the batches
            history.append(training.epoch(number, bar, validation))
            if checkpoint:
                files.save(checkpoint, run, training.parts(), history, provenance)
            if on_epoch:
                on_epoch(history[-1])
    if training.average:
        training.average.copy_to(model)
    if recipe.branches and recipe.epochs:
        refresh_statistics(model, images, recipe, device=device, seed=seed)
        fold_branches(model, images.pixels[:FOLDING_IMAGES].to(device).float() / 255)
        if checkpoint:
            files.save(checkpoint, run, {"model": model}, history, provenance)
    model.eval()
    return History(tuple(history))


class _Training:
    """A model that is trained, with what moves it, what follows it, and how many steps of the schedule are done."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        batches: Batches,
        bf16: bool,
        pace: Pace,
        before_step: Callable[[nn.Module, float], None] | None,
        after_step: Callable[[nn.Module], None] | None,
        on_step: Callable[[float], None] | None,
    ) -> None:
        self.model, self.recipe, self.batches, self.bf16, self.pace = model, recipe, batches, bf16, pace
        self._before_step, self._after_step, self._on_step = before_step, after_step, on_step
        self.steps = max(round(recipe.epochs * len(batches)), recipe.epochs > 0)
        self.epochs, self.step = math.ceil(self.steps / len(batches)), 0
        self.optimiser = make_optimiser(model, recipe)
        self.schedule = make_schedule(self.optimiser, recipe, self.steps, len(batches))
        self.average = Average(model, recipe.ema_decay, after_step) if recipe.ema_decay else None
        self.lookahead = Lookahead(model, recipe.lookahead, self.steps, after_step) if recipe.lookahead else None

    def parts(self) -> dict[str, files.Part]:
        """What a checkpoint holds."""
        parts: dict[str, files.Part] = {"model": self.model, "optimiser": self.optimiser, "schedule": self.schedule}
        if self.average:
            parts["average"] = self.average
        if self.lookahead:
            parts["lookahead"] = self.lookahead
        return parts

    def epoch(self, number: int, bar: ProgressBar, validation: Images | None) -> Epoch:
        """Train for the epoch `number` (from 0), and read the accuracy where there are images for it."""
        self.model.train()
        meter, readings = Meter(self.batches.device), self.epochs - number
        first, last = self.step, min((number + 1) * len(self.batches), self.steps)
        for batch in self.batches.epoch(number):
            self._move(batch, meter, last, readings)
            if bar.due:
                bar.show(self.step, str(meter))
                _check_finite(meter, number, self.optimiser)
                if self._on_step:
                    self._on_step(self.step / self.steps)
            if self.step >= last:
                break
        speed = meter.images_per_second
        _check_finite(meter, number, self.optimiser, self.model)
        accuracy = None
        if validation is not None and (self.step == self.steps or not self.pace.spares(readings)):
            accuracy = self._read(validation)
        share = meter.steps / (last - first)
        return Epoch(number + 1, self.recipe.epochs, meter.loss, meter.accuracy, accuracy, speed, share)

    def _move(self, batch: Batch, meter: Meter, last: int, readings: int) -> None:
        """One step, which stands for as many of the schedule's as the pace asks for, and for none beyond `last`."""
        model, recipe = self.model, self.recipe
        with autocast(self.batches.device, self.bf16):
            logits = model(batch.images)
        loss = loss_of(logits, batch, recipe)
        loss.backward()
        if self._before_step:
            self._before_step(model, self.step / self.steps)
        if recipe.clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        stride = min(self.pace.stride(self.steps - self.step, readings), last - self.step)
        self.schedule.last_epoch += stride - 1
        self.schedule.step()
        self.step += stride
        if self._after_step:
            self._after_step(model)
        if self.lookahead:
            self.lookahead.update(model, self.step)
        if self.average:
            self.average.update(model, stride)
        meter.add(loss, logits, batch)

    def _read(self, validation: Images) -> float:
        """The accuracy of the averaged weights. The last reading counts, so it is made in float32 as every other is."""
        bf16 = self.bf16 and self.step < self.steps
        with self.average.applied(self.model) if self.average else nullcontext(), self.pace.reading():
            return evaluate(self.model, validation, device=self.batches.device, bf16=bf16).accuracy


class Pace:
    """Brings a run to its end in time, by the lowest rate of its schedule.

    While the steps that are left fit into the time that is left, each step is one step of the schedule. Where they do
    not, a step stands for as many of them as brings the run to its end in time, and validations on the way are left
    out where they would take much of it. Nothing is done without `ends_at` (Unix time).
    """

    WINDOW_S = 2.0
    """A step's time is that of the steps of the last two to four seconds (on a GPU, one alone says nothing)."""
    FEW = 3
    TOLERANCE = 1.03
    READINGS = 0.3
    """Of the time that is left, what validations on the way may take in a run that is late."""

    def __init__(self, ends_at: float | None) -> None:
        self.ends_at = ends_at
        self.late = False
        self._marks: list[tuple[float, int]] = []
        self._steps = 0
        self._owed = 0.0
        self._reading_s = 0.0

    def stride(self, left: int, readings: int) -> int:
        """Of the `left` steps of the schedule, how many the step that was just made stands for.

        readings: validations that are still to come.
        """
        if self.ends_at is None:
            return 1
        now = time.time()
        self._steps += 1
        if not self._marks or (
            now - self._marks[-1][0] > self.WINDOW_S and self._steps - self._marks[-1][1] >= self.FEW
        ):
            self._marks = [*self._marks[-1:], (now, self._steps)]
        begun, before = self._marks[0]
        if self._steps - before < self.FEW:
            return left if now > self.ends_at else 1
        each = (now - begun) / (self._steps - before)
        time_left = self.ends_at - now - self._reading_s * (1 if self.spares(readings) else readings)
        needed = (left - 1) * each / max(time_left, 1e-3)
        self.late = needed > self.TOLERANCE
        if not self.late:
            self._owed = 0.0
            return 1
        self._owed += needed - 1
        skipped = int(min(self._owed, left - 1))
        self._owed -= skipped
        return 1 + skipped

    def spares(self, readings: int) -> bool:
        """Whether a late run leaves out its validations but the last."""
        if self.ends_at is None or not self.late:
            return False
        return readings * self._reading_s > self.READINGS * max(self.ends_at - time.time(), 0.0)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A validation: its time is no step's."""
        begun = time.time()
        yield
        self._reading_s = time.time() - begun
        self._marks = [(moment + self._reading_s, step) for moment, step in self._marks]


def _check_finite(meter: Meter, number: int, optimiser: torch.optim.Optimizer, model: nn.Module | None = None) -> None:
    weights = model.parameters() if model else ()
    if math.isfinite(meter.loss) and all(bool(one.isfinite().all()) for one in weights):
        return
    raise TrainingError(
        f"loss or weights are no longer finite numbers in epoch {number + 1} (loss {meter.loss}, learning rate "
        f"{optimiser.param_groups[0]['lr']:.3g}): lower learning_rate, lengthen warmup_epochs or set clip_norm=1"
    )
