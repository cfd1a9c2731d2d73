"""Every field of a manifest: what it claims runs so, or it changes nothing, or the file is refused or flagged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contest.errors import RefusedError
from contest.model_file.manifest import LayerSpec, Manifest
from scoring.graph.graph import Graph
from scoring.graph.interpreter import logits_of
from scoring.readers.read import read
from scoring.readers.subject import example_images
from scoring.score import score_file
from tests.attacks import makers

Change = Callable[[dict[str, Any]], None]


def first_layer(manifest: dict[str, Any]) -> dict[str, Any]:
    """The second convolution: the first one sees the image."""
    layers: list[dict[str, Any]] = [spec for spec in manifest["layers"].values() if spec["kind"] == "conv"]
    return layers[1]


def field(name: str, value: Any) -> Change:
    return lambda manifest: first_layer(manifest).update({name: value})


def top(name: str, value: Any) -> Change:
    return lambda manifest: manifest.update({name: value})


NOTHING: dict[str, Change] = {
    "provenance": top("provenance", {"seed": "7", "score": "0.0001"}),
    "claims": top("claims", {"score": 0.0, "accuracy": 1.0, "p_u": 0.9, "q_w": 1.0, "q_a": 1.0}),
    "parent": top("parent", {"weights": 1e9, "macs": 1e12}),
}
"""Said beside the score: it does not move."""
CAUGHT: dict[str, Change] = {
    "kind": field("kind", "linear"),
    "outputs": field("outputs", 1),
    "inputs": field("inputs", 1),
    "groups": field("groups", 2),
    "kernel": field("kernel", [1, 1]),
    "bias": field("bias", True),
    "weight_bits fewer": field("weight_bits", 1),
    "weight_bits as floats": field("weight_bits", 32),
    "weight_bits unknown": field("weight_bits", 9),
    "per_channel": field("per_channel", False),
    "number_bits": field("number_bits", 8),
    "input_bits none left": field("input_bits", 0),
    "input_bits too many": field("input_bits", 9),
    "an unknown field": field("free", True),
    "format": top("format", "other"),
    "version": top("version", 2),
    "classes": top("classes", 9),
    "image_shape": top("image_shape", [1, 8, 8]),
    "architecture": top("architecture", {"family": "resnet8", "options": {}}),
    "no layers": top("layers", {}),
}
"""Refused, or flagged by name."""
RUNS: dict[str, Change] = {
    "input_bits fewer": field("input_bits", 2),
    "input_signed": field("input_signed", False),
}
"""Believed, because it is what runs."""


def written(change: Change | None, folder: Path) -> Path:
    content = makers.quantised()
    if change is not None:
        content = makers.with_manifest(content, change)
    path = folder / "model.pt"
    path.write_bytes(makers.torch_bytes(content))
    return path


def test_every_field_is_tried() -> None:
    tried = " ".join([*NOTHING, *CAUGHT, *RUNS])
    names = {*LayerSpec.model_fields, *Manifest.model_fields} - {"stored", "layers"}
    assert [name for name in names if name not in tried] == []


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_said_beside_the_score_moves_nothing(name: str, tmp_path: Path) -> None:
    honest = score_file(written(None, tmp_path), trust=True)
    report = score_file(written(NOTHING[name], tmp_path), trust=True)
    assert report.scores == honest.scores
    assert report.layers == honest.layers


@pytest.mark.parametrize("name", CAUGHT)
def test_what_does_not_fit_is_caught(name: str, tmp_path: Path) -> None:
    try:
        report = score_file(written(CAUGHT[name], tmp_path), trust=True)
    except RefusedError as error:
        assert str(error)
    else:
        assert report.file_problems


@pytest.mark.parametrize("name", RUNS)
def test_what_is_believed_is_what_runs(name: str, tmp_path: Path) -> None:
    """The quantiser of the graph that is priced and run has the codes that the field says."""
    images = example_images(makers.SHAPE, 4)
    before = quantisers(read(written(None, tmp_path)).graph)
    subject = read(written(RUNS[name], tmp_path))
    assert sum(a != b for a, b in zip(before, quantisers(subject.graph), strict=True)) == 1
    torch.testing.assert_close(logits_of(subject.graph, images), subject.run(images))


def quantisers(graph: Graph) -> list[tuple[int, int]]:
    return [(n.attributes["low"], n.attributes["high"]) for n in graph.running if n.kind == "Quant"]


def test_a_stored_type_that_is_not_there_is_caught(tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        next(spec for spec in manifest["layers"].values() if spec["kind"] == "affine")["stored"] = "float16"

    with pytest.raises(RefusedError, match="the network needs"):
        score_file(written(change, tmp_path), trust=True)
