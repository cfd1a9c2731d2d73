"""The network that learns fast: arithmetic written out, what whitening and the identity promise, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from contest import networks
from contest.candidate import Candidate
from contest.datasets import load, split
from contest.model_file import load as load_model
from contest.model_file import save
from contest.pipeline import compress

SMALL = "fast_teacher:widths=16-32"


def conv_of(model: nn.Module, name: str) -> nn.Conv2d:
    found = model.get_submodule(name)
    assert isinstance(found, nn.Conv2d)
    return found


def test_macs_and_weights_written_out() -> None:
    # 2x2 patches of 3 channels -> 24 on 31x31; then 3x3 on maps of 31, 15, 15, 7, 7 and 3 pixels a side.
    layers = [(24, 64, 31), (64, 64, 15), (64, 256, 15), (256, 256, 7), (256, 256, 7), (256, 256, 3)]
    macs = 12 * 24 * 31**2 + sum(9 * inputs * out * side**2 for inputs, out, side in layers) + 2560
    weights = 12 * 24 + sum(9 * inputs * out for inputs, out, _ in layers) + 2560
    assert networks.macs_and_weights(networks.parse("fast-teacher")) == (macs, weights)


def test_whitened_patches_have_unit_covariance_and_their_negatives() -> None:
    images = load("digits").train.pixels[:500].float() / 255
    model = networks.build(networks.parse(SMALL), (1, 8, 8))
    networks.see(model, images)
    weight = conv_of(model, "stem.conv").weight
    assert not weight.requires_grad and torch.equal(weight[:4], -weight[4:])
    with torch.no_grad():
        seen = conv_of(model, "stem.conv")(model.get_submodule("normalise")(images))
    covariance = torch.cov(seen[:, :4].transpose(0, 1).flatten(1))
    torch.testing.assert_close(covariance, torch.eye(4), atol=0.02, rtol=0)  # but for the epsilon


def test_other_networks_see_nothing() -> None:
    model = networks.build(networks.parse("resnet:depth=8,width=4"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    networks.see(model, torch.rand(4, 3, 32, 32))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_convolutions_begin_as_the_identity() -> None:
    model = networks.build(networks.parse(SMALL), (3, 32, 32))
    for name in ("stages.0.4", "stages.1.0", "stages.1.4"):
        layer, x = conv_of(model, name), torch.rand(2, conv_of(model, name).in_channels, 7, 7)
        torch.testing.assert_close(layer(x)[:, : layer.in_channels], x)
    assert [p for n, p in model.named_parameters() if n.endswith("bias") and "stages" not in n] == []


def test_the_preset_brings_its_recipe() -> None:
    recipe = networks.recipe("fast-teacher")
    assert recipe.lookahead and recipe.alternate_flips and recipe.norm_bias_rate == 64
    assert networks.recipe("fast-teacher:widths=8-8-8") == recipe
    assert networks.recipe("resnet20") == networks.recipe("thin:widths=8") == Candidate(networks.parse("thin")).train


def test_it_learns_and_comes_back_from_its_file(tmp_path: Path) -> None:
    data = split(load("digits").train, 300)
    recipe = replace(networks.recipe("fast-teacher"), epochs=6, batch_size=64, learning_rate=0.3, crop=1)
    candidate = Candidate(networks.parse(SMALL), train=recipe)
    out = compress(candidate, data.train, data.validation, image_shape=(1, 8, 8), classes=10, directory=tmp_path)
    assert out.validation is not None and out.validation.accuracy > 0.9
    history = torch.load(tmp_path / "train.ckpt", weights_only=True)["history"]
    assert history[-1]["train_loss"] < 0.8 * history[0]["train_loss"]
    images = data.validation.pixels[:50].float() / 255
    again = load_model(save(out.network, tmp_path / "teacher.pt"))
    assert torch.equal(again(images), out.network(images))
    # stopped after two epochs, the run ends with the same network
    stopped = tmp_path / "stopped"

    def stop(epoch: object) -> None:
        if getattr(epoch, "epoch", 0) == 2:
            raise KeyboardInterrupt

    for on_epoch in (stop, None):
        try:
            resumed = compress(
                candidate,
                data.train,
                data.validation,
                image_shape=(1, 8, 8),
                classes=10,
                directory=stopped,
                on_epoch=on_epoch,
            )
        except KeyboardInterrupt:
            continue
    assert torch.equal(resumed.network(images), out.network(images))


@pytest.mark.parametrize("shape", [(3, 2, 2), (3, 5, 9)])
def test_small_images_have_fewer_pools(shape: tuple[int, int, int]) -> None:
    model = networks.build(networks.parse(SMALL), shape)
    assert model(torch.rand(2, *shape)).shape == (2, 10)
