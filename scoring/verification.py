"""What is held against the costs of a network when it runs: its values, its constants, and other counters.

fvcore traces, and misses what it has no rule for, so it informs; only where PyTorch's own counter, which counts below
Python, disagrees as well may the network have been misread, and that blocks ranking.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore decorates its losses with torch.jit.script, which is deprecated
    from fvcore.nn import FlopCountAnalysis

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from scoring.analysis.activation_bits import Grid
from scoring.costs import Costs, Number
from scoring.disguised_tables import is_paid, known_rows, projection, tables_of
from scoring.graph.graph import KINDS, LAYER_KINDS, Charge, Graph, Node, Subject, bits_of
from scoring.graph.interpreter import Engine, Replaced, batch_coupling, example_images

WATCHED = 8
"""Images of each kind (random, real) whose activations are counted."""


def verified(
    costs: Costs, subject: Subject, macs: int, engine: Engine, grids: Mapping[str, Grid], pixels: Tensor | None
) -> Costs:
    """The costs with what can be seen only when the network runs.

    macs: multiply-accumulates of the network as it was read, which other counters see too.
    """
    problems, notes = _other_counts(subject, macs)
    problems += _values_beyond_grids(engine, grids, subject.image_shape, pixels)
    coupling = batch_coupling(engine.graph)
    if coupling is not None:
        problems.append(
            f"'{coupling.name}' ({coupling.kind}) works over the images of a batch; "
            "images must not depend on each other"
        )
    numbers = constants_in_disguise(engine, pixels) if pixels is not None else ()
    return replace(
        costs,
        problems=(*costs.problems, *problems),
        notes=(*costs.notes, *notes),
        numbers=(*costs.numbers, *numbers),
    )


def _values_beyond_grids(
    engine: Engine, grids: Mapping[str, Grid], image_shape: tuple[int, int, int], pixels: Tensor | None
) -> list[str]:
    """Layers whose input has more distinct values at run time than the bits it is credited with."""
    inputs = [
        (node.name, value, grids[value])
        for node in engine.graph.running
        if node.kind in LAYER_KINDS or node.kind in ("MatMul", "Mul")
        for value in node.inputs
        if value in grids
    ]
    if not inputs:
        return []
    watched = example_images(image_shape, WATCHED)
    if pixels is not None:
        watched = torch.cat([watched, pixels[:WATCHED].float() / 255])
    values = engine.values(watched, {value for _, value, _ in inputs})
    problems = []
    for name, value, grid in inputs:
        x, one_grid = values[value], grid.step is not None and not grid.moved
        channels = [x] if one_grid or x.dim() < 2 else x.transpose(0, 1)  # where grids differ, the worst channel
        most = max(len(torch.unique(channel)) for channel in channels)
        if most > 2**grid.bits:
            problems.append(
                f"the input of '{name}' is credited with {grid.bits} bits ({2**grid.bits} values), "
                f"but takes {most} different values"
            )
    return problems


# Constants in disguise -----------------------------------------------------------------------------------------------


AVERAGED = 2_000
"""Images that the mean is of; predictions are compared on all."""
IMAGES_AT_ONCE = 250
WATCHED_ROWS = 64
"""Images whose rows are looked for in the first of them."""
CHANGED = 0.005
"""Part of the predictions that may change for an operand to count as a constant: 50 of 10,000."""


def constants_in_disguise(engine: Engine, pixels: Tensor) -> list[Number]:
    """The numbers that are charged for operands which do not depend on the image."""
    graph = engine.graph
    suspects = [(node, value) for node in graph.running for value in _weight_places(graph, node)]
    if not suspects:
        return []
    means = _means(engine, pixels[:AVERAGED].float() / 255, {value for _, value in suspects})
    before: list[Tensor] = []
    found, known = [], set[str]()
    for node, value in suspects:
        if value in known:
            continue
        known.add(value)
        count = math.prod(graph.shapes[value])
        if not _stays(engine, pixels, before, {value: means[value]}):
            paid = is_paid(graph, value, count)
            count = 0 if paid else count * _tables(engine, pixels, before, value) or _rows(engine, pixels, node, value)
        if count:
            found.append(Number(f"{node.name}.{value}", node.name, count, bits_of(graph.types[value])))
    return found


def _tables(engine: Engine, pixels: Tensor, before: list[Tensor], value: str) -> int:
    """How many tables an operand is made of, each times a number from the image; 0 if it is not.

    What they make of it is put in its place, as the mean is: the predictions stay, or it is more than so many tables.
    """
    graph = engine.graph
    elements = math.prod(graph.shapes[value])
    parts = (part.float() / 255 for part in pixels[:AVERAGED].split(IMAGES_AT_ONCE))
    several = tables_of(engine.values(part, {value})[value].float().reshape(len(part), elements) for part in parts)
    if not several or not _stays(engine, pixels, before, {value: projection(several[-1])}):
        return 0
    fewer = (tables for tables in several[:-1] if _stays(engine, pixels, before, {value: projection(tables)}))
    return len(next(fewer, several[-1]))


def _rows(engine: Engine, pixels: Tensor, node: Node, value: str) -> int:
    """The numbers of an operand's rows, or columns, if all images have the same ones in some order, times numbers."""
    images = pixels[:WATCHED_ROWS].float() / 255
    shape = engine.graph.shapes[value]
    found = engine.values(images, {value})[value].float().reshape(len(images), *shape)
    ways = (-2, -1) if node.kind == "MatMul" else (1, 2)
    several = (found.movedim(axis, 1).flatten(2) for axis in ways)
    return next((numbers for rows in several if (numbers := known_rows(rows))), 0)


