"""Advice: what changing a layer would gain, against the score of the network so changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scoring.advice import advice
from scoring.rules import load_rule, price
from tests.scoring.helpers import costs

LAB = load_rule("lab")


def network(middle: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, middle, 3, padding=1, bias=False),
        nn.BatchNorm2d(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, groups=middle, bias=False),
        nn.Conv2d(middle, 4, 1),
        nn.Flatten(),
        nn.Linear(144, 10),
    )


def test_fewer_channels_gain_what_the_narrower_network_gains() -> None:
    before, after = costs(network(20)), costs(network(18))
    rows = {row.layer: row for row in advice(before, LAB)}
    expected = price(before, LAB).total - price(after, LAB).total
    assert rows["0"].channels == pytest.approx(expected)
    assert rows["3"].channels == pytest.approx(expected)
    assert rows["0"].coupled == ("3",)
    assert rows["6"].channels == 0.0  # the logits


def test_zeros_and_bits() -> None:
    found = costs(network(20))
    rows = {row.layer: row for row in advice(found, LAB)}
    assert rows["6"].zeros == pytest.approx(144 / 5.6e6)
    # 16 bits instead of 32: half of its weights and of its operations.
    assert rows["6"].bits == pytest.approx((1440 / 5.6e6 + 2 * 1440 / 8.3e8) / 2)
    # The image keeps its 8 bits, the weights go to 16: operations are halved.
    assert rows["0"].bits == pytest.approx((540 / 5.6e6 + 2 * 540 * 64 / 8.3e8) / 2)


def test_largest_gain_comes_first() -> None:
    gains = [row.best for row in advice(costs(network(20)), LAB)]
    assert gains == sorted(gains, reverse=True)
    assert min(gains) > 0
