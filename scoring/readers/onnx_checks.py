"""What an ONNX file may be, checked before anything is made of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from contest.errors import RefusedError, UsageError

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
