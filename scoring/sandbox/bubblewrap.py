"""The command that starts the child in bubblewrap."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from scoring.sandbox.namespaces import SUBMISSION, readable


def command(program: str, child: Sequence[str], scratch: Path) -> list[str]:
    """`child` within bubblewrap: no network, own processes, libraries and submission read-only, a /tmp of its own."""
    arguments = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    # Before everything else, since what is needed may itself lie below /tmp.
    arguments += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
    for path in readable(sys.path):
        if Path(path).is_symlink():
            arguments += ["--symlink", str(Path(path).readlink()), path]
        else:
            arguments += ["--ro-bind", path, path]
    return [*arguments, "--ro-bind", str(scratch), SUBMISSION, "--chdir", "/", "--", *child]
