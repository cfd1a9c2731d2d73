"""Options of any command from a TOML file, and a file from a command's options."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from contest.candidate import Candidate
from contest.cli import cli
from contest.errors import UsageError
from contest.model_file import read_manifest


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, [*arguments, "--print-config"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_printed_file_says_the_same_again(tmp_path: Path) -> None:
    first = printed(
        "search",
        "--trials",
        "7",
        "--dataset",
        "digits",
        "--fix",
        "weight_bits=3",
        "--fix",
        "sparsity=0.3",
        "--margin",
        "0.01",
    )
    table = tomllib.loads(first)
    assert (table["trials"], table["dataset"], table["margin"]) == (7, "digits", 0.01)
    assert table["fix"] == ["weight_bits=3", "sparsity=0.3"]
    path = tmp_path / "run.toml"
    path.write_text(first)
    assert printed("search", "--config", str(path)) == first
    again = tomllib.loads(printed("search", "--config", str(path), "--trials", "9"))
    assert again == {**table, "trials": 9}, "the command line comes first"


def test_a_training_does_what_its_file_says(tmp_path: Path) -> None:
    path, out = tmp_path / "run.toml", tmp_path / "model.pt"
    path.write_text(f"""
dataset = "digits"
bits = 4
symmetric = true
number_bits = 8
unstructured = 0.25
train = "epochs=0.2"
tune = "epochs=0.2"
out = {str(out)!r}
""")
    done = CliRunner().invoke(cli, ["train", "thin:widths=4,depths=1", "--config", str(path)])
    assert done.exit_code == 0, done.output
    made = Candidate.from_json(read_manifest(out).provenance["candidate"])
    assert (made.bits.weights, made.bits.symmetric, made.bits.numbers, made.unstructured) == (4, True, 8, 0.25)


def test_one_text_stands_for_a_list_of_one(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('fix = "weight_bits=3"\nteacher = "none"\nplan = true\n')
    table = tomllib.loads(printed("search", "--config", str(path)))
    assert (table["fix"], table["teacher"], table["plan"]) == (["weight_bits=3"], ["none"], True)


def test_what_is_required_may_be_missing_where_options_are_printed() -> None:
    assert "# study =" in printed("worker").splitlines()
    assert "dataset" in tomllib.loads(printed("train"))
    done = CliRunner().invoke(cli, ["worker"])
    assert done.exit_code == 2 and "Missing option '--study'" in done.output


def test_commands_of_a_group_take_one_too() -> None:
    table = tomllib.loads(printed("lab", "compare", "--model", "vgg16", "--out", "runs"))
    assert table["model"] == "vgg16"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trails = 3", "has no option 'trails' .did you mean 'trials'"),
        ("trials = ", "not a readable TOML file"),
        ("trials = [5]", r"trials = \[5\]: this option takes a text or a number, not a list"),
        ("workers = true", "workers = true: this option takes a text or a number, not true or false"),
        ("fix = [true]", "not true or false"),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(UsageError, match=words):
        CliRunner().invoke(cli, ["search", "--config", str(tmp_path / "run.toml")], catch_exceptions=False)


def test_a_value_of_the_wrong_kind_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("trials = 'many'")
    done = CliRunner().invoke(cli, ["search", "--config", str(tmp_path / "run.toml")])
    assert done.exit_code == 2 and "'many' is not a valid integer" in done.output
