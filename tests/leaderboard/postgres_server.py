"""A PostgreSQL server of our own in a temporary directory, to be killed at will."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

_BIN = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


class PostgresServer:
    """Listens on a Unix socket and on a free port of this machine; trusts everybody."""

    def __init__(self) -> None:
        if _BIN is None:
            pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
        self.directory = Path(tempfile.mkdtemp(prefix="contest-pg-"))
        self.data = self.directory / "data"
        self.user = "postgres"
        if os.geteuid() == 0:
            try:
                owner = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", str(self.data), "-A", "trust", "-U", self.user, "--no-sync")

    @property
    def url(self) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = (
            f"-p {self.port} -k {self.directory} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200"
        )
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.directory / "log"), "-w", "-o", options, "start")

    def kill(self) -> None:
        """kill -9 of the postmaster and all its children."""
        leader = int((self.data / "postmaster.pid").read_text().split()[0])
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(leader)], capture_output=True, text=True, check=False
        ).stdout.split()
        for pid in (leader, *map(int, children)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def restart_killed(self) -> None:
        """As init would; until the last child of the killed server has let go of its shared memory."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return self.start()
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "stop", check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def new_database(self, name: str) -> str:
        """An empty database; its URL."""
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", self.user, name)
        return f"{self.url.removesuffix('postgres')}{name}"

    def _run(self, program: str, *arguments: str, check: bool = True) -> None:
        assert _BIN is not None
        user: dict[str, object] = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        run: Callable[..., subprocess.CompletedProcess[str]] = subprocess.run
        done = run(
            [str(_BIN / program), *arguments],
            cwd=self.directory,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            extra_groups=[] if user else None,
            **user,
        )
        if check and done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr}")
