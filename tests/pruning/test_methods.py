"""Each method against its own independent oracle."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from contest import pruning
from contest.pruning.methods import gradients
from contest.pruning.methods.channels import _merged, filter_sums, input_channel, output_channel, patches_of


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum(1).mean() / 2


def line() -> tuple[nn.Module, list[tuple[Tensor, Tensor]], Tensor, Tensor, Tensor]:
    """y = W x with squared loss: dL/dW = mean (W x - t) x^T and H V = V mean(x x^T), written out."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False).double()
    x, t = torch.randn(10, 4).double(), torch.randn(10, 3).double()
    weight = model.weight.detach()
    gradient = (x @ weight.T - t).T @ x / 10
    return model, [(x[:7], t[:7]), (x[7:], t[7:])], weight, gradient, x.T @ x / 10


def test_snip_is_weight_times_gradient_written_out() -> None:
    model, batches, weight, gradient, _ = line()
    scores = pruning.method("snip")(model, batches, squared)
    torch.testing.assert_close(scores["weight"], (weight * gradient).abs())


def test_grasp_is_weight_times_hessian_times_gradient_written_out() -> None:
    model, batches, weight, _, covariance = line()
    # With outputs divided by T the loss is |W x / T - t|^2 / 2: another gradient, the Hessian over T^2.
    T = gradients.Grasp.temperature
    x, t = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    gradient = (x @ weight.T / T - t).T @ x / T / len(x)
    scores = pruning.method("grasp")(model, batches, squared)
    torch.testing.assert_close(scores["weight"], weight * (gradient @ covariance / T**2))


def tiny(seed: int = 1) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)).double()
    return model, [(torch.randn(6, 2, 3, 3).double(), torch.tensor([0, 1, 2, 2, 1, 0]))]


def loss_at(model: nn.Module, batches: list[tuple[Tensor, Tensor]], state: dict[str, Tensor], T: float = 1.0) -> Tensor:
    (x, t) = batches[0]
    return nn.functional.cross_entropy(functional_call(model, state, (x,)) / T, t)


def test_snip_by_finite_differences() -> None:
    """The definition: how the loss changes with a factor c on each connection, at c = 1."""
    model, batches = tiny()
    scores = pruning.method("snip")(model, batches, nn.functional.cross_entropy)
    state = {name: p.detach() for name, p in model.named_parameters()}
    h = 1e-6
    for name in scores:
        for i in range(scores[name].numel()):
            values = []
            for c in (1 + h, 1 - h):
                moved = state[name].clone()
                moved.view(-1)[i] *= c
                values.append(float(loss_at(model, batches, state | {name: moved})))
            assert float(scores[name].view(-1)[i]) == pytest.approx(abs(values[0] - values[1]) / (2 * h), abs=1e-8)


def test_grasp_by_finite_differences_of_the_gradient() -> None:
    model, batches = tiny()
    T = gradients.Grasp.temperature
    products = gradients.hessian_gradient(model, batches, nn.functional.cross_entropy)
    state = {name: p.detach() for name, p in model.named_parameters()}
    names = list(products)

    def gradient(at: dict[str, Tensor]) -> list[Tensor]:
        asked = {name: at[name].clone().requires_grad_() for name in names}
        return list(torch.autograd.grad(loss_at(model, batches, at | asked, T), list(asked.values())))

    g = gradient(state)
    h = 0.1
    ahead = gradient(state | {n: state[n] + h * d for n, d in zip(names, g, strict=True)})
    back = gradient(state | {n: state[n] - h * d for n, d in zip(names, g, strict=True)})
    for name, a, b in zip(names, ahead, back, strict=True):
        torch.testing.assert_close(products[name], (a - b) / (2 * h), rtol=1e-3, atol=1e-10)


def test_fisher_diagonal_written_out_for_logistic_regression() -> None:
    """One output, binary loss: the gradient of a sample is (sigmoid(w x) - t) x."""
    torch.manual_seed(0)
    model = nn.Linear(5, 1, bias=False).double()
    x, t = torch.randn(30, 5).double(), (torch.rand(30, 1) < 0.5).double()
    weight = model.weight.detach()
    expected = ((x @ weight.T).sigmoid() - t).square() * x.square()
    fisher = gradients.fisher_diagonal(model, [(x, t)], nn.functional.binary_cross_entropy_with_logits)
    torch.testing.assert_close(fisher["weight"], expected.mean(0, keepdim=True))
    scores = pruning.method("second-order")(model, [(x, t)], nn.functional.binary_cross_entropy_with_logits)
    torch.testing.assert_close(scores["weight"], weight**2 * expected.mean(0, keepdim=True) / 2)


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(8, 40, 3, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(40 * 9, 60, bias=False),
        nn.ReLU(),
        nn.Linear(60, 10, bias=False),
    )


IMAGE = [(torch.zeros(1, 3, 8, 8), torch.zeros(1, dtype=torch.int64))]


def test_synflow_is_conserved_from_layer_to_layer() -> None:
    """Tanaka 2020, theorem 2: in a plain net without biases every layer's scores have the same sum."""
    scores = pruning.method("synflow")(plain(), IMAGE, nn.functional.cross_entropy)
    sums = torch.stack([score.sum() for score in scores.values()])
    assert sums.dtype == torch.float64
    torch.testing.assert_close(sums, sums[:1].expand(len(sums)), rtol=1e-12, atol=0)


def test_synflow_refuses_to_collapse_a_layer_where_magnitude_does() -> None:
    model = plain()
    with torch.no_grad():
        model[6].weight.mul_(0.01)  # one layer of small weights: magnitude empties it
    total = sum(w.numel() for w in pruning.prunable(model).values())
    sparsity = 1 - 200 / total
    magnitude = pruning.sparsity(model, pruning.prune(model, "magnitude", sparsity))
    synflow = pruning.sparsity(model, pruning.prune(model, "synflow", sparsity, batches=IMAGE))
    assert min(layer.nonzeros for layer in magnitude.layers) == 0
    assert min(layer.nonzeros for layer in synflow.layers) > 0
    assert magnitude.nonzeros == synflow.nonzeros == 200


