"""Imports run downwards: contest <- scoring <- search and leaderboard, and no module imports in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import networkx
import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "contest": {"contest"},
    "scoring": {"contest", "scoring"},
    "search": {"contest", "scoring", "search"},
    "leaderboard": {"contest", "scoring", "leaderboard"},
}


def imported(path: Path, *, at_start: bool) -> Iterator[str]:
    """Modules of ours that a file imports: all of them, or those that it needs to be imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes: Iterator[ast.AST] = iter(tree.body) if at_start else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def modules() -> dict[str, Path]:
    found = {}
    for package in MAY_IMPORT:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_nothing_above_it(package: str) -> None:
    roof = {"contest/cli.py"}
    for path in sorted((ROOT / package).rglob("*.py")):
        if str(path.relative_to(ROOT)) in roof:
            continue
        floors = {name.split(".")[0] for name in imported(path, at_start=False)} & MAY_IMPORT.keys()
        assert floors <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {sorted(floors - MAY_IMPORT[package])}"


def test_no_circles() -> None:
    known = modules()
    graph = networkx.DiGraph()
    for module, path in known.items():
        for name in imported(path, at_start=True):
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != module and not module.startswith(f"{target}."):
                graph.add_edge(module, target)
    circles = [group for group in networkx.strongly_connected_components(graph) if len(group) > 1]
    assert not circles, circles


PROGRAM = re.compile(r"from ((?:contest|scoring|search|leaderboard)[\w.]*) import ([\w, ]+)")


def test_programs_in_strings_import_what_is_there() -> None:
    """Tests and benchmarks start programs that are written in strings, where no type checker sees an old name."""
    known, missing, seen = modules(), [], 0
    for path in sorted((ROOT / "tests").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        for module, names in (pair for text in texts for pair in PROGRAM.findall(text)):
            seen += 1
            defined = set(re.findall(r"\w+", known[module].read_text(encoding="utf-8"))) if module in known else set()
            submodules = {name.removeprefix(f"{module}.") for name in known if name.startswith(f"{module}.")}
            unknown = {n.split(" as ")[0].strip() for n in names.split(",")} - defined - submodules - {""}
            missing += [f"{path.name}: from {module} import {name}" for name in sorted(unknown)]
    assert seen > 10 and not missing
