"""A user's own module, built by a factory and filled from a state dictionary."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from contest.errors import RefusedError, UsageError
from scoring.readers.subject import Subject, subject_of_module

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_module(arch: str, weights: Path | None, image_shape: tuple[int, int, int], *, trust: bool = True) -> Subject:
    """A user's own module, built by `package.module:factory` and filled from a state dictionary.

    It runs the user's code, so it is for local use only. Brevitas modules go through Brevitas's own QONNX export.
    """
    if not trust:
        raise UsageError("--arch runs code of your own; it is for local use, not for submissions")
    return subject_of_user_module(load_module(arch, weights), image_shape)


def subject_of_user_module(model: nn.Module, image_shape: tuple[int, int, int]) -> Subject:
    """A module of the user's, Brevitas layers included."""
    if has_brevitas(model):
        from scoring.readers.brevitas_export import subject_of_brevitas

        return subject_of_brevitas(model, image_shape)
    return subject_of_module(model, image_shape)


def has_brevitas(model: nn.Module) -> bool:
    """Whether any layer of a module is Brevitas's."""
    return any(type(module).__module__.startswith("brevitas.") for module in model.modules())


def load_module(arch: str, weights: Path | None) -> nn.Module:
    """Build `package.module:factory()` and load its state dictionary (weights only, never a pickled module)."""
    from torch import nn

    module_name, _, factory_name = arch.partition(":")
    if not factory_name:
        raise UsageError(f"--arch is '{arch}'; it must be package.module:factory")
    try:
        factory = getattr(importlib.import_module(module_name), factory_name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--arch '{arch}' cannot be imported: {error}") from error
    if not callable(factory):
        raise UsageError(f"--arch '{arch}' is a {type(factory).__name__}, not callable")
    model = factory()
    if not isinstance(model, nn.Module):
        raise UsageError(f"--arch '{arch}' returned a {type(model).__name__}, not a torch.nn.Module")
    if weights is not None:
        load_state(model, _state(weights))
    return model.eval()


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Fill a module from a state dictionary, with torch `prune` masks and half precision if the state has them."""
    import torch
    from torch.nn.utils import prune

    state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    for name in [n for n in state if n.endswith("_orig") and n.replace("_orig", "_mask") in state]:
        owner, _, parameter = name.removesuffix("_orig").rpartition(".")
        module = model.get_submodule(owner)
        if not hasattr(module, parameter + "_mask"):
            prune.identity(module, parameter)
    halves = {t.dtype for t in state.values() if t.is_floating_point()} & {torch.float16, torch.bfloat16}
    if len(halves) == 1:
        model.to(halves.pop())
    try:
        model.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise RefusedError(f"the weights do not fit the module: {' '.join(str(error).split())[:400]}") from error


def _state(path: Path) -> dict[str, Tensor]:
    import torch

    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return dict(load_file(path))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise RefusedError(
            f"{path.name} does not open with weights_only=True; save `model.state_dict()`, not the model: "
            f"{str(error).splitlines()[0]}"
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise RefusedError(f"{path.name} holds a {type(state).__name__}, not a state dictionary")
    return {str(name): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
