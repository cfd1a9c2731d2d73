"""A worker: takes work from the study, does it, and shows that it is alive, until there is nothing left.

On a Ray cluster each is an actor with its share of a GPU, around the same storage and directory. Ray only starts
processes and gives them room. Who does what is decided in the study's database, so a cluster, machines with
`contest worker` and the process that leads the study can be mixed.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from optuna.trial import TrialState

from contest.errors import UsageError
from search.space import make_space
from search.study.storage import UnwritableError
from search.study.study import FINISHED, Study, Work, open_study
from search.trainers.isolated import IsolatedTrainer
from search.trainers.protocol import Trainer
from search.work import Watch, next_work, run

log = logging.getLogger("search")

POLL_S = 1.0


class Heartbeat:
    """Tells the storage every few seconds that a trial is alive, and notices when it was given to another."""

    def __init__(self, study: Study, trial_id: int) -> None:
        self._study = study
        self._trial_id = trial_id
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(timeout=5.0)

    def _beat(self) -> None:
        storage, interval = self._study.storage, self._study.settings.heartbeat_s
        while not self._lost.is_set():
            try:
                storage.record_heartbeat(self._trial_id)
                running = storage.get_trial(self._trial_id).state == TrialState.RUNNING
            except UnwritableError:  # whoever writes next to the study finds it too, and says it
                return
            if not running and not self._stop.is_set():
                self._lost.set()
            if self._stop.wait(interval):
                return


def work_until_done(
    study: Study,
    trainer: Trainer,
    *,
    new: Callable[[], bool] = lambda: True,
    watch: Watch | None = None,
    on_step: Callable[[Work, str, float], None] | None = None,
    on_work: Callable[[Work], None] | None = None,
    on_done: Callable[[], None] | None = None,
    stay: Callable[[], bool] = lambda: False,
) -> int:
    """Work until nothing is queued, nothing may be started and no other worker runs; how much was done.

    Args:
        new: whether new candidates may still be started (a budget says no at some time).
        watch: is called after each epoch; on_step: within one (see `run_trial.run`). on_work, on_done: before and
            after each piece of work.
        stay: whether to wait for more although nothing is left (a worker waits for the study's end).
    """
    done = 0
    while True:
        dead = study.reap()
        if dead:
            log.warning("%d trials of dead workers went back to the queue", dead)
        work = next_work(study, trainer, new=new())
        if work is None:
            if study.waiting():
                continue
            if not study.running() and not stay():
                return done
            time.sleep(POLL_S)
            continue
        if on_work is not None:
            on_work(work)
        with Heartbeat(study, work.trial._trial_id) as heart:
            run(study, trainer, work, watch=watch, on_step=on_step, is_lost=lambda heart=heart: heart.lost)  # type: ignore[misc]
        done += 1
        if on_done is not None:
            on_done()


def run_worker(directory: Path, storage: str | None, device: str, *, stay: bool) -> int:
    """`contest worker`: work on the study until it is finished (or, without `stay`, until nothing is left)."""
    study = open_study(directory, storage)
    trainer = IsolatedTrainer(study.settings, directory, device=device)
    study.space = make_space(trainer.image_shape, study.settings.narrowed, taught=study.settings.taught)
    os.environ.setdefault("CONTEST_WORKER", f"{socket.gethostname()}:{os.getpid()}")  # or it would propose like others
    try:
        return work_until_done(study, trainer, stay=lambda: stay and not study.optuna.user_attrs.get(FINISHED, False))
    finally:
        trainer.close()


class RayWorker:
    """A worker in a process of the cluster, handled like the `subprocess.Popen` of a local one."""

    def __init__(self, actor: Any, result: Any) -> None:
        self._actor, self.result = actor, result

    def pid(self) -> int:
        import ray

        found: int = ray.get(self._actor.pid.remote())
        return found

    def terminate(self) -> None:
        import ray

        ray.kill(self._actor, no_restart=True)


class _Actor:
    """Runs in the worker's process."""

    def pid(self) -> int:
        return os.getpid()

    def work(self, job: Callable[[Path], int], directory: str, number: int) -> int:
        os.environ["CONTEST_WORKER"] = str(number)
        return job(Path(directory))


def worker_job(device: str) -> Callable[[Path], int]:
    """What `contest worker` does, to be sent to another machine."""

    def job(directory: Path) -> int:
        return run_worker(directory, None, device, stay=True)

    return job


def start_on_ray(
    address: str, directory: Path, count: int, job: Callable[[Path], int], *, gpus_each: float = 0.0
) -> list[RayWorker]:
    """Start `count` workers on the cluster at `address` (`local`: a cluster of its own on this machine).

    A worker whose process dies is started again by Ray on any machine with room; its trial goes on from the last
    checkpoint. All machines must see `directory`. Raises UsageError without Ray or without a cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise UsageError("--ray: install the extra: pip install 'contest[cluster]'") from error
    if not ray.is_initialized():
        try:
            ray.init(address=None if address == "local" else address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"--ray {address}: no cluster there ({error}); start one with `ray start --head`"
            ) from error
    remote = ray.remote(num_cpus=1, num_gpus=gpus_each, max_restarts=-1, max_task_retries=-1, max_concurrency=2)(_Actor)
    started = []
    for number in range(1, count + 1):
        actor = remote.remote()
        result = actor.work.remote(job, str(directory.resolve()), number)
        started.append(RayWorker(actor, result))
    return started
