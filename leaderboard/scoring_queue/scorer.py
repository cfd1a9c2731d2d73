"""Scoring a stranger's file: `scoring.score_file` in its isolated child, on the test images of the rule's data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from contest.errors import DataError
from scoring.report import Report
from scoring.rules import Rule

if TYPE_CHECKING:
    from contest.datasets import Images

Scorer = Callable[[Path, Rule, str], Report]
"""From a file, a rule and the weakest isolation allowed (empty: any) to the report.

RefusedError: the file is to blame; anything else: we are.
"""


def file_scorer(data: Path | None) -> Scorer:
    """The real thing. Images are loaded once and stay in memory (CIFAR-10: 31 MB)."""
    load = functools.cache(functools.partial(_test_images, data))

    def score(path: Path, rule: Rule, isolation: str) -> Report:
        from scoring.score import score_file

        images, classes = load(rule.dataset)
        return score_file(
            path, images=images, rule=rule, trust=False, classes=classes, details=True, minimum_level=isolation or None
        )

    return score


def _test_images(data: Path | None, dataset: str) -> tuple[Images, tuple[str, ...]]:
    from contest.datasets import load  # torch takes seconds to import: only a worker needs it

    loaded = load(dataset, data, download=False)
    if loaded.test is None:
        raise DataError(f"data set '{dataset}' has no test images; give the worker's --data a folder that has them")
    return loaded.test, loaded.classes
