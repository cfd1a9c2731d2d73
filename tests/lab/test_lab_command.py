"""`contest lab` on the command line, on the bundled digits, and the page that is made of its folders."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from contest.cli import cli
from contest.errors import UsageError
from contest.lab.results import tables
from contest.lab.results.report import Results

TINY = ["--model", "mnist_cnn:widths=2-3,hidden=8", "--dataset", "digits", "--batch-size", "64"]
FEW = ["--train-images", "128", "--test-images", "64"]
ONCE = ["--training", "epochs=1,learning_rate=0.01"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["lab", *arguments])


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result


def test_quantise_gives_the_contests_score(tmp_path: Path) -> None:
    options = ["--bits", "4", "--sparsities", "0,0.5", "--orders", "together", "--tuning", "epochs=0.5"]
    done("quantise", *TINY, *FEW, *ONCE, *options, "--out", str(tmp_path))
    table = pd.read_csv(tmp_path / "tables" / "grid.csv")
    assert table["Score"].notna().all()
    assert table["Score"][1] < table["Score"][0]  # half of the weights are free


def test_the_page_says_what_is_finished(tmp_path: Path) -> None:
    folder = tmp_path / "fc"
    model = ["--model", "mnist_fc:hidden=12", "--dataset", "digits"]
    done("repeated", *model, *FEW, *ONCE, "--rounds", "2", "--variants", "none,kept", "--out", str(folder))
    last = folder / "cells" / "kept-02.json"
    cell = last.read_text()
    last.unlink()
    page = tmp_path / "page.md"
    done("results", str(folder), "--out", str(page))
    text = page.read_text(encoding="utf-8")
    assert "**Unfinished**: 4 of 5 cells so far." in text
    assert "by at most 0.0000 points" in text
    assert "mnist_fc:hidden=12 on digits" in text and "(lab/fc-accuracy-by-sparsity.svg)" in text
    assert (tmp_path / "lab" / "fc-sizes.svg").exists()
    last.write_text(cell)
    done("results", str(folder), "--out", str(page))
    assert "All cells are finished." in page.read_text(encoding="utf-8")


def test_the_pages_figures_are_those_of_the_cells(tmp_path: Path) -> None:
    """A folder made by hand: the collapse, the recovery and the published column are read off it."""
    folder = tmp_path / "cnn"
    (folder / "cells").mkdir(parents=True)
    training = {"epochs": 5, "optimiser": "adadelta", "learning_rate": 1.0, "schedule": "step", "bf16": False}
    config = {"experiment": "finetune", "task": "mnist_cnn on mnist", "model": "mnist_cnn", "dataset": "mnist"}
    (folder / "config.json").write_text(json.dumps({**config, "training": training}))
    machine = {
        "processor": "abacus",
        "cores": "1",
        "torch threads": "1",
        "memory": "8 GiB",
        "torch": "2",
        "time": "2026",
    }
    (folder / "machine.json").write_text(json.dumps(machine))
    for key, metric, nonzeros in (("dense", 99.0, 1_199_648), ("pruned", 20.0, 119_966), ("tuned", 98.25, 119_966)):
        cell = {"metric": metric, "nonzeros": nonzeros, "sparsity": 1 - nonzeros / 1_199_648}
        (folder / "cells" / f"{key}.json").write_text(json.dumps(cell))
    done("results", str(folder), "--out", str(tmp_path / "page.md"))
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "| before | 99.00 | 4.58 | 0.00 | 98.98 | 4.58 |" in text
    assert "| fine-tuned | 98.25 | 0.46 | 90.00 | 98.42 | 0.46 |" in text
    assert "fell by 79.00 points and came back to within 1 point of dense (+0.75 points lost)" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["repeated", *TINY, "--training", "pace=3"], "training option 'pace=3'"),
        (["repeated", *TINY, "--training", "epochs=many"], "epochs=many"),
        (["repeated", *TINY, "--variants", "backwards"], "variant 'backwards'"),
        (["sensitivity", *TINY, "--sparsities", "half"], "'half' is not a list of numbers"),
        (["sensitivity", *TINY, "--group", "all"], "name=layer,layer"),
        (["finetune", *TINY, "--layer", "conv1"], "name=sparsity"),
        (["quantise", *TINY, "--orders", "sideways"], "order 'sideways'"),
        (["repeated", "--task", "nowhere"], "package.module:factory"),
    ],
)
def test_wrong_options_are_named(arguments: list[str], words: str, tmp_path: Path) -> None:
    result = run(*arguments, "--out", str(tmp_path))
    assert isinstance(result.exception, UsageError)
    assert words in str(result.exception)


def test_methods_are_listed() -> None:
    output = done("methods").output
    assert "synflow" in output and "thinet" in output


def test_every_experiment_has_help() -> None:
    commands = ("repeated", "compare", "finetune", "sensitivity", "deploy", "quantise", "methods", "results", "gallery")
    for command in commands:
        assert done(command, "--help").output.count("\n") > 4


@pytest.mark.parametrize(
    ("value", "text"),
    [(97.034, "97.03"), (0.12345, "0.12"), (0.0178, "0.0178"), (0.05, "0.0500"), (0.0, "0.00"), (7, "7"), (None, "")],
)
def test_seconds_keep_three_digits_in_tables(value: float | None, text: str) -> None:
    assert tables.shown(value) == text


def test_the_report_sets_words_left_and_numbers_right(tmp_path: Path) -> None:
    page = Results(tmp_path, "Title", "", {}, {})
    page.add_table("layers", "Layers", pd.DataFrame({"Layer": ["fc"], "Weights": [10]}))
    assert '<td class="text">fc</td><td>10</td>' in page.finish().read_text(encoding="utf-8")


def test_a_column_of_whole_numbers_has_no_decimals() -> None:
    assert tables.whole(pd.Series([100 * 0.55, 90.0])).tolist() == [55, 90]
    assert "| 55 |" in tables.markdown(pd.DataFrame({"Pruned (%)": tables.whole(pd.Series([100 * 0.55, 90.0]))}))
    assert tables.whole(pd.Series([0.5, 1.0])).tolist() == [0.5, 1.0]
