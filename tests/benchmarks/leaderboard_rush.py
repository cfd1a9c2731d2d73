"""The last ten minutes: many teams hand in at once, and every file must end scored.

    python tests/benchmarks/leaderboard_rush.py [--teams 90] [--workers 2] [--postgres] --model FILE

`contest serve` without scoring threads and `--workers` processes of `contest leaderboard-worker` run as they would; the
teams are threads that hand in over HTTP: the same network, each with a remark of its own in its provenance, which is
scored for real. The last lines say how long uploads took, when the queue was empty, and whether anything was lost.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from contest.datasets import load
from contest.model_file.file import read_manifest
from leaderboard.board import open_board
from leaderboard.domain import contests, tokens
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import SCORED, TERMINAL, State, Submission
from scoring.rules import load_rule

sys.path.insert(0, str(Path(__file__).parents[1] / "leaderboard"))
WAITING = (State.QUEUED, State.RUNNING)


def variants(model: Path, count: int, folder: Path) -> list[bytes]:
    """The same network `count` times, each with another remark in its provenance: other bytes, the same costs."""
    from contest.model_file import load as load_model
    from contest.model_file import save

    network, found = load_model(model), []
    for i in range(count):
        network.manifest = network.manifest.model_copy(update={"provenance": {"copy": str(i)}})
        save(network, folder / "copy.pt")
        found.append((folder / "copy.pt").read_bytes())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teams", type=int, default=90)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--postgres", action="store_true", help="A PostgreSQL of its own instead of SQLite.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--rule", default="lab")
    parser.add_argument("--limit-min", type=float, default=75.0)
    given = parser.parse_args()
    server = None
    if given.postgres:
        from postgres_server import PostgresServer

        server = PostgresServer()
        server.start()
    with tempfile.TemporaryDirectory() as name:
        try:
            rush(given, Path(name), server.new_database("rush") if server else "")
        finally:
            if server is not None:
                server.stop()


def rush(given: argparse.Namespace, folder: Path, database: str) -> None:
    rule = load_rule(given.rule)
    load(rule.dataset)  # a missing data set is said here and not by every worker
    print(
        f"{given.model.name} ({read_manifest(given.model).architecture.family}), {given.teams} teams, "
        f"{given.workers} workers, {'PostgreSQL' if database else 'SQLite'}"
    )
    settings = BoardSettings(directory=folder / "board", database=database)
    board = open_board(settings)
    with board.database.write() as session:
        contest = contests.create(session, "rush", rule)
        handed = [tokens.create(session, contests.add_team(session, contest, f"Team {i}")) for i in range(given.teams)]
    files = variants(given.model, given.teams, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ["--directory", str(settings.directory), *(["--database", database] if database else [])]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [["serve", "--port", str(port), "--workers", "0", *place]]
    commands += [["leaderboard-worker", *place] for _ in range(given.workers)]
    running = [
        subprocess.Popen([sys.executable, "-m", "contest", *c], env=environment, stderr=subprocess.DEVNULL)
        for c in commands
    ]
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for_service(url)
        times, answers = [0.0] * given.teams, [0] * given.teams
        gate = threading.Barrier(given.teams)

        def hand_in(i: int) -> None:
            gate.wait()
            begun = time.monotonic()
            headers = {"Authorization": f"Bearer {handed[i]}"}
            answer = httpx.post(
                f"{url}/api/v1/contests/rush/submissions?name=model.pt", content=files[i], headers=headers, timeout=600
            )
            times[i], answers[i] = time.monotonic() - begun, answer.status_code

        begun = time.monotonic()
        threads = [threading.Thread(target=hand_in, args=(i,)) for i in range(given.teams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(
            f"uploads: {sum(a == 202 for a in answers)} of {given.teams} taken, "
            f"median {statistics.median(times):.2f} s, slowest {max(times):.2f} s"
        )
        refused = sorted({a for a in answers if a != 202})
        if refused:
            raise SystemExit(f"uploads were answered {refused}: none may be, so the queue is not waited for")
        while time.monotonic() - begun < 60 * given.limit_min:
            with board.database.read() as session:
                states = [state for (state,) in session.query(Submission.state)]
            if len(states) == given.teams and all(state in TERMINAL for state in states):
                break
            time.sleep(2)
        spent = time.monotonic() - begun
        counts = {state: states.count(state) for state in sorted(set(states))}
        scored, waiting = (sum(states.count(state) for state in kind) for kind in (SCORED, WAITING))
        told = f"{waiting} still wait" if waiting else "queue empty"
        print(f"{told} after {spent / 60:.1f} min: {counts}")
        print(f"lost: {given.teams - scored - waiting}; 90 teams at this pace: {1.5 * spent / max(scored, 1):.1f} min")
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(60)
        board.close()


def wait_for_service(url: str) -> None:
    for _ in range(600):
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit("the service did not start")


if __name__ == "__main__":
    main()
