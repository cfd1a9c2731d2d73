"""The training loop. Everything that trains in this project trains here."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.candidate import Recipe, check, plain
from contest.datasets import Batches, Images
from contest.errors import TrainingError, UsageError
from contest.memory import keep_memory
from contest.training import checkpoint as files
from contest.training.device import (
    autocast,
    channels_last_gradients,
    cpu_convolutions,
    has_bf16,
    memory_errors,
)
from contest.training.ema import Average, Lookahead
from contest.training.evaluation import evaluate
from contest.training.metrics import Epoch, History, Meter, Progress
from contest.training.optimiser import loss_of, make_optimiser, make_schedule


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
    after_step: Callable[[nn.Module], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: bool = False,
    bf16: bool | None = None,
) -> History:
    """Trains `model` in place on `device` and leaves it there in evaluation mode, with the averaged weights
    where the recipe averages.

    `checkpoint` is written after each epoch; where it exists, the run continues from it and ends with the
    network that an uninterrupted run ends with (on the CPU bit for bit). `soft_labels` are the teacher's logits
    [N, classes]. `after_step` is called after each step and whenever weights were averaged, to hold masks.
    `on_epoch` is called once the epoch's checkpoint is on disk; what it raises ends the run. `bf16` is
    autocast: None for where the hardware has it.

    `before_epoch` (the pipeline's masks need it) gets the model, the epoch's number from 0 and the number of epochs,
    also before the first epoch after a resume.

    Raises TrainingError for a loss or weights that are not finite, for too little memory and for a checkpoint
    of another run, UsageError for a recipe that makes no sense.
    """
    check(recipe)
    if recipe.distillation and recipe.epochs and soft_labels is None:
        raise UsageError(f"distillation is {recipe.distillation:g} but there are no soft labels of a teacher")
    keep_memory()
    device = torch.device(device)
    bf16 = has_bf16(device) if bf16 is None else bf16
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = Batches(images, recipe, seed, device, soft_labels if recipe.distillation else None)
    steps = max(round(recipe.epochs * len(batches)), recipe.epochs > 0)
    epochs = math.ceil(steps / len(batches))
    optimiser = make_optimiser(model, recipe)
    schedule = make_schedule(optimiser, recipe, steps, len(batches))
    average = Average(model, recipe.ema_decay, after_step) if recipe.ema_decay else None
    lookahead = Lookahead(model, recipe.lookahead, steps, after_step) if recipe.lookahead else None
    parts: dict[str, files.Part] = {"model": model, "optimiser": optimiser, "schedule": schedule}
    if average:
        parts["average"] = average
    if lookahead:
        parts["lookahead"] = lookahead
    run = {**plain(recipe), "seed": seed, "images": len(images)}
    history = files.load(checkpoint, run, parts) if checkpoint and checkpoint.exists() else []
    step = min(len(history) * len(batches), steps)

    generators = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(generators),
        memory_errors(recipe),
        channels_last_gradients(model),
        cpu_convolutions(model, device),
        Progress(steps, step, shown=progress) as bar,
    ):
        for number in range(len(history), epochs):
            if before_epoch:
                before_epoch(model, number, epochs)
            torch.manual_seed(seed * 1_000_003 + number)  # for dropout: from (seed, epoch), like the batches
            model.train()
            meter = Meter(device)
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
                if lookahead:
                    lookahead.update(model)
                if average:
                    average.update(model)
                meter.add(loss, logits, batch)
                step += 1
                if bar.due:
                    bar.show(step, meter)
                    _check_finite(meter, number, optimiser)
            speed = meter.images_per_second
            _check_finite(meter, number, optimiser, model)
            accuracy = None
            if validation is not None:
                # the last reading is the one that counts, so it is made as every other one is: in float32
                with average.applied(model) if average else nullcontext():
                    accuracy = evaluate(model, validation, device=device, bf16=bf16 and step < steps).accuracy
            epoch = Epoch(number + 1, recipe.epochs, meter.loss, meter.accuracy, accuracy, speed)
            history.append(epoch)
            if checkpoint:
                files.save(checkpoint, run, parts, history)
            if on_epoch:
                on_epoch(epoch)
    if average:
        average.copy_to(model)
    model.eval()
    return History(tuple(history))


def _check_finite(meter: Meter, number: int, optimiser: torch.optim.Optimizer, model: nn.Module | None = None) -> None:
    weights = model.parameters() if model else ()
    if math.isfinite(meter.loss) and all(bool(one.isfinite().all()) for one in weights):
        return
    raise TrainingError(
        f"loss or weights are no longer finite numbers in epoch {number + 1} (loss {meter.loss}, learning rate "
        f"{optimiser.param_groups[0]['lr']:.3g}): lower learning_rate, lengthen warmup_epochs or set clip_norm=1"
    )
