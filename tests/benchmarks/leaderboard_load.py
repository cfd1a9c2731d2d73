"""Load: ranking page and API with 100,000 and 1,000,000 submissions stored.

    python tests/benchmarks/leaderboard_load.py --submissions 100000 1000000 --rate 100 --seconds 15 [--postgres]

Requests arrive at a fixed rate whether or not the earlier ones were answered (open loop), so waiting counts. Client
and server share the machine. Each request asks for another page, filter or order where its line says "varied": such
an answer was not made before. Targets: p95 under 50 ms with 100,000, under 100 ms with 1,000,000 submissions.
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
from collections.abc import Callable
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from leaderboard.settings import BoardSettings
from leaderboard.storage.database import open_database
from leaderboard.storage.tables import Contest

sys.path.insert(0, str(Path(__file__).parents[1] / "leaderboard"))
from bulk import fill
from postgres_server import PostgresServer

PAGE, API = "/contests/load", "/api/v1/contests/load"
ORDERS = ["accuracy", "params", "ops", "team", "time"]
Ask = Callable[[random.Random], str]


def paths(count: int, teams: int) -> dict[str, Ask]:
    """What is asked for of a board of so many submissions and teams."""
    return {
        "page": lambda dice: PAGE,
        "page, team filter, varied": lambda dice: f"{PAGE}?q={dice.randrange(teams)}",
        "page, order and page, varied": lambda dice: f"{PAGE}?sort={dice.choice(ORDERS)}&page={dice.randint(1, 30)}",
        "API": lambda dice: f"{API}/ranking",
        "API, page 10": lambda dice: f"{API}/ranking?page=10",
        "API, page, varied": lambda dice: f"{API}/ranking?page={dice.randint(1, 30)}&size={dice.randint(40, 60)}",
        "API, team filter": lambda dice: f"{API}/ranking?team=17",
        "API, team filter, varied": lambda dice: (
            f"{API}/ranking?team={dice.randrange(teams)}&size={dice.randint(1, 60)}"
        ),
        "API, limits, varied": lambda dice: (
            f"{API}/ranking?max_score={dice.random():.6f}&min_accuracy={dice.uniform(0.9, 0.95):.6f}"
        ),
        "API, order, varied": lambda dice: f"{API}/ranking?sort={dice.choice(ORDERS)}&size={dice.randint(1, 60)}",
        "API, 304": lambda dice: f"{API}/ranking",
        "submissions": lambda dice: f"{API}/submissions",
        "submissions of a team, varied": lambda dice: f"{API}/submissions?team_id={dice.randint(1, teams)}",
        "a submission, varied": lambda dice: f"/api/v1/submissions/{dice.randint(1, count)}",
    }


class Connections:
    """A plain HTTP/1.1 client: an ordinary one would take more of the machine than the server does."""

    def __init__(self, port: int, size: int = 32) -> None:
        self.port = port
        self.free: asyncio.LifoQueue[tuple[asyncio.StreamReader, asyncio.StreamWriter] | None] = asyncio.LifoQueue()
        for _ in range(size):
            self.free.put_nowait(None)

    async def get(self, path: str, headers: str = "") -> int:
        """The status, once the whole answer is here; 0 when the connection broke."""
        connection = await self.free.get()
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = connection
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length: ")[2].partition("\r")[0]
            if length:
                await reader.readexactly(int(length))
            return int(head.split()[1])
        except (OSError, EOFError):
            connection = None
            return 0
        finally:
            self.free.put_nowait(connection)


async def load(port: int, ask: Ask, rate: float, seconds: float, headers: str) -> tuple[list[float], int]:
    """Milliseconds of every request, and how many were not answered with 200 or 304."""
    times: list[float] = []
    faults, dice, client = 0, random.Random(rate * seconds), Connections(port)

    async def one(due: float) -> None:
        nonlocal faults
        faults += await client.get(ask(dice), headers) not in (200, 304)
        times.append(1000 * (time.perf_counter() - due))

    begin, tasks = time.perf_counter(), []
    for i in range(int(rate * seconds)):
        due = begin + i / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return times, faults


def serve(settings: BoardSettings) -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = (
        "import sys, uvicorn; from pathlib import Path; from leaderboard.app import create_app, settle;"
        "from leaderboard.settings import BoardSettings;"
        "settings = BoardSettings(directory=Path(sys.argv[1]), database=sys.argv[2], workers=0,"
        "requests_per_minute=10**9);"
        "app = create_app(settings); settle();"
        "uvicorn.run(app, port=int(sys.argv[3]), log_config=None, access_log=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(settings.directory), settings.database, str(port)])
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            return process, port
        except httpx.TransportError:
            if process.poll() is not None:
                raise SystemExit("the service ended by itself: see above") from None
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
    parser.add_argument("--per-team", type=int, default=50)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--postgres", action="store_true", help="Also on PostgreSQL (a server is started).")
    parser.add_argument("--only-postgres", action="store_true", help="On PostgreSQL alone.")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    table = Table(
        title=f"{arguments.rate:g} requests/s for {arguments.seconds:g} s, client and server on {cores} "
        f"{'core' if cores == 1 else 'cores'}; load before {os.getloadavg()[0]:.1f}"
    )
    for name in ("database", "submissions", "request", "n", "p50 ms", "p95 ms", "p99 ms", "CPU ms", "faults"):
        table.add_column(name, justify="left" if name in ("database", "request") else "right")
    server = PostgresServer() if arguments.postgres or arguments.only_postgres else None
    if server is not None:
        server.start()
    try:
        for kind in [*([] if arguments.only_postgres else ["sqlite"]), *(["postgresql"] if server else [])]:
            for count in arguments.submissions:
                with tempfile.TemporaryDirectory() as folder:
                    database = server.new_database(f"load{count}") if server and kind == "postgresql" else ""
                    measure(BoardSettings(directory=Path(folder), database=database), kind, count, arguments, table)
    finally:
        if server is not None:
            server.stop()
    Console(width=130).print(table)


def measure(settings: BoardSettings, kind: str, count: int, arguments: argparse.Namespace, table: Table) -> None:
    database = open_database(settings)
    begin = time.monotonic()
    fill(database, count, arguments.per_team)
    print(f"{kind}: {count} submissions in {time.monotonic() - begin:.0f} s", file=sys.stderr)
    process, port = serve(settings)

    def add(name: str, times: list[float], before: float, faults: int) -> None:
        figures = [f"{percentile(times, share):.1f}" for share in (0.5, 0.95, 0.99)]
        figures.append(f"{1000 * (cpu_s(process.pid) - before) / len(times):.1f}")
        table.add_row(kind, f"{count:,}", name, str(len(times)), *figures, str(faults))

    try:
        for name, ask in paths(count, max(1, count // arguments.per_team)).items():
            first = httpx.get(f"http://127.0.0.1:{port}{ask(random.Random(0))}")
            headers = f"If-None-Match: {first.headers['etag']}\r\n" if name.endswith("304") else ""
            before = cpu_s(process.pid)
            times, faults = asyncio.run(load(port, ask, arguments.rate, arguments.seconds, headers))
            add(name, times, before, faults)
        before, times = cpu_s(process.pid), []
        for _ in range(10):  # what the first reader after a change pays
            with database.write() as session:
                session.get_one(Contest, 1).revision += 1
            due = time.perf_counter()
            httpx.get(f"http://127.0.0.1:{port}{API}/ranking").raise_for_status()
            times.append(1000 * (time.perf_counter() - due))
        add("API, the first after a change", times, before, 0)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        database.close()


if __name__ == "__main__":
    main()
