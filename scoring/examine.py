"""The examination of a network: pure, in the process that calls it, without ever seeing a label.

The isolated child calls `examine`; so does everything that trusts its files (a search scoring its own networks). What
is priced is what runs: one graph, by one engine. The file's own engine is asked as well, and can only warn its author.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contest.errors import RefusedError
from scoring.analysis.activation_bits import follow
from scoring.analysis.affine_chains import with_folded_chains
from scoring.analysis.cost_model import analyse
from scoring.analysis.dead_channels import prepared
from scoring.analysis.layer_costs import total_macs
from scoring.costs import MAX_CLASSES, MAX_FACTS, MAX_TEXT, Examination, check_logits
from scoring.graph.graph import Graph, Subject
from scoring.graph.interpreter import Engine
from scoring.verification import verified

BATCH = 50
"""Images at once: few enough that a map stays in the processor's cache."""
REORDERED_BATCH = 64
REPEATED = 1_000
"""Images of the run that is repeated to see whether it gives the same bits."""
CROSS_CHECKED = 2_000
CROSS_CHECK_LIMIT = 0.01
"""Images that the file's own engine sees too, and the part of them it may see otherwise without a warning."""

Runs = Callable[[Tensor], Tensor]
Told = Callable[[float], None]
"""Gets the part that is done, 0 to 1."""


def examine(
    subject: Subject,
    images: NDArray[np.uint8] | Tensor | None = None,
    *,
    batch_size: int = BATCH,
    told: Told | None = None,
) -> Examination:
    """Costs of a network, and its logits for uint8 images [N,C,H,W] if they are given.

    told: gets the part of the images that is done, 0 to 1, again and again.

    Raises RefusedError for a network that the contest does not accept.
    """
    pixels = None if images is None else torch.as_tensor(images)
    _check_subject(subject, pixels)
    graph, notes = prepared(subject.graph)
    grids = follow(graph)
    costs = analyse(graph, parent=subject.parent, grids=grids)
    costs = replace(costs, notes=(*subject.notes, *notes))
    engine = None if costs.unknown_operations else Engine(with_folded_chains(graph))
    if engine is not None:
        macs = total_macs(subject.graph)
        costs = verified(costs, subject, macs, engine, grids, pixels)
    said = _Answers() if pixels is None else _answers(subject, engine, pixels, batch_size, told)
    return Examination(
        replace(costs, notes=(*costs.notes, *said.warning)),
        dict(subject.claims),
        subject.image_shape,
        said.logits,
        said.reordered,
        said.repeatable,
        _facts(subject.provenance),
    )


def _check_subject(subject: Subject, pixels: Tensor | None) -> None:
    """Raise RefusedError unless these images fit, the claims are possible and the graph gives finite logits."""
    if pixels is not None and (pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != subject.image_shape):
        raise RefusedError(
            f"the network takes images of {subject.image_shape}, and these are {tuple(pixels.shape[1:])} {pixels.dtype}"
        )
    p_s, p_u = subject.claims.get("p_s") or 0.0, subject.claims.get("p_u") or 0.0
    if p_s + p_u > 1 or min(p_s, p_u) < 0:
        raise RefusedError(
            f"the file claims p_s = {p_s:g} and p_u = {p_u:g}; both are fractions of the same weights and "
            "cannot add up to more than 1"
        )
    _check_graph(subject.graph)


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


def _facts(provenance: Mapping[str, str]) -> dict[str, str]:
    """The provenance as a report shows it: long texts are cut, and say so."""
    shown = list(provenance.items())[:MAX_FACTS]
    return {k: v if len(v) <= MAX_TEXT else v[: MAX_TEXT - 3] + "..." for k, v in shown}


class _Answers(NamedTuple):
    """What a network says of the images, as `Examination` holds it, and what its own engine says otherwise."""

    logits: NDArray[np.float32] | None = None
    reordered: NDArray[np.int64] | None = None
    repeatable: bool | None = None
    warning: tuple[str, ...] = ()


def _answers(subject: Subject, engine: Engine | None, pixels: Tensor, batch_size: int, told: Told | None) -> _Answers:
    """By the engine of the graph; where there is none, the file's own is believed."""
    count = _Counted(2 * len(pixels) + min(len(pixels), REPEATED) + min(len(pixels), CROSS_CHECKED), told)
    if engine is None:
        return _Answers(*_predictions(count(subject.run), pixels, subject.max_batch or batch_size))
    logits, reordered, repeatable = _predictions(count(engine), pixels, batch_size)
    return _Answers(logits, reordered, repeatable, _cross_check(subject, count(subject.run), pixels, logits))


@dataclass
class _Counted:
    """Counts the images that engines have seen, of so many in all, and tells."""

    total: int
    told: Told | None
    done: int = 0

    def __call__(self, engine: Runs) -> Runs:
        def run(images: Tensor) -> Tensor:
            output = engine(images)
            self.done += len(images)
            if self.told is not None:
                self.told(min(1.0, self.done / self.total))
            return output

        return run


def _predictions(engine: Runs, pixels: Tensor, batch_size: int) -> tuple[NDArray[np.float32], NDArray[np.int64], bool]:
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


def _cross_check(subject: Subject, engine: Runs, pixels: Tensor, logits: NDArray[np.float32]) -> tuple[str, ...]:
    """What the file's own engine says of some images, in another order. Information for the author, never a verdict."""
    some = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(2))[:CROSS_CHECKED]
    try:
        own = _run(engine, pixels, some, min(REORDERED_BATCH, subject.max_batch or REORDERED_BATCH))
    except MemoryError:
        raise
    except Exception as error:  # engines raise whatever they meet, and it decides nothing
        return (f"the file's own engine cannot run it: {' '.join(str(error).split())[:200]}",)
    other = int((own.argmax(1).numpy() != logits[some.numpy()].argmax(1)).sum())
    if other <= CROSS_CHECK_LIMIT * len(some):
        return ()
    return (
        f"the file's own engine predicts {other:,} of {len(some):,} images otherwise than the graph that is priced; "
        "the accuracy is that of the graph, so the file may have been misread",
    )


def _run(engine: Runs, pixels: Tensor, order: Tensor, batch_size: int) -> Tensor:
    """Float32 logits [N, classes] of the images in this order."""
    parts = []
    for index in order.split(batch_size):
        output = engine(pixels[index].float() / 255)
        if output.dim() != 2 or len(output) != len(index):
            raise RefusedError(f"the network gave {tuple(output.shape)} for {len(index)} images, not [N, classes]")
        parts.append(output.float())
    return torch.cat(parts)
