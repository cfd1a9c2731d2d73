"""Every field of a manifest and every tensor, as `.pt` and as `.safetensors`.

What it claims runs so, or it changes nothing, or the file is refused or flagged.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor

from contest.errors import RefusedError
from contest.model_file.manifest import LayerSpec, Manifest
from scoring.analysis.dead_channels import prepared
from scoring.graph.graph import Graph
from scoring.graph.interpreter import example_images, logits_of
from scoring.readers.read import read
from scoring.report import Report
from scoring.score import score_file
from tests.attacks import makers

IMAGES = example_images(makers.SHAPE, 4)
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


FORMATS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "pt": makers.torch_bytes,
    "safetensors": makers.safetensors_bytes,
}


@pytest.fixture(params=FORMATS)
def suffix(request: pytest.FixtureRequest) -> str:
    """The format of the file."""
    return str(request.param)


def written(change: Change | None, folder: Path, suffix: str) -> Path:
    content = makers.quantised()
    return put(content if change is None else makers.with_manifest(content, change), folder, suffix)


def put(content: dict[str, Any], folder: Path, suffix: str) -> Path:
    path = folder / f"model.{suffix}"
    path.write_bytes(FORMATS[suffix](content))
    return path


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of the file as it is."""
    return score_file(written(None, tmp_path_factory.mktemp("honest"), "safetensors"), trust=True)


def is_caught(path: Path) -> bool:
    """Whether a file is refused, or flagged by name."""
    try:
        report = score_file(path, trust=True)
    except RefusedError as error:
        return bool(str(error))
    return bool(report.file_problems)


def test_every_field_is_tried() -> None:
    tried = " ".join([*NOTHING, *CAUGHT, *RUNS])
    names = {*LayerSpec.model_fields, *Manifest.model_fields} - {"stored", "layers"}
    assert [name for name in names if name not in tried] == []


@pytest.mark.parametrize("name", NOTHING)
def test_what_is_said_beside_the_score_moves_nothing(name: str, suffix: str, honest: Report, tmp_path: Path) -> None:
    report = score_file(written(NOTHING[name], tmp_path, suffix), trust=True)
    assert report.scores == honest.scores
    assert report.layers == honest.layers


@pytest.mark.parametrize("name", CAUGHT)
def test_what_does_not_fit_is_caught(name: str, suffix: str, tmp_path: Path) -> None:
    assert is_caught(written(CAUGHT[name], tmp_path, suffix))


@pytest.mark.parametrize("name", RUNS)
def test_what_is_believed_is_what_runs(name: str, suffix: str, tmp_path: Path) -> None:
    """The quantiser of the graph that is priced and run has the codes that the field says."""
    before = quantisers(read(written(None, tmp_path, suffix)).graph)
    subject = read(written(RUNS[name], tmp_path, suffix))
    assert sum(a != b for a, b in zip(before, quantisers(subject.graph), strict=True)) == 1
    torch.testing.assert_close(logits_of(subject.graph, IMAGES), subject.run(IMAGES))


def quantisers(graph: Graph) -> list[tuple[int, int]]:
    return [(n.attributes["low"], n.attributes["high"]) for n in graph.running if n.kind == "Quant"]


