"""The examination of a network: pure, in the process that calls it, without ever seeing a label.

The isolated child calls `examine`; so does everything that trusts its files (a search scoring its own networks). What
is priced is what runs: one graph, by one engine. The file's own engine is asked as well, and can only warn its author.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contest.errors import RefusedError
from scoring.analysis.activation_bits import Grid, follow
from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import prepared
from scoring.costs import Costs, Number
from scoring.graph.graph import Graph, Node, bits_of
from scoring.graph.interpreter import batch_coupling, engine_of, logits_of, run_graph
from scoring.graph.kinds import KINDS, LAYER_KINDS, Charge
from scoring.readers.read import read
from scoring.readers.subject import Subject, example_images
from scoring.verification.examination import MAX_CLASSES, Examination, check_logits, facts
from scoring.verification.second_counts import other_counts

AVERAGED = 2_000
"""Images that the mean is of; predictions are compared on all."""
IMAGES_AT_ONCE = 250
CHANGED = 0.005
"""Part of the predictions that may change for an operand to count as a constant: 50 of 10,000."""


def constants_in_disguise(graph: Graph, pixels: Tensor) -> list[Number]:
    """The numbers that are charged for operands which do not depend on the image."""
    suspects = [(node, value) for node in graph.running for value in _weight_places(graph, node)]
    if not suspects:
        return []
    means = _means(graph, pixels[:AVERAGED].float() / 255, {value for _, value in suspects})
    before: list[Tensor] = []
    found, known = [], dict[str, bool]()
    for node, value in suspects:
        if value not in known:
            known[value] = _is_constant(graph, pixels, before, value, means[value])
            if known[value]:
                count = math.prod(graph.shapes[value])
                found.append(Number(f"{node.name}.{value}", node.name, count, bits_of(graph.types[value])))
    return found


def _weight_places(graph: Graph, node: Node) -> list[str]:
    """The values made from the image that stand where weights stand."""
    if node.kind not in KINDS or KINDS[node.kind].price is not Charge.LAYER:
        return []
    changing = [i for i in node.inputs[:2] if not graph.is_constant(i)]
    if node.kind == "MatMul":
        return changing if len(changing) == 2 else []
    return [node.inputs[1]] if node.inputs[1] in changing else []


def _means(graph: Graph, images: Tensor, values: set[str]) -> dict[str, Tensor]:
    """The mean over images of each value, in the shape that it has for one image."""
    sums = {value: torch.zeros(graph.shapes[value]) for value in values}
    for part in images.split(IMAGES_AT_ONCE):
        for value, found in run_graph(graph, part, values).items():
            sums[value] += found.float().reshape(len(part), *graph.shapes[value]).sum(0)
    return {value: (total / len(images)).to(graph.types[value]) for value, total in sums.items()}


def _is_constant(graph: Graph, pixels: Tensor, before: list[Tensor], value: str, mean: Tensor) -> bool:
    """Whether nearly all predictions stay. before: those of the network as it is, part by part, as far as needed."""
    limit, changed = CHANGED * len(pixels), 0
    for i, part in enumerate(pixels.split(IMAGES_AT_ONCE)):
        images = part.float() / 255
        if i == len(before):
            before.append(logits_of(graph, images).argmax(1))
        logits = run_graph(graph, images, (graph.output,), {value: mean})[graph.output]
        changed += int((logits.argmax(1) != before[i]).sum())
        if changed > limit:
            return False  # an operand that matters is seen in the first parts; only a constant takes all images
    return True


BATCH = 50
"""Images at once: few enough that a map stays in the processor's cache."""
REORDERED_BATCH = 64
REPEATED = 1_000
"""Images of the run that is repeated to see whether it gives the same bits."""
WATCHED = 8
"""Images of each kind (random, real) whose activations are counted."""
CROSS_CHECKED = 2_000
CROSS_CHECK_LIMIT = 0.01
"""Images that the file's own engine sees too, and the part of them it may see otherwise without a warning."""

Engine = Callable[[Tensor], Tensor]
Told = Callable[[float], None]
"""Gets the part that is done, 0 to 1."""


