"""Removing channels: counts by hand, dead channels change nothing, every family still runs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from contest import networks
from contest.errors import TrainingError, UsageError
from contest.pruning.structured import prune_channels, remove_channels

SHAPES = {"mnist_fc": (1, 8, 8), "mnist_cnn": (1, 12, 12)}

# A network and the one that is left when every second channel goes.
HALVES = [
    ("resnet:depths=1-1,widths=8-16", "resnet:depths=1-1,widths=4-8"),
    (
        "resnet:block=bottleneck,widths=4-8,depths=1-1,expansion=2",
        "resnet:block=bottleneck,widths=2-4,depths=1-1,expansion=2",
    ),
    ("preact:widths=8-16,depths=2-1", "preact:widths=4-8,depths=2-1"),
    ("vgg:depth=11,widths=8-8-16-16-8,hidden=12", "vgg:depth=11,widths=4-4-8-8-4,hidden=6"),
    (
        "mobilenet:stem_width=8,widths=4-8,depths=1-2,strides=1-2,head_width=16,expansion=4",
        "mobilenet:stem_width=4,widths=2-4,depths=1-2,strides=1-2,head_width=8,expansion=4",
    ),
    ("dsresnet:widths=8-16,depths=1-2", "dsresnet:widths=4-8,depths=1-2"),
    ("densenet:growth=4,depths=3-3,stem_width=8", "densenet:growth=2,depths=3-3,stem_width=4"),
    ("thin:widths=8-16,depths=1-2,head_width=24", "thin:widths=4-8,depths=1-2,head_width=12"),
    (
        "thin:block=bottleneck,widths=16-32,depths=1-2,groups=2,kernel=5",
        "thin:block=bottleneck,widths=8-16,depths=1-2,groups=2,kernel=5",
    ),
    ("thin:block=inverted,widths=8-16,depths=2-1", "thin:block=inverted,widths=4-8,depths=2-1"),
    (
        "thin:block=inverted,widths=8-16,depths=2-2,tail=wide",
        "thin:block=inverted,widths=4-8,depths=2-2,tail=wide",
    ),
    (
        "thin:block=separable,widths=8-16,depths=1-1,activation=hardswish",
        "thin:block=separable,widths=4-8,depths=1-1,activation=hardswish",
    ),
    ("mnist_fc:hidden=32-16", "mnist_fc:hidden=16-8"),
    ("mnist_cnn:widths=4-8,hidden=16", "mnist_cnn:widths=2-4,hidden=8"),
]


def shape_of(name: str) -> tuple[int, int, int]:
    return SHAPES.get(name.partition(":")[0], (3, 16, 16))


def make(name: str) -> nn.Module:
    """A network whose batch norms have seen something, so that nothing is equal by accident."""
    torch.manual_seed(0)
    model = networks.build(networks.parse(name), shape_of(name)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.2)
            module.running_mean = torch.randn(module.num_features) * 0.1
            module.running_var = torch.rand(module.num_features) + 0.5
    return model


def weights(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def images(name: str, count: int = 3) -> Tensor:
    return torch.rand(count, *shape_of(name), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("ranking", ["uniform", "global"])
@pytest.mark.parametrize(("large", "small"), HALVES)
def test_dead_channels_go_first_and_change_nothing(large: str, small: str, ranking: str) -> None:
    model, target = make(large), make(small)
    linears = [m for m in model.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear)) and module is not linears[-1]:
                module.weight[1::2] = 0
                if module.bias is not None:
                    module.bias[1::2] = 0
        expected = model(images(large))
    fraction = 1 - weights(target) / weights(model)
    removal = prune_channels(model, fraction, shape_of(large), "l1", ranking=ranking)  # type: ignore[arg-type]
    shapes = {name: tuple(value.shape) for name, value in removal.model.state_dict().items()}
    assert shapes == {name: tuple(value.shape) for name, value in target.state_dict().items()}
    assert removal.fraction == pytest.approx(fraction, abs=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(removal.model(images(large)), expected, rtol=1e-5, atol=1e-5)


FAMILIES = [
    "resnet14",
    "resnet:depth=8,shortcut=pad",
    "resnet:block=bottleneck,widths=8-16,depths=1-2",
    "preact:depth=8",
    "preact:depth=8,shortcut=pad",
    "vgg11:width=0.125",
    "mobilenet:width=0.25",
    "dsresnet8",
    "densenet:growth=6,depths=4-4-4",
    "densenet:growth=8,depths=4-4,groups=4",
    "thin",
    "thin:groups=4,widths=16-32-64",
    "thin:block=bottleneck,groups=4,expansion=1",
    "thin:block=inverted",
    "thin:block=inverted,tail=wide",
    "thin:block=separable,shortcut=pad",
    "mnist_fc",
    "mnist_cnn",
]


@pytest.mark.parametrize("importance", ["l1", "random"])
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("fraction", [0.25, 0.6])
def test_the_fraction_is_met_and_the_network_trains(name: str, fraction: float, importance: str) -> None:
    model = make(name).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    removal = prune_channels(model, fraction, shape_of(name), importance)  # type: ignore[arg-type]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert removal.weights_before == weights(model)
    assert removal.weights_after == weights(removal.model)
    assert removal.fraction == pytest.approx(fraction, abs=0.02)
    assert removal.model.training and all(p.requires_grad for p in removal.model.parameters())
    logits = removal.model(images(name, 4))
    assert logits.shape == (4, 10)
    logits.sum().backward()
    assert all(p.grad is not None for p in removal.model.parameters())


class TwoConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3), nn.Linear(4 * 2 * 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.second(self.first(x).relu()).relu().flatten(1))
        return y


def test_counts_by_hand() -> None:
    # 3x8x9 + 8x4x9 + 16x2 = 216 + 288 + 32 = 536; with 4 and 2 channels 108 + 72 + 16 = 196.
    model = TwoConvolutions()
    removal = prune_channels(model, 1 - 196 / 536, (3, 6, 6))
    assert (removal.weights_before, removal.weights_after) == (536, 196)
    assert removal.channels == {"first": (8, 4), "second": (4, 2)}
    pruned = removal.model
    assert (pruned.second.in_channels, pruned.fc.in_features, pruned.fc.out_features) == (4, 8, 2)  # type: ignore[union-attr]


def test_the_smallest_filters_go() -> None:
    model = TwoConvolutions()
    with torch.no_grad():
        model.first.weight.copy_(torch.arange(8, 0, -1).view(-1, 1, 1, 1).expand_as(model.first.weight))
    pruned = remove_channels(model, 1 - 196 / 536, (3, 6, 6), "l2")
    assert pruned.first.weight[:, 0, 0, 0].tolist() == [8, 7, 6, 5]  # type: ignore[index,union-attr]


def test_batch_norm_multipliers_decide_if_asked() -> None:
    model = make("resnet:depths=1-1,widths=8-16")
    multipliers = torch.tensor([1.0, 0.01, 1, 0.02, 1, 0.03, 1, 0.04])
    model.get_submodule("stages.0.0.body.norm1").weight.data.copy_(multipliers)  # type: ignore[operator]
    fraction = 1 - weights(make("resnet:depths=1-1,widths=4-8")) / weights(model)
    pruned = remove_channels(model, fraction, (3, 16, 16), "bn")
    assert pruned.get_submodule("stages.0.0.body.norm1").weight.tolist() == [1] * 4  # type: ignore[operator]


def test_kept_layers_stay_as_they_are() -> None:
    model = make("resnet14")
    pruned = remove_channels(model, 0.15, (3, 16, 16), keep=["stem", "stages.2"])
    assert pruned.get_submodule("stem.conv").weight.shape == (16, 3, 3, 3)
    for name, value in pruned.get_submodule("stages.2").state_dict().items():
        assert torch.equal(value, model.get_submodule("stages.2").state_dict()[name])
    assert pruned.get_submodule("stages.1.0.body.conv1").weight.shape[0] < 32  # type: ignore[index]


def test_padded_shortcuts_keep_their_channels() -> None:
    pruned = remove_channels(make("resnet:depth=8,shortcut=pad"), 0.5, (3, 16, 16))
    assert [pruned.get_submodule(f"stages.{i}.0.body.norm2").num_features for i in range(3)] == [16, 32, 64]


def test_shuffled_channels_stay() -> None:
    pruned = remove_channels(make("thin:groups=4,widths=16-32-64"), 0.3, (3, 16, 16))
    blocks = [module for name, module in pruned.named_modules() if name.endswith("body.conv1")]
    assert [module.out_channels for module in blocks] == [16, 16, 32, 32, 64, 64]

    class Shuffles(nn.Sequential):
        """torch's own shuffle between two convolutions: the first cannot lose channels, the second can."""

        def __init__(self) -> None:
            super().__init__(
                nn.Conv2d(3, 8, 3), nn.ChannelShuffle(2), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(32, 2)
            )

    shuffled = remove_channels(Shuffles(), 0.3, (3, 6, 6))
    # Weights 216 + 576 + 64; a channel of the second convolution holds 72 + 8 of them.
    assert [shuffled[i].weight.shape[0] for i in (0, 2)] == [8, 5]  # type: ignore[index]


