"""From the scores of a method to masks: at once, layer by layer at given ratios, or over several trainings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from contest.errors import UsageError
from contest.pruning.batches import Batches, Loss
from contest.pruning.masks import Masks, enforce, exact_k, exact_k_each, full, hold, kept, sparsity
from contest.pruning.prunable import preserved, prunable, require_prunable, weights
from contest.pruning.registry import Method, Score, Scores, method, register


def score(model: nn.Module, batches: Batches, loss: Loss) -> Scores:
    """For each weight, its place by absolute value inside its own tensor, in (0, 1].

    Ranked over all tensors together this gives every layer the same sparsity.
    """
    scores: Scores = {}
    for name, weight in weights(model).items():
        # Descending and stable, so that of equal weights the earlier one has the higher place.
        order = weight.abs().flatten().argsort(descending=True, stable=True)
        place = torch.empty(weight.numel(), dtype=torch.float64, device=weight.device)
        place[order] = torch.arange(weight.numel(), 0, -1, dtype=torch.float64, device=weight.device)
        scores[name] = (place / weight.numel()).view(weight.shape)
    return scores


def fine_grained_masks(model: nn.Module, sparsities: Mapping[str, float] | float) -> Masks:
    """Masks with one sparsity for every prunable tensor, or one for each named one (others stay whole).

    Args:
        sparsities: a fraction, or fractions by parameter name (`conv1.weight`).

    Raises:
        UsageError: a name is no prunable weight, or a fraction is outside [0, 1].
    """
    sizes = {name: weight.abs() for name, weight in weights(model).items()}
    each = sparsities if isinstance(sparsities, Mapping) else dict.fromkeys(sizes, sparsities)
    return exact_k_each(sizes, each)


def read_ratios(path: Path) -> tuple[tuple[str, float], ...]:
    """Names of weights with a sparsity each, from the file that `contest lab sensitivity` wrote.

    Raises:
        UsageError: it is no such file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["layers"]
        return tuple((str(name), float(ratio)) for name, ratio in found.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no file of ratios from `contest lab sensitivity`: {error!r}") from error


fine_grained = register(
    Method("fine-grained", score, "smallest absolute values inside each layer go, one ratio a layer", "MIT 6.5940")
)


def prune(
    model: nn.Module,
    how: str | Method | Score,
    sparsity: float,
    *,
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
) -> Masks:
    """Masks for `model` at a sparsity of all its prunable weights; the model itself stays as it is.

    Args:
        sparsity: fraction of prunable weights to remove, in [0, 1]. Exactly `kept(weights, sparsity)` live,
            also under methods that remove whole filters or channels: the last one goes in part, if need be.
        batches: (inputs, targets) on the model's device, for methods that use data.
        seed: of the torch generator inside the method; same seed, same masks.
        masks: weights pruned before; they stay dead and count as removed.

    Returns:
        A mask for every prunable weight. Apply them with `hold`.
    """
    chosen = method(how)
    require_prunable(model)
    weights = prunable(model)
    total = sum(weight.numel() for weight in weights.values())
    final = kept(total, sparsity)
    with preserved(model):
        torch.manual_seed(seed)
        alive: Masks = {} if masks is None else dict(masks)
        enforce(model, alive)
        begin = total - sum(int((~mask).sum()) for mask in alive.values())
        if final > begin:
            raise UsageError(
                f"sparsity {sparsity:g} keeps {final} weights, but the given masks leave only {begin} of {total}"
            )
        for step in range(1, chosen.rounds + 1):
            last = step == chosen.rounds or not final
            keep = final if last else round(begin * (final / begin) ** (step / chosen.rounds))
            scores = chosen(model, batches, loss)
            dead = {name: ~mask for name, mask in alive.items()}
            ranked = {
                name: score.masked_fill(dead[name].to(score.device), -torch.inf) if name in dead else score
                for name, score in scores.items()
            }
            alive = exact_k(ranked, keep)
            enforce(model, alive)
    return alive


State = dict[str, Tensor]
AfterStep = Callable[[nn.Module], None]
Train = Callable[[nn.Module, AfterStep], object]
"""Trains the model in place and calls the second argument with the model after every optimiser step."""
Rewind = Literal["initial", "kept"] | int
"""What the remaining weights become after pruning: their initial values, what they are, or those at step k."""


def state_of(model: nn.Module) -> State:
    """A copy of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@dataclass(frozen=True)
class Round:
    """One round of iterative pruning, after its training. Round 0 is the dense network."""

    index: int
    masks: Masks
    sparsity: float
    """Of the prunable weights."""
    rewound: State
    """The state that this round's training started from, pruned weights zero."""


def fit_masked(model: nn.Module, masks: Mapping[str, Tensor], train: Train) -> None:
    """Train with the masks in force from before the first step until after the last one."""
    enforce(model, masks)
    train(model, lambda trained: hold(trained, masks))


def iterative(
    model: nn.Module,
    train: Train,
    *,
    fraction: float,
    rounds: int,
    rewind: Rewind = "initial",
    how: str | Method | Score = "magnitude",
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
) -> Iterator[Round]:
    """Train, prune a fraction of what remains, rewind, repeat; yields after each training, the model trained.

    Frankle & Carbin 2019, arXiv 1803.03635 (rewinding to initialisation); 1912.05671 (to step k of the first
    training); rewind="kept" is Han's retraining of the weights as they are. Rewinding sets everything back
    that is trained, biases and batch norm too.

    Args:
        model: trained in place; its values now are the initial ones.
        fraction: of the remaining prunable weights to remove in each round, in (0, 1).
        rounds: prunings; one more training than that.

    Raises:
        UsageError: the fraction or the rewind step is out of range (the first training had fewer steps).
    """
    if not 0 < fraction < 1:
        raise UsageError(f"fraction is {fraction:g}; a round removes more than nothing and less than all: 0 to 1")
    masks = full(model)
    start = state_of(model)
    origin = start if rewind in ("initial", 0) else None
    steps = 0

    def note(trained: nn.Module) -> None:
        nonlocal steps, origin
        steps += 1
        if steps == rewind and origin is None:
            origin = state_of(trained)

    train(model, note)
    if origin is None and rewind != "kept":
        raise UsageError(f"rewind is step {rewind}, but the first training had only {steps} steps")
    yield Round(0, masks, 0.0, start)
    for index in range(1, rounds + 1):
        masks = prune_what_remains(
            model, masks, index, fraction, origin, how=how, batches=batches, loss=loss, seed=seed
        )
        rewound = state_of(model)
        fit_masked(model, masks, train)
        yield Round(index, masks, sparsity(model, masks).prunable, rewound)


def prune_what_remains(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    index: int,
    fraction: float,
    origin: State | None,
    *,
    how: str | Method | Score = "magnitude",
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
    seed: int = 0,
) -> Masks:
    """The pruning of round `index` (from 1), in place: 1 - (1 - fraction)^index of the weights are gone after it.

    Args:
        masks: of the round before.
        origin: what the remaining weights, and all else, are rewound to; None keeps them.
    """
    target = 1 - (1 - fraction) ** index
    new = prune(model, how, target, batches=batches, loss=loss, seed=seed, masks=masks)
    if origin is not None:
        model.load_state_dict({**model.state_dict(), **origin})  # masks behind quantisers are not in it
    enforce(model, new)
    return new


def layer_after_layer(
    model: nn.Module,
    how: str | Method | Score,
    sparsities: Mapping[str, float],
    retrain: Train,
    *,
    batches: Batches = (),
    loss: Loss = nn.functional.cross_entropy,
) -> Masks:
    """Prune one layer to its sparsity, retrain with all masks so far, go on with the next; in place.

    Li 2016 (arXiv 1608.08710, section 3.4) and Luo 2017 (arXiv 1707.06342, section 3.1) prune this way: each
    layer is scored in the network as its predecessors' pruning and retraining left it.

    Args:
        sparsities: by parameter name, in the order in which the layers are to be pruned.
    """
    scorer = method(how)
    masks = full(model)
    for name, fraction in sparsities.items():
        scores = scorer(model, batches, loss)
        if name not in scores:
            raise UsageError(f"no prunable weight is called '{name}'; there are: {', '.join(scores)}")
        masks[name] = exact_k_each({name: scores[name]}, {name: fraction})[name]
        fit_masked(model, masks, retrain)
    return masks
