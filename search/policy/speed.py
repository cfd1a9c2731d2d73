"""Time a few steps on this machine, so that a budget becomes a plan."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Candidate
from search.policy.budget import Speed
from search.space.candidates import to_candidate
from search.space.starting_points import seeds

if TYPE_CHECKING:
    from contest.training import Epoch
    from search.space.space import Space
    from search.trainers.pipeline import PipelineTrainer

STEPS = 6


def measure_speed(trainer: PipelineTrainer, space: Space) -> Speed:
    """Images per second of the first starting point, float and quantised, and what a training costs besides.

    Each is trained for two short epochs, the second of which counts (the first sets things up).
    """
    candidate = to_candidate(seeds(space)[0], epochs=2, seed=0)
    candidate = replace(
        candidate,
        structured=0.0,
        train=replace(candidate.train, epochs=2.0, warmup_epochs=0.0, distillation=0.0),
        tune=replace(candidate.tune, epochs=2.0, warmup_epochs=0.0, distillation=0.0),
    )
    started = time.monotonic()
    trainer.validate_once(candidate)
    validation_s = time.monotonic() - started
    speeds, seconds = _speeds(trainer, candidate)
    images = STEPS * candidate.train.batch_size
    steps_s = sum(2 * images / speed for speed in speeds)
    start_s = max(0.1, seconds - steps_s)
    return Speed(trainer.price(candidate).macs, speeds[0], speeds[-1], validation_s, start_s)


def _speeds(trainer: PipelineTrainer, candidate: Candidate) -> tuple[list[float], float]:
    """Images per second of the last epoch of each stage, and the seconds of the whole."""
    from contest.pipeline import compress

    found: dict[int, float] = {}
    stage = 0

    def note(epoch: Epoch) -> None:
        nonlocal stage
        stage += epoch.epoch == 1
        found[stage] = epoch.images_per_second

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        compress(
            candidate,
            trainer.some_images(STEPS * candidate.train.batch_size),
            image_shape=trainer.image_shape,
            classes=trainer.classes,
            device=trainer.device,
            directory=Path(directory),
            on_epoch=note,
        )
    return list(found.values()), time.monotonic() - started
