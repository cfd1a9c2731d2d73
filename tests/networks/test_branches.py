"""Branches fold into the very function that they computed, and a training with them can stop and go on anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from contest import networks
from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.datasets import Split, load, split
from contest.errors import UsageError
from contest.networks.branches import Branches, add_branches, fold_branches
from contest.pipeline import compress
from contest.training import Epoch
from contest.training.checkpoint import start_from

ARCHITECTURES = (
    "thin:block=inverted,widths=8-12,depths=2-2,strides=2-2,stem_width=8",
    "thin:block=inverted,kernel=5,widths=8,depths=1,stem_width=4,opposites=first",
    "thin:widths=8-12,depths=1-2,groups=2",
    "resnet:widths=4-8-8,depths=1-1-1,shortcut=projection",
    "dsresnet:widths=4-8,depths=1-1",
)


def trained_by_chance(name: str) -> nn.Module:
    torch.manual_seed(1)
    return networks.build(networks.parse(name), (3, 16, 16), 10)


def shake(model: nn.Module) -> None:
    """Weights, statistics, multipliers and shifts of every batch norm as a training might leave them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 0.7, 0.4)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.3, 2.0)


def images(count: int = 64) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_folded_network_computes_what_the_branches_did(name: str) -> None:
    model = trained_by_chance(name)
    plain = {key: value.shape for key, value in model.state_dict().items()}
    add_branches(model)
    shake(model)
    branched = [module for module in model.modules() if isinstance(module, Branches)]
    assert branched and any(module.skip_norm is not None for module in branched)
    expected = model.double().eval()(images().double())
    fold_branches(model, images().double())
    assert {key: value.shape for key, value in model.state_dict().items()} == plain
    torch.testing.assert_close(model.eval()(images().double()), expected, rtol=1e-9, atol=1e-9)


def test_statistics_after_folding_are_those_of_what_the_norms_see() -> None:
    """In training mode, which normalises by the batch's own statistics, the function is the same on those images."""
    model = trained_by_chance(ARCHITECTURES[0])
    add_branches(model)
    shake(model)
    model.double().eval()
    expected = model(images().double())
    fold_branches(model, images().double())
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for module in norms:
        module.train(getattr(module, "num_features", 0) == 8 and module is norms[0])  # the stem's
    torch.testing.assert_close(model(images().double()), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_branches_of_a_network_that_has_learned_change_nothing_at_first(name: str) -> None:
    model = trained_by_chance(name)
    shake(model)
    model.double().eval()
    expected = model(images().double())
    add_branches(model, keep=True)
    torch.testing.assert_close(model.double().eval()(images().double()), expected)


def test_a_depthwise_kernel_of_stride_two_takes_every_second_pixel() -> None:
    """Written out: 3x3 kernels of zeros, so that only the branch of the input itself is left."""
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=4, bias=False), nn.BatchNorm2d(4)).eval()
    layers[0].weight.data.zero_()  # type: ignore[union-attr, operator]
    add_branches(layers)
    x = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(layers(x), x[..., ::2, ::2] / (1 + 1e-5) ** 0.5)
    fold_branches(layers, x)
    torch.testing.assert_close(layers(x), x[..., ::2, ::2] / (1 + 1e-5) ** 0.5, rtol=1e-4, atol=1e-5)


def test_a_network_without_such_convolutions_says_so() -> None:
    with pytest.raises(UsageError, match="branches = true, but no convolution"):
        add_branches(networks.build(networks.parse("mnist_fc"), (1, 28, 28), 10))


CANDIDATE = Candidate(
    Architecture("thin", {"block": "inverted", "widths": (6, 8), "depths": (1, 1), "stem_width": 6}),
    bits=Bits(4, 4, numbers=8),
    unstructured=0.3,
    train=Recipe(epochs=2, batch_size=64, learning_rate=0.1, branches=True, ema_decay=0.9, crop=1, flip=False),
    tune=Recipe(epochs=1, batch_size=64, learning_rate=0.02, crop=1, flip=False, warmup_epochs=0),
)


@pytest.fixture(scope="module")
def digits() -> Split:
    return split(load("digits").train)


def run(candidate: Candidate, digits: Split, directory: Path | None = None, **options: object) -> dict[str, Tensor]:
    outcome = compress(
        candidate,
        digits.train,
        digits.validation,
        image_shape=digits.train.shape,
        classes=10,
        directory=directory,
        **options,  # type: ignore[arg-type]
    )
    return outcome.network.body.state_dict()


def test_interrupted_anywhere_the_network_is_the_same(digits: Split, tmp_path: Path) -> None:
    expected = run(CANDIDATE, digits)
    for stop_after in (1, 2, 3):
        seen: list[Epoch] = []

        def stop(epoch: Epoch, seen: list[Epoch] = seen, stop_after: int = stop_after) -> None:
            seen.append(epoch)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(CANDIDATE, digits, tmp_path / str(stop_after), on_epoch=stop)
        again = run(CANDIDATE, digits, tmp_path / str(stop_after))
        assert all(torch.equal(again[name], tensor) for name, tensor in expected.items())


def test_a_training_with_branches_is_a_start_for_plain_networks_once_it_has_ended(
    digits: Split, tmp_path: Path
) -> None:
    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(CANDIDATE, digits, tmp_path, on_epoch=stop)
    model = networks.build(CANDIDATE.architecture, digits.train.shape, 10)
    with pytest.raises(UsageError, match="has not ended"):
        start_from(tmp_path / "train.ckpt", model)
    run(CANDIDATE, digits, tmp_path)
    assert set(start_from(tmp_path / "train.ckpt", model)) == set(model.state_dict())


def test_branches_are_for_the_float_training(digits: Split) -> None:
    with pytest.raises(UsageError, match="branches = true; they belong to the float training"):
        run(replace(CANDIDATE, tune=replace(CANDIDATE.tune, branches=True)), digits)
