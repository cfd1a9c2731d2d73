"""How values of the space become candidates: float parents, and children that share a parent's training."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal

from contest.candidate import Architecture, Bits, Candidate, Recipe, check, number_epochs
from contest.errors import UsageError
from contest.networks.options import Value
from contest.networks.registry import family_rows
from search.space import Space

FLOAT = Bits()
Kind = Literal["depthwise", "widen", "narrow"]
"""A kind of layer with bits of its own."""


def architecture_of(v: Mapping[str, Any]) -> Architecture:
    family = str(v["family"])
    return Architecture(family, family_rows()[family].from_draws(v))


def _recipe_fields(v: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What `v` says of the fields of a `Recipe`: a dimension that has a field's name, behind `prefix`, is its value."""
    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(Recipe)}
    return {name: kind(v[prefix + name]) for name, kind in kinds.items() if prefix + name in v}


def float_candidate(v: Mapping[str, Any], *, epochs: float, seed: int = 0) -> Candidate:
    """The float parent that `v` (values of one family) stand for."""
    train = Recipe(epochs=epochs, warmup_epochs=round(min(1.0, 0.1 * epochs), 2), **_recipe_fields(v))
    if not train.distillation:
        train = replace(train, taught_epochs=0)
    return Candidate(architecture_of(v), train=train, tune=replace(train, epochs=0.0, warmup_epochs=0.0), seed=seed)


def compressed(parent: Candidate, v: Mapping[str, Any], *, tune_epochs: float) -> Candidate:
    """A child of `parent`: its compression and its tuning are what `v` says, its float training is the parent's."""
    structured = float(v["structured"])
    epochs = tune_epochs / (2 if structured else 1)  # networks that lose channels are tuned twice
    tune = replace(
        parent.train,
        epochs=epochs,
        optimiser="sgd",
        number_epochs=number_epochs(epochs) if int(v["number_bits"]) < 8 else 0.0,
        schedule="cosine",
        warmup_epochs=round(min(0.2, 0.1 * tune_epochs), 3),
        cutout=0,
        mixup=0.0,
        cutmix=0.0,
        distillation=float(v["distillation"]),
        temperature=float(v["temperature"]),
        **_recipe_fields(v, "tune_"),
    )
    return replace(
        parent,
        bits=bits_of(parent.architecture, v),
        structured=structured,
        unstructured=round(float(v["sparsity"]) * (1 - structured), 4),
        # What decides nothing is as it always is, or equal networks would count as different ones.
        pruning=str(v["pruning"]) if v["sparsity"] else "magnitude",
        channels=str(v["channels"]) if structured else "l1",
        tune=tune,
    )


def compression_of(candidate: Candidate) -> dict[str, Value]:
    """The dimensions by which `compressed` makes a candidate's bits, zeros and tuning; none for a float network."""
    bits, zeros = candidate.bits, candidate.structured + candidate.unstructured
    if not (bits.quantised or zeros or candidate.ratios):
        return {}
    row, depths = family_rows()[candidate.architecture.family], candidate.architecture.options.get("depths")
    stages = len(depths) if isinstance(depths, tuple) else 0
    base = bits.weights, bits.activations

    def own(*names: str) -> tuple[int, int] | None:
        return next((bits.layers[name] for name in names if name in bits.layers), None)

    def shift(name: str) -> int:
        return max(own(name) or base) - max(base)

    found: dict[str, Value] = {
        "structured": candidate.structured,
        "channels": candidate.channels,
        "pruning": candidate.pruning,
        "weight_bits": bits.weights,
        "activation_bits": bits.activations,
        "number_bits": bits.numbers,
        "symmetric": bits.symmetric,
        "first_bits": max(own(row.first, "first") or (8, 8)),  # who says nothing of it has the image as it is
        "last_bits": max(own(row.last, "last") or (min(base), min(base))),
        "shift_1": shift("stages.0"),
        "shift_3": shift(f"stages.{min(3, stages) - 1}"),
        **{f"tune_{name}": value for name, value in vars(candidate.tune).items() if not isinstance(value, tuple)},
    }
    for name, kind in kinds(candidate.architecture).items():
        found.setdefault(f"{kind}_shift", shift(name))
    if not candidate.ratios:
        found["sparsity"] = candidate.unstructured / (1 - candidate.structured)
    return found


def lengthened(candidate: Candidate, epochs: float) -> Candidate:
    """A candidate whose float training has (whole) epochs, and a warm-up that fits into them."""
    epochs = whole(epochs, epochs)
    warmup = round(min(candidate.train.warmup_epochs, 0.1 * epochs), 2)
    return replace(candidate, train=replace(candidate.train, epochs=epochs, warmup_epochs=warmup))


def to_candidate(v: Mapping[str, Any], *, epochs: float, seed: int = 0) -> Candidate:
    """The candidate that `v` stand for by themselves, trained for `epochs` in all."""
    tune = whole(epochs * float(v["tune_share"]), epochs)
    parent = float_candidate(v, epochs=whole(epochs - tune, epochs), seed=seed)
    return compressed(parent, v, tune_epochs=tune)


def check_space(space: Space, changes: Mapping[str, Any]) -> None:
    """Raise UsageError for a narrowed dimension of which some value makes no candidate (17 bits, a sparsity of 2)."""
    for name in changes:
        draw = space.dimensions[name]
        for value in draw.choices or (draw.low, draw.high):
            made = to_candidate(space.complete({name: value}), epochs=10.0)
            check(made.train)
            check(made.tune)
            if name == "tune_share" and not 0 < float(value) < 1:
                raise UsageError(f"tune_share = {value} must lie between 0 and 1: the quantised part of all epochs")


