"""Two networks side by side: terms, layers, and on which images they differ (`contest compare`)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from contest.datasets.registry import facts
from contest.untrusted.description import shown
from scoring.commands import look, test_set
from scoring.report import Report
from scoring.report_tables import Tail
from scoring.rules import Rule, load_rule
from scoring.score import compared

if TYPE_CHECKING:
    from contest.datasets import DataSet

SHOWN_LAYERS = 12
SHOWN_IMAGES = 12


@dataclass(frozen=True)
class Side:
    """One of the two networks; right: for each test image whether the class is right, None without test data."""

    name: str
    report: Report
    right: NDArray[np.bool_] | None


@dataclass(frozen=True)
class PairAgreement:
    """On how many images both, one or none of two networks is right. p_value: McNemar's exact test that they are
    equally accurate, which looks only at the images where one alone is right."""

    both: int
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    neither: int
    p_value: float


@dataclass(frozen=True)
class LayerPair:
    """A layer of each network that stand beside each other; None where one has no counterpart."""

    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None

    @property
    def difference(self) -> float:
        """Points of the second more than of the first."""
        return _points(self.b) - _points(self.a)


def agreement(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> PairAgreement:
    """Where two networks' answers to the same images are right."""
    only_a, only_b = np.flatnonzero(a & ~b), np.flatnonzero(b & ~a)
    return PairAgreement(
        int((a & b).sum()),
        tuple(only_a.tolist()),
        tuple(only_b.tolist()),
        int((~a & ~b).sum()),
        mcnemar(len(only_a), len(only_b)),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p-value (McNemar 1947): the smaller count is binomial with a half, if the two are equal."""
    total, fewer = only_a + only_b, min(only_a, only_b)
    if not total:
        return 1.0
    logs = [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - total * math.log(2)) for log in logs))


def paired_layers(a: Report, b: Report) -> list[LayerPair]:
    """Layers of the same name side by side; if hardly any name is shared, priced layers in their order."""
    first, second = [[row for row in report.layers if _points(row)] for report in (a, b)]
    names = [row["name"] for row in second]
    shared = [row["name"] for row in first if row["name"] in names]
    if 2 * len(shared) >= min(len(first), len(second)):
        by_name = {row["name"]: row for row in second}
        pairs = [LayerPair(row, by_name.pop(row["name"], None)) for row in first]
        return pairs + [LayerPair(None, row) for row in by_name.values()]
    longest = max(len(first), len(second))
    return [
        LayerPair(first[i] if i < len(first) else None, second[i] if i < len(second) else None) for i in range(longest)
    ]


def _points(row: Mapping[str, Any] | None) -> float:
    return float(row["params"] + row["ops"]) if row else 0.0


def to_json(a: Side, b: Side) -> dict[str, Any]:
    """Both reports, the layers in pairs, and the images by their numbers."""
    found = agreement(a.right, b.right) if a.right is not None and b.right is not None else None
    return {
        "a": a.report.to_json(),
        "b": b.report.to_json(),
        "images": None if found is None else asdict(found),
        "layers": [
            {"a": p.a and p.a["name"], "b": p.b and p.b["name"], "difference": p.difference}
            for p in paired_layers(a.report, b.report)
        ],
    }


def show(a: Side, b: Side) -> Group:
    """The comparison as tables."""
    parts: list[RenderableType] = [_terms(a, b), _layers(a, b)]
    if a.right is not None and b.right is not None:
        parts += _images(a, b, agreement(a.right, b.right))
    for side in (a, b):
        parts += [Text(f"{shown(side.name)}: {shown(p, 500)}", style="yellow") for p in side.report.problems]
    return Group(*parts)


def _terms(a: Side, b: Side) -> Table:
    table = Table(title=f"Under {a.report.rule}", title_justify="left")
    for column in ("", shown(a.name), shown(b.name), "difference"):
        table.add_column(column, justify="left" if not column else "right")
    for name, first, second, format_ in _figures(a.report, b.report):
        known = first is not None and second is not None
        change = format(second - first, "+" + format_) if known and second is not None and first is not None else "-"
        table.add_row(name, *("-" if v is None else format(v, format_) for v in (first, second)), change)
    return table


def _figures(a: Report, b: Report) -> Iterator[tuple[str, float | None, float | None, str]]:
    for term in dict.fromkeys((*a.score.terms, *b.score.terms)):
        yield term, a.score.terms.get(term), b.score.terms.get(term), ".6f"
    yield "total", a.score.total, b.score.total, ".6f"
    first, second = (r.accuracy.value if r.accuracy else None for r in (a, b))
    yield "accuracy", first, second, ".4f"
    for key, name in (("macs", "MACs"), ("weights", "weights"), ("nonzeros", "nonzero weights")):
        yield name, a.measured[key], b.measured[key], ",.0f"
    for key, name in (("q_w", "bits of a weight"), ("q_a", "bits of an activation")):
        yield name, a.measured[key], b.measured[key], ".2f"


def _layers(a: Side, b: Side) -> Table:
    pairs = sorted(paired_layers(a.report, b.report), key=lambda pair: -abs(pair.difference))
    more = f", the {SHOWN_LAYERS} that differ most of {len(pairs)}" if len(pairs) > SHOWN_LAYERS else ""
    table = Table(title=f"Where the points differ{more}", title_justify="left")
    for column in (shown(a.name), shown(b.name), "MACs", "weights", "bits (weight/activation)", "points", "difference"):
        table.add_column(column, justify="left" if column in (shown(a.name), shown(b.name)) else "right")
    for pair in pairs[:SHOWN_LAYERS]:
        rows = (pair.a, pair.b)
        table.add_row(
            *(Tail(row["name"]) if row else "-" for row in rows),
            _beside(rows, lambda row: f"{row['macs']:,}"),
            _beside(rows, lambda row: f"{row['nonzeros']:,}"),
            _beside(rows, lambda row: f"{row['weight_bits']}/{row['activation_bits']}"),
            _beside(rows, lambda row: f"{_points(row):.6f}"),
            f"{pair.difference:+.6f}",
        )
    return table


def _beside(rows: tuple[Mapping[str, Any] | None, ...], text: Any) -> str:
    """Two figures with an arrow, or one where they are equal."""
    first, second = (text(row) if row else "-" for row in rows)
    return first if first == second else f"{first} -> {second}"


def _images(a: Side, b: Side, found: PairAgreement) -> Iterator[RenderableType]:
    table = Table(title="Test images", title_justify="left")
    for column in ("right by", "images", "the first of them, by number"):
        table.add_column(column, justify="right" if column == "images" else "left")
    table.add_row("both", f"{found.both:,}", "")
    for side, only in ((a, found.only_a), (b, found.only_b)):
        first = ", ".join(str(i) for i in only[:SHOWN_IMAGES]) + (", ..." if len(only) > SHOWN_IMAGES else "")
        table.add_row(f"{shown(side.name)} alone", f"{len(only):,}", first)
    table.add_row("neither", f"{found.neither:,}", "")
    yield table
    verdict = "more than chance" if found.p_value < 0.05 else "no more than chance explains"
    yield Text(f"McNemar's exact test: p = {found.p_value:.3g}, {verdict}")


@click.command()
@click.argument("a", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("b", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--rule", default="lab", show_default=True, help="lab, lab-macs, micronet, digits, ... or a .toml file.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of the data set.")
@click.option("--no-accuracy", is_flag=True, help="Costs only: do not run the test set.")
@click.option("--arch-a", help="A holds weights of a network of your own, built by package.module:factory.")
@click.option("--arch-b", help="The same for B.")
@click.option("--trust", is_flag=True, help="Open the files in this process: only for files of your own.")
@click.option("--json", "as_json", is_flag=True, help="Print both reports and the images as JSON.")
def compare(
    a: Path,
    b: Path,
    rule: str,
    data: Path | None,
    no_accuracy: bool,
    arch_a: str | None,
    arch_b: str | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Two networks side by side: the terms of their scores, the layers whose points differ, which images the one gets
    right and the other not, and whether that is more than chance (McNemar's test)."""
    chosen = load_rule(rule)
    for path, arch in ((a, arch_a), (b, arch_b)):
        if arch is None:
            look(path, trust)
    tests = None if no_accuracy else test_set(chosen, data, Console(stderr=as_json))
    names = (a.name, b.name) if a.name != b.name else (str(a), str(b))
    first, second = (
        _side(name, path, arch, chosen, tests, trust)
        for name, path, arch in zip(names, (a, b), (arch_a, arch_b), strict=True)
    )
    if as_json:
        click.echo(json.dumps(to_json(first, second), indent=1))
    else:
        Console().print(show(first, second))


def _side(name: str, path: Path, arch: str | None, rule: Rule, tests: DataSet | None, trust: bool) -> Side:
    shape = facts(rule.dataset).image_shape or (3, 32, 32)
    images = tests.test if tests else None
    if arch is None:
        return Side(name, *compared(path, images, rule, trust=trust, looked=True))
    from scoring.readers.user_module import load_module

    return Side(name, *compared(load_module(arch, path), images, rule, image_shape=shape))
