"""ONNX's own node tests: every operator that the reader knows is right on all of its cases, or refuses by a reason."""

from __future__ import annotations

import re

import pytest

from tests.scoring import onnx_cases

pytestmark = pytest.mark.slow

REASONS = {
    "AveragePool": "dilation: not in torch",
    "ArgMax": "the last of equal values",
    "ArgMin": "the last of equal values",
    "Attention": "keys of earlier images, windows, rows that may look at nothing",
    "BatchNormalization": "training mode: statistics of the batch",
    "Dropout": "training mode: random, or a mask as a second output",
    "ConstantOfShape": "a shape that is made from the image",
    "ConvTranspose": "an output that is padded by a stride and more",
    "ConvInteger": "dynamic quantisation",
    "DynamicQuantizeLinear": "dynamic quantisation",
    "MatMulInteger": "dynamic quantisation",
    "DequantizeLinear": "blocks, or float8",
    "QuantizeLinear": "blocks, or float8",
    "QLinearMatMul": "float8",
    "LpPool": "dilation: not in torch",
    "MatMul": "of two vectors: no images",
    "MaxPool": "padding of more than half a cell, rounded up",
    "Pad": "wraps, or cuts off",
    "Pow": "an exponent for each element, or made from the image",
    "ReduceMax": "of nothing",
    "ReduceMin": "of nothing",
    "Resize": "antialias, crops, or places that torch counts in another way",
    "Shrink": "a bias that is not its threshold",
    "Gemm": "two matrices from the image",
    "Div": "of whole numbers, which is another operation",
}
"""Operator -> for which uses it is refused or named as unknown."""


def test_cases_are_found() -> None:
    assert len(onnx_cases.known()) > 700
    assert {"Conv", "Gemm", "QLinearConv", "Where"} <= {onnx_cases.operator(name) for name in onnx_cases.known()}


def test_every_known_operator_is_right_or_refuses_by_a_listed_reason() -> None:
    right, unlisted = 0, []
    for name in onnx_cases.known():
        if not onnx_cases.plain(name):
            continue
        found = onnx_cases.outcome(onnx_cases.cases()[name])
        right += found.what == "right"
        listed = found.what in ("refused", "unknown") and onnx_cases.operator(name) in REASONS
        if found.what != "right" and not listed:
            unlisted.append((name, found))
    assert not unlisted
    assert right >= 540


def test_types_that_nobody_has_are_refused_and_never_crash() -> None:
    """float8, float4 and text: a sentence that names the tensor or the operator."""
    odd = [n for n in onnx_cases.known() if re.search(r"(?i)float8|float4|e4m3|e5m2|string", n)]
    outcomes = [onnx_cases.outcome(onnx_cases.cases()[name]) for name in odd[:60]]
    assert all(found.what in ("refused", "unknown", "right") or "ml_dtypes" in found.why for found in outcomes)
