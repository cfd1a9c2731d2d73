"""Checkpoints as people save them: opened without running anything that they name.

A training script saves weights beside whatever it has at hand: the epoch, NumPy scalars, an argparse namespace, the
optimiser, often the whole module. Here every class that a file names is a hollow one that only keeps what it is given,
so tensors come out of any of these files and nothing of their code is imported or called.
"""

from __future__ import annotations

import io
import pickle
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy._core.multiarray as _multiarray
import torch
from torch import Tensor

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
