"""The starter kit: its cells are programs, its masks hold, and it runs from top to bottom to an entry that ranks."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch
from click.testing import CliRunner

from contest.cli import cli
from contest.errors import UsageError


def unpacked(tmp_path: Path, *options: str) -> Path:
    done = CliRunner().invoke(cli, ["kit", str(tmp_path / "kit.zip"), *options])
    assert done.exit_code == 0, done.output
    with ZipFile(tmp_path / "kit.zip") as archive:
        archive.extractall(tmp_path / "kit")
    return tmp_path / "kit"


def sources(folder: Path, kind: str = "code") -> list[str]:
    notebook = json.loads((folder / "start.ipynb").read_text(encoding="utf-8"))
    return [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == kind]


def test_the_kit_is_for_the_contest_that_is_asked_for(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, "--rule", "micronet", "--url", "https://board.example", "--contest", "spring")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "resnet.py", "start.ipynb"]
    for source in sources(folder):
        compile(source, "cell", "exec")
    assert 'DATASET, RULE = "cifar10", "micronet"' in sources(folder)[0]
    text = "\n".join(sources(folder, "markdown"))
    assert "contest submit entry.onnx --url https://board.example --contest spring" in text
    assert "45,000 to learn from, 5,000 to choose by" in text and "$" not in text
    again = CliRunner().invoke(cli, ["kit", str(tmp_path / "kit.zip")])
    assert isinstance(again.exception, UsageError) and "exists" in str(again.exception)


@pytest.mark.filterwarnings("default")
def test_its_first_steps_take_a_students_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = unpacked(tmp_path, "--quick")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "resnet", raising=False)
    import resnet  # type: ignore[import-not-found]

    torch.manual_seed(3)
    own = resnet.ResNet(widths=(8, 16), blocks=1, channels=1)
    torch.save({"net": {f"module.{k}": v for k, v in own.state_dict().items()}, "acc": 91.2}, "ckpt.pth")
    cells = [re.sub(r"EPOCHS, TUNING = .*", "EPOCHS, TUNING = 1, 1", source) for source in sources(folder)]
    names: dict[str, Any] = {}
    for source in cells[: next(i for i, s in enumerate(cells) if "train(pruned" in s) + 1]:
        exec(source, names)  # noqa: S102
    assert torch.equal(names["model"].stem.weight, own.stem.weight)  # the checkpoint was taken, not trained over
    table = names["pd"].DataFrame(names["steps"]).set_index("step")
    weights = sum(p.numel() for name, p in own.named_parameters() if p.ndim > 1)
    assert table.loc["float", "not zero"] == weights
    assert table.loc["half", "score"] == pytest.approx(table.loc["float", "score"] / 2, rel=1e-3)
    # A fine-tuning without masks would have filled every one of them.
    assert (
        table.loc["pruned, tuned", "not zero"] == table.loc["pruned", "not zero"] == pytest.approx(0.4 * weights, abs=1)
    )
    monkeypatch.delitem(sys.modules, "resnet")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of Jupyter's own modules
def test_it_runs_from_top_to_bottom(tmp_path: Path) -> None:
    os.environ["JUPYTER_PLATFORM_DIRS"] = "1"  # what it warns of otherwise
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    folder = unpacked(tmp_path, "--quick")
    notebook = nbformat.read(folder / "start.ipynb", as_version=4)
    nbformat.validate(notebook)
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(folder)}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert re.search(r"test accuracy 9\d\.\d\d%, score 0\.0\d+: rankable", said), said
    last = next(cell for cell in reversed(notebook.cells) if cell.cell_type == "code")
    rows = re.findall(r"<th>([^<]+)</th>\s*<td>([\d.]+)</td>\s*<td>([\d.]+)</td>", last.outputs[0].data["text/html"])
    score = {name: float(value) for name, _, value in rows}
    assert list(score)[3:] == ["pruned, tuned", "pruned, half", "8 bits, torch.ao", "4 bits, Brevitas"]
    assert score["half"] == pytest.approx(score["float"] / 2, rel=1e-2)
    assert score["4 bits, Brevitas"] < score["8 bits, torch.ao"] < score["pruned, half"] < score["half"]
