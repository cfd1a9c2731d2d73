"""Time a few steps on this machine, so that a budget becomes a plan."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Candidate
from search.policy.budget import Speed
from search.space.space import to_candidate
from search.space.starting_points import seeds
from search.trainers.teacher import teacher_candidate

if TYPE_CHECKING:
    from contest.training import Epoch
    from search.space.space import Space
    from search.trainers.pipeline import PipelineTrainer

STEPS = 6


def measure_speed(trainer: PipelineTrainer, space: Space, *, teacher: bool) -> Speed:
    """Images per second of the first seed candidate, float and quantised, and of the teacher.

    Each is trained for two short epochs, the second of which counts (the first sets things up).
    """
    candidate = to_candidate(seeds(space)[0], epochs=2, seed=0)
    plain = replace(candidate, structured=0.0, train=replace(candidate.train, epochs=2.0, warmup_epochs=0.0))
    plain = replace(plain, tune=replace(plain.tune, epochs=2.0))
    speeds = _speeds(trainer, plain)
    started = time.monotonic()
    trainer.validate_once(plain)
    validation_s = time.monotonic() - started
    teacher_speed = 0.0
    if teacher:
        big = teacher_candidate(trainer.settings, device=trainer.device)
        teacher_speed = _speeds(trainer, replace(big, train=replace(big.train, epochs=2.0)))[0]
    return Speed(speeds[0], speeds[-1], validation_s, trainer.images, teacher_speed)


def _speeds(trainer: PipelineTrainer, candidate: Candidate) -> list[float]:
    """Images per second of the last epoch of each stage."""
    from contest.pipeline import compress

    found: dict[int, float] = {}
    stage = 0

    def note(epoch: Epoch) -> None:
        nonlocal stage
        stage += epoch.epoch == 1
        found[stage] = epoch.images_per_second

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
    return list(found.values())
