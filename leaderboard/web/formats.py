"""How figures are written on pages. Everything that is missing is a dash."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2.runtime import Undefined
from markdown_it import MarkdownIt
from markupsafe import Markup

from contest.datasets.registry import facts
from leaderboard.terms import further

DASH = "–"


def number(value: Any) -> float | None:
    """A finite number, or None for anything else: reports are data from elsewhere."""
    if isinstance(value, Undefined | bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def score(value: Any) -> str:
    """Four significant digits, without an exponent where that is readable."""
    known = number(value)
    if known is None:
        return DASH
    if known == 0:
        return "0"
    if known >= 1e-5:
        return f"{known:.{min(max(0, 3 - math.floor(math.log10(known))), 9)}f}"
    return f"{known:.3e}"


def percent(value: Any) -> str:
    """0.9012 as "90.12 %", without zeros that say nothing in whole percents."""
    known = number(value)
    if known is None:
        return DASH
    text = f"{100 * known:.2f}"
    return f"{text.removesuffix('.00')} %"


def accuracy(value: Any) -> str:
    """0.9 as "90.00 %": in columns, where digits stand below each other."""
    known = number(value)
    return DASH if known is None else f"{100 * known:.2f} %"


def points(value: Any) -> str:
    """0.9012 as "90.12"."""
    known = number(value)
    return DASH if known is None else f"{100 * known:.2f}"


def share(value: Any) -> str:
    """0.1234 as "12.3 %"."""
    known = number(value)
    return DASH if known is None else f"{100 * known:.1f} %"


def count(value: Any) -> str:
    """12,500,000 as "12.5M"."""
    known = number(value)
    if known is None:
        return DASH
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if known >= 0.9995 * limit:
            return f"{known / limit:.3g}{unit}" if known < 999.5 * limit else f"{known / limit:.0f}{unit}"
    return f"{known:g}"


def bits(value: Any) -> str:
    """A mean number of bits: "4" or "3.52"."""
    known = number(value)
    return DASH if known is None else f"{known:.2f}".rstrip("0").rstrip(".")


def size(value: Any) -> str:
    """Bytes as "123 kB" or "1.2 MB"."""
    known = number(value)
    if known is None:
        return DASH
    for limit, unit in ((2**20, "MiB"), (2**10, "KiB")):
        if known >= limit:
            return f"{known / limit:.3g} {unit}"
    return f"{known:.0f} bytes"


UNITS = {"days": (172_800, 86_400), "hours": (7200, 3600), "minutes": (90, 60), "seconds": (1.5, 1)}


def duration(seconds: float, say: Callable[[str], str] = str) -> str:
    """Seconds as people say them, `say` in their language."""
    for name, (limit, unit) in UNITS.items():
        if seconds >= limit:
            return f"{seconds / unit:.0f} {say(name)}"
    return say("a second")


def dataset(name: str) -> str:
    """The usual spelling."""
    return facts(name).title


def cell(value: str) -> str:
    """A text as a cell of a CSV table."""
    return '"' + value.replace('"', '""') + '"' if any(c in value for c in ',"\n\r') else value


def breakable(name: str) -> Markup:
    """A layer's name that may be broken after its dots and slashes, and better there than anywhere."""
    return Markup("").join(Markup("{}<wbr>").format(part) for part in re.split(r"(?<=[./])", name))


@cache
def _markdown() -> MarkdownIt:
    # html: False escapes every tag; links to anything but http, https and mail are no links; pictures would be loaded
    # from elsewhere.
    return MarkdownIt("commonmark", {"html": False, "typographer": False}).enable("table").disable("image")


def markdown(text: str) -> Markup:
    """An organiser's text: Markdown without HTML, scripts and pictures."""
    return Markup(_markdown().render(text))


FILTERS = {
    "score": score,
    "percent": percent,
    "accuracy": accuracy,
    "points": points,
    "share": share,
    "count": count,
    "bits": bits,
    "breakable": breakable,
    "cell": cell,
    "markdown": markdown,
    "size": size,
    "dataset": dataset,
    "further": further,
}
