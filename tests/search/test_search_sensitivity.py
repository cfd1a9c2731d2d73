"""What a bit less in one layer does to a stored network."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from contest import networks
from contest.candidate import Bits
from contest.datasets import Images
from contest.model_file import freeze, save
from contest.model_file.layers import WeightLayer
from contest.quantisation import quantise
from search.trainers.bit_sensitivity import _coarser, measure


@pytest.mark.parametrize("number_bits", [8, 32])
def test_each_layer_of_a_file_is_made_coarser_alone(number_bits: Literal[8, 32], tmp_path: Path) -> None:
    torch.manual_seed(0)
    architecture, shape = networks.parse("thin:widths=4-6,depths=1-1"), (3, 8, 8)
    model = quantise(networks.build(architecture, shape, 10).eval(), Bits(4, 4), torch.rand(8, *shape))
    network = freeze(model, architecture, image_shape=shape, classes=10, number_bits=number_bits)
    layers = {n: m for n, m in network.body.named_modules() if isinstance(m, WeightLayer)}
    images = Images(torch.randint(256, (40, *shape), dtype=torch.uint8), torch.randint(10, (40,)))
    found = measure(save(network, tmp_path / "model.pt"), images)
    assert [(layer.layer, layer.weight_bits) for layer in found] == [(name, 4) for name in layers]
    for name, layer in layers.items():
        x = torch.rand(1, layer.spec.inputs, *((4, 4) if layer.spec.kind == "conv" else ()))
        before = layer.operands(x)[1]
        coarse = _coarser(network, name).body.get_submodule(name)
        assert isinstance(coarse, WeightLayer)
        after = coarse.operands(x)[1]
        step = layer.numbers("step")
        assert step is not None
        # Three bits: twice the step, so nothing moves by more than one old step.
        assert bool(((after - before).abs() <= 1.001 * step.abs().view(-1, *([1] * (before.dim() - 1)))).all())
        assert len(coarse.codes.unique()) <= 8
