"""Accuracy of a network on images, and the metrics of a running epoch with its progress bar."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType

import torch
import torch.nn.functional as F
from rich import progress as rich_progress
from torch import Tensor, nn

from contest.datasets import Batch, Images
from contest.datasets.images import to_float
from contest.errors import UsageError
from contest.training.device import autocast, keep_memory

SECONDS = 0.5  # between two looks at the loss: on a GPU each look waits for the device
LINE_SECONDS = 60.0  # between two lines where output is no terminal


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
    share: float = 1.0
    """Of the epoch's steps, those that were made: fewer where the run had to end in time."""


@dataclass(frozen=True)
class History:
    epochs: tuple[Epoch, ...]

    @property
    def validation_accuracy(self) -> float | None:
        """Of the finished network; None without validation images or without epochs."""
        return self.epochs[-1].validation_accuracy if self.epochs else None


class Meter:
    """Sums of one epoch, kept on the device; reading one waits for it."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), device=device, dtype=torch.int64)
        self._start = time.perf_counter()
        self.steps = self.images = 0

    def add(self, loss: Tensor, logits: Tensor, batch: Batch) -> None:
        self._loss += loss.detach()
        self._correct += (logits.detach().argmax(1) == batch.labels).sum()
        self.steps += 1
        self.images += len(batch.labels)

    @property
    def loss(self) -> float:
        return float(self._loss) / self.steps

    @property
    def accuracy(self) -> float:
        return int(self._correct) / self.images

    @property
    def images_per_second(self) -> float:
        return self.images / (time.perf_counter() - self._start)

    def __str__(self) -> str:
        return f"loss {self.loss:.3f}  accuracy {self.accuracy:.1%}  {self.images_per_second:,.0f} images/s"


class ProgressBar:
    """A bar with figures and the time left; a line a minute where output is no terminal. Silent unless `shown`."""

    def __init__(self, title: str, steps: int, done: int, *, shown: bool) -> None:
        self._title, self._steps, self._first = title, steps, done
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.fields[figures]}"),
            rich_progress.TimeRemainingColumn(),
        )
        self._lines = shown and not self._bar.console.is_terminal
        self._bar.disable = not shown or self._lines
        self._task = self._bar.add_task(title, total=steps, completed=done, figures="")
        self._begun = self._looked = self._printed = time.perf_counter()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def due(self) -> bool:
        """Whether it is time to look at the loss again."""
        return time.perf_counter() - self._looked > SECONDS

    def show(self, step: int, figures: str = "") -> None:
        self._bar.update(self._task, completed=step, figures=figures)
        self._looked = now = time.perf_counter()
        if self._lines and now - self._printed >= LINE_SECONDS and step > self._first:
            self._printed = now
            left = timedelta(seconds=round((now - self._begun) / (step - self._first) * (self._steps - step)))
            parts = [f"{self._title}: {step / self._steps:.0%}", *figures.split("  "), f"{left} left"]
            self._bar.console.print(", ".join(filter(None, parts)), soft_wrap=True, highlight=False)


@dataclass(frozen=True, eq=False)
class Evaluation:
    correct: int
    total: int
    loss: float
    """Mean cross-entropy."""
    predictions: Tensor
    """int64 [N] on the CPU: the class of the largest logit, the first of equal ones."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.total


def evaluate(
    model: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    bf16: bool = False,
) -> Evaluation:
    """Predictions for all images in order, in float32 unless `bf16`; leaves the model as it was.

    Raises UsageError for no images.
    """
    if not len(images):
        raise UsageError("there are no images to evaluate on")
    labels = images.labels.cpu()
    logits = forward(model, images, device=device, batch_size=batch_size, bf16=bf16)
    predictions = logits.argmax(1)
    correct = int((predictions == labels).sum())
    return Evaluation(correct, len(labels), float(F.cross_entropy(logits, labels)), predictions)


def forward(
    model: nn.Module,
    images: Images,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    bf16: bool = False,
    views: int = 1,
) -> Tensor:
    """The logits of all images, the mean over `views` (see there), in order, float32 [N, classes] on the CPU."""
    keep_memory()
    device = torch.device(device)
    model.to(device)
    parts = []
    with torch.no_grad(), evaluating(model), autocast(device, bf16):
        for start in range(0, len(images), batch_size):
            pixels = images.pixels[start : start + batch_size].to(device).permute(0, 2, 3, 1).contiguous()
            parts.append(over_views(model, to_float(pixels), views, mirror=images.flips).cpu())
    return torch.cat(parts)


VIEWS = (1, 2, 6)


def over_views(model: nn.Module, x: Tensor, views: int, mirror: bool = True) -> Tensor:
    """The mean of the logits for `views` of the images [N, C, H, W], float32: 1 is the image as it is; 2 it and its
    mirror image, where images may be mirrored; 6 also both moved by one pixel up and left and down and right, with
    half the weight together (Jordan 2024, arXiv 2404.00498, section 3.5)."""
    if views not in VIEWS:
        raise UsageError(f"views are {views}; they must be {', '.join(map(str, VIEWS))}")

    def both(x: Tensor) -> Tensor:
        logits: Tensor = model(x).float()
        return (logits + model(x.flip(3)).float()) / 2 if views > 1 and mirror else logits

    logits = both(x)
    if views < 6:
        return logits
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1), "reflect")
    moved = both(padded[:, :, :height, :width]) + both(padded[:, :, 2:, 2:])
    return logits / 2 + moved / 4


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; every module gets back the mode of its own that it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
