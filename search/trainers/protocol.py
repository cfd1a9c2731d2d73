"""What a search needs of the world: the price of a candidate before training, and its training.

`PipelineTrainer` is the real one. Tests and benchmarks bring others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contest.candidate import Candidate
from search.study.trial import TrialPrice


@dataclass(frozen=True)
class Progress:
    """One epoch of a training, after its checkpoint was written."""

    fraction: float
    """Of the whole training (float and quantised epochs together), 1 at its end."""
    accuracy: float
    """On the validation split."""
    images_per_second: float
    images: int
    """Training images of this epoch."""
    stage: str


@dataclass(frozen=True)
class Trained:
    """A finished training: accuracy on validation, measured price, the network's file."""

    correct: int
    total: int
    price: TrialPrice
    model: Path
    loss: float | None = None
    """Mean cross-entropy on validation."""


@dataclass(frozen=True)
class Speed:
    """What this machine does with a network of `macs` operations."""

    macs: int
    float_images_per_s: float
    tuned_images_per_s: float
    """Of quantised training."""
    validation_s: float
    """Reading the validation split once, after each epoch."""
    start_s: float = 0.5
    """Beside the epochs of a training: making, freezing, measuring, writing and pricing its network."""
    float32_s: float = 0.0
    """Reading the validation split once in float32, as the last reading is."""


OnStep = Callable[[str, float], None]
"""Is told now and then how far a training is: its stage, and the fraction of the whole."""


class Trainer(Protocol):
    """Prices and trains candidates of one data set."""

    @property
    def classes(self) -> int:
        """Classes of the data set."""

    @property
    def images(self) -> int:
        """Images of the training split: what an epoch costs."""

    @property
    def validation(self) -> int:
        """Images of the validation split."""

    def price(self, candidate: Candidate) -> TrialPrice:
        """The price before training, in milliseconds. Raises ContestError if the network cannot be built."""

    def train(
        self,
        candidate: Candidate,
        directory: Path,
        on_epoch: Callable[[Progress], None],
        *,
        ends_at: float | None = None,
        on_step: OnStep | None = None,
    ) -> Trained:
        """Train in `directory`, going on exactly from the checkpoint that lies there.

        `on_epoch` is called after each epoch's checkpoint was written; what it raises goes through. `ends_at` is when
        the last step should have been made (Unix time): a training that is too slow is shortened.
        """
