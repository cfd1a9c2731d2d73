"""A study from start to end with a trainer that costs nothing: what is trained, skipped, resumed, read."""

from __future__ import annotations

import io
import itertools
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FakeTrainer, fake_score
from optuna.trial import TrialState
from rich.console import Console

from contest.candidate import Candidate
from search.candidates import float_candidate, seeds, to_candidate
from search.output.progress import LiveView
from search.policy.forecast import open_account
from search.policy.proposals import starting_points
from search.policy.ranking import SearchOutcome, reads
from search.run import Run, Tools
from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import Study
from search.study.trial import SIGMAS, float_key, key_of
from search.work import next_work
from search.work import run as visit
from search.worker import work_until_done


def make_study(directory: Path, **changes: Any) -> Study:
    settings = StudySettings(**{"trials": 12, "explore_epochs": 6.0, "float_epochs": 12.0, **changes})
    settings.save(directory)
    space = make_space((3, 32, 32), {"family": ["resnet", "thin"]})
    return Study(directory, settings, space, open_storage(storage_url(None, directory)))


def run(study: Study, trainer: FakeTrainer) -> SearchOutcome:
    console = Console(file=io.StringIO())
    view = LiveView(study, trainer, console, lambda done: None)
    open_account(study, trainer.images)
    with view:
        return Run(study, trainer, Tools(fake_score(trainer), lambda: False), view)()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
@pytest.mark.parametrize("objective", ["constrained", "pareto", "target"])
def test_every_objective_with_every_sampler_ends_with_finalists(tmp_path: Path, objective: str, sampler: str) -> None:
    study = make_study(
        tmp_path / "s", trials=8, threshold=0.8, objective=objective, sampler=sampler, target_score=0.006
    )
    verdict = run(study, FakeTrainer())
    assert 1 <= len(verdict.finalists) <= 3
    assert study.claims.taken() <= 8
    if objective == "target":
        assert all(f.score("lab")["total"] <= 0.006 for f in verdict.finalists)
        assert verdict.winner is verdict.finalists[0]  # the most accurate one on validation, not the cheapest
    if objective == "constrained":
        assert verdict.winner is not None
        assert verdict.winner.accuracy is not None and verdict.winner.accuracy >= 0.8


def test_no_candidate_is_trained_twice_and_the_test_set_is_read_once_for_each_finalist(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8), FakeTrainer(tmp_path / "log")
    verdict = run(study, trainer)
    epochs = (tmp_path / "log").read_text().splitlines()
    assert len(epochs) == len(set(epochs))  # neither a repeated candidate nor an epoch that was forgotten
    assert len(reads(study.directory)) == len(verdict.finalists)
    again = run(study, trainer)
    assert len(reads(study.directory)) == len(again.finalists)
    assert [f.record.number for f in again.finalists] == [f.record.number for f in verdict.finalists]
    assert (tmp_path / "log").read_text().splitlines() == epochs


def decisions(study: Study) -> list[tuple[int, str, int, str]]:
    return [(r.number, r.key, r.rung, r.state) for r in study.records()]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_one_worker_repeats_a_study_exactly_from_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    def whole(name: str, seed: int, parts: tuple[int, ...]) -> list[tuple[int, str, int, str]]:
        done = 0

        def count() -> None:
            nonlocal done
            done += 1

        for part in parts:  # each as a new process would: nothing is remembered but what stands in the database
            study = make_study(tmp_path / name, trials=14, threshold=0.8, sampler=sampler, seed=seed)
            open_account(study, FakeTrainer.images)
            work_until_done(study, FakeTrainer(), new=lambda until=part: done < until, on_done=count)  # type: ignore[misc]
            study.close()
        study = make_study(tmp_path / name, trials=14, threshold=0.8, sampler=sampler, seed=seed)
        return decisions(study)

    once = whole("once", 3, (999,))
    assert len(once) > 8
    monkeypatch.setattr("search.study.study.WORKER", "another-machine:1")
    assert whole("again", 3, (999,)) == once
    assert whole("interrupted", 3, (6, 999)) == once
    assert whole("other-seed", 4, (999,)) != once


