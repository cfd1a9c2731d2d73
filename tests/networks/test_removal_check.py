"""Channels are removed only where that does what masking them does; what cannot be removed is named and stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.structured import Removal, prune_channels

SHAPE = (3, 8, 8)


Mix = Callable[[Tensor, Tensor], Tensor]
Flatten = Callable[[Tensor], Tensor]


class Own(nn.Module):
    """A user's network: two convolutions, what the case does with the first's maps (`mix`), a third, and a head."""

    def __init__(
        self,
        mix: Callable[[Tensor, Tensor], Tensor],
        channels: int = 8,
        flatten: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.mix, self.flatten = mix, flatten
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.third = nn.Conv2d(channels, 12, 3, padding=1)
        self.head = nn.Linear(12 if flatten is None else 12 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.third(self.mix(x, self.second(self.first(x).relu()).relu())).relu()
        logits: Tensor = self.head(y.mean((2, 3)) if self.flatten is None else self.flatten(y))
        return logits


class Normed(Own):
    """With a norm between the second and the third convolution, over channels last if it is a layer norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(lambda x, y: y)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x).relu()).relu()
        last = isinstance(self.norm, nn.LayerNorm)
        y = self.norm(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if last else self.norm(y)
        logits: Tensor = self.head(self.third(y).relu().mean((2, 3)))
        return logits


class Unfolded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.third, self.head = nn.Linear(8 * 4, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        patches = F.unfold(self.second(self.first(x).relu()).relu(), 2, stride=2).transpose(1, 2)
        logits: Tensor = self.head(self.third(patches).relu().mean(1))
        return logits


def coordinates(x: Tensor, y: Tensor) -> Tensor:
    rows = torch.linspace(-1, 1, 8, device=y.device).view(1, 1, 8, 1).expand(len(y), 1, 8, 8)
    return torch.cat([rows, rows.transpose(2, 3), y], 1)


def halves(x: Tensor, y: Tensor) -> Tensor:
    one, other = y.chunk(2, 1)
    return one * other.sigmoid()


CASES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "image before the maps": (lambda: Own(lambda x, y: torch.cat([x, y], 1), 11), "second"),
    "coordinate planes": (lambda: Own(coordinates, 10), "second"),
    "channels last, flattened": (lambda: Own(lambda x, y: y, 8, lambda y: y.permute(0, 2, 3, 1).flatten(1)), "third"),
    "tokens, flattened": (lambda: Own(lambda x, y: y, 8, lambda y: y.flatten(2).transpose(1, 2).flatten(1)), "third"),
    "chunks": (lambda: Own(halves, 4), "second"),
    "gated linear unit": (lambda: Own(lambda x, y: F.glu(y, 1), 4), "second"),
    "group norm": (lambda: Normed(nn.GroupNorm(4, 8)), "second"),
    "unfold": (Unfolded, "second"),
}
"""What a user's network does -> the network, and the layer whose channels therefore stay."""


def masked_logits(model: nn.Module, removal: Removal, images: Tensor) -> Tensor:
    """The original network without the filters that went: found by value, without asking any dependency graph."""
    outputs: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            small = removal.model.get_submodule(name)
            rows = [tuple(row.flatten()[:1].tolist()) for row in layer.bias.detach().view(-1, 1)]  # type: ignore[operator]
            left = {tuple(row.flatten()[:1].tolist()) for row in small.bias.detach().view(-1, 1)}  # type: ignore[operator]
            outputs[name] = torch.tensor([row in left for row in rows])

    def silence(name: str) -> Callable[[nn.Module, object, Tensor], Tensor]:
        alive = outputs[name].float()
        return lambda layer, args, out: out * (alive.view(-1, 1, 1) if isinstance(layer, nn.Conv2d) else alive)

    handles = [model.get_submodule(name).register_forward_hook(silence(name)) for name in outputs]
    with torch.no_grad():
        logits: Tensor = model(images)
    for handle in handles:
        handle.remove()
    return logits


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fraction", [0.15, 0.3])
def test_a_group_that_cannot_go_stays_and_the_others_go(case: str, fraction: float) -> None:
    """A filter that is masked gives zeros behind a ReLU, so silencing the filters is what removing them must do."""
    torch.manual_seed(0)
    make, layer = CASES[case]
    model = make().eval()
    images = torch.rand(4, *SHAPE)
    try:
        removal = prune_channels(model, fraction, SHAPE)
    except UsageError as error:  # the head holds most of the weights: then it is said which layer stands in the way
        assert f"'{layer}'" in str(error) and "flattened" in case
        return
    assert removal.channels and layer not in removal.channels
    assert removal.fraction == pytest.approx(fraction, abs=0.06)
    with torch.no_grad():
        torch.testing.assert_close(removal.model(images), masked_logits(model, removal, images), rtol=1e-4, atol=1e-5)
    assert all(name == layer for name in removal.left_out)


def test_a_plain_flatten_and_a_layer_norm_over_channels_are_followed() -> None:
    torch.manual_seed(0)
    removal = prune_channels(Own(lambda x, y: y, 8, lambda y: y.flatten(1)).eval(), 0.3, SHAPE)
    assert removal.channels["third"][1] < 12 and not removal.left_out

    removal = prune_channels(Normed(nn.LayerNorm(8)).eval(), 0.4, SHAPE)
    assert removal.channels["second"][1] < 8 and not removal.left_out


def test_what_stands_in_the_way_is_named() -> None:
    torch.manual_seed(0)
    model = Own(lambda x, y: torch.cat([x, y], 1), 11).eval()
    with pytest.raises(UsageError, match=r"Left out: the channels of 'second': the network without them is not"):
        prune_channels(model, 0.95, SHAPE)
