"""Known good starting points: ordinary candidates from which a study begins. The table is `starting_points.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from contest.networks.draws import Value
from search.space.space import Space


@cache
def _table() -> tuple[Mapping[str, Value], Sequence[Mapping[str, Any]]]:
    data = tomllib.loads(files("search.space").joinpath("starting_points.toml").read_text())
    return data["common"], data["points"]


def seeds(space: Space, side: int | None = None) -> list[dict[str, Value]]:
    """Starting points of the families that `space` searches, on its grids, without repetition.

    Points fit the size of the images (`side`; by default the space's). What is known of one family is not known of
    another that shares the names of its dimensions; only where the space searches none of theirs, all are moved onto
    its grids.
    """
    common, points = _table()
    side = space.side if side is None else side
    fitting = [p for p in points if p["side"][0] <= side <= p["side"][1]] or list(points)
    families = space.dimensions["family"].grid()
    known = [p for p in fitting if p["family"] in families] or fitting
    found: list[dict[str, Value]] = []
    for point in known:
        values = space.complete({**common, **{name: value for name, value in point.items() if name != "side"}})
        if values not in found:
            found.append(values)
    return found
