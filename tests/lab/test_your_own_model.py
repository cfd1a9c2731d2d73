"""The documented example of a user's model, data, metric and method, run as it is printed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd
import pytest

from contest import lab
from contest.errors import UsageError

PAGE = Path(__file__).parents[2] / "docs" / "your-own-model.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files, importable."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "speech.py").write_text(blocks[0])
    (tmp_path / "methods.py").write_text(blocks[2])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "speech", raising=False)
    monkeypatch.delitem(sys.modules, "methods", raising=False)
    return tmp_path


def test_repeated_pruning_of_a_speech_model(example: Path) -> None:
    task = lab.load_task("speech:task")
    options = lab.Repeated(
        rounds=2,
        fraction=0.9,
        variants=("none", "kept"),
        latency_runs=3,
        latency_batch=8,
        training=lab.Training(epochs=5, learning_rate=0.003),
    )
    results = lab.repeated(task, example / "results", options)
    plain, kept = results.tables["none"], results.tables["kept"]
    errors = "Word error rate (%)"
    assert list(plain.columns[:5]) == ["Iteration", "Sparsity (%)", errors, "Latency (s)", "Disk Size (MB)"]
    assert plain[errors][0] < 20  # it learned to listen (untrained: over 90)
    assert plain[errors][2] > plain[errors][0] + 20  # 99 % of the weights gone: lower was better
    assert kept[errors][1] < plain[errors][1]
    assert kept["Sparsity (%)"].tolist() == pytest.approx([0, 90, 99], abs=0.02)
    page = (example / "results" / "report.html").read_text(encoding="utf-8")
    assert "Word error rate" in page and "<svg" in page and "src=" not in page.replace("xlink:href", "")
    latex = (example / "results" / "tables" / "kept.tex").read_text(encoding="utf-8")
    assert r"Word error rate (\%)" in latex


def test_a_method_of_ones_own(example: Path) -> None:
    task = lab.load_task("speech:task")
    options = lab.Sensitivity(sparsities=(0.0, 0.9), method="methods:late", training=lab.Training(epochs=1))
    table = lab.sensitivity(task, example / "results", options).tables["sensitivity"]
    assert isinstance(table, pd.DataFrame)
    assert table["Layer"].tolist() == ["near", "far", "words"]


@pytest.mark.parametrize(
    ("name", "words"), [("speech", "package.module:factory"), ("speech:heard", "heard"), ("speech:WORDS", "lab.Task")]
)
def test_what_is_no_task_is_refused(example: Path, name: str, words: str) -> None:
    with pytest.raises((UsageError, TypeError), match=words):
        lab.load_task(name)
