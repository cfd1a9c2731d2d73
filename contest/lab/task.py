"""What an experiment runs on: a model, batches, a loss and a metric, of the zoo or of the user's own."""

from __future__ import annotations

import importlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from contest import pruning
from contest.errors import TrainingError, UsageError
from contest.pruning.batches import (
    Inputs,
    Loss,
    Outputs,
    Pairs,
    forward,
    logits,
    mapped,
    pair,
    predictions,
    samples,
    take,
)
from contest.pruning.batches import tensors as tensors_of

Measure = Callable[[nn.Module, Any], float]
Predict = Callable[[Outputs], Tensor]


@dataclass(frozen=True)
class Metric:
    """A figure of merit: `measure(model, test batches) -> float`, the model in evaluation mode.

    The batches are those of the task as it was given them.
    """

    name: str
    measure: Measure
    higher_is_better: bool = True
    unit: str = ""

    @property
    def label(self) -> str:
        """Name and unit, as axes and columns are headed."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def accuracy_percent(model: nn.Module, batches: Iterable[Any], predict: Predict = predictions) -> float:
    """Share of samples (or positions) that are predicted right, in percent.

    Predicted is the class of the largest output; with one output a sample, 1 where it is positive and else 0.
    """
    correct = total = 0
    with torch.no_grad():
        for inputs, targets in map(pair, batches):
            found = agreeing(forward(model, inputs), targets, predict)
            correct += int(found.sum())
            total += found.numel()
    if not total:
        raise UsageError("there are no test batches to measure the accuracy on")
    return 100 * correct / total


def agreeing(outputs: Outputs, targets: Tensor, predict: Predict = predictions) -> Tensor:
    """Which predictions are the targets.

    Raises:
        UsageError: there are not as many of one as of the other.
    """
    found = predict(outputs)
    scores = logits(outputs)
    if predict is predictions and found.numel() != targets.numel() and scores.dim() > 2:
        found = scores.argmax(1)  # classes in the second dimension, as cross-entropy takes them
    if not isinstance(targets, Tensor) or found.numel() != targets.numel():
        shape = list(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
        raise UsageError(
            f"accuracy compares predictions {list(found.shape)} with targets {shape}, which do not fit; "
            "give the Task its own `metric`, or a `predict` from outputs to classes"
        )
    truth = targets.flatten()
    one = scores.shape[-1] == 1 or scores.dim() < 2
    if (
        predict is predictions
        and one
        and truth.is_floating_point()
        and not bool(((truth.abs() == 1) | (truth == 0)).all())
    ):
        raise UsageError(
            "accuracy compares classes, but there is one output a sample and targets are numbers such as "
            f"{truth[0].item():g}; give the Task a `metric`, such as Metric('Mean squared error', function, "
            "higher_is_better=False)"
        )
    if not truth.is_floating_point() and int(truth.min()) >= 0:
        return found.flatten() == truth
    return found.flatten() == (truth > 0 if scores.shape[-1] == 1 or scores.dim() < 2 else truth)


ACCURACY = Metric("Accuracy", accuracy_percent, unit="%")


@dataclass(frozen=True)
class Task:
    """A model with its data and metric. Batches are (inputs, targets), iterable more than once.

    A DataLoader will do for `train` and `test`; each pass over `train` is an epoch. Inputs are a tensor [N, ...], or a
    tuple or mapping of such, which the model gets by position or by name; a batch may also be a mapping with `labels`.
    Outputs are a tensor, or anything with a tensor `logits` in it.
    """

    name: str
    model: Callable[[], nn.Module]
    """Makes a new, untrained model; the random generators are seeded before."""
    train: Iterable[Any]
    test: Iterable[Any]
    loss: Loss = nn.functional.cross_entropy
    metric: Metric = ACCURACY
    classes: tuple[str, ...] = ()
    score: Callable[[nn.Module], float] | None = None
    """The contest's score of a network of this task, where it has one."""
    device: str = "cpu"
    """Where models and batches go."""
    about: dict[str, object] = field(default_factory=dict)
    """Further configuration that decides the results; it is stored with them."""
    prunable: pruning.Choices = (pruning.DEFAULT,)
    """Which weights are: names, module prefixes, patterns such as `lstm.weight_*`, (module, parameter) pairs, or a
    function from the model to these; `default` stands for those of convolutions and linear layers."""
    predict: Predict = predictions
    """From outputs to classes: the largest output, or the sign of a single one, unless you say otherwise."""

    @property
    def train_batches(self) -> Pairs:
        """Training batches as (inputs, targets) on the device."""
        return Pairs(self.train, self.device)

    @property
    def test_batches(self) -> Pairs:
        """Test batches as (inputs, targets) on the device."""
        return Pairs(self.test, self.device)

    def new(self, seed: int) -> nn.Module:
        """A new model whose initial values come from `seed`; the generators go on as if nothing had been drawn."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                random.seed(seed)
                np.random.seed(seed % 2**32)
                model = self.model().to(self.device)
                if any(is_lazy(parameter) for parameter in model.parameters()):
                    with torch.no_grad():  # lazy layers learn their shapes from one batch
                        forward(model.eval(), self.example())
                    model.train()
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
        pruning.choose(model, self.prunable)
        return model

    def measure(self, model: nn.Module, batches: int | None = None) -> float:
        """The metric on the test batches (the first few of them); the model comes back in the mode it was in."""
        training = model.training
        model.eval()
        test = self.test if batches is None else list(islice(iter(self.test), batches))
        try:
            if self.metric.measure is accuracy_percent:
                return accuracy_percent(model, Pairs(test, self.device), self.predict)
            with torch.no_grad():
                return float(self.metric.measure(model, test))
        finally:
            model.train(training)

    def mean_loss(self, model: nn.Module) -> float:
        """The mean loss over the test samples, in evaluation mode."""
        training, total, seen = model.training, 0.0, 0
        model.eval()
        with torch.no_grad():
            for inputs, targets in self.test_batches:
                count = samples(inputs)
                total += self.loss(forward(model, inputs), targets).item() * count
                seen += count
        model.train(training)
        return total / max(seen, 1)

    def scoring_batches(self, number: int, seed: int = 0) -> list[tuple[Inputs, Inputs]]:
        """The first `number` training samples of an epoch drawn with `seed`, for methods that use data."""
        found: list[tuple[Inputs, Inputs]] = []
        missing = number
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for inputs, targets in self.train_batches:
                if missing <= 0:
                    break
                found.append((take(inputs, 0, missing), take(targets, 0, missing)))
                missing -= samples(inputs)
        return found

    def example(self, number: int = 1) -> Any:
        """The first `number` test inputs, from as many batches as that takes; fewer where there are not so many."""
        found: Any = None
        for inputs, _ in self.test_batches:
            found = inputs if found is None else _joined(found, inputs)
            if samples(found) >= number:
                break
        if found is None:
            raise UsageError(f"task '{self.name}' has no test batches")
        return take(found, 0, number)

    @property
    def chance(self) -> float | None:
        """The accuracy of saying the test set's most frequent class always; None for other metrics."""
        if self.metric.measure is not accuracy_percent:
            return None
        targets = [t.flatten().cpu() for _, batch in self.test_batches for t in tensors_of(batch)]
        counts = torch.cat(targets).unique(return_counts=True)[1]
        return 100 * float(counts.max()) / float(counts.sum())

    def check(self) -> str:
        """Try the model, loss, gradient and metric on a batch, before anything is trained.

        Returns a sentence on what part of the model is prunable.

        Raises:
            UsageError: one of them fails, with the reason.
        """
        for name, batches in (("train", self.train), ("test", self.test)):
            if iter(batches) is batches:
                raise UsageError(f"task '{self.name}': {name} is over after one pass; give a list or a DataLoader")
        model = self.new(0)
        covered = pruning.require_prunable(model)
        inputs, targets = next(iter(self.train_batches), (None, None))
        if inputs is None:
            raise UsageError(f"task '{self.name}' has no training batches")
        step = "its forward pass"
        try:
            with torch.random.fork_rng():
                outputs = forward(model.train(), inputs)
                step = "its loss"
                value = self.loss(outputs, targets)
                step = "the gradient of its loss"
                value.backward()
                step = f"its metric '{self.metric.name}'"
                self.measure(model, batches=1)
        except UsageError as error:
            raise UsageError(f"task '{self.name}': {error}") from error
        except Exception as error:  # the user's own code may raise anything
            raise UsageError(
                f"task '{self.name}' fails in {step} on the first batch: {type(error).__name__}: {error}"
            ) from error
        if not math.isfinite(value.item()):
            raise TrainingError(f"task '{self.name}': the untrained model's loss is {value.item()} on the first batch")
        return covered.sentence()


def _joined(one: Any, other: Any) -> Any:
    """Two batches of inputs as one, where their shapes allow it; else the first."""
    seconds = iter(tensors_of(other))
    try:
        return mapped(one, lambda tensor: torch.cat([tensor, next(seconds)]) if tensor.dim() else tensor)
    except RuntimeError:
        return one


def load_task(name: str) -> Task:
    """A user's own task: `package.module:factory`, a function without arguments that returns a `Task`.

    Raises:
        UsageError: it cannot be imported or gives something else.
    """
    module_name, _, attribute = name.partition(":")
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"task '{name}' cannot be imported as package.module:factory: {error}") from error
    task = factory() if callable(factory) else factory
    if not isinstance(task, Task):
        raise UsageError(f"task '{name}' gave a {type(task).__name__}; it must be a contest.lab.Task")
    return replace(task, about={**task.about, "factory": name})
