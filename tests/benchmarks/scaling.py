"""Trials per minute with 1 and 2 workers on this machine, and the arithmetic for 64 and 1,024.

    python tests/benchmarks/scaling.py [--trials 16] [--epoch-seconds 0.4] [--storage postgresql://...]

Trainings are replaced by sleeping, so that workers do not fight for this machine's cores: what is measured is the
search (claims, storage, waiting), not the trainings. The database's statements for a trial are counted, and
what saturates first is calculated from that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from fake_trainer import FakeTrainer

from search.propose import enqueue_seeds
from search.run import FINISHED
from search.settings import Settings
from search.space import make_space
from search.storage import open_storage, storage_url
from search.study import Study
from search.worker import work_until_done

CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scaling import life
life(Path(sys.argv[2]), float(sys.argv[3]))
"""


def open_at(directory: Path) -> Study:
    settings = Settings.load(directory)
    storage = open_storage(storage_url(settings.storage, directory), heartbeat_s=settings.heartbeat_s)
    return Study(directory, settings, make_space((3, 32, 32), {"family": ["resnet", "thin"]}), storage)


def life(directory: Path, epoch_s: float) -> None:
    study = open_at(directory)
    work_until_done(
        study,
        FakeTrainer(epoch_s=epoch_s),
        stay=lambda: not study.optuna.user_attrs.get(FINISHED, False),
    )
    study.close()


def measure(workers: int, trials: int, epoch_s: float, storage: str | None) -> tuple[float, float]:
    """(seconds, statements to the database a trial, of one worker alone)."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / f"scaling-{workers}-{os.getpid()}-{int(time.time())}"
        Settings(
            trials=trials, sampler="random", rungs=(1.0,), explore_epochs=4.0, refine_epochs=0.0, objective="pareto",
            storage=storage,
        ).save(directory)  # fmt: skip
        study = open_at(directory)
        study.optuna.set_user_attr(FINISHED, False)
        enqueue_seeds(study)
        statements = 0

        def count(*_: object) -> None:
            nonlocal statements
            statements += 1

        if workers == 1:
            sa.event.listen(study.storage.engine, "before_cursor_execute", count)
            started = time.perf_counter()
            work_until_done(study, FakeTrainer(epoch_s=epoch_s))
            seconds = time.perf_counter() - started
        else:
            command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(directory), str(epoch_s)]
            children = [subprocess.Popen(command, env={**os.environ, "CONTEST_WORKER": str(n)}) for n in range(workers)]
            while not any(r.result for r in study.records()):
                time.sleep(0.05)
            started, already = time.perf_counter(), sum(1 for r in study.records() if r.result)
            while sum(1 for r in study.records() if r.result) < trials:
                time.sleep(0.05)
            seconds = (time.perf_counter() - started) * trials / (trials - already)
            study.optuna.set_user_attr(FINISHED, True)
            for child in children:
                child.wait()
        study.close()
    return seconds, statements / trials


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epoch-seconds", type=float, default=0.4)
    parser.add_argument("--storage", help="a PostgreSQL URL; SQLite otherwise")
    parser.add_argument("--statements-per-second", type=float, default=5000.0, help="what the database server does")
    arguments = parser.parse_args()
    one, statements = measure(1, arguments.trials, arguments.epoch_seconds, arguments.storage)
    two, _ = measure(2, arguments.trials, arguments.epoch_seconds, arguments.storage)
    print("| workers | trials/min | speed-up |\n| --- | --- | --- |")
    for workers, seconds in ((1, one), (2, two)):
        print(f"| {workers} | {60 * arguments.trials / seconds:.1f} | {one / seconds:.2f} |")
    print(f"\nstatements to the database: {statements:.0f} a trial, and one heartbeat in 30 s a worker")
    for workers in (64, 1024):
        for trial_s in (60.0, 600.0):
            rate = workers * (statements / trial_s + 2 / 30)
            print(
                f"{workers} workers, trials of {trial_s:g} s: {rate:,.0f} statements/s = "
                f"{rate / arguments.statements_per_second:.1%} of a server of {arguments.statements_per_second:g}/s"
            )


if __name__ == "__main__":
    main()
