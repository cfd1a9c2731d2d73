"""Constants in disguise: what stands where weights stand, is made from the image, and is the same for every image.

Each operand of a product of activations, and each kernel that is made from the image, is replaced by its mean over
the test images. If nearly no prediction changes, it was a constant, and it is charged as one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoring.costs import Number
from scoring.graph.graph import Graph, Node, bits_of
from scoring.graph.interpreter import logits_of, run_graph
from scoring.graph.kinds import KINDS, Price

IMAGES = 2_000
BATCH = 250
CHANGED = 0.005
"""Part of the predictions that may change for an operand to count as a constant: 50 of 10,000."""


def constants_in_disguise(graph: Graph, pixels: Tensor) -> list[Number]:
    """The numbers that are charged for operands which do not depend on the image."""
    suspects = [(node, value) for node in graph.running for value in _weight_places(graph, node)]
    if not suspects:
        return []
    images = pixels[:IMAGES].float() / 255
    means = _means(graph, images, {value for _, value in suspects})
    before = torch.cat([logits_of(graph, part).argmax(1) for part in images.split(BATCH)])
    found, known = [], dict[str, bool]()
    for node, value in suspects:
        if value not in known:
            known[value] = _is_constant(graph, images, before, value, means[value])
            if known[value]:
                count = math.prod(graph.shapes[value])
                found.append(Number(f"{node.name}.{value}", node.name, count, bits_of(graph.types[value])))
    return found


def _weight_places(graph: Graph, node: Node) -> list[str]:
    """The values made from the image that stand where weights stand."""
    if node.kind not in KINDS or KINDS[node.kind].price is not Price.LAYER:
        return []
    changing = [i for i in node.inputs[:2] if not graph.is_constant(i)]
    if node.kind == "MatMul":
        return changing if len(changing) == 2 else []
    return [node.inputs[1]] if node.inputs[1] in changing else []


def _means(graph: Graph, images: Tensor, values: set[str]) -> dict[str, Tensor]:
    """The mean over images of each value, in the shape that it has for one image."""
    sums = {value: torch.zeros(graph.shapes[value]) for value in values}
    for part in images.split(BATCH):
        for value, found in run_graph(graph, part, values).items():
            sums[value] += found.float().reshape(len(part), *graph.shapes[value]).sum(0)
    return {value: (total / len(images)).to(graph.types[value]) for value, total in sums.items()}


def _is_constant(graph: Graph, images: Tensor, before: Tensor, value: str, mean: Tensor) -> bool:
    limit, changed = CHANGED * len(images), 0
    for part, expected in zip(images.split(BATCH), before.split(BATCH), strict=True):
        logits = run_graph(graph, part, (graph.output,), {value: mean})[graph.output]
        changed += int((logits.argmax(1) != expected).sum())
        if changed > limit:
            return False
    return True
