"""Ratios from sensitivities: the same loss from each layer, written out."""

from __future__ import annotations

import pytest

from contest.lab.experiments.layer_sensitivity import equal_loss


def test_two_straight_lines_by_hand() -> None:
    """Losses s and 3 s: at the limit L the layers lose L and L / 3; with 100 and 300 weights, target 0.25: L = 1/2."""
    curves = {"a": [(0.0, 1.0), (1.0, 2.0)], "b": [(0.0, 1.0), (1.0, 4.0)]}
    ratios = equal_loss(curves, {"a": 100, "b": 300}, 0.25)
    assert ratios == pytest.approx({"a": 0.5, "b": 0.5 / 3}, abs=1e-6)


def test_the_target_is_met_and_a_robust_layer_gives_more() -> None:
    curves = {
        "robust": [(0.0, 0.1), (0.5, 0.1), (0.9, 0.12), (0.99, 0.5)],
        "fragile": [(0.0, 0.1), (0.5, 0.4), (0.9, 2.0), (0.99, 2.3)],
    }
    for target in (0.2, 0.5, 0.8, 0.95):
        ratios = equal_loss(curves, {"robust": 900, "fragile": 100}, target)
        assert 0.9 * ratios["robust"] + 0.1 * ratios["fragile"] == pytest.approx(target, abs=1e-6)
        assert ratios["robust"] >= ratios["fragile"]


def test_a_layer_that_gains_by_pruning_counts_as_free() -> None:
    curves = {"odd": [(0.0, 1.0), (0.5, 0.8), (0.9, 1.0)], "plain": [(0.0, 1.0), (0.9, 1.9)]}
    ratios = equal_loss(curves, {"odd": 10, "plain": 10}, 0.45)
    assert ratios["odd"] == pytest.approx(0.9) and ratios["plain"] == pytest.approx(0, abs=1e-6)
