"""The end of a study: its finalists as files, each read on the test set once, in validation order."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from contest.files import beside, write_text
from search.policy.ranking import Judge
from search.study.study import Study
from search.study.trial import Record


class Scores(Protocol):
    """Scores a network's file on the test set: what `contest score --json` prints."""

    def __call__(self, model: Path) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Finalist:
    place: int
    """On validation, from 1."""
    record: Record
    model: Path
    report: dict[str, Any]

    @property
    def accuracy(self) -> float | None:
        """On the test set."""
        found = self.report.get("accuracy")
        return None if found is None else float(found["value"])

    def score(self, rule: str) -> dict[str, float]:
        found: dict[str, float] = self.report["scores"][rule]
        return found


def finalists(study: Study, judge: Judge) -> list[Record]:
    """The networks that will be read on the test set, best on validation first; one of each candidate."""
    found: dict[str, Record] = {}
    for record in judge.leaders():
        found.setdefault(record.key, record)
    return list(found.values())[: study.settings.finalists]


def read_finalists(study: Study, judge: Judge, score: Scores) -> list[Finalist]:
    """Copy the finalists under `finalists/` and read each on the test set, unless it has been read before.

    Every read is written to `reads.json` before it is made: a number of reads can be too high, never too low.
    """
    folder = study.directory / "finalists"
    found = []
    for place, record in enumerate(finalists(study, judge), start=1):
        assert record.result is not None and record.result.model is not None
        home = folder / f"{record.key}"
        home.mkdir(parents=True, exist_ok=True)
        model, report = home / "model.pt", home / "report.json"
        if not report.exists():
            with beside(model) as part:
                shutil.copyfile(study.directory / record.result.model, part)
            write_text(home / "candidate.json", record.candidate.to_json() + "\n")
            _note_read(study.directory, record, place)
            write_text(report, json.dumps(score(model), indent=2) + "\n")
        found.append(Finalist(place, record, model, json.loads(report.read_text())))
    return found


def reads(directory: Path) -> list[dict[str, Any]]:
    """Every reading of the test set in the study's life, in order."""
    path = directory / "reads.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def winner(found: list[Finalist], rule: str, threshold: float) -> Finalist | None:
    """The finalist with the lowest score among those that reach the threshold on the test set."""
    enough = [f for f in found if f.accuracy is not None and f.accuracy >= threshold]
    return min(enough, key=lambda f: f.score(rule)["total"], default=None)


def _note_read(directory: Path, record: Record, place: int) -> None:
    path = directory / "reads.json"
    assert record.result is not None
    entry = {
        "trial": record.number,
        "key": record.key,
        "place_on_validation": place,
        "validation_accuracy": record.result.accuracy,
    }
    write_text(path, json.dumps([*reads(directory), entry], indent=2) + "\n")
