"""Checkpoints as people save them: opened without running anything that they name.

A training script saves weights beside whatever it has at hand: the epoch, NumPy scalars, an argparse namespace, the
optimiser, often the whole module. Here every class that a file names is a hollow one that only keeps what it is given,
so tensors come out of any of these files and nothing of their code is imported or called.
"""

from __future__ import annotations

import difflib
import io
import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from contest.errors import RefusedError, UsageError, command
from contest.untrusted.description import FROM_KERAS, from_export, from_torchscript

_MAX_DEPTH = 6
"""How deeply the weights may lie in dictionaries, lists and objects."""
_MULTIARRAY = ("numpy.core.multiarray", "numpy._core.multiarray")
_TENSOR_BUILDERS = (
    "_rebuild_tensor_v2",
    "_rebuild_tensor",
    "_rebuild_qtensor",
    "_rebuild_parameter",
    "_rebuild_sparse_tensor",
)
_BUILDERS: dict[tuple[str, str], Any] = {
    **{("torch._utils", name): getattr(torch._utils, name) for name in _TENSOR_BUILDERS},
    **{(module, name): getattr(_multiarray, name) for module in _MULTIARRAY for name in ("_reconstruct", "scalar")},
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    ("torch", "Size"): torch.Size,
    ("torch.serialization", "_get_layout"): torch.serialization._get_layout,
    ("_codecs", "encode"): lambda text, encoding="latin1": text.encode("latin1"),
    ("torch.storage", "_load_from_bytes"): lambda content: _opened(io.BytesIO(content)),
}
"""All that may be called: what builds tensors, arrays and numbers from bytes."""


class Hollow:
    """Stands for an object, a function or a class that the file names; keeps its state and does nothing."""

    origin = ""

    def __new__(cls, *arguments: Any, **named: Any) -> Hollow:
        made = super().__new__(cls)
        made.state, made.parts = {}, list(arguments)
        return made

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.state: Any
        self.parts: list[Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.parts.append({key: value} if isinstance(key, str) else value)

    def append(self, item: Any) -> None:
        self.parts.append(item)

    def extend(self, items: Any) -> None:
        self.parts.extend(items)

    add = append
    __hash__ = object.__hash__


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _BUILDERS:
            return _BUILDERS[module, name]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype | torch.qscheme):
            return found
        return type(name, (Hollow,), {"origin": f"{module}.{name}"})


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


_pickle = types.ModuleType("contest_hollow_pickle")
_pickle.Unpickler, _pickle.load = _Unpickler, _load  # type: ignore[attr-defined]


