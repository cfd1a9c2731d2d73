"""The network that is priced and run: what a reader found, without what changes no prediction.

Every step makes a graph that says the same, so it is this graph, and no other, whose costs and accuracy count.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoring.analysis.dead_channels import without_dead_channels
from scoring.graph.graph import Graph


def prepared(graph: Graph) -> tuple[Graph, tuple[str, ...]]:
    """(the graph that is priced and run, notes on what is not in it)."""
    plain = _without_final_softmax(graph)
    plain = replace(plain, constants={name: _canonical(value) for name, value in plain.constants.items()})
    reduced, notes = without_dead_channels(plain)
    if graph.unused:
        listed = ", ".join(f"'{name}'" for name in graph.unused[:3])
        more = f" and {len(graph.unused) - 3} more" if len(graph.unused) > 3 else ""
        notes = (*notes, f"nothing uses {listed}{more}: left out, and not charged")
    return reduced, notes


def _without_final_softmax(graph: Graph) -> Graph:
    """Without a softmax over the logits: it keeps their order."""
    output = graph.output
    while (node := graph.producers.get(output)) is not None:
        last = node.attributes.get("axis") in (1, -1) and len(graph.shapes[output]) == 2
        if node.kind in ("Softmax", "LogSoftmax") and last:
            return replace(graph, output=node.inputs[0])
        if node.kind != "Identity":
            break
        output = node.inputs[0]
    return graph


def _canonical(value: Tensor) -> Tensor:
    """Without signs of zeros and numbers too small to be normal, which could carry what nobody counts.

    Normal in float32, in which they are multiplied: a half below 6e-5 is a number like any other, and charged as one.
    """
    if not value.is_floating_point() or value.device.type == "meta":
        return value
    tiny = torch.finfo(torch.float32).tiny
    odd = (value.abs() < tiny) & ((value != 0) | value.signbit())
    return torch.where(odd, torch.zeros_like(value), value) if bool(odd.any()) else value
