"""A study rehearsed: it keeps to the budget, writes nothing, and promises what its knowledge allows."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_trainer import FakeTrainer

from search.policy import rehearsal
from search.policy.accuracy import Measured, features
from search.policy.budget import epoch_ratio
from search.policy.forecast import Times, forecast, open_account, rehearsed
from search.policy.rehearsal import Ending, Rehearsal, rehearsals, rehearse
from search.policy.situation import Situation, situation
from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import Study
from search.trainers.protocol import Speed
from search.worker import work_until_done

SPACE = make_space((3, 32, 32), {"family": ["resnet"]})


def begun(directory: Path, **changes: Any) -> tuple[Study, Situation]:
    """A study of the fake trainer's that has begun nothing, and what its first decision is taken from."""
    settings = StudySettings(**{"dataset": "cifar10", "trials": 10, "explore_epochs": 10.0, **changes})
    settings.save(directory)
    study = Study(directory, settings, SPACE, open_storage(storage_url(None, directory)))
    trainer = FakeTrainer()
    open_account(study, trainer.images)
    now = situation(study.snapshot(), trainer)
    assert now is not None
    return study, now


def played(now: Situation, number: int) -> Rehearsal:
    play = Rehearsal(now, np.random.default_rng(number))
    while play.step():
        pass
    return play


def test_a_number_is_an_ending_and_the_study_stays_as_it_was(tmp_path: Path) -> None:
    study, now = begun(tmp_path, threshold=0.5)
    endings = [rehearse(now, number) for number in (0, 1, 2, 0)]
    assert endings[0] == endings[3] and len({ending.accuracy for ending in endings if ending}) > 1
    assert not study.records() and not study.snapshot().waiting


@pytest.mark.parametrize("budget", [{"trials": 3}, {"trials": 10}, {"trials": None, "images": 150_000}])
def test_a_rehearsal_keeps_to_the_budget_and_begins_as_the_study_does(tmp_path: Path, budget: dict[str, Any]) -> None:
    study, now = begun(tmp_path, threshold=0.5, **budget)
    records = played(now, 1).records
    work_until_done(study, FakeTrainer(), new=lambda: len(study.records()) < 3)
    real = study.records()
    assert records[0].key == real[0].key and records[1].stage == real[1].stage
    networks = [r for r in records if r.stage != "parent"]
    assert records[0].stage == "parent" and networks
    assert len(networks) <= (budget["trials"] or math.inf)
    total = budget.get("images") or budget["trials"] * 10 * FakeTrainer.images
    assert sum(r.result.images for r in records if r.result) <= 1.01 * total
    assert len({(r.key, r.rung) for r in records}) == len(records), "nothing is trained twice"


def test_what_no_network_reaches_is_promised_by_none(tmp_path: Path) -> None:
    _, now = begun(tmp_path, threshold=0.9999)
    assert {ending.score for number in range(3) if (ending := rehearse(now, number))} == {None}
    known = forecast(now, ratio=epoch_ratio(now.budget), converged=40.0, patience_s=math.inf)
    assert known is not None and known.chance == 0 and known.score is None and known.band is None


def test_without_doubt_every_rehearsal_is_the_same_but_for_the_luck_of_counting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the regression's weights, parents and seeds have no scatter, errors are those that it expects."""
    for name in ("PARENT", "SPREAD", "LOSS_SPREAD"):
        monkeypatch.setattr(rehearsal, name, 0.0)
    _, now = begun(tmp_path, threshold=0.5, trials=None, images=600_000)
    now.known.model.covariance[:] = 0.0
    monkeypatch.setattr(type(now.known.curve), "error", lambda *_: (0.3, 0.0))
    for record in played(now, 1).records:
        assert record.result is not None
        error = 0.3
        if record.stage != "parent":
            row = features(record.candidate, FakeTrainer.images)
            mean, _ = now.known.model.predict([row], "any", Measured(math.log2(0.3), 0.0))
            error = min(2 ** float(mean[0]), 0.9)
        if record.at_end:
            assert abs(1 - record.result.accuracy - error) < 5 * math.sqrt(error * (1 - error) / 5000)


