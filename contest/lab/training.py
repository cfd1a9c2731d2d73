"""The laboratory's training loop: any model, any batches, any loss; one screen.

`contest.training.fit` trains image classifiers for the contest: its own batches, soft labels, averages, checkpoints
after each epoch. The experiments train a user's own model on a user's own loader with a user's own loss, with the
optimisers and schedules of the published experiments, and look within an epoch. The two share the five lines of a
step (and `cpu_convolutions`); one loop would need a hook for each line around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from itertools import count
from typing import Any, Literal

import torch
from torch import Tensor, nn

from contest.errors import TrainingError, UsageError
from contest.pruning.batches import Inputs, Loss, Outputs, forward, mapped, pair, tensors
from contest.training.device import cpu_convolutions

AfterStep = Callable[[nn.Module], None]
Watch = Callable[[float, float], None]
"""(epochs done, mean training loss since the last call), at the end of each epoch or oftener."""


@dataclass(frozen=True)
class Training:
    """How to train, besides what on. `epochs` may be a fraction."""

    epochs: float = 2.0
    optimiser: Literal["adam", "adamw", "adadelta", "sgd"] = "adam"
    learning_rate: float = 0.001
    momentum: float = 0.9
    """Of sgd only."""
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """`cosine` falls to 0 over the run, `step` multiplies by `gamma` after each epoch."""
    gamma: float = 0.7
    bf16: bool = False
    """bf16 autocast (where the processor has it, training is twice as fast)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "momentum", "weight_decay", "gamma"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise UsageError(f"training: {name} is {value:g}; it must be a number, 0 or more")


_COUNT = (lambda n: n >= 1, "be at least 1")
_LATER = (lambda n: n >= 0, "be at least 0")
_SHARE = (lambda s: 0 <= s <= 1, "lie in [0, 1]")
_PART = (lambda s: 0 < s < 1, "lie between 0 and 1, without them")
_RATIO = (lambda c: isinstance(c, str) or 1 <= c < math.inf, "be at least 1, which is the unpruned network")
_BITS = (lambda b: 1 <= b <= 8 or b == 32, "be 1 to 8, or 32 for float")
_LIMITS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("rounds", "kernels", "images", "scoring_samples", "calibration_samples"), _COUNT),
    **dict.fromkeys(("batch", "runs", "latency_batch", "latency_runs"), _COUNT),
    **dict.fromkeys(("warmup", "latency_warmup"), _LATER),
    **dict.fromkeys(("sparsity", "sparsities"), _SHARE),
    **dict.fromkeys(("fraction", "removed", "targets"), _PART),
    **dict.fromkeys(("ratios", "look_at"), _RATIO),
    "bits": _BITS,
}
_NEEDED = ("variants", "methods", "ratios", "sparsities", "bits", "orders")
"""Lists that hold at least one."""


class Parameters:
    """What the parameters of all experiments have in common: those of one name have the same limits everywhere."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):  # type: ignore[arg-type]  # every experiment's is a dataclass
            value = getattr(self, name)
            several = value if isinstance(value, tuple) else (value,)
            fits, words = _LIMITS.get(name, (None, ""))
            for one in several:
                if fits and not fits(one):
                    raise UsageError(f"parameter {name} is {one:g}; it must {words}")
            if name in _NEEDED and not value:
                raise UsageError(f"parameter {name} is empty; it must hold at least one")
            known = [one[0] if isinstance(one, tuple) else one for one in several]
            if twice := sorted({str(one) for one in known if known.count(one) > 1}):
                raise UsageError(f"parameter {name} holds {', '.join(twice)} twice")


def train(
    model: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    training: Training,
    *,
    seed: int = 0,
    after_step: AfterStep | None = None,
    watch: Watch | None = None,
    watch_every: float = 1.0,
) -> None:
    """Train in place on the batches' device. Each pass over `batches` is an epoch.

    Reproducible: torch's generator is seeded, and shuffling loaders draw from it. `watch` is called after every
    `watch_every` epochs (at most 1; a part of an epoch shows how a short training goes) and at each epoch's end;
    it may leave the model in evaluation mode, but must draw no random numbers.

    Raises:
        TrainingError: the loss is not finite, or there are no batches.
    """
    torch.manual_seed(seed)
    optimiser = _optimiser(model, training)
    per_epoch: int | None = None
    base = [group["lr"] for group in optimiser.param_groups]
    step = 0
    for epoch in count():
        if epoch >= training.epochs:
            return
        model.train()
        total, seen, looks = torch.zeros(()), 0, 1
        for index, batch in enumerate(batches):
            inputs, targets = pair(batch)
            per_epoch = per_epoch or length(batches)
            if step >= training.epochs * per_epoch:
                break
            factor = _factor(training, step, per_epoch)
            for group, rate in zip(optimiser.param_groups, base, strict=True):
                group["lr"] = rate * factor
            optimiser.zero_grad()
            device = _device(inputs)
            bf16 = torch.autocast(device.type, torch.bfloat16, enabled=training.bf16)
            with bf16, cpu_convolutions(model, device):
                outputs = forward(model, inputs)
            value = loss(_in_float32(outputs) if training.bf16 else outputs, targets)
            value.backward()
            optimiser.step()
            if after_step:
                after_step(model)
            total, seen, step = total + value.detach().cpu(), seen + 1, step + 1
            ends = index + 1 == per_epoch or step >= training.epochs * per_epoch
            if watch and not ends and index + 1 >= looks * watch_every * per_epoch:
                watch(step / per_epoch, _finite(total, seen, epoch, training))
                total, seen, looks = torch.zeros(()), 0, looks + 1
                model.train()
        if not seen:
            raise TrainingError("there are no batches to train on")
        mean = _finite(total, seen, epoch, training)
        if watch:
            watch(min(epoch + 1.0, training.epochs), mean)


def _device(inputs: Inputs) -> torch.device:
    found = tensors(inputs)
    return found[0].device if found else torch.device("cpu")


def _in_float32(outputs: Outputs) -> Outputs:
    return mapped(outputs, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)


def _finite(total: Tensor, seen: int, epoch: int, training: Training) -> float:
    mean = float(total / seen)
    if not math.isfinite(mean):
        raise TrainingError(
            f"the loss is {mean} in epoch {epoch + 1}; lower the learning rate ({training.learning_rate:g})"
        )
    return mean


def length(batches: Iterable[Any]) -> int:
    """How many batches an epoch has."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError("the training batches need a length (a list, a DataLoader) for the schedule") from error


def _factor(training: Training, step: int, per_epoch: int) -> float:
    if training.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / (training.epochs * per_epoch)))
    if training.schedule == "step":
        return float(training.gamma ** (step // per_epoch))
    return 1.0


def _optimiser(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = training.learning_rate, training.weight_decay
    match training.optimiser:
        case "adam":
            return torch.optim.Adam(parameters, rate, weight_decay=decay, foreach=True)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, weight_decay=decay, foreach=True)
        case "adadelta":
            return torch.optim.Adadelta(parameters, rate, weight_decay=decay, foreach=True)
        case "sgd":
            return torch.optim.SGD(parameters, rate, training.momentum, weight_decay=decay, foreach=True)
    raise UsageError(f"optimiser is '{training.optimiser}'; it must be adam, adamw, adadelta or sgd")
