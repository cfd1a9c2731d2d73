"""Scoring a stranger's file: `scoring.score_file` in its isolated child, on the test images of the rule's data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contest.errors import DataError
from scoring.rules import Rule

if TYPE_CHECKING:
    from contest.data import Images

Scorer = Callable[[Path, Rule], dict[str, Any]]
"""From a file and a rule to the report's JSON. RefusedError: the file is to blame; anything else: we are."""


def file_scorer(data: Path | None) -> Scorer:
    """The real thing. Images are loaded once and stay in memory (CIFAR-10: 31 MB)."""
    images = functools.cache(functools.partial(_test_images, data))

    def score(path: Path, rule: Rule) -> dict[str, Any]:
        from scoring import score_file  # torch takes seconds to import: only a worker needs it

        report: dict[str, Any] = score_file(path, images=images(rule.dataset), rule=rule, trust=False).to_json()
        return report

    return score


def _test_images(data: Path | None, dataset: str) -> Images:
    from contest.data import load

    test = load(dataset, data, download=False).test
    if test is None:
        raise DataError(f"data set '{dataset}' has no test images; give the worker's --data a folder that has them")
    return test
