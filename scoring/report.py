"""The report of a scored network: what the command line prints, `--json` writes and a leaderboard stores.

Plain data: `Report.from_json(report.to_json()) == report`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contest.errors import RefusedError, UsageError
from scoring.costs import Costs, Examination, Operation
from scoring.rules import Rule, Score, number_params, operation_count, operation_ops, operation_params, price

MAX_CHANGED = 5
"""Predictions that another batch size and order may change."""
GAP_LEVEL = 0.01
"""A gap between test set and hold-out with a smaller p-value is flagged."""
LEVEL = 0.95


@dataclass(frozen=True)
class Accuracy:
    """`value` = correct / total, unrounded; low and high: the Wilson 95 % interval; loss in nats, with three digits."""

    value: float
    correct: int
    total: int
    low: float
    high: float
    loss: float | None = None


@dataclass(frozen=True)
class Report:
    """Keys as in the JSON. `status` is rankable, below (the threshold), flagged (see problems) or costs-only."""

    rule: str
    rule_version: int
    dataset: str
    threshold: float
    scores: Mapping[str, Score]
    accuracy: Accuracy | None
    measured: Mapping[str, float | int | None]
    claimed: Mapping[str, float]
    layers: Sequence[Mapping[str, Any]]
    numbers: Sequence[Mapping[str, Any]]
    unknown_operations: Sequence[str]
    file_problems: Sequence[str]
    """What blocks ranking whatever the labels are. Nothing of the accuracy stands here."""
    rankable: bool
    status: str
    accuracy_problem: str | None = None
    """What of the accuracy blocks ranking: none is known, or it is below the threshold."""
    flags: Sequence[str] = ()
    notes: Sequence[str] = ()
    file: Mapping[str, Any] = field(default_factory=dict)
    """name, bytes, sha256 of the scored file; isolation: the level at which it was opened."""
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the file says of its making (seed, recipe, versions): claims, not measured and not believed."""
    details: Mapping[str, Any] | None = None
    holdout: Mapping[str, Any] | None = None
    costs: Mapping[str, Any] = field(default_factory=dict)
    """The costs table (`Costs.to_json`), so that another rule can price it later."""
    predictions: bytes | None = field(default=None, compare=False, repr=False)
    """The class of each image, a byte an image, where there are at most 256. Not in the JSON."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`."""
        data = dataclasses.asdict(self)
        data["scores"] = {name: score.to_json() for name, score in self.scores.items()}
        del data["file_problems"], data["predictions"]
        data["problems"] = self.problems
        for key in ("layers", "numbers", "unknown_operations", "problems", "flags", "notes"):
            data[key] = list(data[key])
        return data

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Report:
        """The inverse of `to_json`. Raises UsageError if keys are missing or unknown."""
        try:
            values = dict(data)
            values["scores"] = {name: Score.from_json(score) for name, score in data["scores"].items()}
            values["accuracy"] = Accuracy(**data["accuracy"]) if data["accuracy"] else None
            problems = tuple(values.pop("problems"))
            if "accuracy_problem" not in data and problems and _short(values["accuracy"], data["threshold"]):
                # Reports of earlier versions: what is said of the accuracy stands last.
                values["accuracy_problem"] = problems[-1]
            blocked = values.get("accuracy_problem") is not None
            values["file_problems"] = problems[:-1] if blocked else problems
            for key in ("layers", "numbers", "unknown_operations", "flags", "notes"):
                values[key] = tuple(data[key])
            return Report(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"not a report of `contest score`: {error}") from error

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that blocks ranking, in words."""
        return (*self.file_problems, *((self.accuracy_problem,) if self.accuracy_problem is not None else ()))

    @property
    def score(self) -> Score:
        """Under the report's own rule."""
        return self.scores[self.rule]