def test_a_larger_budget_promises_no_less(tmp_path: Path) -> None:
    found = []
    for images in (2_000_000, 8_000_000):
        _, now = begun(tmp_path / str(images), threshold=0.75, trials=None, images=images)
        known = forecast(now, ratio=epoch_ratio(now.budget), converged=40.0, patience_s=math.inf)
        assert known is not None and known.score is not None and known.band is not None
        assert known.band[0] <= known.score <= (known.band[1] or math.inf)
        found.append(known.score)
    assert found[1] < found[0]


def test_a_study_of_time_is_rehearsed_on_a_clock_that_stands_still(tmp_path: Path) -> None:
    """And on a machine that stays as fast as it was timed, also where channels are removed (tuned twice)."""
    settings = StudySettings(dataset="cifar10", budget_s=600.0, threshold=0.5)
    settings.save(tmp_path)
    space = make_space((3, 32, 32), {"family": ["resnet"], "structured": [0.2]})
    study = Study(tmp_path, settings, space, open_storage(storage_url(None, tmp_path)))
    trainer, speed = FakeTrainer(), Speed(10_000_000, 1000.0, 500.0, 0.2, 1.0, 1.0)
    times = Times(time.time(), 600.0, starting=1.0, teaching=0.0, reading=1.0, finalists=3)
    open_account(study, trainer.images, times=times, speed=speed)
    now = situation(study.snapshot(), trainer)
    assert now is not None
    left = now.budget.left()
    now = replace(now, budget=now.budget.with_left(left))
    first = played(now, 5)
    time.sleep(0.2)
    assert [r.key for r in played(now, 5).records] == [r.key for r in first.records] and len(first.records) > 3
    spent = sum(r.result.seconds for r in first.records if r.result)
    assert left - spent == pytest.approx(first.left) and 0 <= first.left < left / 2
    for record in first.records:
        assert record.result is not None
        epochs = record.candidate.tune.epochs
        if record.stage != "parent":
            assert record.result.images == round(2 * epochs * trainer.images)
            size = 0.3 + 0.7 * record.result.price.macs / 10_000_000
            assert record.result.seconds == pytest.approx(1 + 2 * epochs * (1000 / 500 + 0.2) * size, rel=0.02)


@pytest.mark.parametrize("count", [9, 19])
def test_a_further_ending_lies_within_the_band_four_times_of_five(count: int) -> None:
    """Order statistics: of n + 1 equally likely places, two tenths lie outside."""
    draw, inside = np.random.default_rng(3), 0
    for _ in range(2000):
        scores = draw.random(count + 1)
        found = rehearsed([Ending(float(s), 0.9, "one") for s in scores[:-1]])
        assert found.band is not None and found.band[1] is not None and found.chance == 1
        assert found.score == np.median(scores[:-1])
        inside += found.band[0] <= scores[-1] <= found.band[1]
    assert inside / 2000 == pytest.approx(0.8, abs=0.03)


def test_endings_without_a_network_are_the_worst() -> None:
    endings = [Ending(None, 0.8 + n / 100, f"none{n}") for n in range(4)] + [
        Ending(n / 10, 0.9, f"{n}") for n in range(5)
    ]
    found = rehearsed(endings)
    assert (found.score, found.band, found.architecture) == (0.4, (0.0, None), "4")
    assert found.chance == pytest.approx(5 / 9)


def test_there_are_rehearsals_where_there_is_time_for_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, now = begun(tmp_path, threshold=0.5, trials=2)
    assert rehearsals(now, patience_s=1e-6) == []
    assert len(rehearsals(now, patience_s=math.inf)) == rehearsal.PLAYS
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_, **__: pytest.fail("rehearsed"))
    assert rehearsals(now, patience_s=0.0) == []
    known = forecast(now, ratio=epoch_ratio(now.budget), converged=40.0)
    assert known is not None and known.band is None
