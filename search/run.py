"""A study from its start to its winner: explore, refine, read the finalists on the test set."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from contest.files import write_text
from search.output.progress import View
from search.policy.budget import halving_share, measured_epoch_s, plan_refine
from search.policy.finalists import Finalist, Scores, read_finalists, winner
from search.policy.proposals import EXPLORE_UNTIL, enqueue_seeds
from search.policy.ranking import Judge
from search.policy.refinement import SensitivityOf, enqueue_refinements, enqueue_variants
from search.study.study import FINISHED, Study
from search.study.trial import Record
from search.trainers.protocol import Trainer
from search.workers.worker import work_until_done


class TeacherOf(Protocol):
    def __call__(self) -> bool:
        """Make the teacher's soft labels ready for the trainer; False if the study has no teacher."""


@dataclass(frozen=True)
class Tools:
    """What a study needs besides a trainer. `score` is the only one that sees the test set."""

    score: Scores
    sensitivity: SensitivityOf
    teacher: TeacherOf


@dataclass(frozen=True)
class StageCost:
    """What a stage cost and gained."""

    name: str
    seconds: float
    images: int
    trials: int
    best_score: float | None
    """Of the best candidate after the stage (the leader by the objective), with its accuracy on validation."""
    best_accuracy: float | None
    feasible: bool


@dataclass
class Outcome:
    finalists: list[Finalist]
    winner: Finalist | None
    stages: list[StageCost] = field(default_factory=list)


class Run:
    """One invocation of `contest search` on a study, new or resumed.

    Args:
        deadline: end of the time budget by `time.monotonic`; None without a budget.
    """

    def __init__(self, study: Study, trainer: Trainer, tools: Tools, view: View, deadline: float | None) -> None:
        self.study, self.trainer, self.tools, self.view, self.deadline = study, trainer, tools, view, deadline
        self.stages = load_stages(study.directory)

    def __call__(self) -> Outcome:
        """Run what is left of the study. KeyboardInterrupt goes through; what was finished stays."""
        self.explore_and_refine()
        self.study.optuna.set_user_attr(FINISHED, True)
        settings = self.study.settings
        found = read_finalists(self.study, self._judge(), self.tools.score)
        return Outcome(found, winner(found, settings.rule_name, settings.threshold), self.stages)

    def explore_and_refine(self) -> None:
        """Everything but the test set."""
        with self._stage("explore"):
            enqueue_seeds(self.study, self.trainer)
            self._work()
        if self.study.settings.refine_epochs > 0 and self._judge().leaders():
            self._refine()

    def _refine(self) -> None:
        self._replan()
        if self.study.settings.refine_epochs <= 0:
            return
        teacher = False
        if self.study.settings.teachers or self.study.settings.teacher_epochs:
            with self._stage("teacher"):
                teacher = self.tools.teacher()
        explored = len(self._judge().leaders())
        done: dict[str, int] = self.study.optuna.user_attrs.get(REFINED, {})
        if done.get("explored") != explored:
            done = {"explored": explored, "rounds": 0}
            enqueue_refinements(self.study, self._judge(), teacher=teacher)
            self.study.optuna.set_user_attr(REFINED, done)
        with self._stage("refine"):
            self._work()
        for number in self._rounds(done["rounds"]):
            most = self._room()
            if most < 1:
                return
            with self._stage(f"variants {number}"):
                if not self._enqueue_variants(teacher, most):
                    return
                self.study.optuna.set_user_attr(REFINED, {"explored": explored, "rounds": number})
                self._work()

    def _rounds(self, done: int) -> Iterator[int]:
        """Numbers of the rounds of variants that are left: those asked for, or with a budget what time allows."""
        asked = self.study.settings.variants
        return iter(range(done + 1, asked + 1) if self.deadline is None or not asked else itertools.count(done + 1))

    def _enqueue_variants(self, teacher: bool, most: int) -> int:
        return enqueue_variants(
            self.study, self._judge(), self.trainer, self.tools.sensitivity, teacher=teacher, most=most
        )

    def _replan(self) -> None:
        """Fit the refine stage into the time that is left, at the speed that was really seen."""
        refining = any(r.stage == "refine" for r in self.study.records())
        epoch_s = measured_epoch_s(self.study.records(), self.trainer.images)
        if self.deadline is None or refining or epoch_s is None:
            return  # (a resumed study keeps the recipe with which it began to refine)
        left = self.deadline - time.monotonic()
        self.study.settings = plan_refine(self.study.settings, left, epoch_s)
        self.study.settings.save(self.study.directory)

    def _room(self) -> int:
        """How many variants still end in time, going by the quantised part of the longest refinement so far."""
        if self.deadline is None:
            return 2
        done = [
            r.result.seconds * r.candidate.tune.epochs / (r.candidate.tune.epochs + r.candidate.train.epochs)
            for r in self.study.records()
            if r.stage == "refine" and r.result
        ]
        each = 1.1 * max(done, default=0.0) * self.study.settings.seeds
        return int((self.deadline - time.monotonic()) / each) if each else 0

    def _work(self) -> None:
        work_until_done(
            self.study, self.trainer, watch=self.view.epoch, on_work=self.view.begin, on_done=self.view.done
        )

    def _judge(self) -> Judge:
        return Judge(self.study.settings, self.study.records(), self.trainer.classes)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self.view.stage(name)
        before, started = {r.number for r in self._judge().records}, time.monotonic()
        yield
        judge = self._judge()
        new = [r for r in judge.records if r.number not in before]
        seconds = time.monotonic() - started
        if not new and seconds < 1.0:
            return  # a resumed study passes through the stages that it has behind it
        best = judge.best()
        self.stages.append(stage_cost(name, seconds, new, best, judge))
        save_stages(self.study.directory, self.stages)
        self.view.done()


