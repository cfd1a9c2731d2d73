"""Where the points are: what each layer costs, and what changing it would gain.

Gains are exact under the rule for bits and zeros. For channels they are those of the layer, of everything coupled to
it (residual adds, depthwise layers) and of all that read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from contest.errors import UsageError
from scoring.costs import Costs, Number, Operation
from scoring.report_tables import Tail
from scoring.rules import Rule, number_params, operation_ops, operation_params, price

FRACTION = 0.1
CHANGES = {"bits": "one bit less", "channels": "10 % fewer channels", "zeros": "10 % more zeros"}


@dataclass(frozen=True)
class Advice:
    """One layer: its terms of the score, and by how much the score would fall."""

    layer: str
    kind: str
    params: float
    ops: float
    bits: float
    channels: float
    zeros: float
    coupled: tuple[str, ...]
    """Other layers that would lose channels with it."""

    @property
    def best(self) -> float:
        return max(self.bits, self.channels, self.zeros)


def advice(costs: Costs, rule: Rule) -> list[Advice]:
    """A row for each layer with weights, the largest possible gain first."""
    total = price(costs, rule).total
    coupled = _coupled(costs)
    read = {name for op in costs.operations for part in op.sources for name in part}  # not the logits
    found = []
    for op in costs.operations:
        if not op.macs:
            continue
        numbers = sum(number_params(n, rule) for n in costs.numbers if n.layer == op.name)
        found.append(
            Advice(
                op.name,
                op.kind,
                operation_params(op, rule) + numbers,
                operation_ops(op, rule),
                bits=total - price(_changed(costs, {op.name: _fewer_bits(op)}), rule).total,
                channels=total - price(_narrower(costs, coupled[op.name]), rule).total if op.name in read else 0.0,
                zeros=total - price(_changed(costs, {op.name: _more_zeros(op)}), rule).total,
                coupled=tuple(sorted(coupled[op.name] - {op.name})),
            )
        )
    return sorted(found, key=lambda row: -row.best)


def fewer_bits(bits: int) -> int:
    """The next precision below: 32, 16, then 8 to 1 one by one."""
    return {32: 16, 16: 8}.get(bits, max(1, bits - 1))


def _fewer_bits(op: Operation) -> Operation:
    """One step less of weights and activations. The image keeps its 8 bits."""
    weights = fewer_bits(op.weight_bits) if op.weight_bits else 0
    image = not op.sources and op.activation_bits == 8
    activations = 8 if image else fewer_bits(op.activation_bits)
    return replace(op, weight_bits=weights, activation_bits=activations, operation_bits=max(weights, activations))


def _more_zeros(op: Operation) -> Operation:
    return replace(op, nonzeros=max(0, op.nonzeros - round(FRACTION * op.weights)))


def _changed(costs: Costs, operations: Mapping[str, Operation], numbers: Sequence[Number] | None = None) -> Costs:
    return replace(
        costs,
        operations=tuple(operations.get(op.name, op) for op in costs.operations),
        numbers=costs.numbers if numbers is None else tuple(numbers),
    )


def _coupled(costs: Costs) -> dict[str, set[str]]:
    """Layer -> the layers whose channels are tied to its own, itself among them."""
    groups: dict[str, set[str]] = {op.name: {op.name} for op in costs.operations}
    for op in costs.operations:
        for part in op.sources:
            merged = set().union(*(groups[name] for name in part if name in groups))
            for name in merged:
                groups[name] = merged
    return groups


def _narrower(costs: Costs, group: set[str]) -> Costs:
    """The table when the layers of a group lose a tenth of their channels (fractions of channels are allowed)."""
    operations, less = {}, 1 - FRACTION
    for op in costs.operations:
        own = less if op.name in group else 1.0
        read = sum(1 for part in op.sources if set(part) & group) / len(op.sources) if op.sources else 0.0
        if op.groups > 1 and op.name in group:
            read = 0.0  # a depthwise layer has as many inputs as outputs: they are the same channels
        factor = own * (1 - FRACTION * read)
        if factor != 1.0:
            operations[op.name] = _scaled(op, factor, own)
    numbers = [
        replace(n, count=n.count * less) if n.layer in group and n.count > 1 else n  # type: ignore[arg-type]
        for n in costs.numbers
    ]
    return _changed(costs, operations, numbers)


def _scaled(op: Operation, factor: float, outputs: float) -> Operation:
    changes: dict[str, Any] = {
        "macs": op.macs * factor,
        "weights": op.weights * factor,
        "nonzeros": op.nonzeros * factor,
        "outputs": op.outputs * outputs,
    }
    return replace(op, **changes)


def advice_table(found: Sequence[Advice], rule: Rule) -> Table:
    """For people: gains in units of the score, the largest of each row in bold."""
    table = Table(
        title=f"Where the points are, under {rule.name}",
        title_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        caption="score that each change would save; channels of coupled layers go together",
        caption_justify="left",
    )
    table.add_column("layer", min_width=22)
    for column in ("costs", *CHANGES.values(), "coupled"):
        table.add_column(column, justify="right", min_width=7, max_width=10)
    for row in found:
        gains = {name: getattr(row, name) for name in CHANGES}
        cells = [
            Text(f"{gain:.6f}", style="bold green" if gain == row.best and gain > 0 else "") for gain in gains.values()
        ]
        table.add_row(Tail(row.layer), f"{row.params + row.ops:.6f}", *cells, str(len(row.coupled) or ""))
    return table


def advice_chart(found: Sequence[Advice], rule: Rule, path: Path) -> None:
    """Bars of the possible gains, layer by layer, as .html, .svg, .png or .pdf."""
    import altair as alt
    import pandas as pd

    if path.suffix not in (".html", ".svg", ".png", ".pdf"):
        raise UsageError(f"--chart is '{path.name}'; it must end in .html, .svg, .png or .pdf")
    rows = [
        {"layer": row.layer, "change": words, "gain": max(0.0, getattr(row, name))}
        for row in found
        for name, words in CHANGES.items()
    ]
    chart = (
        alt.Chart(pd.DataFrame(rows), title=f"What a change of one layer would gain ({rule.name})")
        .mark_bar()
        .encode(
            x=alt.X("gain:Q", title="gain in score"),
            y=alt.Y("layer:N", sort=[row.layer for row in found], title=None),
            yOffset=alt.YOffset("change:N", sort=list(CHANGES.values())),
            color=alt.Color("change:N", sort=list(CHANGES.values()), title=None),
            tooltip=["layer", "change", alt.Tooltip("gain", format=".2e")],
        )
        .properties(width=520)
    )
    chart.save(str(path))
