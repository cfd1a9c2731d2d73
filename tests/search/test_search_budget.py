"""A budget of time is kept: what fits, what does not and says so, when a training ends, and how long is left."""

from __future__ import annotations

import io
import math
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_trainer import FakeTrainer, fake_score
from rich.console import Console
from test_search_engine import make_study

import search.policy.forecast
import search.run
from contest.candidate import Architecture, Candidate, Recipe
from contest.errors import UsageError
from search.commands import default_options
from search.output import progress
from search.output.progress import LiveView, standard_output
from search.output.summary import expectation, print_summary, why_nothing
from search.policy.budget import Budget, Plan, plan_of, seconds_left
from search.policy.budget import account as account_of
from search.policy.forecast import Forecast, Times, check_start, measure_speed, open_account, reading_s
from search.policy.ranking import Judge, SearchOutcome, read_finalists, reads
from search.run import Run, Tools, run_search
from search.space import make_space
from search.study.study import Study
from search.study.trial import TrialPrice
from search.trainers.isolated import TrainingDiedError
from search.trainers.protocol import Progress, Speed, Trained
from search.work import next_work
from search.worker import work_until_done

SPEED = Speed(9_000_000, 1000.0, 500.0, validation_s=1.0, start_s=2.0)  # an epoch of 1,000 images: 2 s and 3 s


def times(budget: float, **changes: float) -> Times:
    known = {"begun": time.time(), "starting": 1.0, "teaching": 0.0, "reading": 5.0, "finalists": 3, **changes}
    return Times(budget=budget, **known)  # type: ignore[arg-type]


def test_the_least_that_helps_is_said_where_nothing_fits() -> None:
    """10 s went by, two trainings of 2 s and 1.1 epochs of 2 s, one reading of 5 s: 21.2 s."""
    early = times(20.0, begun=time.time() - 10)
    early.check(SPEED, 1000, given=0)  # a little late is in time
    with pytest.raises(UsageError, match=r"--budget 8s is too small .*the least that helps is about --budget 30s"):
        times(8.0, begun=time.time() - 10).check(SPEED, 1000, given=0)
    # The teacher answers for 82 s first.
    with pytest.raises(
        UsageError, match=r"--budget 1m is too small .*--budget 1m50s"
    ):  # the teacher answers for 82 s first
        times(60.0, begun=time.time() - 10, teaching=82.0).check(SPEED, 1000, given=0)
    with pytest.raises(UsageError, match="starting alone took 9 s"):
        check_start(10.0, 9.0, processes=2)
    check_start(None, 900.0, processes=2)


def test_a_budget_that_is_too_small_ends_before_anything_is_written(tmp_path: Path) -> None:
    options = {**default_options(), "dataset": "digits", "directory": tmp_path / "s", "budget": "10s"}
    with pytest.raises(UsageError, match="the least that helps is about --budget"):
        run_search(Console(file=io.StringIO()), **{**options, "begun": time.monotonic() - 100})
    assert not (tmp_path / "s").exists()


def test_readings_take_a_part_of_the_budget_and_the_best_is_read_in_any_case() -> None:
    assert [times(budget).readings for budget in (10.0, 30.0, 45.0, 70.0, 900.0)] == [1, 1, 2, 3, 3]
    assert reading_s(3.7, 3.5) == pytest.approx(10.4, abs=1.0)  # CIFAR-10, measured
    assert reading_s(3.7, 0.0) == pytest.approx(3.6, abs=1.0)  # digits, measured


def test_a_training_has_a_deadline_and_leaves_time_for_what_must_follow() -> None:
    now = time.time()
    budget = Budget(1000, [], ends_at=now + 100, speed=SPEED)
    parent = Candidate(Architecture("resnet", {"depth": 8}), train=Recipe(epochs=10.0))
    price = TrialPrice(0.0, 0.0, SPEED.macs, 1)
    # Fixed costs of this training and of the first network, and a share of the rest for its tuning.
    long = replace(parent, train=replace(parent.train, epochs=80.0))
    assert budget.deadline(long, "parent", price) == pytest.approx(now + 98 - (2 + 0.15 * 98), abs=0.5)
    assert budget.deadline(long, "child", price) == pytest.approx(now + 98, abs=0.5)
    # 10 epochs of 2 s and 2 s besides were promised.
    assert budget.deadline(parent, "parent", price) == pytest.approx(now + 1.5 * 22, abs=0.5)
    assert Budget(1000, [], total=1e6).deadline(parent, "child", None) is None


class Timed(FakeTrainer):
    """A trainer whose trainings do what they are told: they end at the latest when they should."""

    def __init__(self) -> None:
        super().__init__(epoch_s=0.02)
        self.ends: list[float | None] = []

    def train(
        self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None], **keeping: Any
    ) -> Trained:
        self.ends.append(keeping["ends_at"])
        keeping["on_step"]("train", 0.45)
        return super().train(candidate, directory, on_epoch)


