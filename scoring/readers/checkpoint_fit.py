"""How the names of a checkpoint's tensors fit a module: prefixes, what lies beside, what differs, in one sentence."""

from __future__ import annotations

import difflib
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from contest.errors import RefusedError

_BOOKKEEPING = ("n_averaged", "total_ops", "total_params", "num_batches_tracked")
"""Entries by their last name that wrappers and profilers add, and that no network needs."""
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Wrappers put these anywhere into a name."""
_MOST_NAMES = 4
_PARAMETERS_ONLY = (
    "; it holds the parameters and none of the buffers (statistics of batch norms), without which the network is "
    "another: save `torch.save(model.state_dict(), path)`"
)


@dataclass(frozen=True)
class Fit:
    """How well a state dictionary fits a module: its tensors by the module's names, and what is left over."""

    place: str
    tensors: Mapping[str, Any]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    prefix: str
    """Stands before all names of the file; with a "-" before it: before all names of the module."""
    beside: tuple[str, ...] = ()
    """Names that lack the prefix, where what has it is the whole module: weights of a loss, metrics, a teacher."""
    rivals: tuple[str, ...] = ()
    """Other prefixes under which the whole module lies as well."""

    @property
    def matched(self) -> int:
        return len(self.tensors) - len(self.unexpected)

    @property
    def whole(self) -> bool:
        return not self.missing and not self.unexpected


def load_state(model: nn.Module, found: Mapping[str, Mapping[str, Any]], key: str | None = None) -> list[str]:
    """Fill a module from the state dictionaries of a checkpoint, by the one that fits. Returns notes.

    Takes torch `prune` masks and half precision over. key: the dictionary to take where several fit.
    """
    if not any("_orig" in name for state in found.values() for name in state):
        _remove_masks(model)
    if key is not None and key not in found:
        raise RefusedError(f"the file has no tensors under '{key}'; it has them under {_listed(sorted(found))}")
    fits = [_fit(model, place, state) for place, state in found.items() if key is None or place == key]
    if not fits or not max(fit.matched for fit in fits):
        raise RefusedError(_nothing_fits(model, found))
    fits.sort(key=lambda fit: (not fit.whole, -fit.matched, "ema" in fit.place.lower()))
    best = fits[0]
    _check(model, best)
    _prepare(model, best.tensors)
    state = OrderedDict(best.tensors)
    state._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]  # versions of the module's layers
    left = model.load_state_dict(state, strict=False)
    if left.unexpected_keys:
        raise RefusedError(_what_differs(best))
    return _notes(best, [fit.place for fit in fits[1:] if fit.whole])


def _fit(model: nn.Module, place: str, state: Mapping[str, Any]) -> Fit:
    wanted = _names_wanted(model)
    clean = {_unwrapped(name): tensor for name, tensor in state.items()}
    _prune_names(clean, wanted)
    prefix = max(_prefixes(clean, wanted), key=lambda p: (sum(_moved(n, p) in wanted for n in clean), -len(p)))
    needed = [name for name in wanted if not _is_bookkeeping(name)]
    beside: tuple[str, ...] = ()
    rivals: tuple[str, ...] = ()
    if needed and prefix[:1] not in ("", "-") and all(prefix + name in clean for name in needed):
        others = (name.removesuffix(needed[0]) for name in clean if name.endswith(f".{needed[0]}"))
        rivals = tuple(p for p in others if p != prefix and all(p + name in clean for name in needed))
        beside = tuple(name for name in clean if not name.startswith(prefix) and not _is_bookkeeping(name))
        clean = {name: tensor for name, tensor in clean.items() if name.startswith(prefix)}
    moved = {_moved(name, prefix): tensor for name, tensor in clean.items()}
    tensors = {name: tensor for name, tensor in moved.items() if name in wanted or not _is_bookkeeping(name)}
    missing = tuple(n for n in wanted if n not in tensors and not _is_bookkeeping(n))
    unexpected = tuple(n for n in tensors if n not in wanted)
    return Fit(place, tensors, missing, unexpected, prefix, beside, rivals)


def _names_wanted(model: nn.Module) -> dict[str, tuple[int, ...] | None]:
    """The module's names and shapes; None where there is none yet, or no tensor (packed weights)."""
    lazy = torch.nn.parameter.is_lazy
    return {
        name: tuple(entry.shape) if isinstance(entry, Tensor) and not lazy(entry) else None
        for name, entry in model.state_dict().items()
    }


def _unwrapped(name: str) -> str:
    for wrapper in _WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _is_bookkeeping(name: str) -> bool:
    return name.rpartition(".")[2] in _BOOKKEEPING


def _prune_names(state: Mapping[str, Any], wanted: dict[str, tuple[int, ...] | None]) -> None:
    """Torch's `prune` keeps `weight_orig` and `weight_mask` where the module has `weight`: these are wanted then."""
    for name in [n for n in wanted if n not in state]:
        for stored in (s for s in state if s == f"{name}_orig" or s.endswith(f".{name}_orig")):
            if stored.removesuffix("_orig") + "_mask" in state:
                shape = wanted.pop(name)
                wanted[f"{name}_orig"] = wanted[f"{name}_mask"] = shape
                break


def _prefixes(state: Iterable[str], wanted: Iterable[str]) -> list[str]:
    """Prefixes that would bring a name of the file to one of the module's; "-p" puts p before the file's names."""
    found = {"": None}
    for name in state:
        for other in wanted:
            if name.endswith(f".{other}"):
                found[name.removesuffix(other)] = None
            elif other.endswith(f".{name}"):
                found["-" + other.removesuffix(name)] = None
        if len(found) > 16:
            break
    return list(found)


