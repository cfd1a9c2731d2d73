"""Many workers on one study: nothing is lost and nothing is done twice, whoever dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FakeTrainer, enqueue_random

from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import FINISHED, Study
from search.worker import work_until_done

TRIALS = 60


def open_shared(directory: Path) -> Study:
    settings = StudySettings.load(directory)
    url = storage_url(settings.storage, directory)
    storage = open_storage(url, heartbeat_s=settings.heartbeat_s, grace_s=settings.grace_s)
    return Study(directory, settings, make_space((3, 32, 32), {"family": ["resnet", "thin"]}), storage)


def work(directory: Path, epoch_s: float = 0.15) -> int:
    """A worker's life: until the study is finished."""
    study = open_shared(directory)
    trainer = FakeTrainer(directory / "log", epoch_s=epoch_s)
    return work_until_done(study, trainer, stay=lambda: not study.optuna.user_attrs.get(FINISHED, False))


_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_search_cluster import work
work(Path(sys.argv[2]))
"""


def start_worker(directory: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", _CHILD, str(Path(__file__).parent), str(directory)]
    return subprocess.Popen(command, env={**os.environ, "CONTEST_WORKER": str(number)})


def prepare(directory: Path, storage: str | None, trials: int) -> Study:
    StudySettings(
        trials=trials,
        sampler="random",
        rungs=(1.0,),
        explore_epochs=4.0,
        threshold=0.0,
        objective="pareto",
        storage=storage,
        heartbeat_s=1,
        grace_s=15,
    ).save(directory)
    study = open_shared(directory)
    study.optuna.set_user_attr(FINISHED, False)
    enqueue_random(study, trials, 4.0)
    return study


def finished(study: Study) -> list[Any]:
    return [r for r in study.records() if r.result is not None and r.answered_by is None]


def wait_for(study: Study, count: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(finished(study)) < count:
        assert time.monotonic() < deadline, f"{len(finished(study))} of {count} trials after {seconds} s"
        time.sleep(0.2)


def check(study: Study, directory: Path, trials: int, killed: int) -> None:
    """As many trials as were asked for, each once; only an epoch that somebody died in was done twice."""
    try:
        _check(study, directory, trials, killed)
    finally:
        study.close()


def _check(study: Study, directory: Path, trials: int, killed: int) -> None:
    done = Counter(record.key for record in finished(study))
    assert len(done) == study.claims.taken() == trials
    assert set(done.values()) == {1}
    assert not study.running() and not study.waiting()
    lines = Counter((directory / "log").read_text().splitlines())
    repeated = sum(count - 1 for count in lines.values())
    assert repeated <= killed
    for key in done:
        epochs = {int(line.split()[1]) for line in lines if line.startswith(key)}
        assert epochs == set(range(1, len(epochs) + 1))


def test_two_workers_share_a_study_in_sqlite(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    study = prepare(directory, None, 8)
    workers = [start_worker(directory, number) for number in (1, 2)]
    try:
        wait_for(study, 8, 90)
        study.optuna.set_user_attr(FINISHED, True)
        assert [worker.wait(timeout=30) for worker in workers] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    check(study, directory, 8, killed=0)


@pytest.mark.slow
def test_four_workers_two_killed_and_the_database_restarted(tmp_path: Path, postgres: Any) -> None:
    directory = tmp_path / "shared"
    study = prepare(directory, postgres.url, TRIALS)
    workers = [start_worker(directory, number) for number in range(1, 5)]
    try:
        wait_for(study, 6, 180)
        workers[0].send_signal(signal.SIGKILL)
        wait_for(study, 15, 180)
        postgres.stop()
        time.sleep(3)
        postgres.start()
        wait_for(study, 25, 180)
        workers[1].send_signal(signal.SIGKILL)
        wait_for(study, TRIALS, 1200)
        study.optuna.set_user_attr(FINISHED, True)
        assert [worker.wait(timeout=60) for worker in workers[2:]] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    check(study, directory, TRIALS, killed=2)


@pytest.mark.slow
def test_ray_workers_are_killed_and_started_again(
    tmp_path: Path, postgres: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    from search.worker import start_on_ray

    directory = tmp_path / "shared"
    study = prepare(directory, postgres.url, TRIALS)
    here = str(Path(__file__).parent)

    def job(folder: Path) -> int:
        sys.path.insert(0, here)
        from test_search_cluster import work as life

        return life(folder)

    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "300")  # a busy machine needs more than 30 s
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000)
    try:
        workers = start_on_ray("local", directory, 4, job)
        wait_for(study, 6, 240)
        os.kill(workers[0].pid(), signal.SIGKILL)
        wait_for(study, 15, 180)
        postgres.stop()
        time.sleep(3)
        postgres.start()
        wait_for(study, 25, 180)
        os.kill(workers[1].pid(), signal.SIGKILL)
        wait_for(study, TRIALS, 1200)
        study.optuna.set_user_attr(FINISHED, True)
        assert sum(ray.get([worker.result for worker in workers], timeout=120)) <= TRIALS
    finally:
        ray.shutdown()
    check(study, directory, TRIALS, killed=2)
