"""Loss and accuracy of a running epoch, what a training reports, and the progress bar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from types import TracebackType

import torch
from rich import progress as rich_progress
from torch import Tensor

from contest.datasets import Batch

SECONDS = 0.5  # between two looks at the loss: on a GPU each look waits for the device


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


class Progress:
    """A bar with loss, accuracy, images/s and time left; silent unless `shown`."""

    def __init__(self, steps: int, done: int, *, shown: bool) -> None:
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.TaskProgressColumn(),
            rich_progress.TextColumn("{task.fields[figures]}"),
            rich_progress.TimeRemainingColumn(),
            disable=not shown,
        )
        self._task = self._bar.add_task("training", total=steps, completed=done, figures="")
        self._looked = time.perf_counter()

    def __enter__(self) -> Progress:
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

    def show(self, step: int, meter: Meter) -> None:
        figures = f"loss {meter.loss:.3f}  accuracy {meter.accuracy:.1%}  {meter.images_per_second:,.0f} images/s"
        self._bar.update(self._task, completed=step, figures=figures)
        self._looked = time.perf_counter()
