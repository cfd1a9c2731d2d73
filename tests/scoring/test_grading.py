"""A class graded by one command, and two networks side by side."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import binomtest

from contest.errors import UsageError
from contest.model_file import freeze, save
from contest.model_file.manifest import FORMAT
from contest.networks import build, parse
from scoring import grading
from scoring.commands import score
from scoring.comparison import agreement, compare, mcnemar
from scoring.grading import OUR_FORMAT, Grade, entries
from tests.scoring import students


def model_file(path: Path, widths: str) -> Path:
    torch.manual_seed(0)
    architecture = parse(f"thin:widths={widths},depths=1-1")
    model = build(architecture, image_shape=(1, 8, 8), classes=10).eval()
    return save(freeze(model, architecture, image_shape=(1, 8, 8), classes=10), path)


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_class_is_graded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"net": students.trained().state_dict(), "acc": 80.0}, tmp_path / "anna.pth")
    (tmp_path / "ben.onnx").write_bytes(b"junk")
    (tmp_path / "class.txt").write_text("# the class\nanna.pth tests.scoring.students:lenet\nben.onnx\nmissing.pt\n")
    table = tmp_path / "grades.csv"
    arguments = [str(tmp_path / "class.txt"), "--csv", str(table), "--rule", "digits"]
    result = CliRunner().invoke(score, arguments, standalone_mode=False)
    assert result.exception is None, result.exception
    assert result.return_value == 1  # some are refused
    anna, ben, missing = rows(table)
    assert float(anna["accuracy"]) == pytest.approx(students.correct(students.trained()) / 360, abs=1e-5)
    assert anna["status"] in ("below", "rankable") and float(anna["score"]) > 0 and float(anna["seconds"]) > 0
    assert float(anna["score"]) == pytest.approx(float(anna["params"]) + float(anna["ops"]), rel=1e-5)
    assert (ben["status"], missing["status"]) == ("refused", "refused")
    assert "ben.onnx" in ben["reason"] and "missing.pt" in missing["reason"]

    # The last line is cut off, as where the machine went down: only that file is scored again.
    text = table.read_text()
    table.write_text(text[: text.index("missing.pt") + 12])
    again: list[str] = []
    honest = grading._row
    monkeypatch.setattr(grading, "_row", lambda entry, options: again.append(entry.path.name) or honest(entry, options))
    CliRunner().invoke(score, arguments, standalone_mode=False)
    assert again == ["missing.pt"]
    assert [row["file"] for row in rows(table)] == [row["file"] for row in (anna, ben, missing)]


def test_a_folder_is_searched_and_lists_are_read(tmp_path: Path) -> None:
    for name in ("b/net.pt", "a/net.onnx", "a/notes.txt", ".git/x.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    # The code that is said for all is for those that need some: ONNX files hold their network.
    assert entries(tmp_path, "m:f") == [Grade(tmp_path / "a/net.onnx"), Grade(tmp_path / "b/net.pt", "m:f")]
    ours = model_file(tmp_path / "a/ours.pt", "2-2")
    assert Grade(ours) in entries(tmp_path, "m:f") and OUR_FORMAT.decode() == FORMAT
    (tmp_path / "list.txt").write_text("a/net.onnx\nb/my net.pt\nb/net.pt b/net.py:make\n")
    assert entries(tmp_path / "list.txt") == [
        Grade(tmp_path / "a/net.onnx"),
        Grade(tmp_path / "b/my net.pt"),
        Grade(tmp_path / "b/net.pt", f"{tmp_path}/b/net.py:make"),
    ]
    (tmp_path / "other.csv").write_text("name,grade\nx,1\n")
    with pytest.raises(UsageError, match="no table of `contest score --csv`"):
        grading.grade([], tmp_path / "other.csv", [], lambda *_: None)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (3, 9), (9, 3), (40, 40), (300, 371)])
def test_mcnemar_is_the_binomial_test(only_a: int, only_b: int) -> None:
    wanted = binomtest(only_a, only_a + only_b, 0.5).pvalue if only_a + only_b else 1.0
    assert mcnemar(only_a, only_b) == pytest.approx(wanted, rel=1e-9)


def test_images_are_told_apart() -> None:
    found = agreement(np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 0], bool))
    assert (found.both, found.only_a, found.only_b, found.neither) == (1, (1, 4), (2,), 1)


def test_two_networks_side_by_side(tmp_path: Path) -> None:
    first, second = model_file(tmp_path / "a.pt", "4-8"), model_file(tmp_path / "b.pt", "4-12")
    arguments = [str(first), str(second), "--rule", "digits", "--trust"]
    result = CliRunner().invoke(compare, [*arguments, "--json"], standalone_mode=False)
    assert result.exception is None, result.exception
    data = json.loads(result.stdout)
    images = data["images"]
    assert images["both"] + len(images["only_a"]) + len(images["only_b"]) + images["neither"] == 360
    assert images["both"] + len(images["only_a"]) == data["a"]["accuracy"]["correct"]
    difference = data["b"]["scores"]["digits"]["total"] - data["a"]["scores"]["digits"]["total"]
    assert sum(layer["difference"] for layer in data["layers"]) == pytest.approx(difference)
    table = CliRunner().invoke(compare, arguments, standalone_mode=False)
    assert all(text in table.stdout for text in ("a.pt alone", "McNemar", "Where the points differ"))
