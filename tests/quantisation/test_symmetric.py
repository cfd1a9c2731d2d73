"""Weights around a masked zero: b bits hold -2^(b-1) to 2^(b-1), in training, file, packed file, score and export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from contest import networks
from contest.candidate import Bits, Candidate, Recipe
from contest.datasets import load, split
from contest.model_file import load as load_model
from contest.model_file import save
from contest.model_file.packing import pack, unpack
from contest.pipeline import compress
from contest.quantisation import quantise
from contest.quantisation.layers import export
from contest.quantisation.lsq import LearnedStep, best_step
from scoring.score import score_file


@pytest.mark.parametrize(("bits", "levels"), [(1, 3), (2, 5), (3, 9), (4, 17)])
def test_the_levels_and_the_step_of_the_least_error(bits: int, levels: int) -> None:
    weight = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0))
    step = best_step(weight, bits, True, symmetric=True)
    quantiser = LearnedStep(bits, signed=True, step=step, weight=True, symmetric=True)
    value = quantiser(weight)[0].detach()
    half = levels // 2
    assert value.div(step).round().unique().tolist() == list(range(-half, half + 1))
    assert torch.equal(quantiser.codes(weight) * quantiser.positive_step(), value)
    # the same by looking for the nearest level, over a fine grid of steps
    x = weight.numpy().ravel()
    least = min(
        np.mean(np.abs(x[:, None] - s * np.arange(-half, half + 1)).min(1) ** 2) for s in np.linspace(0.05, 2.5, 200)
    )
    error = float((value - weight).square().mean())
    assert least * 0.99 <= error <= least * 1.03
    if bits > 1:
        plain = LearnedStep(bits, signed=True, step=best_step(weight, bits, True), weight=True)
        assert error < 0.9 * float((plain(weight)[0].detach() - weight).square().mean())


def test_gradients_reach_the_outermost_level() -> None:
    quantiser = LearnedStep(2, signed=True, step=torch.tensor([1.0]), weight=True, symmetric=True)
    weight = torch.tensor([2.4, 2.6, -2.4, -2.6], requires_grad=True)
    quantiser(weight)[0].sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("bits", [1, 3])
def test_training_file_packed_file_and_score_agree(bits: int, tmp_path: Path) -> None:
    data = split(load("digits").train, 300)
    recipe = Recipe(epochs=1, batch_size=64, warmup_epochs=0, crop=1)
    candidate = Candidate(
        networks.parse("thin:widths=8-12,depths=1-1,strides=1-2"),
        Bits(bits, 4, symmetric=True, layers={"fc": (8, 8)}),
        unstructured=0.2,
        train=recipe,
        tune=recipe,
    )
    assert Candidate.from_json(candidate.to_json()) == candidate
    network = compress(candidate, data.train, image_shape=(1, 8, 8), classes=10).network
    codes = {n: t for n, t in network.body.state_dict().items() if n.endswith(".codes")}
    inner = torch.cat([tensor.flatten() for name, tensor in codes.items() if "fc" not in name])
    assert (int(inner.min()), int(inner.max())) == (-(2 ** (bits - 1)), 2 ** (bits - 1))
    path = save(network, tmp_path / "model.pt")
    images = data.validation.pixels[:20].float() / 255
    pack(network, tmp_path / "model.packed")
    for again in (load_model(path), unpack(tmp_path / "model.packed")):
        assert torch.equal(again(images), network(images))
    report = score_file(path, rule="digits", trust=True).to_json()
    layers = [row for row in report["costs"]["operations"] if row["weights"]]
    assert {row["weight_bits"] for row in layers if "fc" not in row["name"]} == {bits}
    assert sum(row["nonzeros"] for row in layers) == sum(int(tensor.count_nonzero()) for tensor in codes.values())
    assert not report["costs"]["problems"]


def test_exported_weights_have_one_bit_more_and_the_same_values(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = networks.build(networks.parse("thin:widths=8-16,depths=1-1"), (3, 16, 16), 10)
    model.train()(torch.rand(16, 3, 16, 16))
    model = quantise(model.eval(), Bits(3, 8, symmetric=True), torch.rand(32, 3, 16, 16))
    layer = model.get_submodule("stages.0.0.body.conv1")
    with torch.no_grad():
        layer.get_parameter("weight")[0] *= 3  # beyond the grid: clipped there and here
    images = torch.rand(20, 3, 16, 16)
    session = onnxruntime.InferenceSession(export(model, tmp_path / "model.onnx", (3, 16, 16)))
    found = session.run(None, {"images": images.numpy()})[0]
    with torch.no_grad():
        expected = model(images).numpy()
    assert np.quantile(np.abs(found - expected).max(1), 0.9) < 1e-4
    assert isinstance(layer, nn.Module) and layer.weight_quant.tensor_quant.bits == 3, "the model stays as it is"
