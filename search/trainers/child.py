"""What runs in the process of `search.trainers.isolated`: `python -m search.trainers.child DESCRIPTOR`."""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from multiprocessing.connection import Connection
from typing import Any

WATCH_S = 1.0


class _Ended(BaseException):
    """The study does not want the training to go on. (No Exception: nothing on the way takes it for a failure.)"""


def serve(connection: Connection) -> None:
    """Answer until the other side is gone."""
    parent, path = pickle.loads(connection.recv_bytes())  # noqa: S301 - from the study's own process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.path[:] = path
    trainer: Any = None
    make = connection.recv()
    try:
        trainer = make()  # at once: it loads what takes seconds, while the study prepares itself
    except Exception:
        trainer = None  # who asks for something is told
    while True:
        try:
            method, arguments, attributes = connection.recv()
        except (EOFError, ConnectionError):
            return
        try:
            trainer = make() if trainer is None else trainer
            for name, value in attributes.items():
                setattr(trainer, name, value)
            if method == "train":
                candidate, directory, ends_at = arguments
                answer = (
                    "done",
                    trainer.train(
                        candidate,
                        directory,
                        lambda progress: _report(connection, progress),
                        ends_at=ends_at,
                        on_step=lambda stage, share: connection.send(("step", (stage, share))),
                    ),
                )
            else:
                answer = ("done", getattr(trainer, method)(*arguments))
        except _Ended:
            answer = ("done", None)
        except Exception as error:
            answer = ("error", _sendable(error))
        connection.send(answer)


def _report(connection: Connection, progress: Any) -> None:
    connection.send(("epoch", progress))
    if not connection.recv():
        raise _Ended


def _sendable(error: Exception) -> Exception:
    from contest.errors import TrainingError

    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301
    except Exception:
        return TrainingError(f"{type(error).__name__}: {error}")
    return error


def _end_with(parent: int) -> None:
    """A study that was killed takes its training along: another process may go on with it at once."""
    while os.getppid() == parent:
        time.sleep(WATCH_S)
    os._exit(1)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
