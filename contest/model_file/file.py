"""`model.pt` and `model.safetensors`: a manifest and dense tensors, nothing that is code.

`model.pt` is a torch zip file that `torch.load(weights_only=True)` opens: a dictionary of `format`, `version`,
`manifest` (JSON text) and `state` (tensor by name). The `.safetensors` file holds the same tensors, and the manifest
in its metadata. Both are checked tensor by tensor against what the manifest's architecture needs.
"""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from contest.errors import ContestError, RefusedError, UsageError
from contest.files import beside
from contest.model_file.freeze import Network, rebuilt
from contest.model_file.manifest import FORMAT, MAX_ELEMENTS, VERSION, Manifest, parse_manifest
from contest.networks.batch_norms import is_batch_norm, replace_submodule
from contest.untrusted import check_file
from contest.untrusted.description import CONVERT

STORED_TYPES = (torch.int8, torch.float32, torch.float16)


def save(network: Network, path: Path | str) -> Path:
    """Write a network as `.pt` or `.safetensors` (by the ending), atomically. Returns the path."""
    path = Path(path)
    state, manifest = stored_state(network.body), network.manifest.text()
    with beside(path) as part:
        if path.suffix == ".safetensors":
            from safetensors.torch import save as to_bytes

            metadata = {"format": FORMAT, "version": str(VERSION), "manifest": manifest}
            part.write_bytes(_in_order(to_bytes(state, metadata=metadata)))
        elif path.suffix == ".pt":
            content = {"format": FORMAT, "version": VERSION, "manifest": manifest, "state": state}
            # Not by the path: torch would write the file's name into it, and a renamed network be another file.
            with part.open("wb") as file:
                torch.save(content, file)
        else:
            raise UsageError(f"{path.name}: a model file ends in .pt or .safetensors")
    return path


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its metadata sorted: the library writes them in an order of chance."""
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def load(path: Path | str) -> Network:
    """Rebuild the network of a `.pt` or `.safetensors` file. Raises RefusedError, naming what is wrong."""
    manifest, state = read(Path(path))
    return assemble(manifest, state)


def read_manifest(path: Path | str) -> Manifest:
    """The manifest of a model file."""
    return read(Path(path))[0]


def read(path: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """(manifest, tensors) of a model file, each tensor dense and of a type that the format stores."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    check_file(path)  # what the file says, before anything is deserialised
    manifest, state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if len(state) > 10_000:
        raise RefusedError(f"{path.name} holds {len(state):,} tensors; the limit is 10,000")
    for name, tensor in state.items():
        _check_tensor(name, tensor)
    return parse_manifest(manifest), state


def stored_state(body: nn.Module) -> dict[str, Tensor]:
    """The tensors that the file holds. Counters of batch norms are not part of inference."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in body.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def assemble(manifest: Manifest, state: Mapping[str, Tensor]) -> Network:
    """Build the manifest's architecture without memory, check every tensor against it, then fill it."""
    from contest.networks import build

    architecture = manifest.architecture.architecture()
    # timm's modules compute some constants when they are built; only ours can be built without memory.
    device = "cpu" if architecture.family.startswith("timm/") else "meta"
    try:
        with torch.device(device):
            body = build(architecture, image_shape=manifest.image_shape, classes=manifest.classes)
    except ContestError as error:
        raise RefusedError(f"the manifest's architecture cannot be built: {error}") from error
    for name, spec in manifest.layers.items():
        _put(body, name, spec, device)
    _fill(body, state)
    return Network(body, manifest)


def _put(body: nn.Module, name: str, spec: Any, device: str) -> None:
    try:
        module = body.get_submodule(name)
    except AttributeError as error:
        raise RefusedError(f"layer '{name}' of the manifest is not in the architecture") from error
    kinds = {"conv": nn.Conv2d, "linear": nn.Linear}
    fits = is_batch_norm(module) if spec.kind in ("affine", "folded") else type(module) is kinds[spec.kind]
    if not fits:
        raise RefusedError(f"layer '{name}' is a {type(module).__name__}, not a {spec.kind} as the manifest says")
    if spec.inputs % spec.groups or spec.outputs % spec.groups:
        raise RefusedError(
            f"layer '{name}': {spec.inputs} -> {spec.outputs} channels cannot be divided into {spec.groups} groups"
        )
    if isinstance(module, nn.Conv2d) and tuple(spec.kernel) != tuple(module.kernel_size):
        raise RefusedError(f"layer '{name}' has a kernel of {spec.kernel}; its architecture {module.kernel_size}")
    replace_submodule(body, name, rebuilt(spec, module, device))


