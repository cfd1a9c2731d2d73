"""Trainings in a process of their own, so that what kills one (a signal, memory, a library's abort) costs one trial.

The process is started once and kept alive between trials. It is asked one thing at a time over a socket: to train (it
reports each epoch and goes on when it is told to), or to run another method of its trainer.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from contest.candidate import Candidate
from contest.errors import ContestError, TrainingError
from search.study.settings import StudySettings
from search.trainers.pipeline import PipelineTrainer
from search.trainers.protocol import OnStep, Progress, Speed, Trained, Trainer

LOG = "trainings.log"
"""What trainings and libraries say, in the study directory."""


class TrainingDiedError(TrainingError):
    """The process that trained has ended without an answer."""


class TrainingProcess:
    """A process with a trainer in it.

    Args:
        make: makes the trainer, there; it is pickled, so it is a function or a class of a module, or a partial of one.
        log: what the process says is written to its end.
    """

    def __init__(self, make: Callable[[], Trainer], log: Path) -> None:
        self._make, self._log = make, log
        self._child: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._said = 0
        self._finalizer: Callable[[], object] = lambda: None

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start the process, if there is none: it makes its trainer at once."""
        self._connected()

    def train(
        self,
        candidate: Candidate,
        directory: Path,
        on_epoch: Callable[[Progress], None],
        *,
        ends_at: float | None = None,
        on_step: OnStep | None = None,
        **attributes: Any,
    ) -> Trained:
        """`Trainer.train` over there. Raises what it raises, and TrainingDiedError if the process dies of it."""
        found: Trained = self._ask("train", (candidate, directory, ends_at), attributes, on_epoch, on_step)
        return found

    def call(self, method: str, *arguments: Any, **attributes: Any) -> Any:
        """Another method of the trainer over there, after its `attributes` were set."""
        return self._ask(method, arguments, attributes, lambda progress: None)

    def close(self) -> None:
        """End the process, whatever it does."""
        self._finalizer()
        self._child = self._connection = None

    def _ask(
        self,
        method: str,
        arguments: tuple[Any, ...],
        attributes: dict[str, Any],
        on_epoch: Callable[[Progress], None],
        on_step: OnStep | None = None,
    ) -> Any:
        try:
            connection = self._connected()
            connection.send((method, arguments, attributes))
            while True:
                kind, value = connection.recv()
                if kind == "done":
                    return value
                if kind == "error":
                    raise value
                if kind == "epoch":
                    self._pass_on(connection, value, on_epoch)
                elif on_step is not None:
                    on_step(*value)
        except (EOFError, ConnectionError) as error:
            raise TrainingDiedError(self._death()) from error
        except KeyboardInterrupt:
            self.close()
            raise

    def _pass_on(self, connection: Connection, progress: Progress, on_epoch: Callable[[Progress], None]) -> None:
        """One epoch to who waits for it; what that raises ends the training over there and goes on here."""
        try:
            on_epoch(progress)
        except KeyboardInterrupt:
            raise
        except BaseException:
            connection.send(False)
            connection.recv()
            raise
        connection.send(True)

    def _connected(self) -> Connection:
        if self._connection is None:
            ours, theirs = socket.socketpair()
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with theirs, self._log.open("ab") as log:
                self._said = log.tell()
                child = subprocess.Popen(
                    [sys.executable, "-X", "faulthandler", "-m", "search.trainers.child", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is for the study, which ends this process itself
                )
            self._child, self._connection = child, Connection(ours.detach())
            self._finalizer = weakref.finalize(self, _end, child, self._connection, self._log)
            self._connection.send_bytes(pickle.dumps((os.getpid(), sys.path)))
            self._connection.send(self._make)
        return self._connection

    def _death(self) -> str:
        assert self._child is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(timeout=30)
        code, said = self._child.returncode, self._last_words()
        self.close()
        if code is None:
            return "the training's process no longer answers"
        if code >= 0:
            cause = f"ended with code {code}"
        else:
            cause = f"died of {signal.Signals(-code).name}"
        if code == -signal.SIGKILL:
            cause += " (where nobody sent it, memory ran out)"
        return f"the training's process {cause}{f': {said}' if said else ''}"

    def _last_words(self) -> str:
        """The first line that the process left in the log (before the stack that follows it), if it left any."""
        try:
            with self._log.open("rb") as log:
                log.seek(self._said)
                lines = log.read(1_000_000).decode(errors="replace").splitlines()
        except OSError:
            return ""
        fatal = [index for index, line in enumerate(lines) if line.startswith("Fatal Python error")]
        where = fatal[-1] if fatal else len(lines)
        words = [line.strip() for line in lines[max(0, where - 1) : where + 1] if line.strip()]
        return words[0][:200] if words else ""


def _end(child: subprocess.Popen[bytes], connection: Connection, log: Path) -> None:
    connection.close()
    child.kill()
    child.wait()
    if log.exists() and not log.stat().st_size:
        log.unlink()


class IsolatedTrainer(PipelineTrainer):
    """`PipelineTrainer` whose trainings run in a process of their own; all else (prices, timing) runs here."""

    def __init__(self, settings: StudySettings, directory: Path, *, device: str = "auto") -> None:
        import torch

        super().__init__(settings, directory, device=device)
        make = partial(
            PipelineTrainer, settings, directory.resolve(), device=self.device, threads=torch.get_num_threads()
        )
        self._process = TrainingProcess(make, directory / LOG)

    def start(self) -> None:
        """Start the process that trains: what it loads, it loads beside what is done here."""
        self._process.start()

    def measure(self, candidate: Candidate) -> Speed:
        found: Speed = self._process.call("measure", candidate, settings=self.settings)
        return found

    def train(
        self,
        candidate: Candidate,
        directory: Path,
        on_epoch: Callable[[Progress], None],
        *,
        ends_at: float | None = None,
        on_step: OnStep | None = None,
    ) -> Trained:
        found = self._process.train(
            candidate, directory.resolve(), on_epoch, ends_at=ends_at, on_step=on_step, settings=self.settings
        )
        return Trained(**{**vars(found), "model": directory / found.model.name})

    def teach(self) -> bool:
        try:
            return bool(self._process.call("teach", settings=self.settings))
        except TrainingDiedError as error:
            raise ContestError(f"the teacher could not be made: {error}") from error

    def close(self) -> None:
        self._process.close()
