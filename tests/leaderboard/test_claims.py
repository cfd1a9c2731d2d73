"""Why a team's number differs: for each known mistake the figure that it makes, worked out by hand."""

from __future__ import annotations

import pytest
from board_helpers import make_report

from leaderboard.domain.claims import Own, explain
from scoring.rules import load_rule

LAB, MACS = load_rule("lab"), load_rule("lab-macs")
# 100,000 weights, 40,000 of them nonzero at 4 bits, 10 M multiply-accumulates at 4 bits; 2,000 other numbers.
WEIGHTS = 40_000 * 4 / 32 / 5.6e6
OPS = 2 * 10e6 * 4 / 32 / 8.3e8
NUMBERS = 2_000 / 5.6e6
TERMS = {"params": WEIGHTS + NUMBERS, "ops": OPS, "total": WEIGHTS + NUMBERS + OPS, "total_with_bitmask": 1.0}
MEASURED = {
    "weights": 100_000,
    "nonzeros": 40_000,
    "q_w": 4.0,
    "q_a": 4.0,
    "q_ops": 4.0,
    "macs": 10_000_000,
    "p_s_weights": 0.3,
    "p_s_ops": 0.3,
    "p_u": 0.42,
}
MICRONET = {**TERMS, "total": 0.0123}
REPORT = make_report(scores={"lab": TERMS, "micronet": MICRONET}, measured=MEASURED)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("operations doubled", WEIGHTS + NUMBERS + OPS / 2),
        ("zeros taken off operations", WEIGHTS + NUMBERS + 0.4 * OPS),
        ("p_s applied twice", 0.7 * (WEIGHTS + NUMBERS + OPS)),
        ("MicroNet's reference", 0.0123),
        ("weights alone", WEIGHTS + OPS),
    ],
)
def test_each_cause_is_named_by_its_figure(name: str, score: float) -> None:
    first = explain(REPORT, LAB, Own(score=score))[0]
    assert (first.name, first.explains) == (name, True)
    assert first.score == pytest.approx(score)


def test_bits_that_only_the_training_had() -> None:
    """The same network in a float file: 32 bits, of which the team claims 4; or signs that were meant."""
    wide = {**TERMS, "params": 8 * (WEIGHTS + NUMBERS), "ops": 8 * OPS, "total": 8 * TERMS["total"]}
    report = make_report(scores={"lab": wide}, measured={**MEASURED, "q_w": 32.0, "q_a": 32.0, "q_ops": 32.0})
    first = explain(report, LAB, Own(score=TERMS["total"], q_w=4, q_a=4))[0]
    assert (first.name, first.explains) == ("bits claimed for a float file", True)
    first = explain(report, LAB, Own(score=8 * (WEIGHTS + NUMBERS) / 32 + 8 * OPS))[0]
    assert (first.name, first.explains) == ("latent weights", True)


def test_zeros_that_grew_back() -> None:
    """Seen: 0.098 before distilling, 0.111 after it."""
    earlier = make_report(scores={"lab": TERMS}, measured={**MEASURED, "nonzeros": 20_000})
    first = explain(REPORT, LAB, Own(score=(WEIGHTS + NUMBERS) / 2 + OPS), earlier)[0]
    assert (first.name, first.explains) == ("zeros that grew back", True)
    assert all(cause.name != "zeros that grew back" for cause in explain(earlier, LAB, Own(score=1.0), REPORT))


def test_the_formula_of_the_text() -> None:
    """(1 - 0.3 - 0.42) * 142,857 weights * 4/32 + 0.7 * 28.57 M operations * 4/32: the network above, by its parent."""
    own = Own(p_s=0.3, p_u=0.42, q_w=4, q_a=4, weights=1e5 / 0.7, operations=2e7 / 0.7)
    assert own.total(LAB) == pytest.approx(WEIGHTS + OPS)
    assert explain(REPORT, LAB, own)[0].name == "weights alone"
    assert Own().total(LAB) is None
    assert not any(cause.explains for cause in explain(REPORT, LAB, Own(score=7.0)))


def test_a_third_term_belongs_to_every_figure() -> None:
    """What the rule adds is the same in the team's figure and in each cause's."""
    report = make_report(scores={"lab": {**TERMS, "storage": 0.5, "total": TERMS["total"] + 0.5}}, measured=MEASURED)
    first = explain(report, LAB, Own(score=WEIGHTS + NUMBERS + OPS / 2 + 0.5))[0]
    assert (first.name, first.score) == ("operations doubled", pytest.approx(WEIGHTS + NUMBERS + OPS / 2 + 0.5))
    assert first.explains
    own = Own(p_s=0.3, p_u=0.42, q_w=4, q_a=4, weights=1e5 / 0.7, operations=2e7 / 0.7)
    assert own.total(LAB, {"storage": 0.5}) == pytest.approx(WEIGHTS + OPS + 0.5)
