"""A crash costs one trial: trainings run in a process of their own, and its death is recorded."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_trainer import FakeTrainer, enqueue_random
from fragile_trainer import Fragile, make_failing, make_fragile, make_slow

from contest.candidate import Candidate
from contest.errors import TrainingError
from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import UnwritableError, open_storage, storage_url
from search.study.study import Study
from search.trainers.isolated import LOG, TrainingDiedError, TrainingProcess
from search.trainers.protocol import Progress, Trained
from search.worker import work_until_done

HERE = Path(__file__).parent


class Remote:
    """A trainer that trains over there, as the real isolated one does."""

    def __init__(self, process: TrainingProcess) -> None:
        self.process, self.local = process, Fragile()
        self.classes, self.images, self.validation = self.local.classes, self.local.images, self.local.validation
        self.price = self.local.price

    def train(
        self, candidate: Candidate, directory: Path, on_epoch: Callable[[Progress], None], **options: Any
    ) -> Trained:
        return self.process.train(candidate, directory, on_epoch, **options)


Start = Callable[[Callable[[], Fragile]], Remote]


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.syspath_prepend(str(HERE))
    begun: list[TrainingProcess] = []

    def start(make: Callable[[], Fragile]) -> Remote:
        begun.append(TrainingProcess(make, tmp_path / LOG))
        return Remote(begun[-1])

    yield start
    for process in begun:
        process.close()


def study_in(directory: Path, trials: int = 6) -> Study:
    settings = StudySettings(
        trials=trials,
        sampler="random",
        rungs=(1.0,),
        explore_epochs=4.0,
        threshold=0.0,
        objective="pareto",
        heartbeat_s=1,
        grace_s=15,
        space={"family": ["resnet"], "weight_bits": [3, 4]},
    )
    settings.save(directory)
    space = make_space((3, 32, 32), settings.space)
    study = Study(directory, settings, space, open_storage(storage_url(None, directory)))
    enqueue_random(study, trials, 4.0)
    return study


def test_a_training_that_aborts_costs_its_trial_and_no_other(tmp_path: Path, started: Start) -> None:
    study = study_in(tmp_path)
    work_until_done(study, started(make_fragile))
    records = study.records()
    crashed = [r for r in records if r.candidate.bits.weights == 4 and r.state == "FAIL"]
    assert crashed and all("SIGABRT: free(): invalid next size (fast)" in (r.reason or "") for r in crashed)
    assert len({r.key for r in crashed}) == len(crashed)  # none was begun again
    trained = [r for r in records if r.result is not None]
    assert trained and all(r.candidate.bits.weights == 3 for r in trained)
    assert study.claims.taken() == 6 and not study.running() and not study.waiting()
    study.close()


def test_one_process_serves_all_trials(tmp_path: Path, started: Start) -> None:
    trainer, study = started(make_slow), study_in(tmp_path, trials=3)
    pids = set()
    work_until_done(study, trainer, watch=lambda work, progress: pids.add(trainer.process.pid))
    assert len(pids) == 1 and os.getpid() not in pids
    study.close()


def test_a_training_that_is_killed_is_recorded_with_its_signal(tmp_path: Path, started: Start) -> None:
    trainer, study = started(make_slow), study_in(tmp_path, trials=2)
    killed: list[int] = []

    def kill_the_first(work: object, progress: Progress) -> None:
        if not killed and trainer.process.pid is not None:
            killed.append(trainer.process.pid)
            threading.Timer(0.1, os.kill, (trainer.process.pid, signal.SIGKILL)).start()

    work_until_done(study, trainer, watch=kill_the_first)
    reasons = [r.reason for r in study.records() if r.state == "FAIL"]
    assert len(reasons) == 1 and "SIGKILL (where nobody sent it, memory ran out)" in str(reasons[0])
    assert any(r.result is not None for r in study.records())
    study.close()


def test_errors_and_early_ends_come_through_and_the_process_lives_on(tmp_path: Path, started: Start) -> None:
    study = study_in(tmp_path)
    candidate = study.records()[0].candidate
    study.close()
    failing = started(make_failing)
    with pytest.raises(TrainingError, match="no longer a number"):
        failing.train(candidate, tmp_path / "a", lambda progress: None)
    trainer = started(make_slow)
    seen: list[float] = []

    def enough(progress: Progress) -> None:
        seen.append(progress.fraction)
        raise StopIteration

    with pytest.raises(StopIteration):
        trainer.train(candidate, tmp_path / "b", enough)
    pid = trainer.process.pid
    trained = trainer.train(candidate, tmp_path / "b", lambda progress: seen.append(progress.fraction))
    assert trainer.process.pid == pid and trained.model == tmp_path / "b" / "model.pt"
    assert seen == sorted(set(seen)) and seen[-1] == 1.0  # it went on from the checkpoint


def test_the_process_ends_with_the_study(tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path.insert(0, {str(HERE)!r})
from pathlib import Path
from search.trainers.isolated import TrainingProcess
from fragile_trainer import make_slow
process = TrainingProcess(make_slow, Path({str(tmp_path)!r}) / "log")
process._connected()
print(process.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 30
    while _alive(pid):
        assert time.monotonic() < deadline, "the training outlives the study that was killed"
        time.sleep(0.1)


def _alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_an_unwritable_study_ends_at_once_and_no_candidate_is_used_up(tmp_path: Path) -> None:
    """As on a full disk: no file may grow beyond 20 KB from the third epoch on."""
    study = study_in(tmp_path / "s", trials=6)
    trainer = FakeTrainer()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill(work: object, progress: Progress) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, limits[1]))
        (tmp_path / "s" / "large").write_bytes(bytes(10_000))

    try:
        with pytest.raises(UnwritableError, match=r"File too large\): mend that, then go on with contest search --res"):
            work_until_done(study, trainer, watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    (tmp_path / "s" / "large").unlink()
    assert not [r for r in study.records() if r.state == "FAIL"]
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".part" or path.name.startswith(".probe")]
    assert study.claims.taken() == 1
    study.close()
    again = study_in_again(tmp_path / "s")
    work_until_done(again, trainer)
    assert again.claims.taken() == 6
    assert len({r.key for r in again.records() if r.result is not None}) == 6
    again.close()


def study_in_again(directory: Path) -> Study:
    """As another process opens it: what the first one began counts as left behind."""
    settings = StudySettings.load(directory)
    study = Study(
        directory, settings, make_space((3, 32, 32), settings.space), open_storage(storage_url(None, directory))
    )
    for trial in study.running():
        work = {
            **trial.user_attrs["work"],
            "worker": trial.user_attrs["work"]["worker"].rpartition(":")[0] + ":999999999",
        }
        study.storage.set_trial_user_attr(trial._trial_id, "work", work)
    return study


def test_a_folder_that_is_gone_is_said_at_once(tmp_path: Path) -> None:
    study = study_in(tmp_path / "s", trials=6)

    def remove(work: object, progress: Progress) -> None:
        for path in sorted((tmp_path / "s").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "s").rmdir()
        raise FileNotFoundError(2, "No such file or directory")

    begun = time.monotonic()
    with pytest.raises(UnwritableError, match=r"No such file or directory|readonly|unable to open|disk I/O"):
        work_until_done(study, FakeTrainer(), watch=remove)
    assert time.monotonic() - begun < 20  # a database that is away is waited for, a file that is gone is not
    study.close()


def test_the_reason_of_a_death_without_words(started: Start) -> None:
    trainer = started(os.abort)  # type: ignore[arg-type]
    with pytest.raises(TrainingDiedError, match="process died of SIGABRT"):
        trainer.process.call("price")