def test_synflow_leaves_batch_norms_buffers_their_sign() -> None:
    """With a positive and a negative running mean the flow differs; taking |mean| would make them equal."""
    flows = []
    for mean in (0.5, -0.5):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2)
        )
        model[1].running_mean.fill_(mean)
        flows.append(pruning.method("synflow")(model, IMAGE, nn.functional.cross_entropy)["4.weight"].sum())
    assert flows[0] < flows[1]


def test_synflow_stays_finite_in_a_deep_net() -> None:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(192, 64)]
    for _ in range(40):
        layers += [nn.ReLU(), nn.Linear(64, 64)]
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1.0)  # 64 ** 40 = 1e72 is beyond float32
    scores = pruning.method("synflow")(model, IMAGE, nn.functional.cross_entropy)
    assert all(bool(score.isfinite().all()) for score in scores.values())
    assert max(float(score.max()) for score in scores.values()) > 3.5e38


def test_filter_sums_by_hand() -> None:
    layer = nn.Conv2d(2, 3, (1, 2), bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[[1.0, -2]], [[0, 3]]], [[[-1, 1]], [[1, -1]]], [[[0, 0]], [[5, -4]]]]))
    assert filter_sums(layer).tolist() == [1 + 2 + 0 + 3, 4, 9]
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(3, 2))
    one_filter = 4 / (12 + 6)
    masks = pruning.prune(model, "filter-l1", one_filter)
    assert masks["0.weight"].flatten(1).any(1).tolist() == [True, False, True]
    assert bool(masks["2.weight"].all())  # the classes stay
    two_filters = pruning.prune(model, "filter-l1", 2 * one_filter)
    assert two_filters["0.weight"].flatten(1).any(1).tolist() == [False, False, True]


def test_filter_l1_takes_the_same_share_of_every_layer_but_the_last() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3), nn.Conv2d(16, 4, 3))
    weights = 8 * 27 + 16 * 72
    masks = pruning.prune(model, "filter-l1", weights / 2 / (weights + 4 * 144))
    alive = [mask.flatten(1).float().mean(1) for mask in masks.values()]
    assert [int(a.sum()) for a in alive] == [4, 8, 4]
    assert all(set(a.tolist()) <= {0.0, 1.0} for a in alive)  # whole filters


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 4, 3),
        nn.Conv2d(6, 4, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 3, groups=2),
        nn.ConvTranspose2d(6, 4, 3),
        nn.Linear(6, 4),
        nn.Conv2d(6, 6, 3, groups=6),
    ],
)
def test_channels_of_weights(layer: nn.Module) -> None:
    """A weight's gradient is zero exactly when its input channel is silent, or its output channel unread."""
    x = torch.rand(1, 6) if isinstance(layer, nn.Linear) else torch.rand(1, 6, 5, 5)
    for channel in range(6):
        only = torch.zeros_like(x)
        only[:, channel] = x[:, channel]
        (gradient,) = torch.autograd.grad(layer(only).sum(), [layer.weight])
        assert torch.equal(gradient != 0, input_channel(layer) == channel)
    out = layer(x)
    for channel in range(out.shape[1]):
        (gradient,) = torch.autograd.grad(out[:, channel].sum(), [layer.weight], retain_graph=True)
        assert torch.equal(gradient != 0, output_channel(layer) == channel)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(5, 3, 3, padding=1, stride=2, bias=False),
        nn.Conv2d(6, 4, 2, groups=2, bias=False),
        nn.Conv2d(4, 4, 3, groups=4, padding="same", bias=False),
        nn.Linear(5, 7, bias=False),
    ],
)
def test_each_greedy_step_of_thinet_against_brute_force(layer: nn.Module) -> None:
    """What the layer's output loses is its output on the removed channels alone; try every channel."""
    torch.manual_seed(0)
    layer = layer.double()
    channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    x = torch.rand(3, channels).double() if isinstance(layer, nn.Linear) else torch.rand(2, channels, 5, 5).double()
    model = nn.Sequential(nn.Identity(), layer).requires_grad_(False)
    patches = patches_of(layer, x)
    groups = getattr(layer, "groups", 1)
    weight = layer.weight.detach()
    order = _merged(patches, weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)).tolist()

    def lost(removed: list[int]) -> float:
        only = torch.zeros_like(x)
        only[:, removed] = x[:, removed]
        return float(model(only).square().sum())

    gone: list[int] = []
    for j in order:
        errors = {k: lost([*gone, k]) for k in range(channels) if k not in gone}
        assert errors[j] == pytest.approx(min(errors.values()), rel=1e-9)
        gone.append(j)
    assert sorted(order) == list(range(channels))
    first = min(combinations(range(channels), 1), key=lambda c: lost(list(c)))
    assert order[0] == first[0]


def test_thinet_leaves_the_images_channels_and_takes_whole_ones() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6, 4))
    batches = [(torch.rand(20, 3, 5, 5), torch.zeros(20, dtype=torch.int64))]
    total = 8 * 27 + 6 * 72 + 24
    masks = pruning.prune(model, "thinet", (432 + 24) / 2 / total, batches=batches)
    assert bool(masks["0.weight"].all())
    for name, channels in (("2.weight", 4), ("5.weight", 3)):
        alive = masks[name].transpose(0, 1).flatten(1).float().mean(1)
        assert set(alive.tolist()) == {0.0, 1.0} and int(alive.sum()) == channels
