"""The built-in networks and data sets as tasks of the laboratory, and how a network begins."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from contest import pruning
from contest.candidate import Recipe
from contest.datasets import Batches as AugmentedBatches
from contest.datasets import Images, load
from contest.datasets.images import to_float
from contest.errors import UsageError
from contest.lab.task import Task

FIRST_IMAGES = 5000
"""Training images that a new network is shown (`networks.see`)."""


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
    initialisation: str = "torch",
    prunable: pruning.Choices = (pruning.DEFAULT,),
) -> Task:
    """A network of `contest.networks` by name (`mnist_fc`, `vgg16:width=16`) on a data set by name.

    Args:
        augment: random crops, and flips where the data set allows them.
        train_images, test_images: only the first so many of each, for quick runs; it is said in the results.
        initialisation: `torch` (as plain PyTorch layers begin), `kaiming` (as SynFlow's published code does) or
            `family` (as the network does in the contest's training).
        prunable: see `Task.prunable`.
    """
    from contest import networks

    found = load(dataset, data)
    if found.test is None:
        raise UsageError(f"data set '{dataset}' has no test images; the experiments report test figures")
    architecture = networks.parse(model)
    train, test = _first(found.train, train_images), _first(found.test, test_images)

    def fresh() -> nn.Module:
        model = initialise(networks.build(architecture, found.image_shape, len(found.classes)), initialisation)
        networks.see(model, to_float(train.pixels[:FIRST_IMAGES]), train.statistics)
        return model

    return Task(
        name=f"{architecture} on {dataset}",
        model=fresh,
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
            "initialisation": initialisation,
        },
        prunable=prunable,
    )


def score_of(network: nn.Module, model: str, task: Task, score_file: Callable[[Path], float]) -> float:
    """The score of a trained network of a built-in architecture: frozen, written, and read as any entry is.

    `score_file` comes from the command line, which knows `scoring`; the laboratory does not.
    """
    from contest import networks
    from contest.model_file import freeze, save

    channels, height, width = task.example(1).shape[1:]
    frozen = freeze(network, networks.parse(model), image_shape=(channels, height, width), classes=len(task.classes))
    with tempfile.TemporaryDirectory() as folder:
        return score_file(save(frozen, Path(folder) / "model.pt"))


def _first(images: Images, number: int | None) -> Images:
    return images if number is None or number >= len(images) else images.take(torch.arange(number))


def torch_defaults(model: nn.Module) -> None:
    """Every layer as its class draws it: what `nn.Linear(...)` and `nn.Conv2d(...)` give in a plain PyTorch program."""
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()


def kaiming(model: nn.Module) -> None:
    """Kaiming normal by fan-in for all convolutions and linear layers, the last one too; biases 0, batch norm 1 and 0.

    As the networks of SynFlow's published code begin (Tanaka 2020, arXiv 2006.05467).
    """
    torch_defaults(model)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def as_built(model: nn.Module) -> None:
    """As the network's family draws it for the contest's training recipes."""


INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {
    "torch": torch_defaults,
    "kaiming": kaiming,
    "family": as_built,
}


def initialise(model: nn.Module, how: str) -> nn.Module:
    """Draw the model's weights anew, in place, and return it; `how` is a name of `INITIALISATIONS`."""
    if how not in INITIALISATIONS:
        raise UsageError(f"initialisation '{how}' does not exist; there are {', '.join(INITIALISATIONS)}")
    INITIALISATIONS[how](model)
    return model