def open_checkpoint(path: Path) -> Any:
    """What the file holds, foreign objects as `Hollow` ones. Raises RefusedError where no tensors can come out."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    name = path.name
    with path.open("rb") as file:
        head = file.read(8)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise RefusedError(
                f"{name} cannot be opened as safetensors ({' '.join(str(error).split())[:200]}); copy it anew, or "
                "save it again with `safetensors.torch.save_file(model.state_dict(), path)`"
            ) from error
    if path.suffix in (".h5", ".hdf5", ".keras", ".tflite"):
        raise RefusedError(f"{name} is a network of Keras or TensorFlow; {FROM_KERAS}")
    if path.suffix == ".onnx":
        raise RefusedError(f"{name} holds its network itself; score it without --arch: `{command('score', name)}`")
    for magic, what in _ARCHIVES.items():
        if head.startswith(magic):
            raise RefusedError(f"{name} is an archive; unpack it first (`{what} {name}`) and score what is in it")
    if zipfile.is_zipfile(path):
        found = _of_zip(path)
        if found is not None:
            return found
    try:
        return _opened(path)
    except Exception as error:  # a damaged pickle raises whatever its next byte means
        try:
            return _plain_pickle(path, head)
        except Exception:  # so does one that torch never wrote
            raise RefusedError(
                f"{name} cannot be opened as a checkpoint of torch ({' '.join(str(error).split())[:200]}); save "
                "`torch.save(model.state_dict(), path)`"
            ) from error


_ARCHIVES = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7zXZ": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
"""First bytes -> the program that unpacks them."""


def _opened(file: Any) -> Any:
    return torch.load(file, map_location="cpu", weights_only=False, pickle_module=_pickle)


def _of_zip(path: Path) -> Any:
    """Arrays of an .npz; None for a checkpoint of torch. Raises RefusedError for any other archive."""
    name = path.name
    with zipfile.ZipFile(path) as archive:
        entries = archive.namelist()
    members = [entry.partition("/")[2] for entry in entries]
    if any(m == "constants.pkl" or m.startswith("code/") for m in members):
        raise RefusedError(f"{name} is a TorchScript archive, which is code; {from_torchscript(name)}")
    if any(m.startswith("models/") or m == "archive_format" for m in members):
        raise RefusedError(f"{name} is a program of torch.export; {from_export(name)}")
    if entries and all(entry.endswith(".npy") for entry in entries):
        with np.load(path, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    if not any(m == "data.pkl" for m in members):
        raise RefusedError(f"{name} is an archive; unpack it first (`unzip {name}`) and score what is in it")
    return None


def _plain_pickle(path: Path, head: bytes) -> Any:
    """What `pickle.dump` or `numpy.save` wrote, opened as hollow as everything else."""
    with path.open("rb") as file:
        if head.startswith(b"\x93NUMPY"):
            version = np.lib.format.read_magic(file)
            reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}[version[0]]
            _, _, dtype = reader(file)
            if not dtype.hasobject:
                raise ValueError("one array without a name")
        found = _load(file)
    return found.item() if isinstance(found, np.ndarray) and found.dtype.hasobject and found.size == 1 else found


def tensor_dictionaries(content: Any) -> dict[str, dict[str, Any]]:
    """All state dictionaries in a checkpoint, by the keys that lead to them ("" is the file itself).

    A whole module counts: its parameters and buffers by name.
    """
    return {place: tensors for place, tensors in _walk(content, "", 0) if tensors}


def _walk(item: Any, place: str, depth: int) -> Iterator[tuple[str, dict[str, Any]]]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(item, Hollow):
        tensors = dict(_of_module(item, ""))
        if tensors:
            yield place, tensors
            return
        item = item.state if isinstance(item.state, Mapping) else {}
    if isinstance(item, Mapping):
        yield place, {k: t for k, v in item.items() if isinstance(k, str) and (t := _entry(k, v)) is not None}
        for key, value in item.items():
            yield from _walk(value, f"{place}.{key}" if place else str(key), depth + 1)
    elif isinstance(item, list | tuple) and len(item) <= 100:
        for i, value in enumerate(item):
            yield from _walk(value, f"{place}[{i}]", depth + 1)


def _entry(name: str, value: Any) -> Any:
    """What of a dictionary's entries belongs to a state: tensors, and the packed weights of converted layers."""
    return value if "_packed_params" in name and not isinstance(value, Hollow) else _tensor(value)


def _tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach() if value.layout == torch.strided else value.detach().to_dense()
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.array(value))
    return None


def _of_module(module: Hollow, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers of a hollow module, from its attributes."""
    state = module.state if isinstance(module.state, Mapping) else {}
    hidden = state.get("_non_persistent_buffers_set") or ()
    gone = set(hidden) if isinstance(hidden, set | frozenset | list | tuple) else set()
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            tensor = _tensor(value)
            if tensor is not None and name not in gone:
                yield prefix + name, tensor
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Hollow):
            yield from _of_module(child, f"{prefix}{name}.")


def module_class(content: Any) -> str | None:
    """The class of a whole pickled module, as package.module.Name; None if the content is no module."""
    if isinstance(content, Hollow) and isinstance(content.state, Mapping) and "_modules" in content.state:
        return content.origin
    return None


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
