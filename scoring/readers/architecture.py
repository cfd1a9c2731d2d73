"""Costs of an architecture before it has weights: built and traced without memory or arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

import torch
from torch import nn

from contest.candidate import Architecture, Bits
from contest.errors import ContestError, UsageError
from contest.networks import build
from scoring.analysis.cost_model import analyse
from scoring.analysis.other_bits import FEWEST_BITS, with_layer_bits
from scoring.costs import Costs, Number
from scoring.graph.graph import LAYER_KINDS, Graph, Node
from scoring.readers.torch_trace import trace

IMAGE_BITS = 8


def planned_costs(
    architecture: Architecture, bits: Bits | None, image_shape: tuple[int, int, int], classes: int, normalise: bool
) -> Costs:
    """See `scoring.score.architecture_costs`."""
    bits = bits or Bits()
    half = bits.weights == bits.activations == 16
    # A search asks for ours again and again. timm's hold their weights: 80 of them kept took 10 GB.
    traced = _traced.__wrapped__ if architecture.family.startswith("timm/") else _traced
    graph = traced(architecture, image_shape, classes, normalise, half)
    if traced is not _traced or half:
        return _costs_of_graph(graph, bits)
    return _costs_of_graph(graph, bits, _fewest(architecture, image_shape, classes, normalise))


@lru_cache(maxsize=256)
def _fewest(architecture: Architecture, image_shape: tuple[int, int, int], classes: int, normalise: bool) -> Costs:
    """What is analysed once of an architecture whose bits are tried by the hundred."""
    graph = _traced(architecture, image_shape, classes, normalise, half=False)
    layers = [node.name for node in graph.running if node.kind in LAYER_KINDS]
    return analyse(graph, layer_bits=dict.fromkeys(layers, (FEWEST_BITS, FEWEST_BITS)))


@lru_cache(maxsize=256)
def _traced(
    architecture: Architecture, image_shape: tuple[int, int, int], classes: int, normalise: bool, half: bool
) -> Graph:
    """The graph of an architecture: nine tenths of the time of its costs, and the same whatever its bits."""
    # timm's modules compute some constants when they are built, so only ours can be built without memory.
    device = torch.device("cpu" if architecture.family.startswith("timm/") else "meta")
    with device:
        model = build(architecture, image_shape=image_shape, classes=classes)
    model = model.to("meta").eval()
    if not normalise and hasattr(model, "normalise"):
        model.normalise = nn.Identity()
    if not architecture.family.startswith("timm/"):
        return _trace(model, image_shape, half=half)
    try:
        return _trace(model, image_shape, half=half)
    except ContestError:
        raise
    except Exception as error:  # code of others, on images that it may not have been written for
        wanted = ",".join(map(str, _usual_shape(architecture.family.removeprefix("timm/"))))
        shown = ",".join(map(str, image_shape))
        raise UsageError(
            f"'{architecture.family}' does not run on images of {shown} ({' '.join(str(error).split())[:150]}); it was "
            f"made for others: try `--image-shape {wanted}`"
        ) from error


def _usual_shape(name: str) -> tuple[int, int, int]:
    """The images that a timm network was trained on."""
    import timm

    found = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return tuple(found.input_size) if found is not None else (3, 224, 224)


def costs_of_module(model: nn.Module, bits: Bits, image_shape: tuple[int, int, int]) -> Costs:
    """Costs of a float module as if it were quantised (its parameters may be on the meta device).

    Layers of 16 bits run the whole network in half precision, other numbers included.
    """
    return _costs_of_graph(_trace(model, image_shape, half=bits.weights == bits.activations == 16), bits)


def _trace(model: nn.Module, image_shape: tuple[int, int, int], *, half: bool) -> Graph:
    dtype = torch.float16 if half else torch.float32
    device = next(model.parameters()).device
    return trace(model.to(dtype), torch.empty((1, *image_shape), device=device, dtype=dtype))


def _costs_of_graph(graph: Graph, bits: Bits, fewest: Costs | None = None) -> Costs:
    """`fewest`: see `with_layer_bits`."""
    layers = [node for node in graph.running if node.kind in LAYER_KINDS]
    overrides = _overrides(bits, [node.name.split(":")[0] for node in layers])
    chosen = {node.name: _layer_bits(bits, overrides, node.name, first=i == 0) for i, node in enumerate(layers)}
    costs = with_layer_bits(fewest, chosen) if fewest is not None else None
    costs = costs or replace(analyse(graph, layer_bits=chosen), allowances={})
    costs = replace(costs, numbers=(*costs.numbers, *_planned_scales(costs, graph, layers, chosen, bits.per_channel)))
    return _with_short_numbers(costs, layers, chosen) if bits.numbers == 8 else costs


def _overrides(bits: Bits, modules: list[str]) -> dict[str, tuple[int, int]]:
    """`bits.layers` with "first" and "last" as the names of these layers, as `contest.quantisation` reads them."""
    aliases = {"first": modules[0], "last": modules[-1]} if modules else {}
    found = {aliases.get(name, name): pair for name, pair in bits.layers.items()}
    unused = [name for name in found if not any(_within(module, name) for module in modules)]
    if unused:
        raise UsageError(f"bits are given for layers {sorted(unused)}, which the network lacks; it has {modules}")
    return found


def _within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _layer_bits(bits: Bits, overrides: Mapping[str, tuple[int, int]], name: str, first: bool) -> tuple[int, int]:
    """(weight bits, activation bits). The first layer sees the 8-bit image unless an override asks for fewer bits."""
    module = name.split(":")[0]
    keys = [key for key in overrides if _within(module, key)]
    weights, activations = overrides[max(keys, key=len)] if keys else (bits.weights, bits.activations)
    if first:
        activations = min(activations, IMAGE_BITS) if keys else IMAGE_BITS
    return weights, activations


def _with_short_numbers(costs: Costs, layers: list[Node], chosen: dict[str, tuple[int, int]]) -> Costs:
    """Multipliers and shifts behind quantised convolutions as `contest.model_file` folds them: 8 bits and a scale."""
    folding = {n.name for n in layers if n.kind == "Conv" and chosen[n.name][0] <= 8 and len(n.inputs) < 3}
    folding &= {number.layer for number in costs.numbers if number.name.endswith(".shift")}
    numbers = []
    for number in costs.numbers:
        short = number.layer in folding and number.name.endswith((".multiplier", ".shift"))
        numbers.append(replace(number, bits=8) if short else number)
        if short:
            numbers.append(Number(f"{number.name}_scale", number.layer, 1, 32))
    return replace(costs, numbers=tuple(numbers))


def _planned_scales(
    costs: Costs, graph: Graph, layers: list[Node], chosen: dict[str, tuple[int, int]], per_channel: bool
) -> list[Number]:
    """The scales that quantised layers will store: of weights where no batch norm takes them up, and of inputs."""
    folded = {number.layer for number in costs.numbers if number.name.endswith(".multiplier")}
    numbers = []
    for i, node in enumerate(layers):
        weights, activations = chosen[node.name]
        channels = graph.shapes[node.inputs[1]][0]
        if weights <= 8 and node.name not in folded:
            numbers.append(Number(f"{node.name}.multiplier", node.name, channels if per_channel else 1, 32))
        image = i == 0 and activations == IMAGE_BITS  # taken as it is
        if activations <= 8 and not image:
            numbers.append(Number(f"{node.name}.input_step", node.name, 1, 32))
    return numbers
