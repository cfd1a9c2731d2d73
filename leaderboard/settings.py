"""What an organiser can set. One frozen object, made from the command line or the environment."""

from __future__ import annotations

import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path

from contest.errors import UsageError

MEBIBYTE = 1024 * 1024


def default_directory() -> Path:
    """`CONTEST_LEADERBOARD`, else the user's data directory (XDG), so that all commands find the same board."""
    if configured := os.environ.get("CONTEST_LEADERBOARD"):
        return Path(configured)
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "contest" / "leaderboard"


@dataclass(frozen=True)
class BoardSettings:
    """Directories, limits and times of one deployment. Sizes in bytes, times in seconds."""

    directory: Path = field(default_factory=default_directory)
    """Holds the SQLite database, the queue, the submitted files and the deployment's secret."""
    database: str = ""
    """SQLAlchemy URL; empty is SQLite in the directory."""
    data: Path | None = None
    """The data sets (`CONTEST_DATA`); only the worker reads it."""
    workers: int = 1
    """Scoring threads inside `contest serve`; 0 leaves scoring to `contest leaderboard-worker`."""
    max_upload_bytes: int = 64 * MEBIBYTE
    """Upper limit of every contest's own limit."""
    upload_idle_s: float = 20.0
    """Longest silence while a body arrives."""
    upload_total_s: float = 600.0
    """Longest time for a whole body."""
    requests_per_minute: int = 600
    """Reads by one token, or by one address of those without."""
    writes_per_minute: int = 60
    """Uploads and other changes by one token, or by one address of those without."""
    lease_s: float = 60.0
    """A claimed submission whose worker is silent for so long goes back to the queue."""
    attempts: int = 3
    """A submission that took so many workers down with it has failed."""
    sweep_s: int = 5
    """How often lost work is looked for."""
    secure_cookies: bool = False
    """Cookies over HTTPS only: set it wherever the service is behind TLS."""
    trusted_proxies: str = "127.0.0.1"
    """Addresses whose X-Forwarded-For is believed (as uvicorn's --forwarded-allow-ips)."""
    metrics: bool = True
    """Whether there is /metrics at all."""
    metrics_token: str = ""
    """Asked for as a bearer token by /metrics when set."""
    language: str = ""
    """Of the pages, `en` or `fr`; empty: what each reader's browser asks for."""
    prefix: str = ""
    """The path below which a proxy shows the service, `/contest`; empty: it has a host of its own."""
    hosts: tuple[str, ...] = ()
    """Names by which the service may be asked for (the Host header); () is any. This machine's own always work."""

    def __post_init__(self) -> None:
        for name in ("max_upload_bytes", "requests_per_minute", "writes_per_minute", "attempts", "sweep_s"):
            if getattr(self, name) < 1:
                raise UsageError(f"setting '{name}' is {getattr(self, name)}; it must be at least 1")
        if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)*", self.prefix):
            raise UsageError(f"setting 'prefix' is '{self.prefix}'; it must be a path such as /contest, or empty")
        if self.lease_s < 3 * 0.1:
            raise UsageError(f"setting 'lease_s' is {self.lease_s}; it must be at least 0.3 seconds")

    @property
    def database_url(self) -> str:
        """With PostgreSQL always through psycopg 3, whatever spelling was given."""
        if not self.database:
            return f"sqlite:///{self.directory / 'leaderboard.sqlite'}"
        scheme, separator, rest = self.database.partition("://")
        if scheme in ("postgres", "postgresql"):
            return f"postgresql+psycopg{separator}{rest}"
        return self.database

    @property
    def files(self) -> Path:
        """Where submitted files lie, by their hash."""
        return self.directory / "files"

    @property
    def worker_name(self) -> str:
        """For logs and leases: host and process."""
        return f"{socket.gethostname()}:{os.getpid()}"