def test_a_target_score_is_filled_by_the_starting_points(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s"), FakeTrainer()
    points = starting_points(study.space, trainer, 0.006)
    prices = [trainer.price(to_candidate(point, epochs=10)).total for point in points]
    assert prices and all(0.6 * 0.006 < price < 0.006 for price in prices)


def test_nothing_is_begun_that_costs_more_than_the_incumbent(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.5, trials=16), FakeTrainer()
    run(study, trainer)
    best = None
    for record in study.records():
        assert record.result is not None and record.estimate is not None
        if record.stage != "parent":
            assert best is None or record.estimate.total < best
            if record.result.lower(None, SIGMAS) >= 0.5:
                best = min(best or 9.0, record.result.price.total)
    assert best is not None


def test_the_first_two_trainings_give_the_best_known_network(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8), FakeTrainer()
    run(study, trainer)
    first, second = study.records()[:2]
    assert (first.stage, second.stage) == ("parent", "child")
    assert first.candidate.architecture == second.candidate.architecture
    assert float_key(first.candidate) == float_key(second.candidate)
    assert first.at_end and not first.is_network and second.is_network
    points = [space_values["family"] for space_values in seeds(study.space)]
    assert first.candidate.architecture.family in points


def test_six_settings_are_compared_from_one_parent_before_the_first_long_tuning(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8, trials=20), FakeTrainer(tmp_path / "log")
    run(study, trainer)
    before = list(itertools.takewhile(lambda r: r.stage != "long", study.records()))
    children = [r for r in before if r.stage == "child"]
    assert any(r.stage == "long" for r in study.records())
    assert len({float_key(r.candidate) for r in children}) == 1
    settings = {(r.candidate.bits, r.candidate.unstructured, r.candidate.structured) for r in children}
    assert len(settings) >= 6
    # The float training that they share was paid once.
    parent = before[0]
    assert parent.result is not None and parent.result.images == parent.candidate.train.epochs * trainer.images
    for child in children:
        assert child.result is not None
        assert child.result.images <= math.ceil(child.candidate.tune.epochs + 1) * trainer.images


def test_a_small_budget_is_one_network(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", threshold=0.8, trials=1, explore_epochs=6.0), FakeTrainer()
    run(study, trainer)
    assert [r.stage for r in study.records()] == ["parent", "child"]


def test_a_paused_parent_goes_on_where_it_was(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s"), FakeTrainer(tmp_path / "log")
    values = seeds(study.space)[0]
    parent = float_candidate(values, epochs=12.0)
    for rung in (0, 1):
        study.enqueue(study.space.asked(values), parent, "parent", rung)
        work_until_done(study, trainer, new=lambda: False)
    paused, whole = study.records()
    assert not paused.at_end and whole.at_end and whole.result and paused.result
    assert paused.result.curve[-1][0] == pytest.approx(5 / 12, abs=1e-3)  # the first epoch behind a third
    assert [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()] == list(range(1, 13))
    assert (paused.result.images, whole.result.images) == (5 * trainer.images, 7 * trainer.images)
    assert whole.result.curve[-1][0] == 1.0


def test_a_failed_training_is_recorded_and_the_study_goes_on(tmp_path: Path) -> None:
    def fails(candidate: Candidate) -> str | None:
        return "the loss is no longer a finite number" if candidate.bits.weights == 3 else None

    study = make_study(tmp_path / "s", threshold=0.8)
    run(study, FakeTrainer(fails=fails))
    failed = [r for r in study.records() if r.state == "FAIL"]
    assert failed and all("finite" in (r.reason or "") for r in failed)
    assert Counter(r.key for r in failed).most_common(1)[0][1] == 1
    assert any(r.result for r in study.records())


def test_a_repeated_candidate_is_answered_from_the_study(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", trials=3), FakeTrainer()
    run(study, trainer)
    first = next(r for r in study.records() if r.is_network)
    study.enqueue(first.params, first.candidate, "child", 0)
    count = len(trainer.trained)
    work_until_done(study, trainer, new=lambda: False)
    assert study.records()[-1].answered_by == first.number
    assert len(trainer.trained) == count


def test_constraints_are_what_optuna_thinks_they_are(tmp_path: Path) -> None:
    """Value <= 0 is feasible: Optuna's own best trial reaches the threshold by our forecast."""
    study = make_study(tmp_path / "s", threshold=0.8)
    run(study, FakeTrainer())
    best = study.optuna.best_trial
    assert best.constraints["accuracy"] <= 0
    infeasible = [t for t in study.optuna.trials if t.constraints.get("accuracy", 0) > 0]
    assert all(t.number != best.number for t in infeasible)


def test_the_same_seed_gives_the_same_study(tmp_path: Path) -> None:
    keys = []
    for name in ("a/s", "b/s"):
        study = make_study(tmp_path / name, threshold=0.8, sampler="random", seed=3)
        run(study, FakeTrainer())
        keys.append([r.key for r in study.records()][:6])
    assert keys[0] == keys[1]


def test_a_worker_that_was_given_up_drops_its_result(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", rungs=(1.0,)), FakeTrainer()
    original = trainer.train

    def slow(candidate: Candidate, directory: Path, on_epoch: Callable[..., None]) -> Any:
        running = study.running()[0]
        study.storage.set_trial_state_values(running._trial_id, TrialState.FAIL)  # as `reap` of another worker does
        return original(candidate, directory, on_epoch)

    trainer.train = slow  # type: ignore[method-assign]
    work = next_work(study, trainer)
    assert work is not None
    visit(study, trainer, work)
    record = next(r for r in study.records() if r.number == work.trial.number)
    assert record.state == "FAIL"


def test_where_nothing_reaches_the_threshold_the_first_network_is_the_most_accurate(tmp_path: Path) -> None:
    """With 73 % where 90 are asked, what is least known of, one bit, has the largest of chances that are none."""
    study = make_study(
        tmp_path / "s", trials=None, images=2500, dataset="digits", threshold=0.9, explore_epochs=8.0, float_epochs=None
    )
    trainer = FakeTrainer()
    trainer.validation, trainer.accuracy = 287, lambda candidate, epochs: 0.728  # type: ignore[method-assign]
    open_account(study, trainer.images)
    for stage in ("parent", "child"):
        work = next_work(study, trainer)
        assert work is not None and work.stage == stage
        visit(study, trainer, work)
    assert (work.candidate.bits.weights, work.candidate.bits.activations) == (8, 8)


@pytest.mark.parametrize("trials", [1, 2, 3, 5])
def test_few_trials_end_with_a_long_tuning(tmp_path: Path, trials: int) -> None:
    study = make_study(tmp_path / "s", trials=trials, threshold=0.8, explore_epochs=12.0, float_epochs=None)
    run(study, FakeTrainer())
    tuned = [r.candidate.tune.epochs for r in sorted(study.records(), key=lambda r: r.number) if r.stage != "parent"]
    assert len(tuned) == trials
    assert tuned[-1] == max(tuned)
    if trials > 2:
        assert tuned[-1] > 2 * tuned[1]


def test_what_another_worker_has_taken_from_the_queue_is_no_work(tmp_path: Path) -> None:
    """Optuna answers an empty queue with a trial of its sampler's, which nobody has proposed."""
    study = make_study(tmp_path / "s")
    assert study.next_waiting() is None
    assert [t.state for t in study.optuna.get_trials()] == [TrialState.PRUNED]
    study.optuna.enqueue_trial(study.space.asked(seeds(study.space)[0]))  # by hand
    waiting = study.next_waiting()
    assert waiting is not None and waiting[1].stage == "long"


def test_a_second_worker_trains_no_parent_that_does_not_fit_beside_the_first(tmp_path: Path) -> None:
    study, trainer = make_study(tmp_path / "s", trials=40, explore_epochs=10.0, float_epochs=None), FakeTrainer()
    open_account(study, trainer.images)
    first = next_work(study, trainer)
    assert first is not None and first.candidate.train.epochs * trainer.images > 0.3 * 400_000
    promised = 0.0
    while (work := next_work(study, trainer)) is not None:  # nobody finishes one
        assert work.stage == "parent"
        promised += work.candidate.train.epochs * trainer.images
    assert promised + first.candidate.train.epochs * trainer.images <= 40 * 10 * trainer.images


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_search_engine import make_study, run
from fake_trainer import FakeTrainer
directory = Path(sys.argv[2])
study = make_study(directory / "s", threshold=0.8, trials=10)
run(study, FakeTrainer(directory / "log", epoch_s=0.05))
"""


def test_kill_9_loses_no_finished_trial_and_no_finished_epoch(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(tmp_path)]
    child = subprocess.Popen(command)
    log = tmp_path / "log"
    deadline = time.monotonic() + 60
    while not (log.exists() and len(log.read_text().splitlines()) > 14):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    study = make_study(tmp_path / "s", threshold=0.8, trials=10)
    before = {r.number: r for r in study.records() if r.result or r.state == "FAIL"}
    assert before
    run(study, FakeTrainer(log))
    after = {r.number: r for r in study.records()}
    assert all(after[number] == record for number, record in before.items())
    epochs = Counter(log.read_text().splitlines())
    repeated = {line: count for line, count in epochs.items() if count > 1}
    assert len(repeated) <= 1 and all(count == 2 for count in repeated.values())
    assert study.claims.taken() <= 10
    assert not study.running() and not study.waiting()


def test_keys_tell_candidates_apart() -> None:

    candidate = to_candidate(seeds(make_space((3, 32, 32), {}))[0], epochs=10)
    assert key_of(candidate) == key_of(Candidate.from_json(candidate.to_json()))
    assert key_of(candidate) != key_of(replace(candidate, seed=1))
