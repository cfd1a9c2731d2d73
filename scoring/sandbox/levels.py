"""How well a run was isolated, weakest first, and what this machine can do."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys

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
