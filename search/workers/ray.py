"""Workers on a Ray cluster: each an actor with its share of a GPU, around the same storage and directory.

Ray only starts processes and gives them room. Who does what is decided in the study's database, so a cluster,
machines with `contest worker` and the process that leads the study can be mixed.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contest.errors import UsageError
from search.workers.worker import run_worker


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
