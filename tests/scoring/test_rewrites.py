"""A generator of honest networks and their rewrites: another way of saying the same costs the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from scoring.rules import load_rule, price
from tests.scoring.helpers import costs
from tests.scoring.rewrites import CHANGED, SAME, Written, pairs

RULES = [load_rule(name) for name in ("lab", "lab-macs")]
LEAST = 0.99
IMAGES = torch.rand(2, 3, 8, 8)
quick = settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
slow = settings(max_examples=5_000, deadline=None, suppress_health_check=list(HealthCheck))


def scores(network: Written) -> list[float]:
    found = costs(network)
    assert found.unknown_operations == ()
    return [price(found, rule).total for rule in RULES]


def check_same(pair: tuple[Written, Written]) -> None:
    plain, other = pair
    torch.testing.assert_close(other(IMAGES), plain(IMAGES), rtol=1e-3, atol=1e-2)
    assert scores(other) == pytest.approx(scores(plain), rel=1e-12)


def check_not_less(pair: tuple[Written, Written]) -> None:
    plain, other = pair
    torch.testing.assert_close(other(IMAGES), plain(IMAGES), rtol=1e-3, atol=1e-2)
    for before, after in zip(scores(plain), scores(other), strict=True):
        assert after >= LEAST * before


@quick
@given(pairs(SAME))
def test_another_way_of_saying_the_same_costs_the_same(pair: tuple[Written, Written]) -> None:
    check_same(pair)


@quick
@given(pairs(CHANGED))
def test_no_rewrite_is_cheaper(pair: tuple[Written, Written]) -> None:
    check_not_less(pair)


@pytest.mark.slow
@slow
@given(pairs(SAME))
def test_many_other_ways_cost_the_same(pair: tuple[Written, Written]) -> None:
    check_same(pair)


@pytest.mark.slow
@slow
@given(pairs(CHANGED))
def test_many_rewrites_are_not_cheaper(pair: tuple[Written, Written]) -> None:
    check_not_less(pair)
