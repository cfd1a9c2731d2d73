"""Averages over training: of the weights (EMA), and of what batch norms measured, taken anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.datasets import Batches, Images
from contest.training.device import keep_memory
from contest.training.evaluation import evaluating


class Average:
    """Follows `model` step by step: average <- d * average + (1 - d) * now, d = min(decay, (1 + t) / (10 + t)).

    The rise of d over the steps t keeps a short run from averaging its random start (as TensorFlow's
    ExponentialMovingAverage does). Batch norm's running statistics are averaged like the weights, counters
    and masks (integers, booleans) are taken over as they are. `hold` is called on a model that has been given
    averaged values: where a mask grew on the way, the average is not zero yet.
    """

    def __init__(self, model: nn.Module, decay: float, hold: Callable[[nn.Module], None] | None = None) -> None:
        self.decay, self.hold, self.steps = decay, hold, 0
        self.tensors = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, stride: int = 1) -> None:
        """Once after each step, which stands for `stride` of the schedule's."""
        self.steps += stride
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) ** stride
        now = _tensors(model)
        floats = [name for name, tensor in self.tensors.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.tensors[name] for name in floats], [now[name] for name in floats], 1 - decay)
        for name in self.tensors.keys() - set(floats):
            self.tensors[name].copy_(now[name])

    @torch.no_grad()
    def copy_to(self, model: nn.Module) -> None:
        """Gives the model the averaged values."""
        for name, tensor in _tensors(model).items():
            tensor.copy_(self.tensors[name])
        if self.hold:
            self.hold(model)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with averaged values for as long as the block lasts."""
        own = {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _tensors(model).items():
                    tensor.copy_(own[name])

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "tensors": self.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or RuntimeError for the state of another network."""
        for name, tensor in self.tensors.items():
            tensor.copy_(state_dict["tensors"][name])
        self.steps = int(state_dict["steps"])


class Lookahead:
    """Slow weights that training returns to every five steps (Zhang 2019, arXiv 1907.08610).

    slow <- d * slow + (1 - d) * now, now <- slow, with d rising as the cube of the share of `steps` that is done to
    `decay` ** 5 (Jordan 2024, arXiv 2404.00498, section 3.4): nothing is held back at first, and the network that
    comes out is an average of the last steps. `hold` as for `Average`.
    """

    EVERY = 5

    def __init__(
        self, model: nn.Module, decay: float, steps: int, hold: Callable[[nn.Module], None] | None = None
    ) -> None:
        self.decay, self.total, self.hold, self.steps = decay, steps, hold, 0
        self.tensors = {n: t.detach().clone() for n, t in _tensors(model).items() if t.is_floating_point()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """After each step: `step` of the schedule is done."""
        before, self.steps = self.steps, step
        if step // self.EVERY == before // self.EVERY and step < self.total:
            return
        now = _tensors(model)
        pairs = [(slow, now[name]) for name, slow in self.tensors.items()]
        decay = self.decay**self.EVERY * (self.steps / self.total) ** 3
        torch._foreach_lerp_([slow for slow, _ in pairs], [fast for _, fast in pairs], 1 - decay)
        for slow, fast in pairs:
            fast.copy_(slow)
        if self.hold:
            self.hold(model)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "tensors": self.tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Raises KeyError or RuntimeError for the state of another network."""
        for name, tensor in self.tensors.items():
            tensor.copy_(state_dict["tensors"][name])
        self.steps = int(state_dict["steps"])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


IMAGES = 10_000
"""From so many images each channel's mean and variance are known to about a hundredth of the deviation."""


def refresh_statistics(
    model: nn.Module, images: Images, recipe: Recipe, *, device: torch.device | str = "cpu", seed: int = 0
) -> None:
    """Measure the running statistics of all batch norms anew: of the final weights, in float32.

    What a training leaves belongs to the arithmetic of bf16 and, where weights were averaged, to weights that no
    longer exist. Float networks hardly notice; in one of few bits it moves values over the quantisers' edges: about 0.3
    points of validation accuracy on CIFAR-10 (docs/record). Images come augmented as `recipe` says: with plain ones
    float networks lost 0.25 points. (Averaged weights need it: Izmailov et al. 2018, arXiv 1803.05407, section 3.2;
    "precise" statistics: Wu and Johnson 2021, arXiv 2105.07576, section 3.) The model is left on `device`, and in the
    mode in which it was.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    if not norms:
        return
    keep_memory()
    device = torch.device(device)
    model.to(device)
    momenta = [norm.momentum for norm in norms]
    batches = Batches(images, recipe, seed, device).epoch(0)
    with torch.no_grad(), evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for: the mean of all batches
            norm.train()
        for batch in islice(batches, math.ceil(IMAGES / recipe.batch_size)):
            model(batch.images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
