"""What an experiment runs on: a model, batches, a loss and a metric, of the zoo or of the user's own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from contest.candidate import Recipe
from contest.datasets import Batches as AugmentedBatches
from contest.datasets import Images, load
from contest.datasets.augment import to_float
from contest.errors import UsageError
from contest.pruning import Batches, Loss

Measure = Callable[[nn.Module, Batches], float]


@dataclass(frozen=True)
class Metric:
    """A figure of merit: `measure(model, test batches) -> float`, the model in evaluation mode."""

    name: str
    measure: Measure
    higher_is_better: bool = True
    unit: str = ""

    @property
    def label(self) -> str:
        """Name and unit, as axes and columns are headed."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


def accuracy_percent(model: nn.Module, batches: Batches) -> float:
    """Share of samples whose largest output is their target's, in percent."""
    correct = total = 0
    with torch.no_grad():
        for inputs, targets in batches:
            correct += int((model(inputs).argmax(-1) == targets).sum())
            total += targets.numel()
    if not total:
        raise UsageError("there are no test batches to measure the accuracy on")
    return 100 * correct / total


ACCURACY = Metric("Accuracy", accuracy_percent, unit="%")


@dataclass(frozen=True)
class Task:
    """A model with its data and metric. Batches are (inputs, targets), iterable more than once.

    A DataLoader will do for `train` and `test`; each pass over `train` is an epoch.
    """

    name: str
    model: Callable[[], nn.Module]
    """Makes a new, untrained model; torch's generator is seeded before."""
    train: Batches
    test: Batches
    loss: Loss = nn.functional.cross_entropy
    metric: Metric = ACCURACY
    classes: tuple[str, ...] = ()
    score: Callable[[nn.Module], float] | None = None
    """The contest's score of a network of this task, where it has one."""
    device: str = "cpu"
    """Where models go; the batches must come on it."""
    about: dict[str, object] = field(default_factory=dict)
    """Further configuration that decides the results; it is stored with them."""

    def new(self, seed: int) -> nn.Module:
        """A new model whose initial values come from `seed`."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.model().to(self.device)

    def measure(self, model: nn.Module) -> float:
        """The metric on the test batches; the model comes back in the mode it was in."""
        training = model.training
        model.eval()
        try:
            return float(self.metric.measure(model, self.test))
        finally:
            model.train(training)

    def mean_loss(self, model: nn.Module) -> float:
        """The mean loss over the test samples, in evaluation mode."""
        training, total, samples = model.training, 0.0, 0
        model.eval()
        with torch.no_grad():
            for inputs, targets in self.test:
                total += float(self.loss(model(inputs), targets)) * len(inputs)
                samples += len(inputs)
        model.train(training)
        return total / max(samples, 1)

    def scoring_batches(self, samples: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
        """The first `samples` training samples of an epoch drawn with `seed`, for methods that use data."""
        found: list[tuple[Tensor, Tensor]] = []
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for inputs, targets in self.train:
                missing = samples - sum(len(known) for known, _ in found)
                if missing <= 0:
                    break
                found.append((inputs[:missing].clone(), targets[:missing].clone()))
        return found

    def example(self, samples: int = 1) -> Tensor:
        """The first `samples` test inputs (fewer, if the first batch has fewer)."""
        for inputs, _ in self.test:
            return inputs[:samples].clone()
        raise UsageError(f"task '{self.name}' has no test batches")


class TrainImages:
    """Batches of training images; the order of each pass is drawn from torch's generator."""

    def __init__(self, images: Images, batch_size: int, *, augment: bool, device: str = "cpu") -> None:
        recipe = Recipe(batch_size=batch_size, flip=augment, crop=4 if augment else 0)
        self.batches = AugmentedBatches(images, recipe, device=device)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        number = int(torch.randint(2**31 - 1, ()))
        return ((batch.images, batch.labels) for batch in self.batches.epoch(number))


class TestImages:
    """Batches of test images, in order."""

    __test__ = False  # its name is not a test's

    def __init__(self, images: Images, batch_size: int = 500) -> None:
        self.images, self.batch_size = images, batch_size

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.images), self.batch_size):
            pixels = self.images.pixels[start : start + self.batch_size].permute(0, 2, 3, 1).contiguous()
            yield to_float(pixels), self.images.labels[start : start + self.batch_size]


def image_task(
    model: str,
    dataset: str,
    *,
    data: Path | None = None,
    batch_size: int = 64,
    augment: bool = False,
    train_images: int | None = None,
    test_images: int | None = None,
    device: str = "cpu",
) -> Task:
    """A network of `contest.networks` by name (`mnist_fc`, `vgg16:width=16`) on a data set by name.

    Args:
        augment: random crops, and flips where the data set allows them.
        train_images, test_images: only the first so many of each, for quick runs; it is said in the results.
    """
    from contest import networks

    found = load(dataset, data)
    if found.test is None:
        raise UsageError(f"data set '{dataset}' has no test images; the experiments report test figures")
    architecture = networks.parse(model)
    train, test = _first(found.train, train_images), _first(found.test, test_images)
    return Task(
        name=f"{model} on {dataset}",
        model=lambda: networks.build(architecture, found.image_shape, len(found.classes)),
        train=TrainImages(train, batch_size, augment=augment, device=device),
        test=TestImages(test.to(device)),
        device=device,
        classes=found.classes,
        about={
            "model": str(architecture),
            "dataset": dataset,
            "batch_size": batch_size,
            "augment": augment,
            "train_images": len(train),
            "test_images": len(test),
        },
    )


def _first(images: Images, number: int | None) -> Images:
    return images if number is None or number >= len(images) else images.take(torch.arange(number))


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
    return task
