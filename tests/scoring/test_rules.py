"""Rules and the worked numbers of the contest's specification, computed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from contest.candidate import Bits
from contest.errors import UsageError
from contest.networks import parse
from scoring.costs import Costs, Number, Operation
from scoring.report import measure
from scoring.rules import Rule, Score, built_in, load_rule, operation_count, price, rules_of
from scoring.score import architecture_costs

LAB, MACS, MICRONET = (load_rule(name) for name in ("lab", "lab-macs", "micronet"))


def reference(bits: int) -> Costs:
    return architecture_costs(parse("resnet18"), Bits(bits, bits), normalise=False)


def test_reference_network_to_the_unit() -> None:
    half = reference(16)
    convolutions = sum(op.macs for op in half.operations if op.kind == "conv")
    assert convolutions == 555_417_600
    assert half.macs - convolutions == 5_120
    assert half.parameters == 11_173_962
    assert (
        sum(op.weights * 16 / 32 for op in half.operations) + sum(n.count * n.bits / 32 for n in half.numbers)
        == 5_586_981
    )
    assert sum(operation_count(op, MICRONET) for op in half.operations if op.kind == "conv") == 832_512_000
    assert sum(operation_count(op, MICRONET) for op in half.operations if op.kind == "batch_norm") == 1_843_200
    assert sum(operation_count(op, MICRONET) for op in half.operations if op.kind == "linear") == 7_680
    assert sum(operation_count(op, MICRONET) for op in half.operations) == 834_362_880
    score = price(half, MICRONET)
    assert (score.params, score.ops, score.total) == (1.0, 1.0, 2.0)


@pytest.mark.parametrize(
    ("bits", "rule", "params", "ops"),
    [(32, LAB, 1.9954, 1.3384), (32, MACS, 1.9954, 1.9837), (16, LAB, 0.9977, 0.6692), (16, MACS, 0.9977, 0.9918)],
)
def test_worked_numbers_of_the_reference(bits: int, rule: Rule, params: float, ops: float) -> None:
    score = price(reference(bits), rule)
    assert score.params == pytest.approx(params, abs=5e-5)
    assert score.ops == pytest.approx(ops, abs=5e-5)


def test_unit_prices() -> None:
    macs = Costs((Operation("a", "conv", macs=1_000_000, operation_bits=1),))
    assert price(macs, LAB).ops == pytest.approx(7.53e-5, abs=5e-8)
    weights = Costs((Operation("a", "conv", weights=10_000, nonzeros=10_000, weight_bits=1),))
    assert price(weights, LAB).params == pytest.approx(5.58e-5, abs=5e-8)
    scales = Costs((), (Number("a", "a", 1000, 32),))
    assert price(scales, LAB).params == pytest.approx(1.79e-4, abs=5e-7)


@pytest.mark.parametrize("weight_bits", [1, 3, 16])
@pytest.mark.parametrize("activation_bits", [2, 8, 32])
@pytest.mark.parametrize("zeros", [0.0, 0.25, 0.75])
def test_sum_over_layers_equals_the_formula(weight_bits: int, activation_bits: int, zeros: float) -> None:
    """[1 - p_u] * q_w / 32 * w / P_ref + max(q_w, q_a) / 32 * f / F_ref for one ratio and one width everywhere."""
    layers = [(400, 70_000), (1_200, 30_000), (64, 64)]
    wide = max(weight_bits, activation_bits)
    table = Costs(
        tuple(
            Operation(
                f"l{i}",
                "conv",
                macs=macs,
                weights=w,
                nonzeros=round(w * (1 - zeros)),
                weight_bits=weight_bits,
                activation_bits=activation_bits,
                operation_bits=wide,
            )
            for i, (w, macs) in enumerate(layers)
        )
    )
    w, macs = sum(w for w, _ in layers), sum(m for _, m in layers)
    score = price(table, LAB)
    assert score.params == pytest.approx((1 - zeros) * weight_bits / 32 * w / 5.6e6)
    assert score.ops == pytest.approx(wide / 32 * 2 * macs / 8.3e8)
    assert score.total == pytest.approx(score.params + score.ops)
    mask = w / 32 / 5.6e6 if zeros else 0.0
    assert score.total_with_bitmask == pytest.approx(score.total + mask)
    assert measure(table)["q_w"] == weight_bits


def test_micronet_by_hand() -> None:
    """3x3 convolution 8 -> 4 in 2 groups with bias on 5x5: each output (72 * 4/32 + 71) / 2 + 1."""
    conv = Operation("c", "conv", macs=4 * 25 * 36, outputs=100, groups=2, bias=True, operation_bits=4)
    assert operation_count(conv, MICRONET) == pytest.approx(100 * ((72 * 4 / 32 + 71) / 2 + 1))
    linear = Operation("l", "linear", macs=64 * 10, outputs=10, operation_bits=8)
    assert operation_count(linear, MICRONET) == pytest.approx(10 * (64 * 8 / 32 + 63))
    assert operation_count(Operation("b", "batch_norm", outputs=50), MICRONET) == 150


def test_element_wise_products_are_one_operation() -> None:
    gate = Operation("g", "multiply", products=1000, operation_bits=8)
    assert operation_count(gate, LAB) == operation_count(gate, MACS) == operation_count(gate, MICRONET) == 250


def test_built_in_rules() -> None:
    assert built_in()[0] == "lab"
    assert {r.name for r in rules_of("cifar10")} == {"lab", "lab-macs", "micronet"}
    challenge = load_rule("micronet-cifar100")
    assert (challenge.params_reference, challenge.operations_reference) == (36.5e6, 10.49e9)
    assert (challenge.threshold, challenge.dataset) == (0.80, "cifar100")


def test_digits_reference_is_resnet8_in_half() -> None:
    costs = architecture_costs(parse("resnet8"), Bits(16, 16), (1, 8, 8), 10, normalise=False)
    score = price(costs, load_rule("digits"))
    assert score.params == pytest.approx(1.0)
    assert score.ops == pytest.approx(1.0)


def test_own_rule(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(
        'name = "mine"\ndataset = "mnist"\nthreshold = 0.98\nparams_reference = 1000\noperations_reference = 1e4\n'
        'convention = "macs"\n'
    )
    rule = load_rule(str(path))
    assert rule.dataset == "mnist"
    assert price(Costs((Operation("a", "conv", macs=10_000),)), rule).ops == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convention": "guess"}, "convention 'guess' is none of"),
        ({"threshold": 90}, "'threshold' is 90; an accuracy lies between 0 and 1"),
        ({"params_reference": 0}, "'params_reference' is 0; it must be above 0"),
        ({"params_reference": "many"}, "'params_reference' is 'many'"),
        ({"colour": 3}, "unknown key 'colour'"),
        ({"dataset": None}, "key 'dataset' is missing"),
    ],
)
def test_wrong_rules_are_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    values: dict[str, object] = {
        k: v for k, v in dataclasses.asdict(LAB).items() if k not in ("footnote", "terms")
    } | change
    path = tmp_path / "my.toml"
    path.write_text("".join(f"{k} = {v!r}\n" for k, v in values.items() if v is not None))
    with pytest.raises(UsageError, match=message):
        load_rule(str(path))


def test_unknown_rule() -> None:
    with pytest.raises(UsageError, match="rule 'nobody' is neither one of lab"):
        load_rule("nobody")


def test_a_rule_may_have_a_third_term(tmp_path: Path) -> None:
    """A rule file and one function: here what the network takes on disk, against a million bytes."""
    path = tmp_path / "third.toml"
    path.write_text(
        'name = "third"\ndataset = "cifar10"\nthreshold = 0.9\nparams_reference = 5.6e6\noperations_reference = 8.3e8\n'
        "[terms]\nstorage = 1e6\n"
    )
    rule = load_rule(str(path))
    operation = Operation("a", "conv", macs=1000, weights=800, nonzeros=400, weight_bits=4, operation_bits=8)
    found = price(Costs((operation,), numbers=(Number("b", "a", 10, 32),)), rule)
    # 400 weights of 4 bits, a bitmask of 800 bits, 10 numbers of 32: 1,600 + 800 + 320 = 2,720 bits = 340 bytes.
    assert found.terms["storage"] == pytest.approx(340 / 1e6)
    assert found.total == pytest.approx(found.params + found.ops + 340 / 1e6)
    assert Score.from_json(found.to_json()) == found and Rule.from_json(rule.to_json()) == rule
    for line, word in (("bytes = 1.0", "none of storage"), ("storage = 0", "above 0")):
        path.write_text(path.read_text().rsplit("\n", 2)[0] + f"\n{line}\n")
        with pytest.raises(UsageError, match=word):
            load_rule.__wrapped__(str(path))
