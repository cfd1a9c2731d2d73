"""Makes model files, good and bad, from code. Nothing binary is committed, and nothing needs Brevitas."""

from __future__ import annotations

import copy
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor

from contest import networks
from contest.model_file import Manifest, freeze

SHAPE = (3, 8, 8)
CLASSES = 10
ARCHITECTURE = "thin:widths=4-6,depths=1-1"


@cache
def _quantised(architecture: str, weight_bits: int, input_bits: int) -> tuple[str, dict[str, Tensor]]:
    torch.manual_seed(0)
    parsed = networks.parse(architecture)
    model = networks.build(parsed, SHAPE, CLASSES).eval()
    manifest = json.loads(freeze(model, parsed, image_shape=SHAPE, classes=CLASSES).manifest.text())
    for spec in manifest["layers"].values():
        if spec["kind"] != "affine":
            spec.update(weight_bits=weight_bits, input_bits=input_bits, input_signed=True, per_channel=True)
    return json.dumps(manifest), {}


def quantised(architecture: str = ARCHITECTURE, weight_bits: int = 3, input_bits: int = 3) -> dict[str, Any]:
    """The content of a `model.pt`, honest: random codes within their bits, positive steps."""
    text, state = _quantised(architecture, weight_bits, input_bits)
    if not state:
        state.update(_random_state(Manifest.model_validate_json(text)))
    return {"format": "contest-model", "version": 1, "manifest": text, "state": copy.deepcopy(state)}


def _random_state(manifest: Manifest) -> dict[str, Tensor]:
    """Numbers for every tensor that the manifest's network needs."""
    names = _needed(manifest)
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, empty in names.items():
        if empty.dtype == torch.int8:
            high = 2 ** (_layer(manifest, name).weight_bits - 1)
            state[name] = torch.randint(-high, high, empty.shape, generator=generator, dtype=torch.int8)
        elif name.endswith(("step", "multiplier")):
            state[name] = torch.full(empty.shape, 0.1, dtype=empty.dtype)
        else:
            state[name] = torch.rand(empty.shape, generator=generator).to(empty.dtype)
    return state


def _layer(manifest: Manifest, name: str) -> Any:
    return manifest.layers[name.rpartition(".")[0]]


def _needed(manifest: Manifest) -> dict[str, Tensor]:
    """Empty tensors by name, found by asking for what is missing."""
    from contest.model_file.file import _put

    architecture = manifest.architecture.architecture()
    with torch.device("meta"):
        body = networks.build(architecture, image_shape=manifest.image_shape, classes=manifest.classes)
    for name, spec in manifest.layers.items():
        _put(body, name, spec, "meta")
    return {n: t for n, t in body.state_dict().items() if not n.endswith("num_batches_tracked")}


def torch_bytes(content: Any) -> bytes:
    """What `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def safetensors_bytes(content: Mapping[str, Any]) -> bytes:
    """The same network as `.safetensors`."""
    from safetensors.torch import save

    metadata = {"format": content["format"], "version": str(content["version"]), "manifest": content["manifest"]}
    return bytes(save(content["state"], metadata=metadata))


def with_manifest(content: dict[str, Any], change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The content with a manifest that `change` edited."""
    manifest = json.loads(content["manifest"])
    change(manifest)
    return {**content, "manifest": json.dumps(manifest)}


def entries_of(archive: bytes) -> dict[str, bytes]:
    """The entries of a zip file by full name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def zip_bytes(entries: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip file with these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data, compress_type=compression)
    return buffer.getvalue()


def torch_with_pickle(data: bytes, extra: Mapping[str, bytes] | None = None) -> bytes:
    """A torch file whose data.pkl is this."""
    entries = {"archive/data.pkl": data, "archive/byteorder": b"little", "archive/version": b"3\n"}
    return zip_bytes({**entries, **(extra or {})})


def header_bytes(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A `.safetensors` file with this header (JSON or ready bytes) and, if given, a false length."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Calls:
    """Pickles to a call of any function by name."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.module, self.name, self.arguments = module, name, arguments

    def pickled(self) -> bytes:
        """Protocol 2: GLOBAL, arguments, REDUCE, STOP."""
        arguments = pickle.dumps(self.arguments, 2)[2:-1]
        return b"\x80\x02c" + f"{self.module}\n{self.name}\n".encode() + arguments + b"R."
