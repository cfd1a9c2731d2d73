"""A run on disk: written whole or not at all, read without executing anything in it."""

from __future__ import annotations

import dataclasses
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from contest.errors import TrainingError, UsageError
from contest.files import beside
from contest.networks.wide_end import with_wide_end
from contest.training.evaluation import Epoch

UNREADABLE = (OSError, RuntimeError, ValueError, LookupError, EOFError, TypeError, pickle.UnpicklingError)
"""What torch.load and the use of what it returned raise for a file that is not what it should be."""


UNKNOWN_RANGE = (-(2**31), 2**31)
"""Codes of a quantiser whose checkpoint does not say its range."""


class Part(Protocol):
    """A model, an optimiser, a schedule, an average."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save(
    path: Path,
    run: Mapping[str, Any],
    parts: Mapping[str, Part],
    history: list[Epoch],
    provenance: Mapping[str, str] | None = None,
) -> None:
    """The state of all parts after the epochs of `history`; `run` is plain data that says what is trained how.

    `provenance` says which network it is and which images it saw, for whoever starts from the file.
    """
    write(
        {
            "provenance": dict(provenance or {}),
            "run": dict(run),
            "parts": {name: part.state_dict() for name, part in parts.items()},
            "quantisers": _quantisers(parts["model"]),
            "history": [dataclasses.asdict(epoch) for epoch in history],
        },
        path,
    )


def read(path: Path) -> dict[str, Any]:
    """What a checkpoint holds, on the CPU. Raises one of `UNREADABLE` for a file that is none."""
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def load(path: Path, run: Mapping[str, Any], parts: Mapping[str, Part]) -> list[Epoch]:
    """Gives the parts the state at `path` and returns the epochs that are done.

    Raises TrainingError for a damaged file and for a checkpoint of another run or another network.
    """
    try:
        state = read(path)
        saved, history = dict(state["run"]), [Epoch(**epoch) for epoch in state["history"]]
        states = {name: state["parts"][name] for name in parts}
    except UNREADABLE as error:
        raise TrainingError(
            f"the checkpoint '{path}' is damaged ({type(error).__name__}); delete it to start anew"
        ) from error
    different = [
        f"{key}: {saved.get(key)} there, {run.get(key)} now"
        for key in sorted(saved.keys() | run.keys())
        if saved.get(key) != run.get(key)
    ]
    if different:
        raise TrainingError(
            f"the checkpoint '{path}' belongs to another run ({'; '.join(different)}); "
            "give this run its own path or delete the file"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(states[name])
    except UNREADABLE as error:
        raise TrainingError(
            f"the checkpoint '{path}' is of another network ({error}); give this run its own path or delete the file"
        ) from error
    return history


def is_finished(path: Path) -> bool:
    """Whether a checkpoint holds a network and no training to go on with (`save` of a model alone). False for a damaged
    one."""
    try:
        return path.exists() and set(read(path)["parts"]) == {"model"}
    except UNREADABLE:
        return False


def start_from(path: Path, model: nn.Module, split: str | None = None) -> list[str]:
    """Give the float `model` the weights of a training's checkpoint, averaged ones where it averaged.

    Tensors are taken where name and shape agree, so a network with fewer or more blocks can start from its relative;
    the others stay as they are. Of a quantised training the weights are taken as its quantisers showed them: a channel
    of small weights that all rounded to zero has no variance left, and its latent weights would blow up. Returns the
    names taken. `split` is the hash of the split whose validation images will judge the network. Raises UsageError for
    a file that is no checkpoint, where nothing agrees, and for one that was trained on another split or does not say on
    which (checkpoints of versions before this one do not).
    """
    try:
        state = read(path)
        parts, quantisers = state["parts"], state.get("quantisers", {})
        learned = state.get("provenance", {}).get("split_sha256")
        unfolded = state["run"].get("branches") and len(parts) > 1
        known: dict[str, Tensor] = parts["average"]["tensors"] if "average" in parts else parts["model"]
        known = {name: _shown(name, tensor, known, quantisers) for name, tensor in known.items()}
        rounded = any(name.endswith(".multiplier_scale") for name in known)
    except (*UNREADABLE, AttributeError) as error:
        raise UsageError(
            f"'{path}' is no checkpoint of a training ({type(error).__name__}): give a train.ckpt"
        ) from error
    if rounded:
        raise UsageError(
            f"'{path}' is of the last epochs of a quantised training, which has no batch norms any more: give the "
            "tune.ckpt beside it"
        )
    if unfolded:
        raise UsageError(
            f"'{path}' is of a training with branches that has not ended, so there is no plain network yet: let it end"
        )
    if split is not None and learned != split:
        seen = f"was trained on another split ({learned[:16]}; this one is {split[:16]})" if learned else ""
        raise UsageError(
            f"'{path}' {seen or 'does not say which images it saw'}, so what it knows of images that validation is "
            "measured on would count as this network's own: start from a network of this split"
        )
    own = model.state_dict()
    known = with_wide_end(known, own)
    taken = [name for name, tensor in known.items() if tensor.shape == own[name].shape]
    if not any(weight.dim() > 1 for name, weight in model.named_parameters() if name in taken):
        raise UsageError(f"'{path}' is of a network that shares no layer of the same name and shape with this one")
    model.load_state_dict({name: known[name] for name in taken}, strict=False)
    return taken


def _quantisers(model: Part) -> dict[str, tuple[int, int, bool]]:
    """(lowest code, highest code, whether codes are signs) of each weight quantiser of a model, by its name.

    Known by an attribute of `LearnedStep`: importing it would bring Brevitas, which takes seconds.
    """
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    return {
        name: (module.low, module.high, module.binary)
        for name, module in modules
        if getattr(
            module, "is_weight", False
        )  # (a LearnedStep; importing it would bring Brevitas, which takes seconds)
    }


def _shown(
    name: str, weight: Tensor, known: Mapping[str, Tensor], quantisers: Mapping[str, tuple[int, int, bool]]
) -> Tensor:
    """A weight as its quantiser showed it to the network, if the checkpoint is of a quantised training; else as it is.

    Files of earlier versions do not say the quantiser's range: their weights are rounded to multiples of the step.
    """
    quantiser = f"{name.removesuffix('.weight')}.weight_quant.tensor_quant"
    step, mask = known.get(f"{quantiser}.step"), known.get(f"{quantiser}.mask")
    if step is None or not name.endswith(".weight"):
        return weight
    from contest.quantisation.lsq import LearnedStep

    low, high, binary = quantisers.get(quantiser, (*UNKNOWN_RANGE, False))
    showing = LearnedStep(8, signed=True, step=step, weight=True, binary=binary)
    showing.step.data, showing.low, showing.high, showing.mask = step, low, high, mask
    shown: Tensor = showing(weight)[0].detach()
    return shown


def write(state: Mapping[str, Any], path: Path) -> None:
    """`state` (tensors and plain data) beside `path`, then renamed: a kill at any time leaves the old file."""
    with beside(path) as part, part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
