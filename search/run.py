"""A study from its start to its winner: parents, children and long tunings, then the finalists on the test set."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from search.output.progress import LiveView, duration
from search.policy.account import ACCOUNT
from search.policy.ranking import (
    Converts,
    Finalist,
    Judge,
    Scores,
    StageCost,
    load_stages,
    read_finalists,
    save_stages,
    stage_costs,
    winner,
)
from search.study.study import FINISHED, Study
from search.study.trial import TrialRecord
from search.trainers.protocol import Trainer
from search.workers.worker import work_until_done


class TeacherOf(Protocol):
    def __call__(self) -> bool:
        """Make the teacher's soft labels ready for the trainer; False if the study has no teacher."""


@dataclass(frozen=True)
class Tools:
    """What a study needs besides a trainer. `score` is the only one that sees the test set."""

    score: Scores
    teacher: TeacherOf
    convert: Converts | None = None
    track: Callable[[TrialRecord], None] | None = None
    """Is told of each trial that ends while this runs."""


@dataclass
class SearchOutcome:
    finalists: list[Finalist]
    winner: Finalist | None
    stages: list[StageCost] = field(default_factory=list)


class Run:
    """One invocation of `contest search` on a study, new or resumed."""

    def __init__(self, study: Study, trainer: Trainer, tools: Tools, view: LiveView) -> None:
        self.study, self.trainer, self.tools, self.view = study, trainer, tools, view
        self._told = {r.number for r in study.records() if r.result} if tools.track else set()

    def __call__(self) -> SearchOutcome:
        """Run what is left of the study. KeyboardInterrupt goes through; what was finished stays."""
        self.train()
        self.study.optuna.set_user_attr(FINISHED, True)
        settings = self.study.settings
        known = self.study.optuna.user_attrs.get(ACCOUNT, {})
        until = known.get("over_at")
        early = 0.0 if until is None else until - float(known.get("reading", 0.0)) - time.time()
        asked = settings.trials is not None and self.study.claims.taken() >= settings.trials
        if until is not None and not asked and early > max(15.0, 0.1 * (settings.budget_s or 0.0)):
            self.view.say(
                f"no setting that is left promises to be worth its training: the search ends {duration(early)} early"
            )
        self.view.stage("reading the finalists on the test set")
        found = read_finalists(self.study, self._judge(), self.tools.score, self.tools.convert, until=until)
        return SearchOutcome(
            found, winner(found, settings.rule_name, settings.threshold), load_stages(self.study.directory)
        )

    def train(self) -> None:
        """Everything but the test set."""
        if self.study.settings.teachers or self.study.settings.teacher_epochs:
            self.view.stage("teacher")
            self.tools.teacher()
        work_until_done(
            self.study,
            self.trainer,
            watch=self.view.epoch,
            on_step=self.view.step,
            on_work=self.view.begin,
            on_done=self._done,
        )
        self._done()

    def _done(self) -> None:
        if self.tools.track is not None:
            for record in self.study.records():  # those of other workers too
                if record.result is not None and record.number not in self._told:
                    self._told.add(record.number)
                    self.tools.track(record)
        save_stages(self.study.directory, stage_costs(self._judge()))
        self.view.done()

    def _judge(self) -> Judge:
        return Judge(self.study.settings, self.study.records(), self.trainer.classes)
