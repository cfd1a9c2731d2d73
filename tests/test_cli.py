"""The roof: every command has help, none of it imports torch, errors become the documented exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from contest.candidate import Architecture, Bits, Candidate, Recipe
from contest.cli import COMMANDS, cli
from contest.commands import changed


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "contest", *arguments], capture_output=True, text=True, timeout=120, check=False
    )


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['contest', '--help']\n"
        "from contest.cli import main\n"
        "try: main()\n"
        "finally: print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout.rstrip().endswith("False")
    assert all(name in result.stdout for name in COMMANDS)


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Every command under `group`, those of subgroups too, by what one types."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        found[prefix + name] = command
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
    return found


def test_every_command_and_option_says_what_it_does() -> None:
    silent = []
    for name, command in commands(cli).items():
        assert command.help and len(command.help) > 10, name
        options = [p for p in command.params if isinstance(p, click.Option)]
        silent += [f"{name} {option.opts[0]}" for option in options if not option.help]
    assert silent == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-command"], 3, "no command 'no-such-command'"),
        (["serach"], 3, "did you mean 'search'?"),
        (["score", "resnett18"], 3, "did you mean 'resnet18'?"),
        (["search", "--dataset", "cifr10"], 3, "did you mean 'cifar10'?"),
        (["score", "resnet18", "--rule", "micronett"], 3, "did you mean 'micronet'?"),
        (["train", "nosuch.json"], 3, "error: No such file or directory: nosuch.json"),
        (["pack", "nosuch.pt"], 3, "nosuch.pt is not a file"),
        (["plot", "--bundled", "--out", "/proc/plot.png"], 3, "error: No such file or directory: /proc/plot.png"),
        (["search", "--dataset", "digits", "--study", "/proc/study"], 3, "error: No such file or directory: /proc"),
        (["score"], 3, "Missing argument"),
        (["train", "resnet:depth=7", "--dataset", "digits"], 3, "depth"),
        (["train", "resnet20", "--dataset", "digits", "--bits", "many"], 3, "many"),
        (["train", "resnet20", "--dataset", "digits", "--train", "speed=9"], 3, "speed"),
    ],
)
def test_exit_codes(arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_of_another_alphabet_is_no_error(tmp_path: Path) -> None:
    """The tables have lines and dots that ASCII lacks."""
    run = subprocess.run(
        [sys.executable, "-m", "contest", "score", "resnet8", "--bits", "4"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert "Error" not in run.stderr and run.returncode == 0, run.stderr
    assert "0.0" in run.stdout


def test_options_change_parts_of_a_candidate_in_a_file() -> None:
    """What is not said stays as in the file; nothing that is said is passed over."""
    candidate = Candidate(
        Architecture("resnet", {"depth": 8}),
        Bits(4, 4, numbers=8),
        unstructured=0.5,
        train=Recipe(epochs=20.0, learning_rate=0.3),
        tune=Recipe(epochs=5.0, learning_rate=0.01),
    )
    assert changed(candidate, {}) == candidate
    found = changed(
        candidate, {"train_options": "epochs=60", "tune_options": "epochs=1,taught_epochs=2", "seed": 3, "edge_bits": 8}
    )
    assert (found.train.epochs, found.train.learning_rate, found.seed) == (60.0, 0.3, 3)
    assert (found.tune.epochs, found.tune.taught_epochs, found.tune.learning_rate) == (1.0, 2, 0.01)
    assert found.bits == Bits(4, 4, numbers=8, layers={"first": (8, 8), "last": (8, 8)})
    finer = changed(candidate, {"bits": "3/4", "symmetric": True, "unstructured": 0.25, "channels": "bn"})
    assert finer.bits == Bits(3, 4, numbers=8, symmetric=True)
    assert (finer.unstructured, finer.channels, finer.train) == (0.25, "bn", candidate.train)
