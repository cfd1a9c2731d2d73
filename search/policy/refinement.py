"""The refine stage: long trainings of the best candidates, then cheaper variants of the best of those.

A refined candidate keeps its architecture and gets the study's long recipe, the teacher's soft labels, masks that
grow during training and learned steps (both are the pipeline's), bits by layer where a bit weighs least, and
seeds of its own. Variants share the float training, so each costs only its quantised epochs.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from contest.candidate import Candidate, Recipe
from search.policy.ranking import Judge
from search.study.settings import Settings
from search.study.study import Study, key_of
from search.study.trial import Record
from search.trainers.bit_sensitivity import Sensitivity, higher, lower
from search.trainers.protocol import Trainer

DISTILLATION = 0.7
"""Weight of the teacher's soft labels, at the recipe's temperature."""
SPARSER = 0.08
"""How many more of the weights a variant sets to zero where it saves the least."""
SMALLEST_SAVING, LARGEST_SAVING = 0.08, 0.4
"""Fraction of the score that a cheaper variant aims to save, by how much accuracy there is to spare."""


class SensitivityOf(Protocol):
    def __call__(self, model: Path) -> list[Sensitivity]: ...


@dataclass(frozen=True)
class Group:
    """The trainings of one refined candidate with different seeds."""

    records: tuple[Record, ...]

    @property
    def median(self) -> Record:
        """The training of median validation accuracy (the lower of two middle ones): what the group is worth."""
        ordered = sorted(self.records, key=lambda r: r.result.accuracy if r.result else 0.0)
        return ordered[(len(ordered) - 1) // 2]

    @property
    def accuracies(self) -> list[float]:
        return sorted(r.result.accuracy for r in self.records if r.result is not None)

    @property
    def spread(self) -> float:
        """Standard deviation of accuracy between seeds; 0 for one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0


def groups(records: Sequence[Record]) -> list[Group]:
    """Refined trainings by candidate, whatever the seed."""
    found: dict[str, list[Record]] = {}
    for record in records:
        if record.stage == "refine" and record.result is not None and record.answered_by is None:
            found.setdefault(group_key(record.candidate), []).append(record)
    return [Group(tuple(members)) for members in found.values()]


def group_key(candidate: Candidate) -> str:
    return key_of(replace(candidate, seed=0))


def refined(candidate: Candidate, settings: Settings, *, teacher: bool) -> Candidate:
    """The long training of a candidate that was explored with a short one."""
    from search.trainers.pipeline import with_epochs

    long = with_epochs(candidate, settings.refine_epochs)
    if not teacher:
        return long
    taught = settings.taught_epochs
    return replace(long, train=_distilled(long.train, taught), tune=_distilled(long.tune, taught))


def _distilled(recipe: Recipe, taught_epochs: int) -> Recipe:
    return replace(recipe, distillation=DISTILLATION, label_smoothing=0.0, taught_epochs=taught_epochs)


def enqueue_refinements(study: Study, judge: Judge, *, teacher: bool) -> int:
    """Queue the long trainings of the best explored candidates that can still win; how many were new."""
    known = {r.key for r in study.records()}
    queued = 0
    limit = judge.limit() if study.settings.objective == "constrained" else None
    leaders = [r for r in judge.leaders() if limit is None or (r.result and r.result.price.total <= limit)]
    for leader in leaders[: study.settings.refined or study.settings.finalists]:
        for offset in range(study.settings.seeds):
            candidate = refined(leader.candidate, study.settings, teacher=teacher)
            candidate = replace(candidate, seed=candidate.seed + offset)
            if key_of(candidate) not in known:
                study.enqueue(leader.params, candidate, "refine", 0)
                queued += 1
    return queued


def enqueue_variants(
    study: Study, judge: Judge, trainer: Trainer, sensitivity: SensitivityOf, *, teacher: bool, most: int = 2
) -> int:
    """Queue variants of the best network so far, at most `most`: cheaper ones of a feasible, better ones of one that
    misses.

    Returns how many were queued; 0 ends the stage.
    """
    chosen = finalists(study, judge)
    if not chosen or study.settings.objective == "pareto":
        return 0
    best = chosen[0]
    if best.stage == "explore":  # its variants get the long recipe too
        best = replace(best, candidate=refined(best.candidate, study.settings, teacher=teacher))

    def score(candidate: Candidate) -> float:
        return trainer.price(candidate).total

    assert best.result is not None and best.result.model is not None
    layers = sensitivity(study.directory / best.result.model)
    target = study.settings.target_score if study.settings.objective == "target" else None
    if target is None and judge.reached(best):
        saving = saving_for(best.result.lower(study.settings.margin), study.settings.threshold)
        options = [
            lower(best.candidate, layers, score, saving=saving),
            _sparser(best.candidate, SPARSER * saving / SMALLEST_SAVING),
        ]
    else:
        options = [higher(best.candidate, layers, score), _sparser(best.candidate, -SPARSER)]
    if target is not None:  # accuracy is bought with what is left below the target
        options = [option for option in options if option and score(option) <= target]
    known = {group_key(r.candidate) for r in study.records() if r.stage == "refine"}
    queued = 0
    for option in options:
        if option is None or group_key(option) in known or queued >= most * study.settings.seeds:
            continue
        for offset in range(study.settings.seeds):
            seed = study.settings.seed + offset
            study.enqueue(best.params, replace(option, seed=seed), "refine", 0)
            queued += 1
    return queued


def saving_for(accuracy: float, threshold: float) -> float:
    """The smallest saving at the threshold, 0.15 more for each halving of the error below what is allowed."""
    spare = math.log2(max(1 - threshold, 1e-3) / max(1 - accuracy, 1e-3))
    return min(max(SMALLEST_SAVING, SMALLEST_SAVING + 0.15 * spare), LARGEST_SAVING)


def finalists(study: Study, judge: Judge) -> list[Record]:
    """The candidates that will be read on the test set, best on validation first.

    Refined ones at their median seed, and explored ones that reached the threshold without a long training.
    """
    refined_ones = [group.median for group in groups(judge.records)]
    explored = [r for r in judge.leaders() if not refined_ones or judge.reached(r)]
    whole = [r for r in [*refined_ones, *explored] if r.result and r.result.model]
    return sorted(whole, key=judge.rank_measured)[: study.settings.finalists]


def _sparser(candidate: Candidate, change: float) -> Candidate | None:
    """The candidate with that many more (or fewer) zeros, within what is left by structured pruning."""
    limit = 0.95 * (1 - candidate.structured)
    sparsity = round(min(max(candidate.unstructured + change, 0.0), limit), 4)
    return None if sparsity == candidate.unstructured else replace(candidate, unstructured=sparsity)
