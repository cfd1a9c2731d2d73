"""What a reader hands over: a network to cost and to run, whatever its format was."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from scoring.costs import ParentCosts
from scoring.graph.graph import Graph
from scoring.graph.interpreter import is_native
from scoring.readers.torch_trace import logits_among, trace


@dataclass(frozen=True)
class Subject:
    """A network under examination: the graph is priced and run.

    run: float images [N,C,H,W] in [0, 1] -> logits [N, classes] by the file's own engine, for a second opinion.
    """

    graph: Graph
    run: Callable[[Tensor], Tensor]
    image_shape: tuple[int, int, int]
    parent: ParentCosts | None = None
    claims: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, str] = field(default_factory=dict)
    """What the file says of its making; free text by key, believed as little as the claims."""
    notes: tuple[str, ...] = ()
    max_batch: int | None = None
    """Largest batch that the network takes; None: any."""
    module: nn.Module | None = None
    """The torch module that runs, where there is one: fvcore counts it too."""


def subject_of_module(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    *,
    declared_bits: Mapping[str, int] | None = None,
    parent: ParentCosts | None = None,
    claims: Mapping[str, float] | None = None,
    provenance: Mapping[str, str] | None = None,
    prefix: str = "",
    notes: Sequence[str] = (),
) -> Subject:
    """A torch module in evaluation mode. A module in half precision gets its images in half precision.

    prefix: of module names, left out in reports.
    """
    model = model.eval()
    dtype = input_type(model)
    ours = getattr(model, "manifest", None) is not None  # it cares for no order in memory, and this one is quicker
    slow = dtype.itemsize == 2 and not is_native(dtype)

    @functools.cache
    def engine() -> tuple[nn.Module, torch.dtype]:
        """The module; where the processor has no half arithmetic and takes 40 times as long, its copy in float32."""
        return (copy.deepcopy(model).float(), torch.float32) if slow else (model, dtype)

    @torch.inference_mode()
    def run(images: Tensor) -> Tensor:
        network, type_ = engine()
        given = images.to(type_)
        output = network(given.contiguous(memory_format=torch.channels_last) if ours else as_loaders_give(given))
        return as_logits(logits_among(output), graph.shapes[graph.output][-1])

    image = example_images(image_shape, 1).to(dtype)
    graph = before_the_choice(trace(model, image, declared_bits=declared_bits, prefix=prefix))
    return Subject(
        graph, run, image_shape, parent, dict(claims or {}), dict(provenance or {}), tuple(notes), module=model
    )


def before_the_choice(graph: Graph) -> Graph:
    """Without an argmax over the logits: they say more, and choose the same class."""
    node = graph.producers.get(graph.output)
    while node is not None and node.kind in ("Identity", "Cast", "Reshape"):
        node = graph.producers.get(node.inputs[0])
    if node is None or node.kind != "ArgMax":
        return graph
    shape, axes = graph.shapes[node.inputs[0]], node.attributes["axes"]
    return replace(graph, output=node.inputs[0]) if len(shape) == 2 and axes == (1,) else graph


def as_logits(output: Tensor, classes: int) -> Tensor:
    """What a file's own engine gives, where that is classes: one for each, zero for the others."""
    if output.is_floating_point() or output.numel() != len(output):
        return output
    return nn.functional.one_hot(output.reshape(-1).long(), classes).float()


def as_loaders_give(images: Tensor) -> Tensor:
    """Images in the memory that a data loader gives them: channels first, with the strides of a new tensor.

    `contiguous()` is not enough: one channel is contiguous in both formats, convolutions then hand on channels last,
    and `x.view(x.size(0), -1)` behind them fails.
    """
    return images.reshape(-1).view(images.shape)


def input_type(model: nn.Module) -> torch.dtype:
    """The type of the first floating-point parameter (or buffer): what `.half()` models want their images in."""
    if getattr(model, "manifest", None) is not None:
        return torch.float32  # our own networks change the type where they need it
    tensors = (*model.parameters(), *model.buffers())
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def example_images(image_shape: tuple[int, int, int], count: int, seed: int = 0) -> Tensor:
    """Random 8-bit images [count,C,H,W] as floats in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *image_shape), generator=generator, dtype=torch.uint8)
    return pixels.float() / 255