def make_report(
    examination: Examination,
    rule: Rule,
    rules: Sequence[Rule],
    *,
    labels: NDArray[np.int64] | None = None,
    classes: Sequence[str] = (),
    details: bool = False,
    file: Mapping[str, Any] | None = None,
) -> Report:
    """Price an examination under `rules` (the ranking `rule` among them) and judge it.

    labels: of the images that were examined; without them accuracy is None and the network is not rankable.
    """
    costs = examination.costs
    found = _accuracy(examination, labels)
    problems = [*costs.problems, *_run_problems(examination)]
    problems += [f"operation that the contest does not know: {name}" for name in costs.unknown_operations]
    status = "flagged" if problems else "costs-only" if found is None else "rankable"
    shortfall = None
    if found is None:
        shortfall = "no test data: the accuracy is not known"
    elif _short(found, rule.threshold):
        shortfall = (
            f"accuracy {found.value:.4f} ({found.correct:,} of {found.total:,}) is below the threshold of "
            f"{rule.threshold:g}"
        )
        status = "flagged" if problems else "below"
    priced = {r.name: price(costs, r) for r in dict.fromkeys((rule, *rules))}
    return Report(
        rule=rule.name,
        rule_version=rule.version,
        dataset=rule.dataset,
        threshold=rule.threshold,
        scores=priced,
        accuracy=found,
        measured=measure(costs),
        claimed=dict(examination.claims),
        layers=tuple(layer_rows(costs, rule)),
        numbers=tuple({**dataclasses.asdict(n), "params": number_params(n, rule)} for n in costs.numbers),
        unknown_operations=tuple(costs.unknown_operations),
        file_problems=tuple(problems),
        accuracy_problem=shortfall,
        rankable=status == "rankable",
        status=status,
        notes=tuple(costs.notes),
        file=dict(file or {}),
        provenance=dict(examination.provenance),
        details=_details(examination, labels, classes) if details and labels is not None else None,
        costs=costs.to_json(),
        predictions=_bytes(examination) if labels is not None else None,
    )


def with_holdout(report: Report, examination: Examination, labels: NDArray[np.int64]) -> Report:
    """Add the accuracy on a private hold-out, its gap to the test set and whether that is beyond chance."""
    assert examination.logits is not None
    found = accuracy(examination.logits, labels)
    entry: dict[str, Any] = {**dataclasses.asdict(found), "gap": None, "p_value": None}
    flags = list(report.flags)
    if report.accuracy is not None:
        test = report.accuracy
        entry["gap"] = test.value - found.value
        entry["p_value"] = difference_p_value(test.correct, test.total, found.correct, found.total)
        if entry["gap"] > 0 and entry["p_value"] < GAP_LEVEL:
            flags.append(
                f"the hold-out is {100 * entry['gap']:.2f} points below the test set (p = {entry['p_value']:.1e}): "
                "more than chance"
            )
    return dataclasses.replace(report, holdout=entry, flags=tuple(flags))


def measure(costs: Costs) -> dict[str, float | int | None]:
    """The quantities of the formula, measured; p_s and p_u are None without a parent."""
    work = [(op, op.macs + op.products + op.steps) for op in costs.operations]
    total, parent = sum(w for _, w in work), costs.parent
    stored = sum(op.nonzeros * op.weight_bits for op in costs.operations)
    return {
        "p_s_weights": 1 - costs.weights / parent.weights if parent and parent.weights else None,
        "p_s_ops": 1 - costs.macs / parent.macs if parent and parent.macs else None,
        "p_u": (costs.weights - costs.nonzeros) / parent.weights if parent and parent.weights else None,
        "q_w": stored / costs.nonzeros if costs.nonzeros else None,
        "q_a": sum(w * op.activation_bits for op, w in work) / total if total else None,
        "q_ops": sum(w * op.operation_bits for op, w in work) / total if total else None,
        "weights": costs.weights,
        "nonzeros": costs.nonzeros,
        "parameters": costs.parameters,
        "macs": costs.macs,
    }


def layer_rows(costs: Costs, rule: Rule) -> list[dict[str, Any]]:
    """A row for each operation that costs something: its figures, and its terms of the score and their shares.

    `params` includes the numbers (multipliers, shifts, scales) that belong to the operation.
    """
    score = price(costs, rule)
    numbers: dict[str, list[Any]] = {}
    for number in costs.numbers:
        numbers.setdefault(number.layer, []).append(number)
    rows = []
    named = {op.name for op in costs.operations}
    wires = [Operation(name, name) for name in numbers if name not in named]
    for op in (*costs.operations, *wires):
        own = numbers.pop(op.name, [])
        if not (own or op.macs or op.weights or operation_count(op, rule)):
            continue
        params = operation_params(op, rule) + sum(number_params(n, rule) for n in own)
        ops = operation_ops(op, rule)
        rows.append(
            {
                "name": op.name,
                "kind": op.kind,
                "macs": op.macs,
                "products": op.products,
                "steps": op.steps,
                "weights": op.weights,
                "nonzeros": op.nonzeros,
                "weight_bits": op.weight_bits,
                "activation_bits": op.activation_bits,
                "operation_bits": op.operation_bits,
                "numbers": sum(n.count for n in own),
                "shared": op.shared,
                "params": params,
                "ops": ops,
                "params_share": params / score.params if score.params else 0.0,
                "ops_share": ops / score.ops if score.ops else 0.0,
            }
        )
    return rows


