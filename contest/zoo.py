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
under `provenance` how it was made and how good it is. Those in `all_images` learned from the validation images too:
they are for `contest train --all-images`."""
PARENT = PARENTS / "inverted-8m-float.ckpt"
"""The parent that a search begins from by default: the one that the searches of docs/search.md were measured with."""


def teacher_files(given: Iterable[str | Path]) -> list[Path]:
    """The files that --teacher names, `bundled` being the teacher of this package and `none` nobody.

    Raises UsageError for one that is not there.
    """
    found = [TEACHER if str(name) == "bundled" else Path(name) for name in given if str(name) != "none"]
    for path in found:
        if not path.is_file():
            raise UsageError(
                f"--teacher {path}: no such file; give a model.pt, or `bundled` for the one of this package"
            )
    return found


def parent_files(given: Iterable[str | Path] = ("bundled",)) -> list[Path]:
    """The files that --parents names, `bundled` being the float parent of this package that searches were measured
    with, and `none` no file.

    Raises UsageError for one that is not there.
    """
    found: list[Path] = []
    for name in map(str, given):
        found += [PARENT] if name == "bundled" else [] if name == "none" else [Path(name)]
    for path in found:
        if not path.is_file():
            raise UsageError(
                f"--parents {path}: no such file; give checkpoints, `bundled` for the one of this package, or `none`"
            )
    return found
