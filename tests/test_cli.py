"""The roof: every command has help, none of it imports torch, errors become the documented exit codes."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from contest.cli import COMMANDS, cli


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


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_what_it_does(name: str) -> None:
    context = click.Context(cli)
    command = cli.get_command(context, name)
    assert command is not None
    assert command.help and len(command.help) > 20
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["no-such-command"], 3, "No such command"),
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
