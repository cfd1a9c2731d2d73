"""Which layers can do with fewer bits: what the loss pays for a bit, against what the score gains.

The trained network itself is asked: a layer's integer codes and its input's quantiser are made one bit
coarser, and the loss is measured on training images. No retraining, so one forward pass a layer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from contest.candidate import Bits, Candidate

if TYPE_CHECKING:
    from contest.datasets import Images
    from contest.model_file import Network
    from contest.model_file.layers import WeightLayer

MIN_BITS = 2


@dataclass(frozen=True)
class Sensitivity:
    """One layer: its bits (of weights and input), and by how much the loss rises with one bit less of both."""

    layer: str
    weight_bits: int
    input_bits: int
    rise: float


def measure(model: Path, images: Images, *, device: str = "cpu") -> list[Sensitivity]:
    """The sensitivity of each layer whose weights have 3 to 8 bits, in the order of the network.

    images: some hundred training images; never test images, and not those that choose the winner.
    """
    from contest.model_file import load
    from contest.model_file.layers import WeightLayer
    from contest.training import evaluate

    network = load(model)
    base = evaluate(network, images, device=device).loss
    found = []
    for name, layer in network.body.named_modules():
        if not isinstance(layer, WeightLayer) or not MIN_BITS < layer.weight_bits <= 8:
            continue
        coarse = evaluate(_coarser(network, name), images, device=device).loss
        found.append(Sensitivity(name, layer.weight_bits, layer.input_bits or 8, coarse - base))
    return found


def lower(
    candidate: Candidate,
    layers: list[Sensitivity],
    score: Callable[[Candidate], float],
    *,
    saving: float,
) -> Candidate | None:
    """The candidate with one bit less in the layers that give the most score for the least loss.

    Layers are taken by rise of the loss per score saved until `saving` (a fraction of the score) is reached.
    Returns None if no layer can be lowered.
    """
    total = score(candidate)
    options = []
    for layer in layers:
        changed = _with(candidate, {layer.layer: _less(layer)})
        gain = total - score(changed)
        if gain > 0:
            options.append((max(layer.rise, 0.0) / gain, layer))
    overrides: dict[str, tuple[int, int]] = {}
    result = None
    for _, layer in sorted(options, key=lambda option: option[0]):
        overrides[layer.layer] = _less(layer)
        result = _with(candidate, overrides)
        if score(result) <= (1 - saving) * total:
            break
    return result


def higher(candidate: Candidate, layers: list[Sensitivity], score: Callable[[Candidate], float]) -> Candidate | None:
    """The candidate with one bit more in the layer where a bit weighs most against its cost."""
    total = score(candidate)
    best = None
    for layer in layers:
        if layer.weight_bits < 8 and layer.rise > 0:
            changed = _with(candidate, {layer.layer: (layer.weight_bits + 1, min(8, layer.input_bits + 1))})
            worth = layer.rise / max(score(changed) - total, 1e-9)
            if best is None or worth > best[0]:
                best = worth, changed
    return None if best is None else best[1]


def _less(layer: Sensitivity) -> tuple[int, int]:
    """One bit less of both; the 8-bit image stays as it is."""
    inputs = layer.input_bits if layer.input_bits == 8 else max(MIN_BITS, layer.input_bits - 1)
    return max(MIN_BITS, layer.weight_bits - 1), inputs


def _with(candidate: Candidate, overrides: dict[str, tuple[int, int]]) -> Candidate:
    bits: Bits = replace(candidate.bits, layers={**candidate.bits.layers, **overrides})
    return replace(candidate, bits=bits)


def _coarser(network: Network, name: str) -> Network:
    """A copy of the network in which one layer has one bit less for its weights and its input."""
    changed = copy.deepcopy(network)
    layer: WeightLayer = changed.body.get_submodule(name)  # type: ignore[assignment]
    limit = 2 ** (layer.weight_bits - 2)
    layer.codes = (layer.codes.float() / 2).round().clamp(-limit, limit - 1).to(layer.codes.dtype)
    name = "step" if layer.spec.number_bits == 32 else "step_scale"
    setattr(layer, name, getattr(layer, name) * 2)
    layer.weight_bits -= 1
    if layer.input_bits is not None and layer.input_bits > MIN_BITS:
        layer.input_step = layer.input_step * 2
        layer.input_bits -= 1
    return changed
