"""Trainers for a process of their own, which import so little that it starts at once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from contest.candidate import Candidate
from contest.errors import TrainingError
from search.study.trial import TrialPrice
from search.trainers.protocol import Progress, Trained


class Fragile:
    """Trains for four epochs, each written into `epoch`. `fragile`: 4-bit networks abort, as over a corrupt heap."""

    classes, images, validation = 10, 1000, 5000

    def __init__(self, epoch_s: float = 0.0, problem: str | None = None, fragile: bool = False) -> None:
        self.epoch_s, self.problem, self.fragile = epoch_s, problem, fragile

    def price(self, candidate: Candidate) -> TrialPrice:
        return TrialPrice(params=0.01, ops=0.01, macs=1000, weights=1000)

    def train(
        self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None], **_: object
    ) -> Trained:
        if self.problem:
            raise TrainingError(self.problem)
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint = directory / "epoch"
        begin = int(checkpoint.read_text()) if checkpoint.exists() else 0
        for epoch in range(begin + 1, 5):
            time.sleep(self.epoch_s)
            checkpoint.write_text(str(epoch))
            on_epoch(Progress(epoch / 4, 0.9, 1e4, 1000, "train"))
            if self.fragile and candidate.bits.weights == 4:
                os.write(2, b"free(): invalid next size (fast)\n")
                os.abort()
        model = directory / "model.pt"
        model.write_text(candidate.to_json())
        return Trained(4500, 5000, self.price(candidate), model)


def make_fragile() -> Fragile:
    return Fragile(fragile=True)


def make_slow() -> Fragile:
    return Fragile(epoch_s=0.3)


def make_failing() -> Fragile:
    return Fragile(problem="loss is no longer a number")
