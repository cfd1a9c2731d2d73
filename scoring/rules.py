"""Rules: versions of the contest. A rule is data, in TOML; `price` applies it to a costs table.

score = params + ops
params = sum of nonzeros * bits / 32 over layers, and of count * bits / 32 over other numbers, / params_reference
ops    = sum of operations * bits / 32 / operations_reference
"""

from __future__ import annotations

import dataclasses
import functools
import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest.errors import UsageError, did_you_mean
from scoring.costs import Costs, Number, Operation

_BUILT_IN = Path(__file__).parent / "rules_data"
DEFAULT = "lab"


@dataclass(frozen=True)
class Rule:
    """One contest. `threshold` is the accuracy (0 to 1) that ranking needs; references are in the units counted."""

    name: str
    dataset: str
    threshold: float
    params_reference: float
    operations_reference: float
    convention: str = "flops"
    """flops: a multiply-accumulate is 2; macs: it is 1; micronet: every operation, see `_micronet`."""
    version: int = 1
    footnote: str = ""
    history: str = ""
    """Since when it holds, and what others take in its place: an organiser should know which rule is his."""
    terms: tuple[tuple[str, float], ...] = ()
    """Further terms of the score, each with its reference: names of `EXTRA_TERMS`."""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is the inverse."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Rule:
        return Rule(**{**data, "terms": tuple((name, reference) for name, reference in data.get("terms", ()))})


@dataclass(frozen=True)
class Score:
    """The terms of a score by name, and their sum, with and without the bitmask of pruned weights."""

    terms: Mapping[str, float]
    total: float
    total_with_bitmask: float

    @property
    def params(self) -> float:
        return self.terms["params"]

    @property
    def ops(self) -> float:
        return self.terms["ops"]

    def to_json(self) -> dict[str, float]:
        """Terms and totals beside each other; `from_json` is the inverse."""
        return {**self.terms, "total": self.total, "total_with_bitmask": self.total_with_bitmask}

    @staticmethod
    def from_json(data: Mapping[str, float]) -> Score:
        totals = ("total", "total_with_bitmask")
        return Score({k: v for k, v in data.items() if k not in totals}, data["total"], data["total_with_bitmask"])


def built_in() -> tuple[str, ...]:
    """Names of the rules that come with the project, the default first."""
    names = sorted(path.stem for path in _BUILT_IN.glob("*.toml"))
    return (DEFAULT, *(name for name in names if name != DEFAULT))


@functools.cache
def load_rule(name: str) -> Rule:
    """A rule by its name or by the path of a TOML file. Raises UsageError, naming the key that is wrong."""
    path = _BUILT_IN / f"{name}.toml"
    if name not in built_in():
        path = Path(name)
        if path.suffix != ".toml" or not path.is_file():
            near = did_you_mean(name, built_in())
            raise UsageError(f"rule '{name}'{near} is neither one of {', '.join(built_in())} nor a .toml file")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path.name} is not TOML: {error}") from error
    return _rule(path.name, data)


def _rule(source: str, data: dict[str, Any]) -> Rule:
    types: dict[str, tuple[type, ...]] = {
        "name": (str,),
        "dataset": (str,),
        "threshold": (int, float),
        "params_reference": (int, float),
        "operations_reference": (int, float),
        "convention": (str,),
        "version": (int,),
        "footnote": (str,),
        "terms": (dict,),
        "history": (str,),
    }
    optional = {"convention", "version", "footnote", "history", "terms"}
    for key in data:
        if key not in types:
            raise UsageError(f"{source}: unknown key '{key}'; a rule has {', '.join(types)}")
    for key, allowed in types.items():
        if key not in data:
            if key in optional:
                continue
            raise UsageError(f"{source}: key '{key}' is missing")
        if not isinstance(data[key], allowed) or isinstance(data[key], bool):
            raise UsageError(f"{source}: '{key}' is {data[key]!r}, which is no {allowed[-1].__name__}")
    for key in ("params_reference", "operations_reference"):
        if not (math.isfinite(data[key]) and data[key] > 0):
            raise UsageError(f"{source}: '{key}' is {data[key]}; it must be above 0")
    if not 0 <= data["threshold"] <= 1:
        raise UsageError(f"{source}: 'threshold' is {data['threshold']}; an accuracy lies between 0 and 1")
    terms = data.get("terms", {})
    for name, reference in terms.items():
        if name not in EXTRA_TERMS:
            raise UsageError(f"{source}: term '{name}' is none of {', '.join(EXTRA_TERMS)}")
        if not isinstance(reference, int | float) or not reference > 0:
            raise UsageError(f"{source}: the reference of term '{name}' is {reference!r}; it must be above 0")
    rule = Rule(**{**data, "terms": tuple(terms.items())})
    if rule.convention not in _CONVENTIONS:
        raise UsageError(f"{source}: convention '{rule.convention}' is none of {', '.join(_CONVENTIONS)}")
    return rule


