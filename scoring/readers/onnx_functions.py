"""Checks of an ONNX file, and its normalisations, functions of a value, comparisons and moves, in the graph's words.

Layers and what stands around them are in `onnx_operators`; what is here costs by its elements, or is an activation.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from contest.errors import RefusedError, UsageError
from scoring.graph.graph import Building
from scoring.readers.onnx_operators import Unsupported, operator

MAX_BYTES = 256 * 2**20
MAX_NODES = 20_000
MAX_ELEMENTS = 200_000_000
MAX_RANK = 8
MAX_NAME = 500

NEWEST = onnx.defs.onnx_opset_version()
STANDARD = ("", "ai.onnx")
QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
RUNTIME = ("com.microsoft",)
"""Operators that ONNX Runtime adds where it optimises or quantises; those that are known are taken apart."""


def load_checked(path: Path) -> Any:
    """The `ModelProto` of a file within all limits. Raises RefusedError, naming what is wrong."""
    if not path.is_file():
        raise UsageError(f"{path} is not a file")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise RefusedError(f"{path.name} has {size:,} bytes; the limit is {MAX_BYTES:,}")
    try:
        model = onnx.ModelProto.FromString(path.read_bytes())
    except (DecodeError, ValueError, RecursionError) as error:
        raise RefusedError(f"{path.name} is not an ONNX file: {str(error)[:200]}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise RefusedError(f"{path.name} holds no graph")
    if len(model.functions) or len(model.training_info):
        raise RefusedError(f"{path.name} defines functions or training graphs; only plain operators are accepted")
    _check_domains(model)
    _check_graph(model.graph)
    try:
        onnx.checker.check_model(model, full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise RefusedError(f"{path.name} is not valid ONNX: {' '.join(str(error).split())[:300]}") from error
    return model


def _check_domains(model: Any) -> None:
    """What nodes use is judged; imports that no node needs (ONNX Runtime writes ten) say nothing."""
    for imported in model.opset_import:
        if imported.domain in STANDARD and not 7 <= imported.version <= NEWEST:
            raise RefusedError(f"operator set {imported.version} is not supported; 7 to {NEWEST} are")
    for node in model.graph.node:
        if node.domain not in (*STANDARD, *QONNX, *RUNTIME):
            raise RefusedError(
                f"operator '{node.op_type[:MAX_NAME]}' is of domain '{node.domain[:MAX_NAME]}', which is not accepted"
            )


def _check_graph(graph: Any) -> None:
    if len(graph.node) > MAX_NODES:
        raise RefusedError(f"the graph has {len(graph.node):,} nodes; the limit is {MAX_NODES:,}")
    if len(graph.sparse_initializer):
        raise RefusedError("sparse initialisers are not accepted; store the weights densely")
    elements = 0
    for tensor in graph.initializer:
        elements += check_tensor(tensor)
    names = [tensor.name for tensor in graph.initializer]
    if len(set(names)) != len(names):
        raise RefusedError("two initialisers have the same name")
    for node in graph.node:
        if len(node.name) > MAX_NAME or any(len(name) > MAX_NAME for name in (*node.input, *node.output)):
            raise RefusedError(f"a name in the graph has more than {MAX_NAME} characters")
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise RefusedError(f"operator '{node.op_type}' holds a graph of its own; control flow is not accepted")
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors or attribute.tensors:
                raise RefusedError(f"operator '{node.op_type}' holds sparse or many tensors; that is not accepted")
            if attribute.HasField("t"):
                elements += check_tensor(attribute.t)
            if len(attribute.ints) + len(attribute.floats) + len(attribute.strings) > 1_000_000:
                raise RefusedError(f"attribute '{attribute.name[:MAX_NAME]}' of '{node.op_type}' is too long")
    if elements > MAX_ELEMENTS:
        raise RefusedError(f"the graph stores {elements:,} numbers; the limit is {MAX_ELEMENTS:,}")


def check_tensor(tensor: Any) -> int:
    """Elements of a stored tensor whose shape fits its bytes."""
    name = tensor.name[:MAX_NAME]
    if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
        raise RefusedError(f"tensor '{name}' lies in another file; everything must be in the one file")
    if len(tensor.dims) > MAX_RANK or any(d < 0 or d > MAX_ELEMENTS for d in tensor.dims):
        raise RefusedError(f"tensor '{name}' has shape {list(tensor.dims)[: MAX_RANK + 1]}")
    count = math.prod(int(d) for d in tensor.dims)
    if count > MAX_ELEMENTS:
        raise RefusedError(f"tensor '{name}' has {count:,} elements; the limit is {MAX_ELEMENTS:,}")
    typed = sum(
        len(field)
        for field in (tensor.float_data, tensor.int32_data, tensor.int64_data, tensor.double_data, tensor.uint64_data)
    )
    if max(typed, len(tensor.raw_data)) * 8 < count * 4 and count:
        raise RefusedError(f"tensor '{name}' has {count:,} elements by its shape, but not in its data")
    return count


def _simple(kind: str, op: str, **attributes: tuple[str, float]) -> None:
    """An operator of one input: attributes are {ours: (ONNX's, default)}."""

    def translate(b: Building, proto: Any, a: dict[str, Any]) -> None:
        values = {ours: float(a.get(theirs, default)) for ours, (theirs, default) in attributes.items()}
        b.emit(kind, (proto.input[0],), proto.output[0], **values)

    operator(op)(translate)


for _op in ("Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Floor", "Ceil", "Round", "Not"):
    _simple(_op, _op)
_simple("HardSigmoid", "HardSigmoid", alpha=("alpha", 0.2), beta=("beta", 0.5))
_simple("ThresholdedRelu", "ThresholdedRelu", alpha=("alpha", 1.0))


@operator("Shrink")
def _shrink(b: Building, proto: Any, a: dict[str, Any]) -> None:
    bias, lambd = float(a.get("bias", 0.0)), float(a.get("lambd", 0.5))
    if bias not in (0.0, lambd):
        raise Unsupported
    b.emit("Softshrink" if bias else "Hardshrink", (proto.input[0],), proto.output[0], lambd=lambd)


@operator("Pow")
def _power(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """A square is a product of a value with itself, a cube two; any other power is a function of one value."""
    x, power = proto.input[0], b.constant(proto.input[1])
    if power.numel() != 1:
        raise Unsupported
    exponent = float(power.item())
    if exponent in (2, 3) and x not in b.constants:
        squared = b.emit("Mul", (x, x), f"{proto.output[0]}^squared") if exponent == 3 else x
        b.emit("Mul", (squared, x), proto.output[0])
    else:
        b.emit("Pow", (x,), proto.output[0], exponent=exponent)


@operator("Max", "Min")
def _extremes(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """With one number it is a clip, an activation; of several values an operation an element."""
    kind, names = proto.op_type, list(proto.input)
    numbers = [n for n in names if n in b.constants and b.constants[n].numel() == 1]
    others = [n for n in names if n not in numbers]
    if len(names) == 2 and len(numbers) == 1 and others[0] not in b.constants:
        side = "min" if kind == "Max" else "max"
        bounds: dict[str, Any] = {"min": None, "max": None, side: b.constants[numbers[0]].item()}
        b.emit("Clip", (others[0],), proto.output[0], **bounds)
        return
    _fold(b, proto, kind)


@operator("Sum")
def _sum(b: Building, proto: Any, a: dict[str, Any]) -> None:
    _fold(b, proto, "Add")


def _fold(b: Building, proto: Any, kind: str) -> None:
    """An operator of any number of inputs, two by two."""
    last, names = proto.input[0], list(proto.input[1:])
    if not names:
        b.emit("Identity", (last,), proto.output[0])
    for i, name in enumerate(names):
        output = proto.output[0] if i + 1 == len(names) else f"{proto.output[0]}^{i}"
        last = b.emit(kind, (last, name), output)


@operator("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Where")
def _compare(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if all(name in b.constants for name in proto.input):
        raise Unsupported  # shapes are computed by what ONNX says of them
    b.emit(proto.op_type, tuple(proto.input), proto.output[0])


@operator("ReduceMax", "ReduceMin")
def _reduce(b: Building, proto: Any, a: dict[str, Any]) -> None:
    dims = b.values[proto.input[0]].dim()
    given = len(proto.input) > 1 and bool(proto.input[1])
    axes = tuple(a["axes"]) if "axes" in a else b.ints(proto.input[1]) if given else ()
    if not axes and a.get("noop_with_empty_axes", 0):
        raise Unsupported
    axes = tuple(axis % dims for axis in axes) or tuple(range(dims))
    b.emit(proto.op_type, (proto.input[0],), proto.output[0], axes=axes, keepdims=bool(a.get("keepdims", 1)))


# Normalisations ---------------------------------------------------------------------------------------------------


def _scaled(b: Building, proto: Any, normal: str, shape: tuple[int, ...] | None) -> None:
    """A multiplier and a shift behind a normalisation; shape: of one number a channel, None as they are."""
    output, names = proto.output[0], [n for n in proto.input[1:3] if n]
    if shape is not None:
        names = [b.emit("Reshape", (n,), f"{output}^{i}", shape=shape) for i, n in enumerate(names)]
    if not names:
        b.emit("Identity", (normal,), output)
    for i, (kind, name) in enumerate(zip(("Mul", "Add"), names, strict=False)):
        normal = b.emit(kind, (normal, name), output if i + 1 == len(names) else f"{output}^scaled")


@operator("LayerNormalization", "RMSNormalization")
def _layer_norm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    if len([o for o in proto.output if o]) > 1:
        raise Unsupported
    x, dims = proto.input[0], b.values[proto.input[0]].dim()
    axes = tuple(range(int(a.get("axis", -1)) % dims, dims))
    kind = "Normalise" if proto.op_type == "LayerNormalization" else "RmsNormalise"
    eps = float(a.get("epsilon", 1e-5))
    _scaled(b, proto, b.emit(kind, (x,), f"{proto.output[0]}^normal", axes=axes, eps=eps), None)


@operator("InstanceNormalization", "GroupNormalization")
def _group_norm(b: Building, proto: Any, a: dict[str, Any]) -> None:
    x, output = proto.input[0], proto.output[0]
    shape = tuple(b.values[x].shape)
    groups = int(a.get("num_groups", shape[1]))
    split = (shape[0], groups, shape[1] // groups, *shape[2:])
    apart = b.emit("Reshape", (x,), f"{output}^groups", shape=split)
    axes, eps = tuple(range(2, len(split))), float(a.get("epsilon", 1e-5))
    normal = b.emit("Normalise", (apart,), f"{output}^normal", axes=axes, eps=eps)
    whole = b.emit("Reshape", (normal,), f"{output}^whole", shape=shape)
    _scaled(b, proto, whole, (1, -1, *[1] * (len(shape) - 2)))


# Moves and resizing -----------------------------------------------------------------------------------------------


@operator("Tile")
def _tile(b: Building, proto: Any, a: dict[str, Any]) -> None:
    last, repeats = proto.input[0], b.ints(proto.input[1])
    wanted = [(axis, n) for axis, n in enumerate(repeats) if n != 1]
    if any(n < 1 or n > 4_096 for _, n in wanted):
        raise Unsupported
    for axis, n in wanted:
        last = b.emit("Concat", (last,) * n, f"{proto.output[0]}^{axis}", axis=axis)
    b.emit("Identity", (last,), proto.output[0])


@operator("SpaceToDepth", "DepthToSpace")
def _blocks(b: Building, proto: Any, a: dict[str, Any]) -> None:
    """ONNX puts the place in a block before the channel (DCR); torch behind it (CRD)."""
    x, output, block = proto.input[0], proto.output[0], int(a["blocksize"])
    n, c, h, w = b.values[x].shape
    if proto.op_type == "SpaceToDepth" and a.get("mode", b"DCR") == b"CRD":
        b.emit("SpaceToDepth", (x,), output, block=block)
        return
    if proto.op_type == "SpaceToDepth":
        split, perm = (n, c, h // block, block, w // block, block), (0, 3, 5, 1, 2, 4)
        final = (n, c * block * block, h // block, w // block)
    elif a.get("mode", b"DCR") == b"CRD":
        b.emit("DepthToSpace", (x,), output, block=block)
        return
    else:
        split, perm = (n, block, block, c // block**2, h, w), (0, 3, 4, 1, 5, 2)
        final = (n, c // block**2, h * block, w * block)
    apart = b.emit("Reshape", (x,), f"{output}^split", shape=split)
    turned = b.emit("Transpose", (apart,), f"{output}^turned", perm=perm)
    b.emit("Reshape", (turned,), output, shape=final)


@operator("Resize")
def _resize(b: Building, proto: Any, a: dict[str, Any]) -> None:
    shape = tuple(b.values[proto.input[0]].shape)
    size: tuple[int, ...]
    if len(proto.input) > 3 and proto.input[3]:
        size = b.ints(proto.input[3])
    else:
        factors = b.constant(proto.input[2]).double().tolist()
        if len(factors) != len(shape) or any(n * f != round(n * f) for n, f in zip(shape, factors, strict=True)):
            raise Unsupported  # where a size is rounded, ONNX's places follow the factor and torch's the size
        size = tuple(round(n * f) for n, f in zip(shape, factors, strict=True))
    mode = a.get("mode", b"nearest")
    where = a.get("coordinate_transformation_mode", b"half_pixel")
    if len(size) != len(shape) or size[:2] != shape[:2] or a.get("antialias", 0) or a.get("axes"):
        raise Unsupported
    whole = all(m % n == 0 for n, m in zip(shape[2:], size[2:], strict=True))
    if mode == b"linear" and where == b"pytorch_half_pixel" and 1 in size[2:]:
        raise Unsupported
    if mode == b"linear" and where in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        aligned = where == b"align_corners"
        b.emit("ResizeLinear", (proto.input[0],), proto.output[0], size=size[2:], align_corners=aligned)
    elif mode == b"nearest" and whole and _copies(where, a.get("nearest_mode", b"round_prefer_floor")):
        copies = tuple(m // n for n, m in zip(shape[2:], size[2:], strict=True))
        b.emit("ResizeNearest", (proto.input[0],), proto.output[0], factors=copies)
    else:
        raise Unsupported


def _copies(where: bytes, rounding: bytes) -> bool:
    """Whether each value is copied into a block: by whole factors the centre of a pixel is never between two."""
    if where in (b"half_pixel", b"pytorch_half_pixel", b"half_pixel_symmetric"):
        return rounding in (b"round_prefer_floor", b"round_prefer_ceil")
    return where == b"asymmetric" and rounding == b"floor"
