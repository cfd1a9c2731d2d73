"""What a study knows about one piece of work: a candidate trained up to a rung, or refused before training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from contest.candidate import Candidate, plain
from contest.networks.options import Value
from search.study.settings import StudySettings

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

Stage = Literal["parent", "child", "long", "explore", "refine"]
"""A float parent, a short or a long tuning of a child; the last two are of studies made before there were parents."""


@dataclass(frozen=True)
class TrialPrice:
    """The score of a candidate under the study's rule, estimated before or measured after training."""

    params: float
    ops: float
    macs: int
    weights: int

    @property
    def total(self) -> float:
        return self.params + self.ops


SIGMAS = 2.0
"""The lower bound of accuracy that must reach the threshold: so many sigma below what validation shows. Of several
networks the luckiest is chosen, so one sigma is missed on the test set in a third of cases (docs/record)."""


@dataclass(frozen=True)
class TrialResult:
    """What a training gave. `curve` holds (fraction of the training done, validation accuracy) by epoch."""

    correct: int
    total: int
    price: TrialPrice
    curve: tuple[tuple[float, float], ...] = ()
    images: int = 0
    """Training images seen by this visit (the currency of a fair comparison)."""
    seconds: float = 0.0
    model: str | None = None
    """The network's file, relative to the study directory; None while the trial is paused at a rung."""
    loss: float | None = None
    """Mean cross-entropy on validation of the network at the end; None while paused, and in older studies."""

    @property
    def accuracy(self) -> float:
        return self.correct / self.total

    def counts_as(self, settings: StudySettings, stage: Stage, forecast: float | None) -> float:
        """The lower bound of a network's accuracy; of a float parent what it promises."""
        if stage == "parent":
            return self.accuracy if forecast is None else forecast
        return self.lower(settings.margin, SIGMAS)

    def lower(self, margin: float | None, z: float = 1.0) -> float:
        """Accuracy less the asked margin (a fraction), or the Wilson lower bound at `z` sigma.

        Wilson, J. Am. Stat. Assoc. 22 (1927); one sigma: the truth lies above with 84 %.
        """
        if margin is not None:
            return self.accuracy - margin
        return wilson_lower(self.accuracy, self.total, z)


def wilson_lower(p: float, n: int, z: float) -> float:
    """Wilson's lower bound, at `z` sigma, of a share of which `p` was seen among `n`."""
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (centre - spread) / (1 + z * z / n)


@dataclass(frozen=True)
class Proposal:
    """A piece of work that is worth its cost, and why."""

    stage: Stage
    values: Mapping[str, Value]
    candidate: Candidate
    rung: int
    why: str
    gain: float = 0.0
    forecast: float | None = None
    """Accuracy on validation that is expected of the network."""
    retries: int = 0
    """Workers that have died over it."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished Optuna trial as this search reads it."""

    number: int
    state: str
    """Optuna's: COMPLETE, PRUNED (refused or hopeless), FAIL, RUNNING, WAITING."""
    key: str
    stage: Stage
    rung: int
    candidate: Candidate
    params: dict[str, Any] = field(default_factory=dict)
    estimate: TrialPrice | None = None
    result: TrialResult | None = None
    reason: str | None = None
    """Why it was skipped, stopped or failed."""
    answered_by: int | None = None
    worker: str | None = None
    forecast: float | None = None
    """Accuracy on validation that was expected of the network before the training."""
    why: str = ""
    """Why it was begun."""

    @cached_property
    def float_key(self) -> str:
        """The identity of the float training that it is, or begins from."""
        return float_key(self.candidate)

    @property
    def left_behind(self) -> bool:
        """Whether its worker died over it."""
        return self.state == "FAIL" and self.reason is None

    @property
    def at_end(self) -> bool:
        """Whether the training has come to its end, not to a rung before it."""
        return self.result is not None and self.result.model is not None

    @property
    def is_network(self) -> bool:
        """Whether it ended with a compressed network that may be handed in."""
        return self.at_end and self.stage != "parent"

    @property
    def price(self) -> TrialPrice | None:
        return self.result.price if self.result else self.estimate

    def row(self) -> dict[str, Any]:
        """Plain data: what it was, what was expected, what came out."""
        candidate, result = self.candidate, self.result
        return {
            "trial": self.number,
            "stage": self.stage,
            "why": self.why,
            "state": self.state,
            "key": self.key,
            "architecture": str(candidate.architecture),
            "weight_bits": candidate.bits.weights,
            "activation_bits": candidate.bits.activations,
            "p_s": candidate.structured,
            "p_u": candidate.unstructured,
            "pruning": candidate.pruning,
            "float_epochs": candidate.train.epochs,
            "tune_epochs": candidate.tune.epochs,
            "tune_learning_rate": candidate.tune.learning_rate,
            "forecast": self.forecast,
            "accuracy": result.accuracy if result else None,
            "score": result.price.total if result else None,
            "images": result.images if result else None,
            "seconds": result.seconds if result else None,
            "model": result.model if result else None,
            "reason": self.reason,
        }


def result_to_json(result: TrialResult) -> str:
    return json.dumps(asdict(result))


def result_from_json(text: str) -> TrialResult:
    data = json.loads(text)
    data["price"] = TrialPrice(**data["price"])
    data["curve"] = tuple((float(x), float(y)) for x, y in data["curve"])
    return TrialResult(**data)


def record_of(trial: FrozenTrial) -> TrialRecord | None:
    """Optuna's trial as a record, or None if it never came as far as naming its candidate."""
    attrs = trial.user_attrs
    work = attrs.get("work") or attrs.get("todo")
    if work is None:
        return None
    estimate = work.get("estimate")
    # A worker may die between writing its result and telling it: then the result does not count.
    told = "result" in attrs and trial.state.name in ("COMPLETE", "PRUNED")
    return TrialRecord(
        number=trial.number,
        state=trial.state.name,
        key=work.get("key") or _key(work["candidate"]),
        stage=work["stage"],
        rung=work["rung"],
        params={**trial.system_attrs.get("fixed_params", {}), **trial.params},
        estimate=TrialPrice(**estimate) if estimate else None,
        result=result_from_json(attrs["result"]) if told else None,
        reason=attrs.get("reason"),
        answered_by=attrs.get("answered_by"),
        worker=work.get("worker"),
        forecast=work.get("forecast"),
        why=work.get("why") or "",
        candidate=Candidate.from_json(work["candidate"]),
    )


def key_of(candidate: Candidate) -> str:
    """The identity of a candidate: equal candidates train to equal networks."""
    return _key(candidate.to_json())


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def float_key(candidate: Candidate) -> str:
    """The identity of a candidate's float training: equal keys train to the same float network."""
    options = sorted(candidate.architecture.options.items())
    parts = (candidate.architecture.family, options, plain(candidate.train), candidate.seed, candidate.start)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


GIVEN = "given"
"""Why a float parent that was brought along is in the queue."""
PARENTS = "parents"
"""Of the given checkpoints, in the study directory: one file each, named by its content."""


def checkpoint_of(directory: Path, candidate: Candidate) -> Path | None:
    """The given checkpoint that stands for the candidate's float training."""
    return directory / PARENTS / f"{candidate.start}.ckpt" if candidate.start else None
