"""Random honest networks, and rewrites of them that compute the same: what the scorer has to price alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Layer = Callable[[nn.Module, Tensor], Tensor]
SIZE = 8


@dataclass(frozen=True)
class Step:
    """A block of a network: what it is, and how it is written (0: as everybody writes it)."""

    kind: str
    way: int


SAME = {
    "residual": 2,
    "scale": 3,
    "shuffle": 3,
    "copy": 2,
    "branches": 2,
    "crelu": 2,
    "gate": 2,
}
"""Kinds with several ways of saying the same: the score is equal to the unit."""
CHANGED = {
    "conv": 6,
    "depthwise": 3,
    "scale": 4,
    "residual": 3,
}
"""Kinds with rewrites that keep the function: the score may not fall."""
KINDS = ("conv", "depthwise", "residual", "scale", "shuffle", "copy", "branches", "crelu", "gate", "pool")


class Written(nn.Module):
    """A network of `channels` channels, its blocks written in the ways that the steps say."""

    def __init__(self, channels: int, steps: list[Step], seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw: Callable[..., Tensor] = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
        self.channels, self.steps = channels, steps
        self.register_buffer("stem", draw(channels, 3, 3, 3))
        self.register_buffer("head", draw(10, channels))
        for i in range(len(steps)):
            self.register_buffer(f"w{i}", draw(channels, channels, 3, 3))
            self.register_buffer(f"d{i}", draw(channels, 1, 3, 3))
            self.register_buffer(f"s{i}", draw(1, channels, 1, 1).abs() + 0.5)
            self.register_buffer(f"v{i}", draw(2 * channels, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.conv2d(x, self.get_buffer("stem"), padding=1))
        for i, step in enumerate(self.steps):
            w, d, s, v = (self.get_buffer(f"{name}{i}") for name in "wdsv")
            x = _BLOCKS[step.kind](x, step.way, w, d, s, v)
        return F.linear(x.mean((2, 3)), self.get_buffer("head"))


def _conv(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    half = x.shape[1] // 2
    if way == 1:  # in two pieces of its inputs
        y = F.conv2d(x[:, :half], w[:, :half], padding=1) + F.conv2d(x[:, half:], w[:, half:], padding=1)
    elif way == 2:  # in two pieces of its outputs
        y = torch.cat([F.conv2d(x, w[:half], padding=1), F.conv2d(x, w[half:], padding=1)], 1)
    elif way == 3:  # nine shifted 1x1 convolutions
        p = F.pad(x, (1, 1, 1, 1))
        y = F.conv2d(p[:, :, :SIZE, :SIZE], w[:, :, :1, :1])
        for j in range(1, 9):
            a, b = divmod(j, 3)
            y = y + F.conv2d(p[:, :, a : a + SIZE, b : b + SIZE], w[:, :, a : a + 1, b : b + 1])
    elif way == 4:  # the weight as an expression
        y = F.conv2d(x, (w * 2.0 + 1.0 - 1.0) / 2.0, padding=1)
    elif way == 5:  # a scale moved into the input
        y = F.conv2d(x * 2.0, w * 0.5, padding=1)
    else:
        y = F.conv2d(x, w, padding=1)
    return F.relu(y)


def _depthwise(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    if way == 1:  # nine products of shifted maps by numbers of the channel
        p, k = F.pad(x, (1, 1, 1, 1)), d.reshape(-1, 9, 1, 1)
        y = p[:, :, :SIZE, :SIZE] * k[:, 0].reshape(1, -1, 1, 1)
        for j in range(1, 9):
            a, b = divmod(j, 3)
            y = y + p[:, :, a : a + SIZE, b : b + SIZE] * k[:, j].reshape(1, -1, 1, 1)
        return F.relu(y)
    if way == 2:  # in two pieces
        half = x.shape[1] // 2
        parts = [(x[:, :half], d[:half]), (x[:, half:], d[half:])]
        return F.relu(torch.cat([F.conv2d(a, b, padding=1, groups=a.shape[1]) for a, b in parts], 1))
    return F.relu(F.conv2d(x, d, padding=1, groups=x.shape[1]))


def _residual(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    y = F.conv2d(x, w, padding=1)
    if way == 2:
        return F.relu(y - (-x))
    return F.relu(x + y if way else y + x)


def _scale(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    y = F.conv2d(x, w, padding=1)
    if way == 3:  # in two factors
        return F.relu(y * s.sqrt() * s.sqrt() - s)
    if way == 2:
        return F.relu(-s + y * s)
    return F.relu(s * y - s if way else y * s - s)


def _shuffle(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    n, c, h, width = x.shape
    if way == 1:
        x = x[:, torch.arange(c).reshape(2, c // 2).T.reshape(-1)]
    elif way == 2:
        x = F.channel_shuffle(x, 2)
    else:
        x = x.reshape(n, 2, c // 2, h, width).transpose(1, 2).reshape(n, c, h, width)
    return F.relu(F.conv2d(x, w, padding=1))


def _copy(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    y = F.relu(F.conv2d(x, w, padding=1))
    return y.clone() if way else y


def _branches(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Two convolutions whose outputs are joined; in the other way the second one is made first."""
    half = x.shape[1] // 2
    if way:
        second = F.conv2d(x, w[half:], padding=1)
        first = F.conv2d(x, w[:half], padding=1)
    else:
        first = F.conv2d(x, w[:half], padding=1)
        second = F.conv2d(x, w[half:], padding=1)
    return F.relu(torch.cat([first, second], 1))


def _crelu(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    both = torch.cat([F.relu(x), F.relu(-x)], 1) if not way else F.relu(torch.cat([x, -x], 1))
    return F.relu(F.conv2d(both, v.transpose(0, 1)))


def _gate(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """Squeeze and excite."""
    gate = torch.sigmoid(F.conv2d(x.mean((2, 3), keepdim=True), w[:, :, :1, :1]))
    y = gate * x if way else x * gate
    return F.relu(F.conv2d(y, w, padding=1))


def _pool(x: Tensor, way: int, w: Tensor, d: Tensor, s: Tensor, v: Tensor) -> Tensor:
    return F.relu(F.conv2d(F.max_pool2d(x, 3, 1, 1), w, padding=1))


_BLOCKS: dict[str, Callable[..., Tensor]] = {
    "conv": _conv,
    "depthwise": _depthwise,
    "residual": _residual,
    "scale": _scale,
    "shuffle": _shuffle,
    "copy": _copy,
    "branches": _branches,
    "crelu": _crelu,
    "gate": _gate,
    "pool": _pool,
}


@st.composite
def pairs(draw: st.DrawFn, ways: dict[str, int]) -> tuple[Written, Written]:
    """(a network as everybody writes it, the same with some blocks in other ways)."""
    channels = draw(st.sampled_from((4, 6, 8)))
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    seed = draw(st.integers(0, 2**16))
    chosen = [Step(kind, draw(st.integers(0, ways.get(kind, 1) - 1))) for kind in kinds]
    plain = [Step(kind, 0) for kind in kinds]
    return Written(channels, plain, seed).eval(), Written(channels, chosen, seed).eval()
