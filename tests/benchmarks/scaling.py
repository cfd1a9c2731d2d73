"""Trials per minute with 1 and 2 workers on this machine, and the arithmetic for 64 and 1,024.

    python tests/benchmarks/scaling.py [--trials 16] [--epoch-seconds 0.4] [--storage postgresql://...]

Trainings are replaced by sleeping, so that workers do not fight for this machine's cores: what is measured is the
search (claims, storage, waiting), not the trainings. Counted are the database's statements for a trial, and what a
finished trial weighs (rows, bytes): each worker reads each other's once. What saturates first is calculated from that.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from fake_trainer import FakeTrainer, enqueue_random

from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import FINISHED, Study
from search.worker import work_until_done

TABLES = ("trials", "trial_params", "trial_values", "trial_user_attributes", "trial_system_attributes")
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from scaling import life
life(Path(sys.argv[2]), float(sys.argv[3]))
"""


def open_at(directory: Path) -> Study:
    settings = StudySettings.load(directory)
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


@dataclass(frozen=True)
class Measured:
    seconds: float
    statements: float
    """To the database for a trial, of one worker alone."""
    rows: float
    """Of a finished trial, which every other worker reads."""
    bytes: float


def weight(study: Study) -> tuple[float, float]:
    """Mean rows and bytes of text of a trial in the database."""
    with study.storage.engine.connect() as connection:

        def number(text: str) -> int:
            return int(connection.execute(sa.text(f"SELECT {text}")).scalar() or 0)

        trials = number("count(*) FROM trials")
        rows = sum(number(f"count(*) FROM {table}") for table in TABLES)
        size = number("sum(length(param_name) + 20) FROM trial_params") + sum(
            number(f"sum(length(value_json)) FROM trial_{kind}_attributes") for kind in ("user", "system")
        )
    return rows / trials, size / trials


def measure(workers: int, trials: int, epoch_s: float, storage: str | None) -> Measured:
    """Seconds and weights of a study of that many trials."""
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / f"scaling-{workers}-{os.getpid()}-{int(time.time())}"
        StudySettings(
            trials=trials,
            sampler="random",
            rungs=(1.0,),
            explore_epochs=4.0,
            objective="pareto",
            storage=storage,
        ).save(directory)
        study = open_at(directory)
        study.optuna.set_user_attr(FINISHED, False)
        enqueue_random(study, trials, 4.0)
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
        rows, size = weight(study)
        study.close()
    return Measured(seconds, statements / trials, rows, size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epoch-seconds", type=float, default=0.4)
    parser.add_argument("--storage", help="a PostgreSQL URL; SQLite otherwise")
    parser.add_argument("--statements-per-second", type=float, default=5000.0, help="what the database server does")
    parser.add_argument("--rows-per-second", type=float, default=500_000.0, help="what it reads and sends")
    arguments = parser.parse_args()
    one = measure(1, arguments.trials, arguments.epoch_seconds, arguments.storage)
    two = measure(2, arguments.trials, arguments.epoch_seconds, arguments.storage)
    print("| workers | trials/min | speed-up |\n| --- | ---: | ---: |")
    for workers, found in ((1, one), (2, two)):
        print(f"| {workers} | {60 * arguments.trials / found.seconds:.1f} | {one.seconds / found.seconds:.2f} |")
    print(
        f"\n{one.statements:.0f} statements a trial and one heartbeat in 30 s a worker; a finished trial is "
        f"{one.rows:.0f} rows, {one.bytes / 1e3:.1f} kB, read once by each worker\n"
    )
    print("| workers | a trial takes | statements/s (of the server) | rows/s (of the server) | MB/s |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for workers in (2, 64, 1024):
        for trial_s in (60.0, 600.0):
            asked = workers * (one.statements / trial_s + 2 / 30)
            read = workers * workers / trial_s  # trials read in a second, all workers together
            print(
                f"| {workers:,} | {trial_s:g} s | {asked:,.0f} ({asked / arguments.statements_per_second:.1%})"
                f" | {read * one.rows:,.0f} ({read * one.rows / arguments.rows_per_second:.1%})"
                f" | {read * one.bytes / 1e6:.2f} |"
            )


if __name__ == "__main__":
    main()
