"""What a training run reports."""

from __future__ import annotations

from dataclasses import dataclass


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