def _weight_places(graph: Graph, node: Node) -> list[str]:
    """The values made from the image that stand where weights stand."""
    if node.kind not in KINDS or KINDS[node.kind].price is not Charge.LAYER:
        return []
    changing = [i for i in node.inputs[:2] if not graph.is_constant(i)]
    if node.kind == "MatMul":
        return changing if len(changing) == 2 else []
    return [node.inputs[1]] if node.inputs[1] in changing else []


def _means(engine: Engine, images: Tensor, values: set[str]) -> dict[str, Tensor]:
    """The mean over images of each value, in the shape that it has for one image."""
    graph = engine.graph
    sums = {value: torch.zeros(graph.shapes[value]) for value in values}
    for part in images.split(IMAGES_AT_ONCE):
        for value, found in engine.values(part, values).items():
            sums[value] += found.float().reshape(len(part), *graph.shapes[value]).sum(0)
    return {value: (total / len(images)).to(graph.types[value]) for value, total in sums.items()}


def _stays(engine: Engine, pixels: Tensor, before: list[Tensor], replaced: Replaced) -> bool:
    """Whether nearly all predictions stay when something else is put in the place of a value.

    before: those of the network as it is, part by part, as far as needed.
    """
    output, limit, changed = engine.graph.output, CHANGED * len(pixels), 0
    for i, part in enumerate(pixels.split(IMAGES_AT_ONCE)):
        images = part.float() / 255
        if i == len(before):
            before.append(engine(images).argmax(1))
        logits = engine.values(images, (output,), replaced)[output]
        changed += int((logits.argmax(1) != before[i]).sum())
        if changed > limit:
            return False  # an operand that matters is seen in the first parts; only a constant takes all images
    return True


# Other counters of multiply-accumulates -------------------------------------------------------------------------------


COUNTED = ("conv", "linear", "addmm", "matmul", "bmm", "baddbmm", "mm", "einsum", "scaled_dot_product_attention")
"""fvcore's operators that the contest prices as MACs; it also counts batch norms and pooling, which are free."""


@dataclass(frozen=True)
class SecondOpinion:
    """MACs by fvcore, and what it left out: a count that ignores operations is no count."""

    macs: int
    unsupported: Mapping[str, int]
    uncalled: tuple[str, ...]


def fvcore_count(model: nn.Module, image: Tensor) -> SecondOpinion:
    """fvcore's MACs of `model(image)` in the operations that the contest prices."""
    logger = logging.getLogger("fvcore.nn.jit_analysis")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = FlopCountAnalysis(model, image)
            found.tracer_warnings("none")
            macs = sum(int(count) for name, count in found.by_operator().items() if name in COUNTED)
            return SecondOpinion(macs, dict(found.unsupported_ops()), tuple(sorted(found.uncalled_modules())))
    finally:
        logger.setLevel(level)


class _Dispatched(TorchDispatchMode):
    """Adds up what PyTorch's own formulas say of each operation that it dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Nothing here is compiled; saying so spares the import of torch._dynamo, which takes seconds."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.operations += int(formula(*args, **(kwargs or {}), out_val=result))
        return result


def dispatched_macs(model: nn.Module, image: Tensor) -> int:
    """MACs of `model(image)` by PyTorch's formulas, attention taken apart into its products."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), _Dispatched() as counter:
            model(image)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return int(counter.operations) // 2


def _other_counts(subject: Subject, ours: int) -> tuple[list[str], list[str]]:
    """(problems, notes): where other counters see other multiply-accumulates in the module that was read."""
    if subject.module is None or subject.example is None:
        return [], []
    different = disagreement(ours, fvcore_count(subject.module, subject.example))
    if different is None:
        return [], []
    theirs = dispatched_macs(subject.module, subject.example)
    if ours == theirs:
        return [], [different]
    return [f"{different}, {theirs:,} by PyTorch's dispatch counter"], []


def disagreement(ours: int, opinion: SecondOpinion) -> str | None:
    """None, or how the two counts differ. Ours may be larger where fvcore names what it left out."""
    if ours == opinion.macs:
        return None
    left_out = [name for name in opinion.unsupported if any(word in name for word in COUNTED)]
    if ours > opinion.macs and left_out:
        return None
    return f"multiply-accumulates: {ours:,} counted here, {opinion.macs:,} by fvcore"
