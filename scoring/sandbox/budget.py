"""A cap on the work of one forward pass, checked before the work is done."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from contest.errors import RefusedError
from contest.untrusted.description import MAX_MACS

if TYPE_CHECKING:
    from scoring.graph.graph import Graph


@contextmanager
def limited_macs(limit: int = MAX_MACS) -> Iterator[None]:
    """While active, a convolution or linear layer that would take the sum of all beyond `limit` is not run.

    For the one image that a reader sends through a network: it must not work for hours before anybody counts.
    """
    import torch
    from torch import Tensor, nn

    done = 0

    def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal done
        weight = getattr(module, "codes", getattr(module, "weight", None))
        if not inputs or not isinstance(inputs[0], Tensor) or not isinstance(weight, Tensor) or weight.dim() < 2:
            return
        done += _macs(module, tuple(inputs[0].shape), tuple(weight.shape))
        _check(done, limit)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()


def check_macs(graph: Graph, limit: int = MAX_MACS) -> None:
    """The same for a graph that was read already."""
    done = 0
    for node in graph.nodes:
        if (
            node.kind in ("Conv", "ConvTranspose", "Linear")
            and len(node.inputs) > 1
            and not graph.is_constant(node.output)
        ):
            weight = graph.shapes[node.inputs[1]]
            side = node.inputs[0] if node.kind == "ConvTranspose" else node.output
            done += math.prod(graph.shapes[side]) * math.prod(weight[1:])
    _check(done, limit)


def _macs(module: Any, shape: tuple[int, ...], weight: tuple[int, ...]) -> int:
    """About the multiply-accumulates of a layer: positions of its output times the weights of one."""
    if len(weight) == 2:
        return math.prod(shape[:-1]) * math.prod(weight)
    stride = getattr(module, "stride", 1)
    strides = math.prod(stride) if isinstance(stride, tuple) else stride
    return shape[0] * math.prod(shape[2:]) * math.prod(weight) // max(1, strides)


def _check(done: int, limit: int) -> None:
    if done > limit:
        raise RefusedError(f"one forward pass takes more than {limit:,} multiply-accumulates; that is the limit")
