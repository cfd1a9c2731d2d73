"""What the search itself costs: a study of many trials whose trainings take no time.

    python tests/benchmarks/optuna_overhead.py [--trials 1000] [--trial-seconds 60]

Everything between two trainings is measured (sampling, prices of proposals, the judge, the claims, writing the
results to the database), in seconds of the processor, which other programs on the machine do not change, and set
against trainings of `--trial-seconds`. The issue allows 2 %.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from fake_trainer import FakeTrainer, enqueue_random

from search.space import make_space
from search.study.settings import StudySettings
from search.study.storage import open_storage, storage_url
from search.study.study import Study
from search.worker import work_until_done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--trial-seconds", type=float, default=60.0)
    parser.add_argument("--sampler", choices=("tpe", "nsga2", "random"), default="tpe")
    parser.add_argument("--storage", help="a PostgreSQL URL; SQLite otherwise")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "study"
        settings = StudySettings(
            trials=arguments.trials,
            objective="pareto",
            explore_epochs=10.0,
            refine_epochs=0.0,
            rungs=(1.0,),
            sampler=arguments.sampler,
        )
        settings.save(directory)
        space = make_space((3, 32, 32), {"family": ["resnet", "thin"]})
        study = Study(directory, settings, space, open_storage(storage_url(arguments.storage, directory)))
        enqueue_random(study, arguments.trials, 4.0)
        marks = [time.process_time()]
        started = time.perf_counter()
        work_until_done(study, FakeTrainer(), on_done=lambda: marks.append(time.process_time()))
        wall, records = time.perf_counter() - started, len(study.records())
        study.close()
    trials, used = len(marks) - 1, marks[-1] - marks[0]
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {arguments.sampler}")
    print(f"{trials} trials trained, {records} Optuna trials in all, {wall:.1f} s wall, {used:.1f} s of this process")
    print(f"\n| trials | ms of processor a trial | share of trials of {arguments.trial_seconds:g} s | below 2 % from |")
    print("| --- | ---: | ---: | ---: |")
    for first, last in ((0, 100), (200, 300), (900, 1000)):
        if last <= trials:
            each = (marks[last] - marks[first]) / (last - first)
            share = each / arguments.trial_seconds
            print(f"| {first} to {last} | {1000 * each:.0f} | {share:.2%} | {each / 0.02:.1f} s |")
    print(
        f"| all {trials} | {1000 * used / trials:.0f} | {used / trials / arguments.trial_seconds:.2%} "
        f"| {used / trials / 0.02:.1f} s |"
    )


if __name__ == "__main__":
    main()
