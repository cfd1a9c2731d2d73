"""One error tree. A message names the thing, the value, the limit and what to do about it.

Exit codes of the command line: 0 scored and rankable (or: done), 1 scored but below the threshold or
flagged, 2 refused file, 3 usage, 4 internal.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable


class ContestError(Exception):
    """Anything that this project raises on purpose."""

    exit_code = 4


class UsageError(ContestError):
    """The caller asked for something that does not exist or does not fit together."""

    exit_code = 3


class DataError(UsageError):
    """A data set is missing, damaged or of the wrong shape."""


class RefusedError(ContestError):
    """A model file is malformed, hostile or not one that the contest accepts."""

    exit_code = 2


class OverrunError(ContestError):
    """A file could not be scored in the time that there was: the machine is overloaded, nobody is to blame."""


class TrainingError(ContestError):
    """A training run cannot go on (NaN loss, an impossible width, out of memory)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'search'?)` for what is nearly one of the known names, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean '{near[0]}'?)" if near else ""


def command(*words: object) -> str:
    """`contest score 'my net.pt'`: a command of ours as a shell takes it, whatever is in the names of files."""
    return shlex.join(["contest", *(str(word) for word in words)])
