"""The training loop. Everything that trains in this project trains here."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.data import Batches, Images
from contest.errors import TrainingError, UsageError
from contest.training import checkpoint as files
from contest.training.average import Average
from contest.training.evaluation import evaluate
from contest.training.machine import autocast, has_bf16, keep_memory
from contest.training.optimise import loss_of, make_optimiser, make_schedule
from contest.training.progress import Progress

Hook = Callable[[nn.Module], None]


@dataclass(frozen=True)
class Epoch:
    epoch: int
    """Epochs done, this one included."""
    epochs: float
    """Epochs of the whole run."""
    train_loss: float
    train_accuracy: float
    """On the augmented images, while training."""
    validation_accuracy: float | None
    images_per_second: float
    """Of the training alone, without validation."""


@dataclass(frozen=True)
class History:
    epochs: tuple[Epoch, ...]

    @property
    def validation_accuracy(self) -> float | None:
        """Of the finished network; None without validation images or epochs."""
        return self.epochs[-1].validation_accuracy if self.epochs else None


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
    before_epoch: Callable[[nn.Module, int, int], None] | None = None,
    after_step: Hook | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = False,
    bf16: bool | None = None,
) -> History:
    """Trains `model` in place on `device` and leaves it there, in evaluation mode, with the averaged weights
    where the recipe averages.

    `checkpoint` is written after each epoch; where it exists, the run continues from it and ends with the
    network that an uninterrupted run ends with (on the CPU bit for bit). `soft_labels` are the teacher's logits
    [N, classes]. `after_step` is called after each step and whenever weights were averaged, to hold masks.
    `before_epoch` gets the model, the epoch's number from 0 and the number of epochs, also of the first one after
    a resume. `on_epoch` is called once the epoch's checkpoint is on disk; what it raises ends the run. `bf16` is
    autocast: None for where the hardware has it.

    Raises TrainingError for a loss or weights that are not finite and for a checkpoint of another run,
    UsageError for a recipe that makes no sense.
    """
    keep_memory()
    device = torch.device(device)
    bf16 = has_bf16(device) if bf16 is None else bf16
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.distillation and soft_labels is None:
        raise UsageError(f"distillation is {recipe.distillation:g} but there are no soft labels of a teacher")
    batches = Batches(images, recipe, seed, device, soft_labels if recipe.distillation else None)
    steps = math.ceil(recipe.epochs * len(batches))
    epochs = math.ceil(steps / len(batches))
    optimiser = make_optimiser(model, recipe)
    schedule = make_schedule(optimiser, recipe, steps, len(batches))
    average = Average(model, recipe.ema_decay) if recipe.ema_decay else None
    run = {**dataclasses.asdict(recipe), "seed": seed, "images": len(images)}
    done: list[Epoch] = []
    step = 0
    if checkpoint and checkpoint.exists():
        state = files.load(checkpoint, run)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        schedule.load_state_dict(state["schedule"])
        if average:
            average.load_state_dict(state["average"])
        done = [Epoch(**epoch) for epoch in state["history"]]
        step = min(len(done) * len(batches), steps)

    def validated(final: bool) -> float | None:
        if validation is None:
            return None
        with average.applied(model) if average else nullcontext():
            if average and after_step:
                after_step(model)
            # the last reading counts, so it is made like every other: in float32
            return evaluate(model, validation, device=device, bf16=bf16 and not final).accuracy

    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), Progress(steps, step, batches.batch_size, shown=progress) as bar:
        for number in range(len(done), epochs):
            torch.manual_seed(seed * 1_000_003 + number)  # dropout: from (seed, epoch), like the batches
            if before_epoch:
                before_epoch(model, number, epochs)
            model.train()
            loss_sum = torch.zeros((), device=device)
            correct = torch.zeros((), device=device, dtype=torch.int64)
            start, first = time.perf_counter(), step
            for batch in islice(batches.epoch(number), steps - step):
                with autocast(device, bf16):
                    logits = model(batch.images)
                loss = loss_of(logits, batch, recipe)
                loss.backward()
                if recipe.clip_norm:
                    nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
                optimiser.step()
                optimiser.zero_grad()
                schedule.step()
                if after_step:
                    after_step(model)
                if average:
                    average.update(model)
                step += 1
                loss_sum += loss.detach()
                correct += (logits.detach().argmax(1) == batch.labels).sum()
                if bar.due():
                    count = step - first
                    _finite(loss_sum, number, float(schedule.get_last_lr()[0]))
                    bar.show(step, float(loss_sum) / count, int(correct) / (count * batches.batch_size))
            seconds, count = time.perf_counter() - start, step - first
            seen = count * batches.batch_size
            _finite(loss_sum, number, float(schedule.get_last_lr()[0]), model)
            accuracy = validated(final=step == steps)
            done.append(
                Epoch(number + 1, recipe.epochs, float(loss_sum) / count, int(correct) / seen, accuracy, seen / seconds)
            )
            if checkpoint:
                state = {
                    "run": run,
                    "model": model.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "schedule": schedule.state_dict(),
                    "average": average.state_dict() if average else None,
                    "history": [dataclasses.asdict(epoch) for epoch in done],
                }
                files.save(state, checkpoint)
            if on_epoch:
                on_epoch(done[-1])
    if average:
        average.copy_to(model)
        if after_step:
            after_step(model)
    model.eval()
    return History(tuple(done))


def _finite(loss: Tensor, epoch: int, learning_rate: float, model: nn.Module | None = None) -> None:
    finite = bool(loss.isfinite()) and all(bool(p.isfinite().all()) for p in (model.parameters() if model else ()))
    if not finite:
        raise TrainingError(
            f"the loss is no longer a finite number in epoch {epoch + 1} (learning rate now {learning_rate:.3g}): "
            "lower learning_rate, lengthen warmup_epochs or set clip_norm (1.0, say)"
        )
