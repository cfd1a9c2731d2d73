"""What a gate finds out about a file without deserialising it, and the caps that hold before anything is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from contest.errors import RefusedError

MAX_FILE_BYTES = 256_000_000
MAX_TENSORS = 10_000
MAX_ELEMENTS = 200_000_000
"""Of all tensors of a file together."""
MAX_DIMENSIONS = 8
MAX_NAME = 300
MAX_PICKLE_BYTES = 8_000_000
MAX_PICKLE_STEPS = 1_000_000
MAX_HEADER_BYTES = 8_000_000
MAX_JSON_DEPTH = 16
MAX_NODES = 20_000
MAX_ATTRIBUTES = 64
"""Of one ONNX node."""
MAX_MACS = 20_000_000_000
"""Of one forward pass on one image: 36 times ResNet18's."""

CONVERT = (
    "weights are scored with the code of their network, `contest score FILE --arch package.module:factory`, or become "
    "a file of their own by `contest convert --arch package.module:factory FILE out.onnx`"
)
FROM_KERAS = (
    "convert it with tf2onnx: `python -m tf2onnx.convert --keras model.h5 --opset 17 --inputs-as-nchw INPUT --output "
    "model.onnx` (`--saved-model FOLDER` or `--tflite FILE` in place of `--keras`), then `contest score model.onnx`"
)


def from_torchscript(name: str) -> str:
    """How the weights of a TorchScript archive become a file that is scored."""
    return (
        "save its weights where you made it: "
        f"python -c \"import torch; torch.save(torch.jit.load('{name}').state_dict(), 'weights.pt')\", then "
        "`contest score weights.pt --arch package.module:factory`; or export the network itself with "
        "torch.onnx.export and score the .onnx file"
    )


def from_export(name: str) -> str:
    """How a program of torch.export becomes a file that is scored."""
    return (
        f"write it as ONNX where you made it: python -c \"import torch; torch.onnx.export(torch.export.load('{name}'), "
        "f='network.onnx', external_data=False)\", then `contest score network.onnx`"
    )


Kind = Literal["torch", "safetensors", "onnx"]


@dataclass(frozen=True)
class TensorInfo:
    """Type (`float32`, `int8`, ...) and shape of a stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Description:
    """Format, size and tensors of a file. `manifest` is the text in our own formats; None in ONNX."""

    kind: Kind
    size_bytes: int
    tensors: Mapping[str, TensorInfo] = field(default_factory=dict)
    manifest: str | None = None
    nodes: int = 0


def check_shape(name: str, shape: Iterable[object]) -> tuple[int, ...]:
    """A shape of 0 to 8 dimensions of at least 1; RefusedError names the tensor otherwise."""
    dims = tuple(shape)
    if len(dims) > MAX_DIMENSIONS:
        raise RefusedError(f"tensor '{shown(name)}' has {len(dims)} dimensions; the limit is {MAX_DIMENSIONS}")
    sizes = tuple(d for d in dims if type(d) is int)
    if len(sizes) != len(dims) or min(sizes, default=1) < 0:
        raise RefusedError(f"tensor '{shown(name)}' has a shape that is not a list of sizes: {shown(repr(dims))}")
    if 0 in sizes:
        raise RefusedError(f"tensor '{shown(name)}' has shape {sizes}: empty; remove it")
    if max(sizes, default=1) > MAX_ELEMENTS or math.prod(sizes) > MAX_ELEMENTS:
        raise RefusedError(
            f"tensor '{shown(name)}' has shape {shown(repr(sizes))}: too large, more than {MAX_ELEMENTS:,} numbers"
        )
    return sizes


def check_totals(tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse too many tensors, too many numbers, and names that are too long."""
    if len(tensors) > MAX_TENSORS:
        raise RefusedError(f"the file holds {len(tensors):,} tensors; the limit is {MAX_TENSORS:,}")
    total = sum(info.elements for info in tensors.values())
    if total > MAX_ELEMENTS:
        raise RefusedError(f"the file holds {total:,} numbers; the limit is {MAX_ELEMENTS:,}")
    for name in tensors:
        check_name(name)


def check_name(name: str) -> None:
    """Refuse names that are empty, too long, or that a terminal or a page would not show as they are."""
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise RefusedError(f"a tensor is named '{shown(name)}': names have 1 to {MAX_NAME} printable characters")


def shown(text: str, limit: int = 80) -> str:
    """Text of a stranger as it may stand in a message: short, in printable ASCII."""
    short = text if len(text) <= limit else text[: limit - 3] + "..."
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in short)
