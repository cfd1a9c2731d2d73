"""The examination of a network: pure, in the process that calls it, without ever seeing a label.

The isolated child calls `examine`; so does everything that trusts its files (a search scoring its own networks).
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contest.errors import RefusedError
from scoring.analysis.activation_bits import Grid, follow
from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import without_dead_channels
from scoring.costs import Costs
from scoring.graph.graph import SHAPE_KINDS, Graph
from scoring.readers.read import read
from scoring.readers.subject import Subject, example_images, input_type
from scoring.verification.examination import MAX_CLASSES, Examination, check_logits, facts
from scoring.verification.fvcore_check import disagreement, fvcore_count

BATCH = 500
REORDERED_BATCH = 384
REPEATED = 1_000
"""Images of the run that is repeated to see whether it gives the same bits."""
WATCHED = 8
"""Images of each kind (random, real) whose activations are counted."""
ALONE = 12
ALONE_LOGITS = 0.02
"""Images that also run one by one through the graph that is priced, and how far their logits may then be off: half of
the images by so much of the largest logit. Rounding tips single codes over, another network is off by all of it."""


def examine(path: Path, images: NDArray[np.uint8] | Tensor | None = None, *, batch_size: int = BATCH) -> Examination:
    """Costs of the network in a file, and its logits for uint8 images [N,C,H,W] if they are given.

    Raises RefusedError for a file that is malformed, hostile or not one that the contest accepts.
    """
    return examine_subject(read(Path(path)), images, batch_size=batch_size)


def examine_subject(
    subject: Subject, images: NDArray[np.uint8] | Tensor | None = None, *, batch_size: int = BATCH
) -> Examination:
    """The same for a network that was read already."""
    pixels = None if images is None else torch.as_tensor(images)
    if pixels is not None and (pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != subject.image_shape):
        raise RefusedError(
            f"the network takes images of {subject.image_shape}, and these are {tuple(pixels.shape[1:])} {pixels.dtype}"
        )
    _check_claims(subject)
    _check_graph(subject.graph)
    watched = example_images(subject.image_shape, WATCHED)
    if pixels is not None:
        watched = torch.cat([watched, pixels[:WATCHED].float() / 255])
    costs = _costs(subject, watched)
    if pixels is None:
        return Examination(costs, dict(subject.claims), subject.image_shape, provenance=facts(subject.provenance))
    logits, reordered, repeatable = _answers(subject, pixels, batch_size)
    costs = replace(costs, problems=(*costs.problems, *_different_alone(subject, pixels, logits)))
    return Examination(
        costs, dict(subject.claims), subject.image_shape, logits, reordered, repeatable, facts(subject.provenance)
    )


def _check_claims(subject: Subject) -> None:
    p_s, p_u = subject.claims.get("p_s") or 0.0, subject.claims.get("p_u") or 0.0
    if p_s + p_u > 1 or min(p_s, p_u) < 0:
        raise RefusedError(
            f"the file claims p_s = {p_s:g} and p_u = {p_u:g}; both are fractions of the same weights and "
            "cannot add up to more than 1"
        )


def _check_graph(graph: Graph) -> None:
    if graph.unused:
        more = f" (and {len(graph.unused) - 1} more)" if len(graph.unused) > 1 else ""
        raise RefusedError(f"tensor '{graph.unused[0]}'{more} is stored, but nothing uses it; remove it")
    shape = graph.shapes[graph.output]
    if len(shape) != 2 or shape[0] != 1 or not 2 <= shape[1] <= MAX_CLASSES:
        raise RefusedError(f"the network gives {list(shape)} for one image; it must give logits [1, classes]")
    for name in graph.stored:
        tensor = graph.constants[name]
        if tensor.numel() == 0:
            raise RefusedError(f"tensor '{name}' is empty, of shape {tuple(tensor.shape)}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"tensor '{name}' holds NaN or infinite numbers")


def _costs(subject: Subject, watched: Tensor) -> Costs:
    graph, notes = without_dead_channels(subject.graph, watched)
    costs = analyse(graph, parent=subject.parent)
    whole = costs if graph is subject.graph else analyse(subject.graph)
    problems = (*costs.problems, *_other_counts(subject, whole), *_values_beyond_grids(subject, watched))
    return Costs(costs.operations, costs.numbers, costs.unknown_operations, problems, costs.parent,
                 (*subject.notes, *notes))  # fmt: skip


def _other_counts(subject: Subject, costs: Costs) -> list[str]:
    """Where fvcore counts other multiply-accumulates for the same module."""
    if subject.module is None or costs.unknown_operations:
        return []
    image = example_images(subject.image_shape, 1).to(input_type(subject.module))
    different = disagreement(costs, fvcore_count(subject.module, image))
    return [different] if different else []


def _values_beyond_grids(subject: Subject, watched: Tensor) -> list[str]:
    """Layers whose input has more distinct values at run time than the bits it is credited with."""
    graph = subject.graph
    grids = follow(graph)
    inputs = [
        (node.name, value, grids[value])
        for node in graph.running
        if node.kind in ("Conv", "ConvTranspose", "Linear", "MatMul", "Mul")
        for value in node.inputs
        if value in grids
    ]
    if not inputs:
        return []
    step = subject.max_batch or len(watched)
    runs = [subject.watch(watched[i : i + step]) for i in range(0, len(watched), step)]
    problems = []
    for name, value, grid in inputs:
        while value not in runs[0] and value in graph.producers and graph.producers[value].kind in SHAPE_KINDS:
            value = graph.producers[value].inputs[0]  # inside of a fused operation; the values are the same
        if any(value not in run for run in runs):
            problems.append(f"the input of '{name}' was not seen at run time")
            continue
        most = _most_values(torch.cat([run[value] for run in runs]), grid)
        if most > 2**grid.bits:
            problems.append(
                f"the input of '{name}' is credited with {grid.bits} bits ({2**grid.bits} values), "
                f"but takes {most} different values"
            )
    return problems


def _most_values(x: Tensor, grid: Grid) -> int:
    """Distinct values of a tensor [N,C,...]; for grids that differ by channel, of the worst channel."""
    if grid.step is not None and not grid.moved:
        return len(torch.unique(x))
    return max(len(torch.unique(channel)) for channel in x.transpose(0, 1)) if x.dim() > 1 else len(torch.unique(x))


def _answers(subject: Subject, pixels: Tensor, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
    count = len(pixels)
    batch_size = min(batch_size, subject.max_batch or batch_size)
    logits = _run(subject, pixels, torch.arange(count), batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    other = min(REORDERED_BATCH, subject.max_batch or REORDERED_BATCH)
    shuffled = _run(subject, pixels, order, other)
    reordered = torch.empty(count, dtype=torch.int64)
    reordered[order] = shuffled.argmax(1)
    some = min(count, math.ceil(REPEATED / batch_size) * batch_size)
    repeatable = torch.equal(_run(subject, pixels, torch.arange(some), batch_size), logits[:some])
    found: tuple[Any, Any] = (logits.numpy(), reordered.numpy())
    check_logits(*found, count)
    return *found, repeatable


def _different_alone(subject: Subject, pixels: Tensor, logits: NDArray[np.float32]) -> list[str]:
    """Costs are those of one image; a network that asks how many there are could do other work for many."""
    few = pixels[:ALONE].float() / 255
    alone = torch.cat([subject.watch(image[None])[subject.graph.output].float() for image in few])
    together = torch.from_numpy(logits[:ALONE])
    difference = (alone - together).abs().amax(1) / together.abs().max().clamp_min(1e-6)
    if float(difference.median()) <= ALONE_LOGITS:
        return []
    return [
        f"images that run alone, as they are priced, get other logits than in batches of {BATCH}: half of them are off "
        f"by over {100 * float(difference.median()):.0f} % of the largest; the network must not depend on the batch"
    ]


def _run(subject: Subject, pixels: Tensor, order: Tensor, batch_size: int) -> Tensor:
    """Float32 logits [N, classes] of the images in this order."""
    parts = []
    for index in order.split(batch_size):
        output = subject.run(pixels[index].float() / 255)
        if output.dim() != 2 or len(output) != len(index):
            raise RefusedError(f"the network gave {tuple(output.shape)} for {len(index)} images, not [N, classes]")
        parts.append(output.float())
    return torch.cat(parts)
