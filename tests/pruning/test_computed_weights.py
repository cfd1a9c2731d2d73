"""Layers that compute their weight: torch's prune, weight norm, spectral norm and parametrizations are prunable."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils import prune as torch_prune

from contest import pruning
from contest.errors import UsageError
from contest.lab.costs import sizes
from contest.pruning.latent import effective_weight, plain_copy
from contest.pruning.structured import prune_channels


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have us use the parametrization
        return nn.utils.weight_norm(layer)


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


class Signs(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return torch.where(weight >= 0, 1.0, -1.0)


WRAPPERS: dict[str, Callable[[nn.Module], object]] = {
    "torch's prune": lambda layer: torch_prune.random_unstructured(layer, "weight", amount=0.25),
    "weight norm": parametrizations.weight_norm,
    "weight norm of the whole": lambda layer: parametrizations.weight_norm(layer, dim=None),
    "old weight norm": old_weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "a parametrization": lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
}


def network(wrap: Callable[[nn.Module], object] | None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    if wrap is not None:
        for index in (0, 2, 5):
            wrap(model[index])
    return model.eval()


def multiplied_with(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """The weight that the forward pass really uses, from its Jacobian with respect to the input."""
    if isinstance(layer, nn.Linear):
        return layer(torch.eye(layer.in_features)).T - layer(torch.zeros(1, layer.in_features)).T
    layer(torch.zeros(1, shape[1], 3, 3))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


@pytest.mark.parametrize("kind", WRAPPERS)
@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_the_weights_that_a_layer_multiplies_with_are_pruned(kind: str, sparsity: float) -> None:
    model = network(WRAPPERS[kind])
    names = ["0.weight", "2.weight", "5.weight"]
    assert list(pruning.prunable(model)) == names
    masks = pruning.prune(model, "magnitude", sparsity)
    # exact_k on the effective weights is the oracle
    values = {name: effective_weight(model.get_submodule(name[0])).abs() for name in names}
    total = sum(value.numel() for value in values.values())
    expected = pruning.exact_k(values, pruning.kept(total, sparsity))
    assert all(torch.equal(masks[name], expected[name]) for name in names)
    pruning.enforce(model, masks)
    for name in names:
        used = multiplied_with(model.get_submodule(name[0]), tuple(masks[name].shape))
        assert used.isfinite().all()
        assert torch.equal(used[~masks[name]], torch.zeros(int((~masks[name]).sum())))
    assert pruning.sparsity(model).prunable >= sparsity - 0.001


@pytest.mark.parametrize("kind", ["weight norm", "old weight norm", "torch's prune"])
def test_masks_hold_in_training_even_over_whole_filters(kind: str) -> None:
    model = network(WRAPPERS[kind]).train()
    masks = pruning.full(model)
    masks["0.weight"][:4] = False  # weight norm would divide these filters by their length of zero
    pruning.enforce(model, masks)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.rand(4, 3, 6, 6)).square().sum().backward()
        optimiser.step()
        pruning.hold(model, masks)
        assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
        assert effective_weight(model[0])[:4].count_nonzero() == 0
        assert effective_weight(model[0])[4:].count_nonzero() > 0


@pytest.mark.parametrize("kind", [kind for kind in WRAPPERS if "spectral" not in kind])
def test_every_method_scores_such_networks_and_leaves_them_as_they_were(kind: str) -> None:
    model = network(WRAPPERS[kind])
    images = torch.rand(4, 3, 6, 6)
    batches = [(images, torch.tensor([0, 1, 2, 0]))]
    with torch.no_grad():
        before = model(images)
    for name in pruning.methods():
        masks = pruning.prune(model, name, 0.5, batches=batches)
        assert sum(int(mask.sum()) for mask in masks.values()) == pruning.kept(720, 0.5), name
    with torch.no_grad():
        torch.testing.assert_close(model(images), before)


@pytest.mark.parametrize("kind", WRAPPERS)
def test_channels_of_such_networks_are_removed_from_what_they_multiply_with(kind: str) -> None:
    model = network(WRAPPERS[kind])
    images = torch.rand(4, 3, 6, 6)
    model(images).sum().backward()  # leaves a computed weight with a history, which torch does not copy
    with torch.no_grad():
        torch.testing.assert_close(plain_copy(model)(images), model(images))
    removal = prune_channels(model, 0.4, (3, 6, 6))
    assert removal.fraction == pytest.approx(0.4, abs=0.05)
    assert removal.weights_before == 720
    assert sizes(model).dense_bytes == pytest.approx(sizes(plain_copy(model)).dense_bytes)


def test_a_layer_that_dies_under_spectral_norm_is_refused_by_name() -> None:
    """It divides by the largest singular value, which a weight of zeros does not have: the layer would give NaN."""
    model = network(parametrizations.spectral_norm)
    masks = pruning.full(model)
    masks["2.weight"][:] = False
    with pytest.raises(UsageError, match="432 pruned weights of layer '2' are not zero, since _SpectralNorm"):
        pruning.enforce(model, masks)


def test_a_weight_that_is_not_zero_for_zeros_is_refused_by_name() -> None:
    model = network(None)
    parametrize.register_parametrization(model[2], "weight", Signs())
    masks = pruning.prune(network(None), "magnitude", 0.5)
    with pytest.raises(UsageError, match=r"layer '2' are not zero, since Signs computes"):
        pruning.enforce(model, masks)


def test_a_weight_without_a_parameter_of_its_shape_is_refused_by_name() -> None:
    class LowRank(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a @ b

        def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
            return weight[:, :2], weight[:2]

    model = network(None)
    parametrize.register_parametrization(model[5], "weight", LowRank(), unsafe=True)
    with pytest.raises(UsageError, match="layer '5' is computed by LowRank"):
        pruning.prunable(model)