def test_a_stored_type_that_is_not_there_is_caught(suffix: str, tmp_path: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        next(spec for spec in manifest["layers"].values() if spec["kind"] == "affine")["stored"] = "float16"

    with pytest.raises(RefusedError, match="the network needs"):
        score_file(written(change, tmp_path, suffix), trust=True)


# Tensors --------------------------------------------------------------------------------------------------------


def put_tensor(name: str, make: Callable[[Tensor], Tensor], folder: Path, suffix: str) -> Path:
    content = makers.quantised()
    state = content["state"]
    full = next(key for key in state if key.endswith(name) and not key.startswith(("stem", "normalise")))
    state[full] = make(state[full])
    return put(content, folder, suffix)


TENSORS = ("conv1.codes", "conv1.step", "conv1.input_step", "norm1.multiplier", "norm1.shift", "fc.bias")
NEVER: dict[str, Callable[[Tensor], Tensor]] = {
    "another shape": lambda t: torch.cat([t, t]),
    "one number for all": lambda t: t.reshape(-1)[:1].reshape([1] * (t.dim() + 1)),
    "double": lambda t: t.double(),
    "bfloat16": lambda t: t.bfloat16(),
    "half": lambda t: t.half(),
    "wide integers": lambda t: t.to(torch.int32),
    "truth values": lambda t: t > 0,
    "empty": lambda t: t[:0],
}
NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "negative": lambda t: -t.abs(),
    "zero": torch.zeros_like,
    "denormal": lambda t: torch.full_like(t, 1e-42),
    "largest": lambda t: torch.full_like(t, 3e38),
    "no number": lambda t: torch.full_like(t, float("nan")),
}


@pytest.mark.parametrize("tensor", TENSORS)
@pytest.mark.parametrize("way", NEVER)
def test_a_tensor_of_another_form_is_refused(tensor: str, way: str, suffix: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError):
        read(put_tensor(tensor, NEVER[way], tmp_path, suffix))


@pytest.mark.parametrize("tensor", TENSORS[1:])
@pytest.mark.parametrize("way", NUMBERS)
def test_odd_numbers_make_nothing_cheaper(tensor: str, way: str, honest: Report, tmp_path: Path) -> None:
    """They are refused, or run as they are priced: at least what they cost, but for the zeros that they are."""
    path = put_tensor(tensor, NUMBERS[way], tmp_path, "safetensors")
    try:
        report = score_file(path, trust=True)
    except RefusedError:
        return
    if report.file_problems:
        return
    subject = read(path)
    assert report.score.ops >= honest.score.ops or way in ("zero", "denormal")
    assert report.score.params >= honest.score.params or way in ("zero", "denormal")
    logits = logits_of(prepared(subject.graph)[0], IMAGES)
    torch.testing.assert_close(logits, subject.run(IMAGES), equal_nan=True, rtol=1e-3, atol=1e-3)


def test_codes_beyond_their_bits_are_flagged(suffix: str, tmp_path: Path) -> None:
    for code in (127, -128):
        report = score_file(put_tensor("conv1.codes", lambda t, c=code: t * 0 + c, tmp_path, suffix), trust=True)
        assert report.file_problems == () and report.score.params > 0, "one value is one code of any number of bits"
    path = put_tensor(
        "conv1.codes", lambda t: torch.arange(t.numel()).reshape(t.shape).to(torch.int8), tmp_path, suffix
    )
    assert "declares 3 bits" in score_file(path, trust=True).file_problems[0]


def test_what_no_layer_reads_is_refused(suffix: str, tmp_path: Path) -> None:
    for name in ("extra", "stem.conv.scale", "stem.norm.num_batches_tracked", "body.fc.codes"):
        content = makers.quantised()
        content["state"][name] = torch.ones(3)
        with pytest.raises(RefusedError, match="used by nothing"):
            read(put(content, tmp_path, suffix))


def test_more_metadata_moves_nothing(tmp_path: Path) -> None:
    """Of a `.safetensors` file; a `.pt` file may have no other keys at all."""
    content = makers.quantised()
    metadata = {"format": "contest-model", "version": "1", "manifest": content["manifest"]}
    plain = score_file(put(content, tmp_path, "safetensors"), trust=True)
    path = tmp_path / "model.safetensors"
    more = {"contest.bits.fc.codes": "1", "weight_bits": "1", "score": "0", "state": "{}"}
    path.write_bytes(save(content["state"], metadata={**metadata, **more}))
    report = score_file(path, trust=True)
    assert (report.scores, report.layers, report.numbers) == (plain.scores, plain.layers, plain.numbers)
    with pytest.raises(RefusedError, match="not a model file"):
        read(put({**content, "more": 1}, tmp_path, "pt"))
