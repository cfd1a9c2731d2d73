"""What a study thinks of its candidates: who leads, who has reached the threshold, and in what order they stand."""

from __future__ import annotations

import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contest.errors import ContestError
from contest.files import beside, write_text
from search.study.settings import StudySettings
from search.study.study import Study
from search.study.trial import TrialRecord, checkpoint_of

log = logging.getLogger("search")


MAY_REACH = 0.25
"""A finalist whose lower bound misses the threshold is read where it reaches it on the test set with this chance."""


class Judge:
    """Opinions on candidates from what the study has finished so far.

    Args:
        settings: the study's.
        records: everything in the study.
        classes: of the data set; 1 / classes is guessing.
    """

    def __init__(self, settings: StudySettings, records: Sequence[TrialRecord], classes: int) -> None:
        self.settings = settings
        self.chance = 1 / classes
        self.records = [r for r in records if r.result is not None and r.answered_by is None]

    @classmethod
    def of(cls, study: Study) -> Judge:
        """Of a study that is only read: the number of classes matters to forecasts alone."""
        return cls(study.settings, study.records(), 10)

    @property
    def networks(self) -> list[TrialRecord]:
        """The records that ended with a network that may be handed in."""
        return [r for r in self.records if r.is_network]

    def predicted(self, record: TrialRecord) -> float:
        """What `record` counts as: the lower bound of a network's accuracy; of a float parent what it promises."""
        assert record.result is not None
        return record.result.counts_as(self.settings, record.stage, record.forecast)

    def allowance(self, total: int) -> float:
        """What validation shows too much of a network that was chosen by it: the margin that was asked for, else one
        sigma of `total` images at the threshold, since the luckiest of several is looked at."""
        threshold = self.settings.threshold
        if self.settings.margin is not None:
            return self.settings.margin
        return math.sqrt(max(threshold * (1 - threshold), 1e-6) / total)

    def chance_on_test(self, record: TrialRecord) -> float:
        """That the network reaches the threshold on as many other images: what validation shows less the allowance,
        with both samples' chance."""
        assert record.result is not None
        p, total = record.result.accuracy, record.result.total
        sigma = math.sqrt(max(p * (1 - p), 1e-6) / total)
        return 0.5 * (1 + math.erf((p - self.allowance(total) - self.settings.threshold) / (2 * sigma)))

    def outcomes(self) -> list[tuple[float, float]]:
        """(score, probability) of what the study would hand in now, cheapest first: the finalists are read, and the
        cheapest that reaches the threshold wins. What is missing to 1 is the chance that none does."""
        found, missing = [], 1.0
        read = [(r.result.price.total, self.chance_on_test(r)) for r in finalists(self) if r.result]
        for score, chance in sorted(read):
            found.append((score, missing * chance))
            missing *= 1 - chance
        return found

    def feasible(self, record: TrialRecord) -> bool:
        return self.settings.violation(self.predicted(record)) <= 0

    def rank(self, record: TrialRecord) -> tuple[float, ...]:
        """The smaller, the better: what the objective asks for, with accuracy that is missing before all."""
        assert record.result is not None
        predicted, total = self.predicted(record), record.result.price.total
        if self.settings.objective == "constrained":
            missing = max(0.0, self.settings.violation(predicted))
            return (missing, total)
        if self.settings.objective == "target":
            assert self.settings.target_score is not None
            return max(0.0, total - self.settings.target_score), -predicted
        return float(self._dominators(record, predicted, total)), total

    def ranked(self, records: Sequence[TrialRecord]) -> list[TrialRecord]:
        return sorted(records, key=self.rank)

    def leaders(self) -> list[TrialRecord]:
        """Every network, best first."""
        return list(self._leaders)

    @cached_property
    def _leaders(self) -> list[TrialRecord]:
        return self.ranked([r for r in self.networks if r.state == "COMPLETE"])

    def reached(self, record: TrialRecord) -> bool:
        """Whether a network that exists has reached the threshold."""
        return record.is_network and self.feasible(record)

    def confirmed(self) -> TrialRecord | None:
        """The incumbent: the best network that has reached the threshold."""
        return next((r for r in self._leaders if self.reached(r)), None)

    def best(self) -> TrialRecord | None:
        """The best network so far, or the most promising parent while there is none."""
        parents = [r for r in self.records if r.stage == "parent"]
        return next(iter(self._leaders), None) or min(parents, key=self.rank, default=None)

    def limit(self) -> float | None:
        """A score that a new network must stay below to be worth training; None while every score is."""
        if self.settings.objective == "target":
            return self.settings.target_score
        incumbent = self.confirmed() if self.settings.objective == "constrained" else None
        return incumbent.result.price.total if incumbent is not None and incumbent.result is not None else None

    def _dominators(self, record: TrialRecord, predicted: float, total: float) -> int:
        """How many other networks are better in both; the front has none."""
        totals, accuracies = self._plane
        return int(np.count_nonzero((totals <= total) & (accuracies > predicted)))

    @cached_property
    def _plane(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        networks = self.networks
        totals = [r.result.price.total for r in networks if r.result]
        return np.array(totals), np.array([self.predicted(r) for r in networks])


class Scores(Protocol):
    """Scores a network's file on the test set: what `contest score --json` prints."""

    def __call__(self, model: Path) -> dict[str, Any]: ...


class Converts(Protocol):
    """Writes a network's file as ONNX that scores exactly as it does. Raises ContestError where it cannot."""

    def __call__(self, model: Path, out: Path, /) -> object: ...


@dataclass(frozen=True)
class Finalist:
    place: int
    """On validation, from 1."""
    record: TrialRecord
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


def finalists(judge: Judge) -> list[TrialRecord]:
    """The networks that will be read on the test set, best on validation first; one of each candidate.

    The best, then the cheaper ones that may reach the threshold there too although their lower bound does not, by their
    saving and their chance; then whoever follows.
    """
    found: dict[str, TrialRecord] = {}
    for record in judge.leaders():
        found.setdefault(record.key, record)
    ranked, count = list(found.values()), judge.settings.finalists
    if not ranked or judge.settings.objective != "constrained":
        return ranked[:count]
    best = ranked[0].result
    assert best is not None

    def gain(record: TrialRecord) -> float:
        assert record.result is not None
        saving = math.log(best.price.total / max(record.result.price.total, 1e-12))
        chance = judge.chance_on_test(record)
        return saving * chance if chance >= MAY_REACH else 0.0

    risky = sorted((r for r in ranked[1:] if gain(r) > 0), key=gain, reverse=True)[: count - 1]
    others = [r for r in ranked[1:] if r not in risky]
    chosen = [ranked[0], *risky, *others][:count]
    return [record for record in ranked if record in chosen]


def read_finalists(
    study: Study, judge: Judge, score: Scores, convert: Converts | None = None, *, until: float | None = None
) -> list[Finalist]:
    """Copy the finalists under `finalists/` and read each on the test set, unless it has been read before; `convert`
    puts each there as an ONNX file too.

    `until`: a time (Unix) after which none but the best is read, nor begun where the last one took longer than is left,
    and nothing is converted.
    Every read is written to `reads.json` before it is made: a number of reads can be too high, never too low.
    """
    folder = study.directory / "finalists"
    found, took = list[Finalist](), 0.0
    for place, record in enumerate(finalists(judge), start=1):
        assert record.result is not None and record.result.model is not None
        home = folder / f"{record.key}"
        model, report, other = home / "model.pt", home / "report.json", home / "model.onnx"
        if not report.exists():
            begun = time.time()
            if found and until is not None and begun + took > until:
                break
            home.mkdir(parents=True, exist_ok=True)
            with beside(model) as part:
                shutil.copyfile(study.directory / record.result.model, part)
            write_text(home / "candidate.json", record.candidate.to_json() + "\n")
            parent = checkpoint_of(study.directory, record.candidate)
            if parent is not None:  # or `contest train candidate.json` would not know where to begin
                with beside(home / "parent.ckpt") as part:
                    shutil.copyfile(parent, part)
            _note_read(study.directory, record, place)
            write_text(report, json.dumps(score(model), indent=2) + "\n")
            took = time.time() - begun
        if convert is not None and not other.exists() and (until is None or time.time() < until):
            try:
                convert(model, other)
            except ContestError as error:  # the network stays what it is
                log.warning("finalists/%s has no ONNX file: %s", record.key, error)
        found.append(Finalist(place, record, model, json.loads(report.read_text())))
    return found


def reads(directory: Path) -> list[dict[str, Any]]:
    """Every reading of the test set in the study's life, in order."""
    path = directory / "reads.json"
    return list(json.loads(path.read_text())) if path.exists() else []


def winner(found: list[Finalist], settings: StudySettings) -> Finalist | None:
    """The finalist with the lowest score among those that reach the threshold on the test set; where a score must not
    be passed, the best on validation among those that cost no more."""
    rule = settings.rule_name
    if settings.objective == "target":
        assert settings.target_score is not None
        cheap = [f for f in found if f.score(rule)["total"] <= settings.target_score]
        return min(cheap, key=lambda f: f.place, default=None)
    enough = [f for f in found if f.accuracy is not None and f.accuracy >= settings.threshold]
    return min(enough, key=lambda f: f.score(rule)["total"], default=None)


def _note_read(directory: Path, record: TrialRecord, place: int) -> None:
    path = directory / "reads.json"
    assert record.result is not None
    entry = {
        "trial": record.number,
        "key": record.key,
        "place_on_validation": place,
        "validation_accuracy": record.result.accuracy,
    }
    write_text(path, json.dumps([*reads(directory), entry], indent=2) + "\n")


@dataclass(frozen=True)
class StageCost:
    """What a stage cost and gained."""

    name: str
    seconds: float
    images: int
    trials: int
    best_score: float | None
    """Of the best network after the stage, with its accuracy on validation."""
    best_accuracy: float | None
    feasible: bool


def stage_costs(judge: Judge) -> list[StageCost]:
    """Costs of the kinds of training, in the order in which a budget is spent."""
    records = sorted(judge.records, key=lambda r: r.number)
    first = next((r.number for r in records if r.is_network), None)
    kinds: Sequence[tuple[str, Callable[[TrialRecord], bool]]] = (
        ("first network", lambda r: first is None or r.number <= first),
        ("settings compared", lambda r: r.stage in ("child", "explore")),
        ("long tunings", lambda r: r.stage in ("long", "refine")),
        ("further parents", lambda r: r.stage == "parent"),
    )
    found, seen = [], set[int]()
    for name, belongs in kinds:
        mine = [r for r in records if r.number not in seen and belongs(r)]
        seen |= {r.number for r in mine}
        if mine:
            best = Judge(judge.settings, [r for r in records if r.number in seen], round(1 / judge.chance)).best()
            found.append(_stage_cost(name, mine, best, judge))
    return found


def _stage_cost(name: str, mine: Sequence[TrialRecord], best: TrialRecord | None, judge: Judge) -> StageCost:
    return StageCost(
        name=name,
        seconds=round(sum(r.result.seconds for r in mine if r.result), 1),
        images=sum(r.result.images for r in mine if r.result),
        trials=len(mine),
        best_score=best.result.price.total if best and best.result else None,
        best_accuracy=best.result.accuracy if best and best.result else None,
        feasible=best is not None and judge.feasible(best),
    )


@dataclass(frozen=True)
class SearchOutcome:
    """What a search ends with; None: no finalist reaches the threshold on the test set."""

    finalists: list[Finalist]
    winner: Finalist | None
    stages: list[StageCost] = field(default_factory=list)


def load_stages(directory: Path) -> list[StageCost]:
    path = directory / "stages.json"
    return [StageCost(**stage) for stage in json.loads(path.read_text())] if path.exists() else []


def save_stages(directory: Path, stages: list[StageCost]) -> None:
    write_text(directory / "stages.json", json.dumps([asdict(s) for s in stages], indent=2) + "\n")
