"""What a submission may take, how well its run is isolated (weakest first), and folders for the moment of a run."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from contest.errors import UsageError

LEVELS = ("none", "limits", "namespaces", "bubblewrap")
"""none: in the process that asked. limits: a child under resource limits and, where the kernel has it, a filter of
system calls. namespaces: besides, its own users, network, processes and a view of the files it needs, made by us.
bubblewrap: the same made by bubblewrap."""


def at_least(level: str, minimum: str | None) -> bool:
    """Whether a level is as good as `minimum`. UsageError for a name that is no level."""
    for name in (level, minimum or "none"):
        if name not in LEVELS:
            raise UsageError(f"'{name}' is not a level of isolation; the levels are {', '.join(LEVELS)}")
    return LEVELS.index(level) >= LEVELS.index(minimum or "none")


@functools.cache
def bubblewrap() -> str | None:
    """The path of a bubblewrap that works on this machine, or None. Asked once per process."""
    found = shutil.which("bwrap") if sys.platform == "linux" else None
    if found is None:
        return None
    try:
        test = [found, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--proc", "/proc", "true"]
        works = subprocess.run(test, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found if works.returncode == 0 else None


def idle_cores() -> int:
    """Threads for a run that begins now: OMP_NUM_THREADS where it is set, else the cores that nothing else uses.

    Threads wait for each other several hundred times a pass. On two cores that other programs used too, two took ten
    times as long as one and fifteen times the processor time, which is what a submission is judged by.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return min(cores, int(asked))
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return max(1, min(cores, round(cores - busy)))


@dataclass(frozen=True)
class Limits:
    """Limits of one isolated run.

    memory_bytes: address space on top of what the libraries have mapped once they are imported (torch alone maps
    3 GB, of which it touches a tenth). wall_s, cpu_s: seconds, imports included. file_bytes: of a file that it
    writes, and of its /tmp. answer_bytes: what may come back.

    Too much processor time is the file's fault; too much time on the clock without it is the machine's. So wall_s is
    the larger, and a network that never ends meets cpu_s first wherever it gets a whole core.
    """

    memory_bytes: int = 4_000_000_000
    wall_s: float = 1_200.0
    cpu_s: int = 900
    open_files: int = 128
    file_bytes: int = 16_000_000
    answer_bytes: int = 256_000_000
    threads: int = field(default_factory=idle_cores)


if sys.platform != "win32":
    import fcntl

PREFIX = "contest-scratch-"
_NEW_S = 60.0
"""Between a folder's making and its locking a moment passes: younger ones are left alone."""


@contextlib.contextmanager
def scratch_folder(prefix: str = PREFIX, directory: Path | None = None) -> Iterator[Path]:
    """An empty folder that is gone at the end of the block, or soon after its maker's death."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=directory, ignore_cleanup_errors=True) as name:
        place = os.open(name, os.O_RDONLY)
        try:
            if sys.platform != "win32":
                fcntl.flock(place, fcntl.LOCK_EX)
            yield Path(name).resolve()
        finally:
            os.close(place)


def sweep(prefix: str = PREFIX, directory: Path | None = None, *, older_than_s: float = _NEW_S) -> int:
    """Remove what dead processes left; gives how many folders. Others' folders are not touched."""
    removed = 0
    if sys.platform == "win32":
        return removed
    for path in (directory or Path(tempfile.gettempdir())).glob(f"{prefix}*"):
        try:
            found = path.lstat()
            if found.st_uid != os.getuid() or time.time() - found.st_mtime < older_than_s or not path.is_dir():
                continue
            place = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:  # gone meanwhile
            continue
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
        except BlockingIOError:  # its maker lives
            continue
        finally:
            os.close(place)
    return removed
