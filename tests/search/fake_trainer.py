"""A trainer that needs no network: accuracy follows from size and bits by a formula, epochs take no time."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contest.candidate import Candidate
from contest.errors import TrainingError, UsageError
from contest.networks.options import Value
from contest.pipeline import stages
from search.candidates import to_candidate
from search.study.study import Study
from search.study.trial import TrialPrice, float_key, key_of
from search.trainers.protocol import Progress, Trained


class FakeTrainer:
    """Price and accuracy by formula. Every training is written to `log`, one line an epoch."""

    classes = 10
    images = 1000
    validation = 5000

    def __init__(
        self,
        log: Path | None = None,
        *,
        epoch_s: float = 0.0,
        fails: Callable[[Candidate], str | None] = lambda c: None,
    ) -> None:
        self.log, self.epoch_s, self.fails = log, epoch_s, fails
        self.trained: list[Candidate] = []

    def price(self, candidate: Candidate) -> TrialPrice:
        widths = candidate.architecture.options.get("widths")
        if not isinstance(widths, tuple):
            raise UsageError("no widths")
        weights = 9 * sum(w * w for w in widths)
        macs = 9 * 256 * sum(w * w for w in widths)
        bits = max(candidate.bits.weights, candidate.bits.activations) / 32
        left = 1 - candidate.structured
        return TrialPrice(
            params=weights * (left - candidate.unstructured) * candidate.bits.weights / 32 / 5.6e6,
            ops=2 * macs * left * bits / 8.3e8,
            macs=macs,
            weights=weights,
        )

    def accuracy(self, candidate: Candidate, epochs: float) -> float:
        """Rises with weights, bits and epochs; falls with zeros."""
        price = self.price(candidate)
        error = (
            0.9
            * (price.weights / 1000) ** -0.35
            * (1 + 2.0 ** -min(candidate.bits.weights, candidate.bits.activations))
        )
        error *= 1 + candidate.unstructured**3 + candidate.structured
        return max(0.1, 1 - error * (1 + 1.5 / epochs) / 2)

    def train(
        self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None], **_: object
    ) -> Trained:
        problem = self.fails(candidate)
        if problem:
            raise TrainingError(problem)
        directory.mkdir(parents=True, exist_ok=True)
        epochs = max(2, math.ceil(sum(e for _, e in stages(candidate))))
        checkpoint = directory / "epoch"
        shared = directory.parent.parent / "floats" / float_key(candidate)
        floats = math.ceil(candidate.train.epochs)
        begin = int(checkpoint.read_text()) if checkpoint.exists() else floats if shared.exists() else 0
        self.trained.append(candidate)
        for epoch in range(begin + 1, epochs + 1):
            if self.epoch_s:
                time.sleep(self.epoch_s)
            if self.log is not None:
                with self.log.open("a") as file:
                    file.write(f"{directory.name} {epoch}\n")
            checkpoint.write_text(str(epoch))
            if epoch == floats:
                shared.parent.mkdir(exist_ok=True)
                shared.touch()
            on_epoch(Progress(epoch / epochs, self.accuracy(candidate, epoch), 1e4, self.images, "train"))
        model = directory / "model.pt"
        model.write_text(candidate.to_json())
        correct = round(self.accuracy(candidate, epochs) * self.validation)
        return Trained(correct, self.validation, self.price(candidate), model)


def fake_score(trainer: FakeTrainer, rule: str = "lab") -> Callable[[Path], dict[str, Any]]:
    """A report in the form of `contest score --json`; counts how often it was asked."""

    def score(model: Path) -> dict[str, Any]:
        candidate = Candidate.from_json(model.read_text())
        price = trainer.price(candidate)
        value = trainer.accuracy(candidate, candidate.train.epochs + candidate.tune.epochs)
        terms = {"params": price.params, "ops": price.ops, "total": price.total, "total_with_bitmask": price.total}
        return {"rule": rule, "scores": {rule: terms}, "accuracy": {"value": value, "correct": 0, "total": 10000}}

    return score


class Dice:
    """Answers a space's questions like an Optuna trial, from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.asked: list[str] = []

    def suggest_categorical(self, name: str, choices: Sequence[Value]) -> Value:
        self.asked.append(name)
        return self.random.choice(list(choices))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        self.asked.append(name)
        return self.random.randrange(low, high + 1, step)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        self.asked.append(name)
        return self.random.uniform(low, high)


def enqueue_random(study: Study, count: int, epochs: float) -> None:
    """Queue `count` different candidates drawn from the study's space, as whole trainings."""
    known: set[str] = set()
    seed = 0
    while len(known) < count:
        values = study.space.values(Dice(seed))
        candidate = to_candidate(values, epochs=epochs, seed=study.settings.seed)
        seed += 1
        if key_of(candidate) not in known:
            known.add(key_of(candidate))
            study.enqueue(study.space.asked(values), candidate, "long", 0)