def _fill(body: nn.Module, state: Mapping[str, Tensor]) -> None:
    needed = {n: t for n, t in body.state_dict().items() if not n.endswith("num_batches_tracked")}
    if sum(t.numel() for t in needed.values()) > MAX_ELEMENTS:
        raise RefusedError(f"the network has more than {MAX_ELEMENTS:,} numbers")
    missing, unused = sorted(needed.keys() - state.keys()), sorted(state.keys() - needed.keys())
    if missing:
        raise RefusedError(f"tensor '{missing[0]}' is missing ({len(missing)} in all)")
    if unused:
        raise RefusedError(f"tensor '{unused[0]}' is used by nothing in the network ({len(unused)} in all)")
    for name, tensor in needed.items():
        given = state[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            raise RefusedError(
                f"tensor '{name}' is {tuple(given.shape)} {given.dtype}; the network needs "
                f"{tuple(tensor.shape)} {tensor.dtype}"
            )
    counters = {n: torch.zeros((), dtype=torch.int64) for n in body.state_dict().keys() - needed.keys()}
    body.load_state_dict({**state, **counters}, strict=True, assign=True)


def _check_tensor(name: str, tensor: Any) -> None:
    if (
        type(tensor) is not Tensor
        or tensor.layout != torch.strided
        or tensor.is_quantized
        or tensor.device.type != "cpu"
    ):
        raise RefusedError(f"'{name}' is not a dense tensor")
    if tensor.dtype not in STORED_TYPES:
        raise RefusedError(f"tensor '{name}' is {tensor.dtype}; a model file holds int8, float32 and float16")
    if tensor.numel() == 0 or tensor.numel() > MAX_ELEMENTS or tensor.dim() > 8:
        raise RefusedError(f"tensor '{name}' has shape {tuple(tensor.shape)}: empty or too large")
    if not tensor.is_contiguous() or tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size():
        raise RefusedError(f"tensor '{name}' is a view of other data; tensors must stand alone")
    if tensor.dtype != torch.int8 and not bool(torch.isfinite(tensor).all()):
        raise RefusedError(f"tensor '{name}' holds NaN or infinite values")


def _read_torch(path: Path) -> tuple[str, dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,
        zipfile.BadZipFile,
    ) as error:
        first_line = str(error).strip().split("\n")[0][:200]
        raise RefusedError(f"{path.name} is not a model file that opens without running code: {first_line}") from error
    if not isinstance(content, dict) or set(content) != {"format", "version", "manifest", "state"}:
        raise RefusedError(
            f"{path.name} is a torch file but not a model file of this project; "
            "`contest convert` turns other networks into one that can be scored"
        )
    manifest, state = content["manifest"], content["state"]
    _check_version(path, content["format"], str(content["version"]))
    if not isinstance(manifest, str) or not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise RefusedError(f"{path.name}: the manifest must be text and the state tensors by name")
    return manifest, state


def _read_safetensors(path: Path) -> tuple[str, dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            names = list(content.keys())
            if len(names) > 10_000:
                raise RefusedError(f"{path.name} holds {len(names):,} tensors; the limit is 10,000")
            state = {name: content.get_tensor(name).clone() for name in names}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise RefusedError(f"{path.name} is not a safetensors file: {str(error)[:200]}") from error
    if "manifest" not in metadata:
        raise RefusedError(
            f"{path.name} has no manifest in its metadata; it is no model file of this project; {CONVERT}"
        )
    _check_version(path, metadata.get("format"), metadata.get("version"))
    return metadata["manifest"], state


def _check_version(path: Path, name: Any, version: Any) -> None:
    if name != FORMAT or version != str(VERSION):
        raise RefusedError(
            f"{path.name} says format {str(name)[:50]!r} version {str(version)[:20]!r}; "
            f"this program reads {FORMAT!r} version '{VERSION}'"
        )
