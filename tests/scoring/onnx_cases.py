"""ONNX's own node tests, through the reader's translation and the interpreter."""

from __future__ import annotations

import copy
import functools
import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from contest.errors import RefusedError
from scoring.graph.graph import UNKNOWN
from scoring.graph.interpreter import run_node
from scoring.readers import onnx_file  # noqa: F401  (operators register themselves)
from scoring.readers.onnx_graph import Builder
from scoring.readers.onnx_operators import OPERATORS


@dataclass(frozen=True)
class Outcome:
    """right; wrong; refused (with the sentence); unknown (named, not translated); or crashed, which is a fault."""

    what: str
    why: str = ""


_FIRST_ALONE = ("LayerNormalization", "MaxPool", "Attention")
"""Operators whose further outputs (statistics, places, keys) no classifier reads."""


@functools.cache
def cases() -> dict[str, Any]:
    """Cases of one node by name; tests of sequences, maps and text are left out."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {case.name: case for case in collect_testcases(None)}
    return {name: case for name, case in found.items() if case.model is not None and len(case.model.graph.node) == 1}


def known() -> list[str]:
    """Names of the cases of operators that the reader has a translation for."""
    plain = [name for name, case in cases().items() if case.model.graph.node[0].op_type in OPERATORS]
    return [name for name in plain if all(_is_dense(a) for a in _arrays(cases()[name]))]


def _arrays(case: Any) -> list[Any]:
    inputs, outputs = case.data_sets[0]
    return [*inputs, *outputs]


def _is_dense(array: Any) -> bool:
    return isinstance(array, np.ndarray | np.generic | onnx.TensorProto) or np.isscalar(array)


def outcome(case: Any) -> Outcome:
    """What the reader makes of a case: its first float input is the image, the others are stored."""
    inputs, wanted = case.data_sets[0]
    model = copy.deepcopy(case.model)
    graph = model.graph
    if graph.node[0].op_type in _FIRST_ALONE:
        del graph.output[1:]
    names = [value.name for value in graph.input]
    arrays = dict(zip(names, map(_array, inputs), strict=False))
    running = [] if "Linear" in graph.node[0].op_type else names
    image = next((n for n in running if n in arrays and arrays[n].dtype.kind == "f"), "")
    for name in names:
        if name != image and name in arrays:
            graph.initializer.append(_proto(name, inputs[names.index(name)]))
    try:
        start = torch.from_numpy(np.array(arrays[image])) if image in arrays else torch.zeros(1)
        builder = Builder(model, image or "image", start)
        read = builder.graph(graph.output[0].name)
        values = {**read.constants, read.input: start}
        with torch.inference_mode():
            for node in read.running:
                if node.kind == UNKNOWN:
                    return Outcome("unknown", str(node.attributes.get("operation", "")))
                values[node.output] = run_node(node, [values[i] if i else None for i in node.inputs])
    except RefusedError as error:
        return Outcome("refused", str(error))
    except Exception as error:  # any other is the fault that is looked for
        return Outcome("crashed", f"{type(error).__name__}: {str(error)[:200]}")
    for value, expected in zip(graph.output, wanted, strict=False):
        if value.name in values and not _close(_codes(builder, value.name, values), _array(expected)):
            return Outcome("wrong", value.name)
    return Outcome("right")


def _codes(builder: Builder, name: str, values: dict[str, torch.Tensor]) -> torch.Tensor:
    """A quantised value, which the reader keeps as a real number, as its codes."""
    if name not in builder.codes:
        return values[name]
    codes, axis = builder.codes[name], builder.producers[name].attributes.get("axis")
    scale, zero = (None if not n else values[n].double() for n in (codes.scale, codes.zero))
    shape = [-1 if d == axis else 1 for d in range(values[name].dim())]
    assert scale is not None
    found = values[name].double() / (scale.reshape(shape) if scale.numel() > 1 else scale)
    return (found if zero is None else found + (zero.reshape(shape) if zero.numel() > 1 else zero)).round()


def _array(value: Any) -> np.ndarray[Any, Any]:
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _proto(name: str, value: Any) -> Any:
    proto = copy.deepcopy(value) if isinstance(value, onnx.TensorProto) else numpy_helper.from_array(_array(value))
    proto.name = name
    return proto


def _close(found: torch.Tensor, expected: np.ndarray[Any, Any]) -> bool:
    wanted, given = np.asarray(expected), found.double().numpy()
    half = wanted.dtype.itemsize == 2 and wanted.dtype.kind not in "iu"  # each step rounds, the oracle's last one
    rtol, atol = (2e-2, 1e-2) if half else (1e-3, 1e-5)
    wanted = wanted.astype(np.float64)
    return given.shape == wanted.shape and bool(np.allclose(given, wanted, rtol=rtol, atol=atol, equal_nan=True))


def operator(name: str) -> str:
    return str(cases()[name].model.graph.node[0].op_type)


def plain(name: str) -> bool:
    """Whether a case is of types that networks here have: no float8, float4, packed integers to compute with, text."""
    return (
        re.search(
            r"(?i)(bfloat16|float8|float4|e4m3|e5m2|e8m0|string|_u?int(2|4|8|16|32|64)$|castlike)|"
            r"cast_.*(U?INT[24])",
            name,
        )
        is None
    )
