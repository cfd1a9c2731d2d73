"""A process that does nothing but score."""

from __future__ import annotations

import logging
import signal
import threading

from leaderboard.board import open_board
from leaderboard.scoring_queue.score_submission import Scorer
from leaderboard.settings import BoardSettings

log = logging.getLogger("leaderboard.worker")
_HEALTH_S = 10


def run_worker(settings: BoardSettings, threads: int = 1, metrics_port: int = 0, scorer: Scorer | None = None) -> None:
    """Score until SIGTERM or SIGINT; what is not finished 20 seconds later goes back to the queue."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    board = open_board(settings, scorer)
    if metrics_port:
        from prometheus_client import start_http_server

        start_http_server(metrics_port, registry=board.jobs.registry)
    worker = board.jobs.worker(threads)
    worker.start()
    log.info("worker started", extra={"threads": threads})
    while not stopping.wait(_HEALTH_S):
        worker.check_worker_health()
    log.info("worker is stopping")
    worker.stop(graceful=True)
    board.work.release()
    board.close()
