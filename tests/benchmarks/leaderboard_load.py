"""Load: ranking page and API with 100,000 and 1,000,000 submissions stored.

    python tests/benchmarks/leaderboard_load.py --submissions 100000 1000000 --rate 100 --seconds 15 [--postgres]

Requests arrive at a fixed rate whether or not the earlier ones were answered (open loop), so waiting counts. Client
and server share the machine. Targets on 2 idle cores: p95 under 50 ms with 100,000, under 100 ms with 1,000,000.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, text

from leaderboard import contests, standings
from leaderboard.database import Database, open_database
from leaderboard.models import Contest, State, Submission, Team, now
from leaderboard.settings import Settings
from leaderboard.text import name_key
from scoring.rules import load_rule

sys.path.insert(0, str(Path(__file__).parents[1] / "leaderboard"))
from postgres_server import PostgresServer

PER_TEAM = 50
PATHS = {
    "ranking page": "/contests/load",
    "ranking API": "/api/v1/contests/load/ranking",
    "ranking API, page 10": "/api/v1/contests/load/ranking?page=10",
    "ranking API, team filter": "/api/v1/contests/load/ranking?team=17",
    "ranking API, 304": "/api/v1/contests/load/ranking",
    "submissions API": "/api/v1/contests/load/submissions",
}


def fill(database: Database, count: int) -> None:
    """So many submissions of count / 50 teams, as if they had been scored."""
    dice = random.Random(0)
    with database.write() as session:
        contest = contests.create(session, "load", load_rule("lab"), daily_limit=10**6, total_limit=10**6)
        teams = [
            {"contest_id": contest.id, "name": f"Team {i}", "name_key": name_key(f"Team {i}"), "created_at": now(),
             "disqualified_reason": ""}
            for i in range(max(1, count // PER_TEAM))
        ]  # fmt: skip
        session.execute(insert(Team), teams)
    for start in range(0, count, 20_000):
        with database.write() as session:
            session.execute(
                insert(Submission), [row(i, dice, contest) for i in range(start, min(start + 20_000, count))]
            )
    with database.write() as session:
        session.execute(text("ANALYZE"))
        standings.rebuild(session, session.get_one(Contest, contest.id))


def row(i: int, dice: random.Random, contest: Contest) -> dict[str, object]:
    score, accuracy = 10 ** dice.uniform(-2.5, 0), dice.uniform(0.85, 0.95)
    return {
        "contest_id": contest.id, "team_id": i // PER_TEAM + 1, "sha256": f"{dice.getrandbits(256):064x}",
        "size_bytes": 100_000, "file_name": "model.pt", "note": "", "reason": "", "log": "", "our_fault": False,
        "created_at": now() - timedelta(seconds=10**7 - i), "finished_at": now(), "attempts": 1, "claim": "",
        "state": State.RANKED if accuracy >= 0.9 else State.BELOW_THRESHOLD, "disqualified_reason": "",
        "rule_name": "lab", "rule_version": contest.rule_version, "score": score, "params": score / 4,
        "ops": score * 3 / 4, "score_with_bitmask": score * 1.05, "accuracy": accuracy, "isolation": "bubblewrap",
        "accuracy_low": accuracy - 0.005, "accuracy_high": accuracy + 0.005,
        "measured": {"q_w": 4, "q_a": 4.0, "p_u": 0.5, "weights": 100_000, "nonzeros": 50_000, "macs": 10_000_000},
    }  # fmt: skip


async def load(base: str, path: str, rate: float, seconds: float, etag: bool) -> tuple[list[float], int]:
    """Milliseconds of every request, and how many were not answered with 200 or 304."""
    times: list[float] = []
    faults = 0
    limits = httpx.Limits(max_connections=64, keepalive_expiry=2)
    async with httpx.AsyncClient(base_url=base, timeout=30, limits=limits) as client:
        first = await client.get(path)
        if first.status_code == 404:
            return [], 0
        headers = {"If-None-Match": first.headers["etag"]} if etag else {}

        async def one(due: float) -> None:
            nonlocal faults
            try:
                answer = await client.get(path, headers=headers)
                faults += answer.status_code not in (200, 304)
            except httpx.TransportError:
                faults += 1
            times.append(1000 * (time.perf_counter() - due))

        begin, tasks = time.perf_counter(), []
        for i in range(int(rate * seconds)):
            due = begin + i / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.append(asyncio.create_task(one(due)))
        await asyncio.gather(*tasks)
    return times, faults


def serve(settings: Settings) -> tuple[subprocess.Popen[bytes], str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, uvicorn; from pathlib import Path; from leaderboard.app import create_app;"
        "from leaderboard.settings import Settings;"
        "settings = Settings(directory=Path(sys.argv[1]), database=sys.argv[2], workers=0, requests_per_minute=10**9);"
        "uvicorn.run(create_app(settings), port=int(sys.argv[3]), log_config=None, access_log=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(settings.directory), settings.database, str(port)])
    base = f"http://127.0.0.1:{port}"
    while True:
        try:
            httpx.get(f"{base}/healthz")
            return process, base
        except httpx.TransportError:
            time.sleep(0.2)


def cpu_s(pid: int) -> float:
    """CPU seconds of the server so far: says what a request costs, however busy the machine is."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submissions", type=int, nargs="+", default=[100_000])
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--postgres", action="store_true", help="Also on PostgreSQL (a server is started).")
    arguments = parser.parse_args()
    table = Table(
        title=f"{arguments.rate:g} requests/s for {arguments.seconds:g} s; load before {os.getloadavg()[0]:.1f}"
    )
    for name in ("database", "submissions", "request", "n", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "faults"):
        table.add_column(name, justify="left" if name in ("database", "request") else "right")
    server = PostgresServer() if arguments.postgres else None
    if server is not None:
        server.start()
    for kind in ("sqlite", *(["postgresql"] if server else [])):
        for count in arguments.submissions:
            with tempfile.TemporaryDirectory() as folder:
                database = server.new_database(f"load{count}") if server and kind == "postgresql" else ""
                measure(Settings(directory=Path(folder), database=database), kind, count, arguments, table)
    if server is not None:
        server.stop()
    Console(width=120).print(table)


def measure(settings: Settings, kind: str, count: int, arguments: argparse.Namespace, table: Table) -> None:
    database = open_database(settings)
    begin = time.monotonic()
    fill(database, count)
    print(f"{kind}: {count} submissions in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    database.close()
    process, base = serve(settings)
    try:
        for name, path in PATHS.items():
            asyncio.run(load(base, path, 20, 1, etag=False))  # warm up
            before = cpu_s(process.pid)
            times, faults = asyncio.run(load(base, path, arguments.rate, arguments.seconds, etag=name.endswith("304")))
            if times:
                figures = [f"{percentile(times, share):.1f}" for share in (0.5, 0.95, 0.99)]
                figures.append(f"{1000 * (cpu_s(process.pid) - before) / len(times):.1f}")
                table.add_row(kind, f"{count:,}", name, str(len(times)), *figures, str(faults))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


if __name__ == "__main__":
    main()