def test_a_budget_ends_in_time_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.policy.forecast, "SOME_S", 1.0)
    study, trainer = make_study(tmp_path / "s", trials=None, budget_s=4.0, threshold=0.8), Timed()
    begun = time.time()
    speed = Speed(9_000_000, 50_000.0, 50_000.0, validation_s=0.0, start_s=0.01)
    open_account(study, trainer.images, times=times(20.0, reading=18.0), speed=speed)
    view = LiveView(study, trainer, Console(file=io.StringIO()), lambda done: None)
    with view:
        outcome = Run(study, trainer, Tools(fake_score(trainer), lambda: False), view)()
    assert outcome.finalists and time.time() - begun < 2 + 15  # without an end it trains for minutes
    assert all(end is not None and end <= begun + 20 for end in trainer.ends)


def test_a_search_that_ends_early_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.run, "work_until_done", lambda *_, **__: 0)
    for trials, said in ((None, True), (1, False)):
        study, trainer = make_study(tmp_path / str(trials), trials=trials, budget_s=600.0), FakeTrainer()
        open_account(study, trainer.images, times=times(600.0), speed=SPEED)
        if trials:
            study.claims.claim("one", 1, slots=1)
        file = io.StringIO()
        view = LiveView(study, trainer, Console(file=file), lambda done: None)
        Run(study, trainer, Tools(fake_score(trainer), lambda: False), view)()
        assert ("no setting that is left promises to be worth its training" in file.getvalue()) == said


def test_only_the_best_is_read_after_the_end(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8, trials=4), FakeTrainer()
    open_account(study, trainer.images)
    work_until_done(study, trainer)
    judge = Judge(study.settings, study.records(), trainer.classes)
    assert len(read_finalists(study, judge, fake_score(trainer), until=time.time() - 1)) == 1
    assert len(reads(study.directory)) == 1
    assert len(list((study.directory / "finalists").iterdir())) == 1
    assert len(read_finalists(study, judge, fake_score(trainer), until=time.time() + 60)) == 3


def test_what_cannot_be_trained_is_not_timed() -> None:
    """Nor is a study ended by it: the next starting point is timed, at a rate that no training diverges at."""
    space, asked = make_space((3, 32, 32), {"learning_rate": [1e9]}), []

    def measure(candidate: Candidate) -> Speed:
        asked.append(candidate)
        if len(asked) < 2:
            raise TrainingDiedError("died of SIGABRT")
        return SPEED

    assert measure_speed(SimpleNamespace(measure=measure), space) is SPEED  # type: ignore[arg-type]
    assert asked[0].architecture != asked[1].architecture
    assert {c.train.learning_rate for c in asked} | {c.tune.learning_rate for c in asked} == {0.001}


def opened(directory: Path, **changes: Any) -> tuple[Study, FakeTrainer]:
    study, trainer = make_study(directory, threshold=0.8, **changes), FakeTrainer()
    open_account(study, trainer.images, times=times(math.inf), speed=SPEED)
    return study, trainer


