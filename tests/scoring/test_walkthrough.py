"""The networks of docs/scoring.md, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scoring.analysis.cost_model import analyse
from scoring.convert import convert_file
from scoring.readers.read import read
from scoring.readers.user_module import load_module, subject_of_user_module

TEXT = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")


def write_module(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", TEXT, re.S) if c.startswith(f"# {name}.py")]
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    return folder / f"{name}.py"


def test_students_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = write_module("student", tmp_path, monkeypatch)
    subprocess.run([sys.executable, script.name], cwd=tmp_path, check=True, timeout=300)
    found = convert_file(tmp_path / "student.pt", tmp_path / "student.onnx", arch="student:make")
    direct = analyse(subject_of_user_module(load_module("student:make", tmp_path / "student.pt"), (3, 32, 32)).graph)
    weights = 27 * 8 + 2 * 8 * 8 * 9 + 8 * 8 + 8 * 16 * 9 + 16 * 16 * 9 + 8 * 16 + 160
    assert found.operations == direct.operations
    assert (found.weights, found.nonzeros) == (weights, weights - round(0.5 * weights))
    assert {op.operation_bits for op in found.operations if op.macs} == {16}
    assert analyse(read(tmp_path / "student.onnx").graph) == found


@pytest.mark.slow
def test_brevitas_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_module("quantised", tmp_path, monkeypatch)
    model = load_module("quantised:make", None)
    model.train()
    model(torch.rand(8, 3, 32, 32))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    found = convert_file(tmp_path / "weights.pt", tmp_path / "out.onnx", arch="quantised:make")
    layers = [op for op in found.operations if op.macs]
    assert [(op.weight_bits, op.activation_bits, op.weights) for op in layers] == [(3, 8, 216), (3, 4, 2000)]
    assert found.unknown_operations == ()
