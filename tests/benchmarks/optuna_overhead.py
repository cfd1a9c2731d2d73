"""What the search itself costs: a study of many trials whose trainings take no time.

    python tests/benchmarks/optuna_overhead.py [--trials 1000] [--trial-seconds 60]

Everything between two trainings is measured (sampling, prices of proposals, the judge, the claims, writing the
results to SQLite), and set against trainings of `--trial-seconds`. The issue allows 2 %.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from fake_trainer import FakeTrainer

from search.propose import enqueue_seeds
from search.settings import Settings
from search.space import make_space
from search.storage import open_storage, storage_url
from search.study import Study
from search.worker import work_until_done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--trial-seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "study"
        settings = Settings(
            trials=arguments.trials, objective="pareto", explore_epochs=10.0, refine_epochs=0.0, rungs=(1.0,)
        )
        settings.save(directory)
        space = make_space((3, 32, 32), {"family": ["resnet", "thin"]})
        study = Study(directory, settings, space, open_storage(storage_url(None, directory)))
        enqueue_seeds(study)
        marks = []
        started, cpu = time.perf_counter(), time.process_time()
        work_until_done(study, FakeTrainer(), on_done=lambda: marks.append(time.perf_counter()))
        wall, used = time.perf_counter() - started, time.process_time() - cpu
        trials, records = len(marks), len(study.records())
        study.close()
    tenth = max(1, trials // 10)
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}")
    print(f"{trials} trials trained, {records} Optuna trials in all, {wall:.1f} s wall, {used:.1f} s of this process")
    print(f"a trial: {1000 * wall / trials:.0f} ms wall, {1000 * used / trials:.0f} ms of processor")
    print(f"the last {tenth}: {1000 * (marks[-1] - marks[-tenth - 1]) / tenth:.0f} ms wall each")
    print(f"share of trials of {arguments.trial_seconds:g} s: {wall / trials / arguments.trial_seconds:.2%}")


if __name__ == "__main__":
    main()