def rules_of(dataset: str) -> tuple[Rule, ...]:
    """The built-in rules of a data set, the default first."""
    return tuple(rule for name in built_in() if (rule := load_rule(name)).dataset == dataset)


def price(costs: Costs, rule: Rule) -> Score:
    """The score of a costs table under a rule."""
    params = math.fsum(
        [operation_params(op, rule) for op in costs.operations] + [number_params(n, rule) for n in costs.numbers]
    )
    ops = math.fsum(operation_ops(op, rule) for op in costs.operations)
    terms = {"params": params, "ops": ops}
    terms |= {name: EXTRA_TERMS[name](costs) / reference for name, reference in rule.terms}
    total = params + ops + math.fsum(terms[name] for name, _ in rule.terms)
    return Score(terms, total, total + costs.bitmask_bits / 32 / rule.params_reference)


def storage_bytes(costs: Costs) -> float:
    """What the numbers take on disk: nonzero weights at their bits, where each layer's zeros are, other numbers."""
    bits = sum(op.nonzeros * op.weight_bits for op in costs.operations) + sum(n.count * n.bits for n in costs.numbers)
    return (bits + costs.bitmask_bits) / 8


EXTRA_TERMS: dict[str, Callable[[Costs], float]] = {"storage": storage_bytes}
"""What a rule may add to its score besides parameters and operations: name -> amount, before its reference."""


def operation_params(operation: Operation, rule: Rule) -> float:
    """What an operation's weights add to the parameter term."""
    return operation.nonzeros * operation.weight_bits / 32 / rule.params_reference


def number_params(number: Number, rule: Rule) -> float:
    """What other stored numbers add to the parameter term."""
    return number.count * number.bits / 32 / rule.params_reference


def operation_ops(operation: Operation, rule: Rule) -> float:
    """What an operation adds to the operation term."""
    return operation_count(operation, rule) / rule.operations_reference


def operation_count(operation: Operation, rule: Rule) -> float:
    """Operations of 32 bits, as the rule counts them."""
    return _CONVENTIONS[rule.convention](operation)


def _flops(op: Operation) -> float:
    return (2 * op.macs + op.products + op.steps) * op.operation_bits / 32


def _macs(op: Operation) -> float:
    return (op.macs + op.products + op.steps / 2) * op.operation_bits / 32


def _micronet(op: Operation) -> float:
    """Multiplications scaled by bits, additions at full precision.

    An output element of a convolution costs (k*k*C_in * bits / 32 + k*k*C_in - 1) / groups, and 1 for a bias: with
    macs = outputs * k*k*C_in / groups that is macs * bits / 32 + macs - outputs / groups + outputs.
    """
    if op.kind == "batch_norm":
        return 3.0 * op.outputs
    if op.kind in ("scale", "shift"):
        return float(op.outputs)
    if op.kind in ("conv", "conv_transpose", "linear", "matmul"):
        return op.macs * op.operation_bits / 32 + op.macs - op.outputs / op.groups + (op.outputs if op.bias else 0)
    return (op.macs + op.products + op.steps) * op.operation_bits / 32


_CONVENTIONS: dict[str, Callable[[Operation], float]] = {"flops": _flops, "macs": _macs, "micronet": _micronet}