@pytest.mark.parametrize("multiple", [4, 8])
def test_channels_are_multiples(multiple: int) -> None:
    removal = prune_channels(make("resnet14"), 0.5, (3, 16, 16), multiple=multiple)
    assert removal.channels and all(after % multiple == 0 for _, after in removal.channels.values())
    assert removal.fraction == pytest.approx(0.5, abs=0.15)


def test_random_is_a_function_of_the_seed() -> None:
    model = make("resnet:depth=8")
    state = torch.random.get_rng_state()
    first, again, other = (
        remove_channels(model, 0.5, (3, 16, 16), "random", seed=seed).state_dict() for seed in (1, 1, 2)
    )
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not torch.equal(first["fc.weight"], other["fc.weight"])


def test_nothing_to_remove() -> None:
    removal = prune_channels(make("resnet:depth=8"), 0.0, (3, 16, 16))
    assert removal.fraction == 0 and removal.channels == {}


def test_what_cannot_be_done_is_said() -> None:
    model = make("resnet:depth=8")
    most = prune_channels(model, 0.95, (3, 16, 16)).fraction
    assert not math.isclose(most, 1)
    with pytest.raises(UsageError, match=r"0\.9999.*at most 0\.9"):
        remove_channels(model, 0.9999, (3, 16, 16))
    with pytest.raises(UsageError, match=r"at most 0\.0000"):
        remove_channels(model, 0.1, (3, 16, 16), keep=["stem", "stages"])
    with pytest.raises(UsageError, match="'stom' that is to be kept does not exist"):
        remove_channels(model, 0.1, (3, 16, 16), keep=["stom"])
    with pytest.raises(UsageError, match=r"1\.5: must lie in"):
        remove_channels(model, 1.5, (3, 16, 16))
    with pytest.raises(UsageError, match="importance 'l3' does not exist"):
        remove_channels(model, 0.1, (3, 16, 16), "l3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"at most 0\.0000"):
        remove_channels(make("mnist_fc"), 0.1, (1, 8, 8), "bn")


@pytest.mark.slow
def test_networks_that_the_graph_cannot_follow_are_said() -> None:
    import torchvision

    with pytest.raises(TrainingError, match="Torch-Pruning cannot follow this network"):
        remove_channels(torchvision.models.shufflenet_v2_x0_5(num_classes=10), 0.2, (3, 64, 64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "regnetx_002", "efficientnet_b0", "densenet121", "vgg11_bn"])
def test_timm_models(name: str) -> None:
    model = networks.build(networks.parse(f"timm/{name}"), (3, 32, 32))
    removal = prune_channels(model, 0.4, (3, 32, 32))
    assert removal.fraction == pytest.approx(0.4, abs=0.03)
    assert removal.model(torch.rand(2, 3, 32, 32)).shape == (2, 10)