def examine(
    path: Path,
    images: NDArray[np.uint8] | Tensor | None = None,
    *,
    batch_size: int = BATCH,
    told: Told | None = None,
) -> Examination:
    """Costs of the network in a file, and its logits for uint8 images [N,C,H,W] if they are given.

    told: gets the part of the images that is done, 0 to 1, again and again.

    Raises RefusedError for a file that is malformed, hostile or not one that the contest accepts.
    """
    shape = None if images is None else (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    return examine_subject(read(Path(path), shape), images, batch_size=batch_size, told=told)


def examine_subject(
    subject: Subject,
    images: NDArray[np.uint8] | Tensor | None = None,
    *,
    batch_size: int = BATCH,
    told: Told | None = None,
) -> Examination:
    """The same for a network that was read already."""
    pixels = None if images is None else torch.as_tensor(images)
    if pixels is not None and (pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != subject.image_shape):
        raise RefusedError(
            f"the network takes images of {subject.image_shape}, and these are {tuple(pixels.shape[1:])} {pixels.dtype}"
        )
    _check_claims(subject)
    _check_graph(subject.graph)
    graph, notes = prepared(subject.graph)
    grids = follow(graph)
    costs = analyse(graph, parent=subject.parent, grids=grids)
    costs = replace(costs, notes=(*subject.notes, *notes))
    known = not costs.unknown_operations
    if known:
        costs = _checked_costs(subject, graph, grids, costs, pixels)
    found = Examination(costs, dict(subject.claims), subject.image_shape, provenance=facts(subject.provenance))
    if pixels is None:
        return found
    count = _Counted(2 * len(pixels) + min(len(pixels), REPEATED) + min(len(pixels), CROSS_CHECKED), told)
    engine = count(engine_of(graph) if known else subject.run)
    logits, reordered, repeatable = _answers(engine, pixels, batch_size if known else subject.max_batch or batch_size)
    if known:
        warning = _cross_check(subject, count(subject.run), pixels, logits)
        costs = replace(costs, notes=(*costs.notes, *warning))
    return replace(found, costs=costs, logits=logits, reordered=reordered, repeatable=repeatable)


@dataclass
class _Counted:
    """Counts the images that engines have seen, of so many in all, and tells."""

    total: int
    told: Told | None
    done: int = 0

    def __call__(self, engine: Engine) -> Engine:
        def run(images: Tensor) -> Tensor:
            output = engine(images)
            self.done += len(images)
            if self.told is not None:
                self.told(min(1.0, self.done / self.total))
            return output

        return run


def _check_claims(subject: Subject) -> None:
    p_s, p_u = subject.claims.get("p_s") or 0.0, subject.claims.get("p_u") or 0.0
    if p_s + p_u > 1 or min(p_s, p_u) < 0:
        raise RefusedError(
            f"the file claims p_s = {p_s:g} and p_u = {p_u:g}; both are fractions of the same weights and "
            "cannot add up to more than 1"
        )


def _check_graph(graph: Graph) -> None:
    shape = graph.shapes[graph.output]
    if len(shape) != 2 or shape[0] != 1 or not 2 <= shape[1] <= MAX_CLASSES:
        raise RefusedError(f"the network gives {list(shape)} for one image; it must give logits [1, classes]")
    for name in graph.stored:
        tensor = graph.constants[name]
        if tensor.numel() == 0:
            raise RefusedError(f"tensor '{name}' is empty, of shape {tuple(tensor.shape)}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise RefusedError(f"tensor '{name}' holds NaN or infinite numbers")


def _checked_costs(
    subject: Subject, graph: Graph, grids: Mapping[str, Grid], costs: Costs, pixels: Tensor | None
) -> Costs:
    """The costs with what can be seen only when the network runs."""
    watched = example_images(subject.image_shape, WATCHED)
    if pixels is not None:
        watched = torch.cat([watched, pixels[:WATCHED].float() / 255])
    problems, notes = other_counts(subject)
    problems += _values_beyond_grids(graph, grids, watched)
    coupling = batch_coupling(graph)
    if coupling is not None:
        problems.append(
            f"'{coupling.name}' ({coupling.kind}) works over the images of a batch; "
            "images must not depend on each other"
        )
    numbers = constants_in_disguise(graph, pixels) if pixels is not None else ()
    return replace(
        costs,
        problems=(*costs.problems, *problems),
        notes=(*costs.notes, *notes),
        numbers=(*costs.numbers, *numbers),
    )


def _values_beyond_grids(graph: Graph, grids: Mapping[str, Grid], watched: Tensor) -> list[str]:
    """Layers whose input has more distinct values at run time than the bits it is credited with."""
    inputs = [
        (node.name, value, grids[value])
        for node in graph.running
        if node.kind in LAYER_KINDS or node.kind in ("MatMul", "Mul")
        for value in node.inputs
        if value in grids
    ]
    if not inputs:
        return []
    values = run_graph(graph, watched, {value for _, value, _ in inputs})
    problems = []
    for name, value, grid in inputs:
        most = _most_values(values[value], grid)
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


def _answers(engine: Engine, pixels: Tensor, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
    """(logits, predictions of a run in another order and batch size, whether a second run gives the same bits)."""
    count = len(pixels)
    logits = _run(engine, pixels, torch.arange(count), batch_size)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    shuffled = _run(engine, pixels, order, min(REORDERED_BATCH, batch_size))
    reordered = torch.empty(count, dtype=torch.int64)
    reordered[order] = shuffled.argmax(1)
    some = min(count, math.ceil(REPEATED / batch_size) * batch_size)
    repeatable = torch.equal(_run(engine, pixels, torch.arange(some), batch_size), logits[:some])
    found = (logits.numpy(), reordered.numpy())
    check_logits(*found, count)
    return *found, repeatable


def _cross_check(subject: Subject, engine: Engine, pixels: Tensor, logits: NDArray[np.float32]) -> list[str]:
    """What the file's own engine says of some images, in another order. Information for the author, never a verdict."""
    some = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(2))[:CROSS_CHECKED]
    try:
        own = _run(engine, pixels, some, min(REORDERED_BATCH, subject.max_batch or REORDERED_BATCH))
    except MemoryError:
        raise
    except Exception as error:  # engines raise whatever they meet, and it decides nothing
        return [f"the file's own engine cannot run it: {' '.join(str(error).split())[:200]}"]
    other = int((own.argmax(1).numpy() != logits[some.numpy()].argmax(1)).sum())
    if other <= CROSS_CHECK_LIMIT * len(some):
        return []
    return [
        f"the file's own engine predicts {other:,} of {len(some):,} images otherwise than the graph that is priced; "
        "the accuracy is that of the graph, so the file may have been misread"
    ]


def _run(engine: Engine, pixels: Tensor, order: Tensor, batch_size: int) -> Tensor:
    """Float32 logits [N, classes] of the images in this order."""
    parts = []
    for index in order.split(batch_size):
        output = engine(pixels[index].float() / 255)
        if output.dim() != 2 or len(output) != len(index):
            raise RefusedError(f"the network gave {tuple(output.shape)} for {len(index)} images, not [N, classes]")
        parts.append(output.float())
    return torch.cat(parts)