def _moved(name: str, prefix: str) -> str:
    return prefix[1:] + name if prefix.startswith("-") else name.removeprefix(prefix)


def _check(model: nn.Module, fit: Fit) -> None:
    wanted = _names_wanted(model)
    if fit.rivals:
        where = f" under '{fit.place}'" if fit.place else ""
        raise RefusedError(
            f"the whole module is in the file under each of {_listed((fit.prefix, *fit.rivals))}; save the one that "
            f"you mean, `state` being the dictionary{where}: `torch.save({{k.removeprefix('{fit.prefix}'): v "
            f"for k, v in state.items() if k.startswith('{fit.prefix}')}}, path)`"
        )
    if fit.missing or (fit.unexpected and not _makes_its_own_entries(model)):
        buffers = {name for name, _ in model.named_buffers()}
        statistics = not fit.unexpected and all(name in buffers for name in fit.missing)
        raise RefusedError(_what_differs(fit) + (_PARAMETERS_ONLY if statistics else ""))
    for name, tensor in fit.tensors.items():
        shape = wanted.get(name, wanted.get(name.removesuffix("_orig").removesuffix("_mask")))
        if shape is not None and tuple(tensor.shape) != shape:
            raise RefusedError(
                f"the weights do not fit the module: '{name}' is {list(tensor.shape)} in the file and {list(shape)} in "
                "the module; build the module as it was when it was trained (classes, widths)"
            )


def _makes_its_own_entries(model: nn.Module) -> bool:
    """Whether layers take entries that a new module's `state_dict` lacks: Brevitas keeps steps that were collected."""
    return any(type(module).__module__.startswith("brevitas.") for module in model.modules())


def _what_differs(fit: Fit) -> str:
    parts = [
        f"the weights do not fit the module (of {len(fit.tensors)} tensors in the file {fit.matched} have its names)"
    ]
    if fit.missing:
        parts.append(f"the module wants {_listed(fit.missing)}, which the file lacks")
    if fit.unexpected:
        parts.append(f"the file has {_listed(fit.unexpected)}, which the module lacks")
    if {"normalise.mean", "normalise.std"} <= set(fit.unexpected):  # `contest.model_file.freeze` puts them in front
        return "it is a model file of this program, which holds its network itself: score it without --arch"
    if {"_scale_0", "_zero_point_0"} <= fit.tensors.keys():
        parts.append(
            "it is a network that `convert_pt2e` made, whose code the module is not: write it as ONNX where you "
            "made it, `torch.onnx.export(converted, images, 'network.onnx', dynamo=True, external_data=False)`"
        )
        return "; ".join(parts)
    if any(".parametrizations." in name or name.endswith((".weight_g", ".weight_v")) for name in fit.unexpected):
        parts.append(
            "it was saved with parametrizations (weight_norm and others): apply them in the factory too, or save it "
            "without, after `torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')` for each such layer"
        )
        return "; ".join(parts)
    near = []
    for name in fit.missing[:_MOST_NAMES]:
        close = difflib.get_close_matches(name, fit.unexpected, 1, 0.5)
        near += [f"'{name}' (module) is nearest to '{close[0]}' (file)"] if close else []
    return "; ".join(parts + near)


def _nothing_fits(model: nn.Module, found: Mapping[str, Mapping[str, Any]]) -> str:
    if not found:
        return "the file holds no tensors by name; save `torch.save(model.state_dict(), path)`"
    place, state = max(found.items(), key=lambda item: len(item[1]))
    under = f" under '{place}'" if place else ""
    return (
        f"no name in the file is one of the module's: the file has {_listed(list(state))}{under}, "
        f"the module wants {_listed(list(_names_wanted(model)))}; is it another network's file?"
    )


def _listed(names: Iterable[str]) -> str:
    names = [f"'{name}'" for name in names]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _remove_masks(model: nn.Module) -> None:
    """The file was saved after `prune.remove`; the module must not wait for masks."""
    for module in model.modules():
        for name in [n.removesuffix("_mask") for n, _ in module.named_buffers(recurse=False) if n.endswith("_mask")]:
            if hasattr(module, f"{name}_orig"):
                prune.remove(module, name)


def _prepare(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Masks and half precision, as the file has them."""
    for name in [n for n in state if n.endswith("_orig") and n.removesuffix("_orig") + "_mask" in state]:
        owner, _, parameter = name.removesuffix("_orig").rpartition(".")
        module = model.get_submodule(owner)
        if not hasattr(module, parameter + "_mask"):
            prune.identity(module, parameter)
    for name, own in (*model.named_parameters(), *model.named_buffers()):
        stored = state.get(name)
        if stored is not None and stored.dtype in (torch.float16, torch.bfloat16) and own.is_floating_point():
            own.data = own.data.to(stored.dtype)


def _notes(fit: Fit, others: list[str]) -> list[str]:
    notes = []
    if fit.place:
        notes.append(f"weights taken from '{fit.place}' of the file")
    if fit.prefix:
        plain = fit.prefix.removeprefix("-")
        where = "the module's" if fit.prefix.startswith("-") else "the file's"
        notes.append(f"all names differ by the prefix '{plain}' of {where}")
    if fit.beside:
        notes.append(f"{_listed(fit.beside)} of the file lack that prefix and are no part of the module: left out")
    if others:
        notes.append(f"{_listed(others)} of the file would fit as well; `--state-key` chooses")
    return notes
