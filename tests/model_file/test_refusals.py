"""A model file that is not what it says is refused, and the message names what is wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from contest import networks
from contest.candidate import Bits
from contest.errors import RefusedError
from contest.model_file import freeze, load, save
from contest.quantisation import quantise

SHAPE = (3, 8, 8)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.manual_seed(0)
    architecture = networks.parse("thin:widths=4-6,depths=1-1")
    model = quantise(networks.build(architecture, SHAPE, 10).eval(), Bits(3, 3), torch.rand(8, *SHAPE))
    path = tmp_path_factory.mktemp("model") / "model.pt"
    save(freeze(model, architecture, image_shape=SHAPE, classes=10), path)
    loaded: dict[str, Any] = torch.load(path, weights_only=True)
    return loaded


def change(path: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    """Set one entry of the manifest."""

    def apply(content: dict[str, Any]) -> None:
        manifest = json.loads(content["manifest"])
        place = manifest
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        content["manifest"] = json.dumps(manifest)

    return apply


def tensor(name: str, value: Callable[[torch.Tensor], Any]) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["state"].__setitem__(name, value(content["state"][name]))


CASES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "unknown format": (lambda c: c.update(format="other"), "format 'other'"),
    "future version": (lambda c: c.update(version=2), "version '2'"),
    "extra key": (lambda c: c.update(code="import os"), "not a model file of this project"),
    "manifest not text": (lambda c: c.update(manifest=7), "manifest must be text"),
    "manifest not JSON": (lambda c: c.update(manifest="{"), "manifest is not valid"),
    "unknown field": (change(("hook",), "os.system"), "hook"),
    "unknown family": (change(("architecture", "family"), "transformer9"), "cannot be built"),
    "family with a path": (change(("architecture", "family"), "../../x"), "architecture.family"),
    "huge width": (change(("architecture", "options", "widths"), [9_000_000, 6]), "cannot be built"),
    "bits of nine": (change(("layers", "stem.conv", "weight_bits"), 9), "weight_bits"),
    "numbers of three bits": (change(("layers", "stem.conv", "number_bits"), 3), "number_bits"),
    "numbers that are not there": (change(("layers", "stem.conv", "number_bits"), 8), "step_codes' is missing"),
    "short numbers of a float layer": (
        lambda c: [change(("layers", "fc", f"{kind}_bits"), bits)(c) for kind, bits in (("number", 8), ("weight", 16))],
        "number_bits is 8 with weight_bits 16",
    ),
    "convolution said to be folded": (change(("layers", "stem.conv", "kind"), "folded"), "not a folded"),
    "text for a number": (change(("layers", "stem.conv", "outputs"), "4"), "outputs"),
    "layer that is not there": (
        lambda c: change(("layers", "ghost"), json.loads(c["manifest"])["layers"]["fc"])(c),
        "layer 'ghost'",
    ),
    "wrong kind": (change(("layers", "stem.conv", "kind"), "linear"), "not a linear"),
    "channels that do not fit the tensors": (change(("layers", "stem.conv", "outputs"), 5), "stem.conv.codes"),
    "groups that do not divide": (change(("layers", "stem.conv", "groups"), 2), "groups"),
    "missing tensor": (lambda c: c["state"].pop("fc.codes"), "'fc.codes' is missing"),
    "hidden tensor": (lambda c: c["state"].update(table=torch.ones(9)), "'table' is used by nothing"),
    "NaN": (tensor("fc.step", lambda t: t * float("nan")), "NaN"),
    "infinite": (tensor("fc.bias", lambda t: t + float("inf")), "infinite"),
    "float codes": (tensor("fc.codes", lambda t: t.float()), "fc.codes"),
    "double": (tensor("fc.bias", lambda t: t.double()), "float64"),
    "empty": (tensor("fc.bias", lambda t: t[:0]), "empty"),
    "view of more data": (tensor("fc.bias", lambda t: torch.zeros(1000)[:10]), "view of other data"),
    "transposed": (tensor("fc.codes", lambda t: t.t().contiguous().t()), "view of other data"),
    "not a tensor": (tensor("fc.bias", lambda t: [0.0] * 10), "not a dense tensor"),
    "sparse": (tensor("fc.bias", lambda t: t.to_sparse()), "not a"),
    "scalar for a list": (lambda c: c.update(state=[]), "state tensors by name"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, content: dict[str, Any], tmp_path: Path) -> None:
    alter, message = CASES[case]
    copy = {**content, "state": dict(content["state"])}
    alter(copy)
    path = tmp_path / "model.pt"
    torch.save(copy, path)
    with pytest.raises(RefusedError, match=message):
        load(path)


def test_pickles_that_import_are_not_executed(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    path = tmp_path / "model.pt"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RefusedError, match="without running code"):
        load(path)
    torch.save({"format": Evil()}, path)
    with pytest.raises(RefusedError, match="without running code"):
        load(path)
    assert not (tmp_path / "executed").exists()