def check_taught(space: Space, *, taught: bool) -> None:
    """Raise UsageError for a study that asks for soft labels (`distillation` above 0) and has no teacher for them."""
    weights = [weight for weight in space.dimensions["distillation"].grid() if isinstance(weight, int | float)]
    if not taught and max(weights, default=0) > 0:
        raise UsageError(
            f"distillation = {max(weights):g} is the weight of a teacher's soft labels, and this study has no teacher: "
            "give one (--teacher FILE or --teacher-epochs N), or fix distillation=0"
        )


def bits_of(architecture: Architecture, v: Mapping[str, Any]) -> Bits:
    """Bits of a child, layer by layer where first, last, outer stages and depthwise layers differ from the rest."""
    base = Bits(
        int(v["weight_bits"]),
        int(v["activation_bits"]),
        numbers=int(v["number_bits"]),
        symmetric=bool(v["symmetric"]),
    )
    row = family_rows()[architecture.family]
    first = int(v["first_bits"])
    layers = {
        row.first: (max(base.weights, first), max(base.activations, first)),
        row.last: (max(base.weights, int(v["last_bits"])), max(base.activations, int(v["last_bits"]))),
    }
    depths = architecture.options.get("depths")
    stages = len(depths) if isinstance(depths, tuple) else 0
    for stage, shift in ((0, int(v["shift_1"])), (min(3, stages) - 1, int(v["shift_3"]))):
        if shift and stages and f"stages.{stage}" in staged_modules(architecture):
            layers[f"stages.{stage}"] = (_shifted(base.weights, shift), _shifted(base.activations, shift))
    for name, kind in kinds(architecture).items():
        shift = int(v[f"{kind}_shift"])
        if kind == "depthwise" and shift:
            layers[name] = (_shifted(base.weights, shift), _shifted(base.activations, shift))
        elif shift:  # the price of an operation is that of the wider of its two, so both come down to the same
            weights, inputs = bits_of_layer(replace(base, layers=layers), name)
            widest = _shifted(max(weights, inputs), shift)
            layers[name] = (min(weights, widest), min(inputs, widest))
    return replace(base, layers=layers)


def bits_of_layer(bits: Bits, name: str) -> tuple[int, int]:
    """(bits of the weights, of the input) of an inner layer: the longest prefix of its name that has its own."""
    known = [prefix for prefix in bits.layers if name == prefix or name.startswith(f"{prefix}.")]
    return bits.layers[max(known, key=len)] if known else (bits.weights, bits.activations)


@lru_cache(maxsize=4096)
def _modules(architecture: Architecture) -> tuple[frozenset[str], tuple[str, ...], Mapping[str, Kind]]:
    """(names of modules, names of layers between the first and the last, kinds) of an architecture."""
    import torch
    from torch import nn

    from contest.networks import build

    with torch.device("meta"):
        network = build(architecture, (3, 32, 32), 10)
    modules = dict(network.named_modules())
    layers = {n: m for n, m in modules.items() if isinstance(m, nn.Conv2d | nn.Linear)}
    deep = {n: m for n, m in layers.items() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1}
    found: dict[str, Kind] = dict.fromkeys(deep, "depthwise")
    names = list(layers)
    for place, name in enumerate(names):
        if name in deep:  # in order of the forward pass: what widens before it, what narrows after it
            for other, kind in ((place - 1, "widen"), (place + 1, "narrow")):
                near = layers[names[other]] if 0 < other < len(names) - 1 else None
                if isinstance(near, nn.Conv2d) and near.kernel_size == (1, 1) and near.groups == 1:
                    found.setdefault(names[other], kind)  # type: ignore[arg-type]
    return frozenset(modules), tuple(names[1:-1]), found


def staged_modules(architecture: Architecture) -> frozenset[str]:
    return _modules(architecture)[0]


def inner_layers(architecture: Architecture) -> tuple[str, ...]:
    """Names of the layers between the first and the last."""
    return _modules(architecture)[1]


def kinds(architecture: Architecture) -> Mapping[str, Kind]:
    """Of a network with depthwise layers: these, the 1x1 layers that widen before them and those that narrow after."""
    return _modules(architecture)[2]


def whole(epochs: float, total: float) -> float:
    """Whole epochs, at least one, where a training has several; it is paused and shown after each."""
    return float(max(1, round(epochs))) if total >= 4 else round(epochs, 2)


def _shifted(bits: int, shift: int) -> int:
    return min(8, max(1, bits + shift))


@cache
def _table() -> tuple[Mapping[str, Value], Sequence[Mapping[str, Any]]]:
    data = tomllib.loads(files("search").joinpath("starting_points.toml").read_text())
    return data["common"], data["points"]


def seeds(space: Space, side: int | None = None) -> list[dict[str, Value]]:
    """Starting points of the families that `space` searches, on its grids, without repetition.

    Points fit the size of the images (`side`; by default the space's). What is known of one family is not known of
    another that shares the names of its dimensions; only where the space searches none of theirs, all are moved onto
    its grids.
    """
    common, points = _table()
    side = space.side if side is None else side
    fitting = [p for p in points if p["side"][0] <= side <= p["side"][1]] or list(points)
    families = space.dimensions["family"].grid()
    known = [p for p in fitting if p["family"] in families] or fitting
    found: list[dict[str, Value]] = []
    for point in known:
        values = space.complete({**common, **{name: value for name, value in point.items() if name != "side"}})
        if values not in found:
            found.append(values)
    return found