REFINED = "refined"
"""Study attribute: from how many explored candidates the refine stage was filled, and its rounds of variants."""


def stage_cost(name: str, seconds: float, new: list[Record], best: Record | None, judge: Judge) -> StageCost:
    return StageCost(
        name=name,
        seconds=round(seconds, 1),
        images=sum(r.result.images for r in new if r.result),
        trials=len(new),
        best_score=best.result.price.total if best and best.result else None,
        best_accuracy=best.result.accuracy if best and best.result else None,
        feasible=best is not None and judge.feasible(best),
    )


def load_stages(directory: Path) -> list[StageCost]:
    path = directory / "stages.json"
    return [StageCost(**stage) for stage in json.loads(path.read_text())] if path.exists() else []


def save_stages(directory: Path, stages: list[StageCost]) -> None:
    write_text(directory / "stages.json", json.dumps([asdict(s) for s in stages], indent=2) + "\n")


def set_explore_deadline(study: Study, seconds: float) -> None:
    """No worker starts a new candidate later than in `seconds`."""
    study.optuna.set_user_attr(EXPLORE_UNTIL, time.time() + seconds)


def estimate_left(study: Study, deadline: float | None) -> float | None:
    """Seconds to the end: of the budget, or of what is missing at the speed so far; None before that is known."""
    if deadline is not None:
        return deadline - time.monotonic()
    settings = study.settings
    done = [r for r in study.records() if r.result is not None and r.result.images > 0]
    explored = {r.key for r in done if r.stage == "explore"}
    images = sum(r.result.images for r in done if r.result)
    if not images or not explored or settings.trials is None:
        return None
    image_s = sum(r.result.seconds for r in done if r.result) / images
    per_trial = sum(r.result.images for r in done if r.result and r.stage == "explore") / len(explored)
    left = max(0, settings.trials - study.claims.taken()) * per_trial
    if settings.refine_epochs:
        refined = sum(1 for r in done if r.stage == "refine")
        wanted = (settings.refined or settings.finalists) * settings.seeds
        longest = per_trial * settings.refine_epochs / (halving_share(settings) * settings.explore_epochs)
        left += max(0, wanted - refined) * longest
    return left * image_s
