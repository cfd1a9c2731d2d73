"""kill -9 of the web process, the workers and PostgreSQL while 20 clients submit 200 files.

Afterwards: every file that was entered is there once, scored once for each team, and in a terminal state.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from board_helpers import auth, content
from postgres_server import PostgresServer
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from leaderboard import backup
from leaderboard.board import open_board
from leaderboard.domain import contests, tokens
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import TERMINAL, Result, State, Submission
from scoring.rules import load_rule

HERE = Path(__file__).parent
WEB = """
import sys; sys.path.insert(0, sys.argv[1])
import uvicorn
from pathlib import Path
from board_helpers import scripted
from leaderboard.app import create_app
from leaderboard.settings import BoardSettings
settings = BoardSettings(directory=Path(sys.argv[2]), database=sys.argv[3], workers=int(sys.argv[5]), lease_s=2,
                         sweep_s=1, attempts=50, requests_per_minute=10**9, writes_per_minute=10**9)
uvicorn.run(create_app(settings, scripted, pages=False), port=int(sys.argv[4]), log_level="error")
"""
WORKER = """
import sys; sys.path.insert(0, sys.argv[1])
from pathlib import Path
from board_helpers import scripted
from leaderboard.settings import BoardSettings
from leaderboard.board import run_worker
settings = BoardSettings(directory=Path(sys.argv[2]), database=sys.argv[3], lease_s=2, sweep_s=1, attempts=50)
run_worker(settings, threads=2, scorer=scripted)
"""


class Process:
    """A program that is started again whenever it was killed."""

    def __init__(self, code: str, *arguments: str) -> None:
        self.command = [sys.executable, "-c", code, str(HERE), *arguments]
        self.kills = 0
        self.start()

    def start(self) -> None:
        quiet = (
            subprocess.DEVNULL if self.kills else None
        )  # what a killed one says while its database is away is no news
        self.running = subprocess.Popen(self.command, stderr=quiet)

    def kill(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.wait()
        self.kills += 1
        self.start()

    def keep(self) -> None:
        """A process that could not start while the database was away starts again."""
        if self.running.poll() is not None:
            self.start()

    def stop(self) -> None:
        self.running.send_signal(signal.SIGKILL)
        self.running.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def upload(connection: httpx.Client, body: bytes, deadline: float) -> int:
    """As a client does: again and again until somebody has answered. The same file is the same submission."""
    while time.monotonic() < deadline:
        try:
            answer = connection.post("/api/v1/contests/cifar/submissions", content=body)
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code in (200, 202):
            return int(answer.json()["submission"]["id"])
        assert answer.status_code == 503, answer.text
        time.sleep(0.1)
    raise AssertionError("nobody took the file")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "sqlite"])
def test_nothing_is_lost_nothing_is_double(tmp_path: Path, kind: str) -> None:
    server = None
    if kind == "postgresql":
        server = PostgresServer()
        server.start()
    try:
        database = server.new_database("kill") if server else ""
        storm(BoardSettings(directory=tmp_path / "board", database=database), server)
    finally:
        if server:
            server.stop()


def storm(settings: BoardSettings, server: PostgresServer | None) -> None:
    clients, each = 20, 10
    board = open_board(settings)
    with board.database.write() as session:
        contest = contests.create(session, "cifar", load_rule("lab"), daily_limit=1000)
        keys = [tokens.create(session, contests.add_team(session, contest, f"Team {i}")) for i in range(clients)]
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    processes = [Process(WEB, str(settings.directory), settings.database, str(port), "0" if server else "2")]
    if server:
        processes += [Process(WORKER, str(settings.directory), settings.database) for _ in range(2)]
    bodies = [
        [content(report={"score": 0.001 * (1 + c * each + i)}, sleep=0.15) for i in range(each)] for c in range(clients)
    ]
    deadline = time.monotonic() + 1500
    over, dice = threading.Event(), random.Random(1)
    kills: Counter[str] = Counter()

    def healthy() -> bool:
        try:
            return httpx.get(f"{base}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill_everything() -> None:
        """Each of the three in turn, again and again, at any moment of the work."""
        victims = ["web", "worker", "database"] if server else ["web"]
        for victim in itertools.cycle(victims):
            while not healthy() and not over.is_set():
                keep()
                over.wait(0.2)
            if over.wait(dice.uniform(0.3, 1.5)):
                return
            if victim == "database" and server:
                server.kill()
                over.wait(0.5)
                server.restart_killed()
            else:
                processes[0 if victim == "web" else dice.randint(1, 2)].kill()
            kills[victim] += 1

    def keep() -> None:
        for process in processes:
            process.keep()

    begun = time.monotonic()
    while not healthy():  # before anything is killed: a program that cannot start at all says so here
        assert all(process.running.poll() is None for process in processes), "a service ended by itself: see above"
        assert time.monotonic() < begun + 120, "the service did not start in two minutes"
        time.sleep(0.2)
    killer = threading.Thread(target=kill_everything)
    killer.start()

    def client(number: int) -> list[int]:
        with httpx.Client(base_url=base, headers=auth(keys[number]), timeout=10, verify=False) as connection:
            return [upload(connection, body, deadline) for body in bodies[number]]

    try:
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            numbers = [number for found in pool.map(client, range(clients)) for number in found]
        while min(kills[victim] for victim in (("web", "worker", "database") if server else ("web",))) < 2:
            assert time.monotonic() < deadline, kills
            time.sleep(0.2)
        over.set()
        killer.join()
        states: dict[str, int] = {}
        while time.monotonic() < deadline:
            keep()
            try:
                with board.database.read() as session:
                    states = contests.count_submissions(session, contests.find(session, "cifar"))
            except DBAPIError:
                states = {}
            if states and set(states) <= set(TERMINAL):
                break
            time.sleep(0.2)
    finally:
        over.set()
        killer.join()
        for process in processes:
            process.stop()
    print(f"kills: {dict(kills)}, states: {states}", file=sys.stderr)
    assert states == {State.RANKED: clients * each}
    assert len(set(numbers)) == len(numbers) == clients * each  # every upload is one submission of its own
    with board.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Submission)) == clients * each
        scored = session.execute(select(Result.submission_id, func.count()).group_by(Result.submission_id)).all()
        assert len(scored) == clients * each and all(count == 1 for _, count in scored)
    assert backup.check(board.database, board.files) == []  # rankings and files are what they should be
    board.close()