def test_without_a_budget_the_time_is_what_the_plan_takes(tmp_path: Path) -> None:
    study, trainer = opened(tmp_path / "s", trials=100, images=72_000)
    plan = plan_of(study, account_of(study, trainer.images, []))
    networks = 1 + plan.shorts + plan.longs
    tuned = plan.child + plan.shorts * plan.short + plan.longs * plan.long
    floats = 2 * plan.parent + 2.0  # seconds; a quantised epoch takes 3 s, a reading 5 s
    assert seconds_left(study, trainer.images, []) == pytest.approx(floats + 3 * tuned + 2.3 * networks + 3 * 5.0)
    more = make_study(tmp_path / "s", trials=networks // 2)  # (as if fewer were asked for now)
    half = networks // 2 / networks
    expected = floats + half * (3 * tuned + 2.3 * networks) + 3 * 5.0
    assert seconds_left(more, trainer.images, []) == pytest.approx(expected)


def test_what_runs_is_counted_by_how_far_it_is(tmp_path: Path) -> None:
    study, trainer = opened(tmp_path / "s")
    work = next_work(study, trainer)
    assert work is not None and work.stage == "parent"
    begun, middle, end = (seconds_left(study, trainer.images, study.records(), part) for part in (0.0, 0.5, 1.0))
    assert begun is not None and middle is not None and end is not None
    cost = Budget(1000, [], ends_at=0.0, speed=SPEED).cost(work.candidate, work.price.macs, parent=True)
    assert begun - end == pytest.approx(cost) and begun - middle == pytest.approx(cost / 2)


def test_a_pipe_gets_a_line_every_minute_that_names_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, trainer = opened(tmp_path / "s")
    file = io.StringIO()
    view = LiveView(study, trainer, Console(file=file), lambda done: 100 * (1 - done))
    work = next_work(study, trainer)
    assert work is not None
    view.begin(work)
    view.step(work, "train", 0.2)
    assert file.getvalue() == ""
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    view.step(work, "train", 0.45)
    assert file.getvalue() == "float parent: trial 0: train 45%; about 55 s left\n"
    view.begin(replace(work, stage="child"))
    assert "first network" in render(view)
    given = replace(work, candidate=replace(work.candidate, start="abc"))
    view.begin(given)
    assert "a given parent is measured" in render(view)


def render(view: LiveView) -> str:
    file = io.StringIO()
    Console(file=file, width=200).print(view.render())
    return file.getvalue()


def test_a_resumed_study_with_nothing_to_do_says_why(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8, trials=2), FakeTrainer()
    open_account(study, trainer.images)
    work_until_done(study, trainer)
    assert re.search(r"of 2 it has begun 2; .*--resume --trials 12$", why_nothing(study, trainer.images))
    counted = make_study(tmp_path / "t", threshold=0.8, trials=None, images=12_000)
    open_account(counted, trainer.images)
    work_until_done(counted, trainer)
    spent = sum(r.result.images for r in counted.finished() if r.result)
    assert f"seen {spent:,} training images" in why_nothing(counted, trainer.images)
    assert f"--resume --images {2 * spent}" in why_nothing(counted, trainer.images)


def test_of_a_budget_that_would_do_only_the_trainings_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 s, of which one epoch and two trainings are had; with thirty epochs and nine more trainings it needs
    29 epochs of 2 s and 9 times 2 s more."""
    study, trainer = make_study(tmp_path / "s", trials=None, budget_s=40.0), FakeTrainer()
    open_account(study, trainer.images, times=times(40.0, begun=time.time() - 30), speed=SPEED)
    plan = plan_of(study, account_of(study, trainer.images, []))
    assert (plan.whole, plan.shorts, plan.longs) == (1.0, 0, 0)
    enough = Plan(30.0, 20.0, 1.0, 0.5, 6, 2.0, 3)
    known = Forecast(True, "thin", 0.8, 0.1, None, enough=enough)
    monkeypatch.setattr(search.output.summary, "forecast", lambda *_, **__: known)
    assert expectation(study, trainer, 0.0).endswith(": it needs about 1 min 56 s here")  # type: ignore[arg-type]


def ended(directory: Path, **changes: Any) -> tuple[Study, SearchOutcome]:
    study, trainer = (
        make_study(directory, **{"threshold": 0.8, "trials": None, "images": 12_000, **changes}),
        FakeTrainer(),
    )
    open_account(study, trainer.images)
    view = LiveView(study, trainer, Console(file=io.StringIO()), lambda done: None)
    return study, Run(study, trainer, Tools(fake_score(trainer), lambda: False), view)()


def test_what_misses_the_threshold_names_the_option_that_helps(tmp_path: Path) -> None:
    study, outcome = ended(tmp_path / "s")
    spent = sum(r.result.images for r in study.finished() if r.result)
    for settings, option in (
        (study.settings, f"--images {2 * spent}"),
        (replace(study.settings, images=None, budget_s=45.0), "--budget 1m30s"),
        (replace(study.settings, images=None, trials=study.claims.taken()), f"--trials {study.claims.taken() + 10}"),
    ):
        study.settings, file = settings, io.StringIO()
        print_summary(Console(file=file), study, replace(outcome, winner=None))
        assert f"on the test set: give --resume {option}, or begin another study" in file.getvalue()


def test_a_pipe_gets_whole_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study, outcome = ended(tmp_path / "s")
    assert outcome.winner is not None
    print_summary(standard_output(), study, outcome)
    said = capsys.readouterr().out
    (line,) = [line for line in said.splitlines() if line.startswith("winner: ")]
    assert len(line) > 80 and line.endswith(" ops")
    assert all(finalist.record.key in said for finalist in outcome.finalists)


def test_a_study_that_has_a_network_shows_it_where_no_time_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, outcome = ended(tmp_path / "s", dataset="digits")
    study.close()
    file = io.StringIO()
    options = {**default_options(), "resume": True, "directory": tmp_path / "s", "budget": "45s"}
    found = run_search(Console(file=file, width=10_000), **{**options, "begun": time.monotonic() - 100})
    assert "nothing was trained, and what the study has is shown: --budget 45s is too small" in file.getvalue()
    assert found is not None and outcome.winner is not None and found.winner is not None
    assert found.winner.record.key == outcome.winner.record.key and "winner: " in file.getvalue()
    assert len(reads(tmp_path / "s")) == len(outcome.finalists)  # none was read again
