"""Quantised networks: which layers, which bits, and that they stay Brevitas's."""

from __future__ import annotations

import pytest
import torch
from brevitas.nn import QuantConv2d
from torch import nn

from contest.candidate import Bits
from contest.errors import UsageError
from contest.quantisation import calibrate, quantise, quantised_layers, set_masks
from contest.quantisation.layers import activation_quantiser, layer_bits, weight_quantiser


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()


def test_signs_are_read_off_the_data_and_the_image_needs_no_quantiser() -> None:
    model = quantise(network(), Bits(3, 4), torch.rand(16, 3, 8, 8))
    assert list(quantised_layers(model)) == ["0", "3", "5", "9"]
    assert activation_quantiser(model[0]) is None
    quantisers = {n: activation_quantiser(m) for n, m in quantised_layers(model).items()}
    assert {n: (q.bits, q.signed) for n, q in quantisers.items() if q} == {
        "3": (4, False),  # behind a ReLU
        "5": (4, True),  # behind a batch norm
        "9": (4, False),
    }


def test_overrides_by_name_prefix_and_place() -> None:
    chosen = layer_bits(network(), Bits(3, 3, layers={"first": (8, 8), "3": (4, 8), "last": (8, 6)}))
    assert {n: (b.weights, b.inputs) for n, b in chosen.items()} == {
        "0": (8, None),
        "3": (4, 8),
        "5": (3, 3),
        "9": (8, 6),
    }
    with pytest.raises(UsageError, match="'stem'"):
        layer_bits(network(), Bits(3, 3, layers={"stem": (8, 8)}))


def test_low_bit_images_get_a_quantiser() -> None:
    model = quantise(network(), Bits(3, 3, layers={"first": (3, 4)}), torch.rand(16, 3, 8, 8))
    quantiser = activation_quantiser(model[0])
    assert quantiser is not None and quantiser.bits == 4


def test_layers_of_sixteen_bits_stay_plain() -> None:
    model = quantise(network(), Bits(16, 16, layers={"5": (4, 4)}), torch.rand(4, 3, 8, 8))
    assert list(quantised_layers(model)) == ["5"]
    assert type(model[0]) is nn.Conv2d


def test_eight_bits_hardly_change_the_network() -> None:
    x = torch.rand(64, 3, 8, 8)
    before = network()(x)
    after = quantise(network(), Bits(8, 8), x)(x)
    assert (before - after).abs().max() < 0.05 * before.abs().max()


def test_masks_hold_whatever_the_weights_do() -> None:
    model = quantise(network(), Bits(1, 4), torch.rand(16, 3, 8, 8))
    mask = torch.rand(8, 1, 3, 3) < 0.5
    set_masks(model, {"3.weight": mask})
    layer = model[3]
    assert isinstance(layer, QuantConv2d)
    with torch.no_grad():
        layer.weight.normal_()
    quantiser = weight_quantiser(layer)
    assert quantiser is not None
    assert torch.equal(quantiser(layer.weight)[0] != 0, mask)


def test_calibration_improves_on_a_wrong_step() -> None:
    x = torch.rand(64, 3, 8, 8)
    reference = network()(x)
    model = quantise(network(), Bits(8, 4), x)
    for layer in quantised_layers(model).values():
        if (quantiser := activation_quantiser(layer)) is not None:
            quantiser.step.data.mul_(20)
    wrong = (model(x) - reference).square().mean()
    calibrate(model, x)
    assert (model(x) - reference).square().mean() < wrong / 2


def test_checkpoints_round_trip() -> None:
    x = torch.rand(8, 3, 8, 8)
    first, second = quantise(network(), Bits(2, 3), x), quantise(network(), Bits(2, 3), torch.rand(8, 3, 8, 8))
    first.train()(x).sum().backward()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.sub_(0.01 * parameter.grad)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.eval()(x), second.eval()(x))