def _accuracy(examination: Examination, labels: NDArray[np.int64] | None) -> Accuracy | None:
    if labels is None or examination.logits is None:
        return None
    classes = examination.logits.shape[1]
    if labels.max() >= classes:
        raise RefusedError(f"the network tells {classes} classes apart; the data set has {labels.max() + 1}")
    return accuracy(examination.logits, labels)


def _bytes(examination: Examination) -> bytes | None:
    predictions = examination.predictions
    return None if predictions is None or predictions.max() > 255 else predictions.astype(np.uint8).tobytes()


def _short(found: Accuracy | None, threshold: float) -> bool:
    """Whether an accuracy does not reach the threshold; one that nobody knows does not."""
    return found is None or found.value < threshold


def _run_problems(examination: Examination) -> list[str]:
    problems = []
    if examination.repeatable is False:
        problems.append("two runs over the same images gave different logits; the network is random or keeps a state")
    if examination.reordered is not None and examination.predictions is not None:
        changed = int((examination.reordered != examination.predictions).sum())
        if changed > MAX_CHANGED:
            problems.append(
                f"another batch size and order changed {changed:,} predictions, more than {MAX_CHANGED}: "
                "images must not depend on each other"
            )
    return problems


def _details(examination: Examination, labels: NDArray[np.int64], classes: Sequence[str]) -> Mapping[str, Any]:
    predictions = examination.predictions
    assert predictions is not None and examination.logits is not None
    count = examination.logits.shape[1]
    table = confusion(predictions, labels, count)
    names = list(classes) if len(classes) == count else [str(i) for i in range(count)]
    per_class = [
        {
            "name": name,
            "correct": int(row[i]),
            "total": int(row.sum()),
            "accuracy": float(row[i] / row.sum()) if row.sum() else None,
        }
        for i, (name, row) in enumerate(zip(names, table, strict=True))
    ]
    return {"per_class": per_class, "confusion": table.tolist()}


# Accuracy ------------------------------------------------------------------------------------------------------------


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> Accuracy:
    """Accuracy and mean cross-entropy of logits [N, classes] for labels [N]."""
    correct, total = int((logits.argmax(1) == labels).sum()), len(labels)
    low, high = wilson(correct, total)
    # Three digits: with all of them, logits can be made so that the loss spells out the labels.
    loss = float(f"{cross_entropy(logits, labels):.3g}")
    return Accuracy(correct / total, correct, total, low, high, loss)


def wilson(correct: int, total: int, level: float = LEVEL) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927, JASA 22, p. 209)."""
    if not 0 <= correct <= total or total < 1:
        raise ValueError(f"{correct} correct out of {total}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, spread = correct / total, z * z / total
    middle = (p + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(p * (1 - p) / total + spread / (4 * total))
    return max(0.0, middle - half), min(1.0, middle + half)


def cross_entropy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Mean of -log softmax(logits)[label]."""
    x = logits.astype(np.float64)
    x -= x.max(1, keepdims=True)
    chosen = x[np.arange(len(labels)), labels]
    return float((np.log(np.exp(x).sum(1)) - chosen).mean())


def confusion(predictions: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """[classes, classes]: rows are true classes, columns predictions."""
    table = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(table, (labels, predictions), 1)
    return table


def difference_p_value(correct_a: int, total_a: int, correct_b: int, total_b: int) -> float:
    """Two-sided p-value that two proportions are equal: the pooled two-proportion z-test."""
    pooled = (correct_a + correct_b) / (total_a + total_b)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / total_a + 1 / total_b))
    if spread == 0:
        return 1.0
    z = abs(correct_a / total_a - correct_b / total_b) / spread
    return 2 * (1 - NormalDist().cdf(z))
