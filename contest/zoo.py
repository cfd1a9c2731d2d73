"""The trained networks that come with the package: entries of the leaderboard, the teacher, float parents."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from contest.errors import UsageError

DIRECTORY = Path(__file__).parents[1] / "leaderboard" / "bundled"
"""The entries, each with its report beside it."""
TEACHER = DIRECTORY / "teachers" / "fast-teacher.pt"
"""Learned from the training images of split 0 of CIFAR-10 alone; its manifest says how, and how good it is."""
PARENTS = DIRECTORY / "parents"
"""Checkpoints of float networks to start a compression from (`contest train --start`), of the same images; each says
under `provenance` how it was made and how good it is."""


def teacher_files(given: Iterable[str | Path]) -> list[Path]:
    """The files that --teacher names, `bundled` being the teacher of this package.

    Raises UsageError for one that is not there.
    """
    found = [TEACHER if str(name) == "bundled" else Path(name) for name in given]
    for path in found:
        if not path.is_file():
            raise UsageError(
                f"--teacher {path}: no such file; give a model.pt, or `bundled` for the one of this package"
            )
    return found


def parent_files() -> list[Path]:
    """The bundled float parents."""
    return sorted(PARENTS.glob("*.ckpt"))
