"""The commands of the README and of the documentation exist as they are written there; the first one is run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest

from contest.candidate import Recipe
from contest.cli import COMMANDS, cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands(page: Path) -> list[str]:
    """The lines of a page's console blocks that start `contest` (or `uv run contest`), comments taken off."""
    blocks = re.findall(r"```(?:console|bash|sh)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    found = []
    for line in lines:
        match = re.search(r"(?:^|uv run |\$ )contest (.*)", line.strip())
        if match:
            found.append(match.group(1))
    return found


CASES = [(page.relative_to(ROOT).as_posix(), command) for page in PAGES for command in commands(page)]


@pytest.mark.parametrize(("page", "command"), CASES, ids=[f"{page}: {command}" for page, command in CASES])
def test_documented_commands_exist(page: str, command: str) -> None:
    """Each command parses: the command is there, and so is every option, with a value of the right kind."""
    arguments = shlex.split(command, comments=True)
    group: click.Command = cli
    context = click.Context(cli)
    while isinstance(group, click.Group) and arguments:
        name, *arguments = arguments
        found = group.get_command(context, name)
        assert found is not None, f"{page}: there is no command '{name}'"
        context, group = click.Context(found, parent=context, info_name=name), found
    if not {"--help", "-h"} & set(arguments):
        existing = [p for p in group.params if isinstance(p.type, click.Path)]
        for parameter in existing:
            parameter.type.exists = False  # type: ignore[attr-defined]
        group.make_context(group.name, arguments, parent=context.parent)


def test_every_command_is_documented() -> None:
    documented = {command.split()[0] for _, command in CASES if command.split()}
    assert set(COMMANDS) - documented == set()


def test_every_recipe_field_is_documented() -> None:
    page = (ROOT / "docs" / "train.md").read_text()
    assert [field.name for field in fields(Recipe) if f"`{field.name}`" not in page] == []


@pytest.mark.slow
def test_the_main_job(tmp_path: Path) -> None:
    """`contest search --trials 20 --dataset digits` ends with a ranked network."""
    study = tmp_path / "study"
    arguments = ["search", "--trials", "20", "--dataset", "digits", "--study", str(study)]
    result = subprocess.run(
        [sys.executable, "-m", "contest", *arguments], capture_output=True, text=True, timeout=900, check=False
    )
    assert result.returncode == 0, result.stderr
    assert list(study.rglob("*.pt"))
