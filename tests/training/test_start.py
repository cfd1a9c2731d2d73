"""Starting a float network from the checkpoint of a quantised training: it begins with what the quantisers showed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from training_helpers import network, quadrants

from contest import networks
from contest.candidate import Bits, Recipe
from contest.quantisation import quantise, quantised_layers, set_masks
from contest.training import checkpoint as files
from contest.training import fit, start_from


def trained(path: Path, bits: int, per_channel: bool, ema: float) -> nn.Module:
    """A quantised training with a mask, long enough for weights to lie beyond the range of their codes."""
    images = quadrants()
    model = quantise(network(), Bits(bits, bits, per_channel=per_channel), images.pixels[:32].float() / 255)
    set_masks(model, {"0.weight": torch.arange(72).view(8, 1, 3, 3) % 3 > 0})
    with torch.no_grad():
        for layer in quantised_layers(model).values():
            layer.weight.mul_(3)  # type: ignore[operator]
    fit(model, images, Recipe(epochs=2, batch_size=16, learning_rate=0.05, ema_decay=ema), checkpoint=path)
    return model


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("bits", range(1, 9))
def test_a_float_network_starts_with_the_weights_that_the_quantisers_showed(
    tmp_path: Path, bits: int, per_channel: bool, ema: float
) -> None:
    path = tmp_path / "tune.ckpt"
    layers = quantised_layers(trained(path, bits, per_channel, ema))
    model = network()
    start_from(path, model)
    for name, layer in layers.items():
        shown = layer.quant_weight()  # type: ignore[operator]
        shown = getattr(shown, "value", shown)
        assert torch.equal(model.get_submodule(name).weight, shown)  # type: ignore[arg-type]
        assert len(shown.unique()) <= (2**bits + 1) * (len(shown) if per_channel else 1)


def test_a_file_that_does_not_say_the_range_still_starts_a_network(tmp_path: Path) -> None:
    """Checkpoints of earlier versions: multiples of the step, as before."""
    path = tmp_path / "tune.ckpt"
    layer = quantised_layers(trained(path, 8, False, 0.0))["0"]
    state = torch.load(path, weights_only=True)
    del state["quantisers"]
    torch.save(state, path)
    model = network()
    start_from(path, model)
    step = layer.weight_quant.tensor_quant.step.item()  # type: ignore[union-attr,operator]
    codes = model.get_submodule("0").weight / step  # type: ignore[operator]
    torch.testing.assert_close(codes, codes.round())


@pytest.mark.parametrize("depths", ["2-2", "1-1"])
@pytest.mark.parametrize("shortcut", ["projection", "pool"])
def test_a_network_without_the_last_1x1_begins_as_the_one_that_has_it(
    tmp_path: Path, depths: str, shortcut: str
) -> None:
    """Weights, statistics and batch norms are random; the logits are those of the whole network, but for rounding."""
    options = f"thin:block=inverted,widths=4-8,depths={depths},stem_width=4,opposites=first,shortcut={shortcut}"
    whole, short = (networks.build(networks.parse(options + tail), (3, 18, 18), 7) for tail in ("", ",tail=wide"))
    for module in whole.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(tensor, 0.5, 2.0)  # type: ignore[arg-type]
    files.save(tmp_path / "train.ckpt", {}, {"model": whole}, [])
    assert set(start_from(tmp_path / "train.ckpt", short)) == set(short.state_dict())
    images = torch.rand(5, 3, 18, 18)
    expected = whole.eval()(images)
    assert expected.std() > 0.1
    torch.testing.assert_close(short.eval()(images), expected, rtol=1e-4, atol=1e-4)
