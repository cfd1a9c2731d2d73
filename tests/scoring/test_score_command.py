"""`contest score` and `contest convert` from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from contest.errors import ContestError
from contest.model_file import freeze, save
from contest.networks import build, parse
from scoring.commands import convert, score


def run(command: object, *arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments), standalone_mode=False)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def digits_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the digits' shape."""
    torch.manual_seed(0)
    architecture = parse("thin:widths=4-8,depths=1-1")
    model = build(architecture, image_shape=(1, 8, 8), classes=10).eval()
    network = freeze(model, architecture, image_shape=(1, 8, 8), classes=10)
    return save(network, tmp_path_factory.mktemp("models") / "model.pt")


def test_architecture_by_name_as_json() -> None:
    result = run(score, "resnet18", "--bits", "16", "--json")
    data = json.loads(result.stdout)
    assert result.return_value == 0
    assert data["measured"]["parameters"] == 11_173_962
    assert data["scores"]["micronet"]["total"] == 2.0
    assert data["accuracy"] is None
    assert data["rankable"] is False


def test_below_the_threshold_is_exit_code_1(digits_model: Path) -> None:
    result = run(score, str(digits_model), "--rule", "digits", "--trust", "--json", "--details")
    assert result.exception is None, result.exception
    data = json.loads(result.stdout)
    assert result.return_value == 1
    assert data["status"] == "below"
    assert data["accuracy"]["total"] == sum(row["total"] for row in data["details"]["per_class"])
    assert data["file"]["isolation"] == "none"


def test_tables_for_people(digits_model: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "holdout.npz", x_test=np.zeros((20, 8, 8), np.uint8), y_test=np.arange(20) % 10)
    result = run(
        score,
        str(digits_model),
        "--rule",
        "digits",
        "--trust",
        "--details",
        "--advise",
        "--holdout",
        str(tmp_path / "holdout.npz"),
        "--chart",
        str(tmp_path / "chart.svg"),
    )
    assert result.exception is None, result.exception
    for text in ("95 % interval", "hold-out", "Confusion", "Where the points are", "not rankable: below"):
        assert text in result.stdout
    assert (tmp_path / "chart.svg").read_text().startswith("<svg")


def test_own_rule_from_toml(tmp_path: Path) -> None:
    rule = tmp_path / "mine.toml"
    rule.write_text(
        'name = "mine"\ndataset = "cifar100"\nthreshold = 0.8\nparams_reference = 1e6\noperations_reference = 1e9\n'
    )
    result = run(score, "resnet8", "--rule", str(rule), "--json")
    data = json.loads(result.stdout)
    assert (data["rule"], data["threshold"]) == ("mine", 0.8)
    assert set(data["scores"]) == {"mine", "micronet-cifar100"}


def test_convert_scores_identically(digits_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    assert run(convert, str(digits_model), str(out)).exception is None
    reports = [
        json.loads(run(score, str(path), "--rule", "digits", "--trust", "--no-accuracy", "--json").stdout)
        for path in (digits_model, out)
    ]
    assert reports[0]["scores"] == reports[1]["scores"]
    assert reports[0]["layers"] == reports[1]["layers"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.pt"], 3, "is not a file"),
        (["resnet18", "--rule", "nobody"], 3, "rule 'nobody'"),
        (["resnet18", "--bits", "x"], 3, "--bits is 'x'"),
        (["resnet18", "--image-shape", "3"], 3, "--image-shape is '3'"),
        (["no-such-network"], 3, "no-such-network"),
    ],
)
def test_usage_errors(arguments: list[str], code: int, message: str) -> None:
    result = run(score, *arguments, "--no-accuracy")
    assert isinstance(result.exception, ContestError)
    assert result.exception.exit_code == code
    assert message in str(result.exception)


def test_refused_file_is_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"not a model")
    result = run(score, str(path), "--no-accuracy", "--trust")
    assert isinstance(result.exception, ContestError)
    assert result.exception.exit_code == 2


def test_scoring_a_file_imports_neither_brevitas_nor_timm(digits_model: Path) -> None:
    code = (
        "import sys; from scoring.examine import examine; from scoring.readers.read import read\n"
        f"from pathlib import Path; examine(read(Path({str(digits_model)!r})))\n"
        "print([m for m in ('brevitas', 'timm', 'torchvision', 'pandas', 'onnx', 'torch._dynamo') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "[]", done.stdout


def test_costs_of_a_file_need_no_torch_in_the_parent() -> None:
    code = "import sys, scoring.commands, scoring.score, scoring.report_tables; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.strip() == "False"


def test_junk_is_refused_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "junk.onnx").write_bytes(b"\x08\x07 not a network")
    code = (
        "import sys; sys.argv = ['contest', 'score', sys.argv[1]]\n"
        "from contest.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "junk.onnx")],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 2
    assert result.stdout.split()[-1] == "False"
    assert "junk.onnx" in result.stderr
