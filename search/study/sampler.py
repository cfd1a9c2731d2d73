"""The Optuna sampler of a study."""

from __future__ import annotations

import hashlib
import os
import warnings

import optuna

from search.study.settings import Settings


def directions(settings: Settings) -> list[str]:
    """Optuna's directions: the score falls, accuracy rises."""
    return {"constrained": ["minimize"], "target": ["maximize"], "pareto": ["minimize", "maximize"]}[settings.objective]


def _seed(settings: Settings, number: int) -> int:
    """A seed for the decision about trial `number`: workers have their own, or they would all propose the same."""
    text = f"{settings.seed}:{number}:{os.environ.get('CONTEST_WORKER', '0')}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def make_sampler(settings: Settings, number: int = 0) -> optuna.samplers.BaseSampler:
    """The sampler by name, for the trial of that number."""
    seed = _seed(settings, number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if settings.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        if settings.sampler == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, population_size=20)
        return optuna.samplers.TPESampler(
            seed=seed, multivariate=True, group=True, constant_liar=True, n_startup_trials=8
        )
