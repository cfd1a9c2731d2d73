"""How a chart looks: its size, its colours and the ranges of its axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Look:
    """Size and colours of a chart. The defaults are for a slide of 16:9."""

    width: int = 1100
    height: int = 500
    font: int = 21
    small: int = 17
    note: int = 15
    dot: int = 170
    dark: bool = False
    interactive: bool = False
    title: bool = True
    labels: int = 60
    """At most so many names."""

    @property
    def ink(self) -> str:
        """Text and lines."""
        return "#f2f2f0" if self.dark else "#16181d"

    @property
    def quiet(self) -> str:
        """Axes and notes: at least 4.5:1 against the background."""
        return "#b5b8c0" if self.dark else "#50545e"

    @property
    def grid(self) -> str:
        """Grid lines."""
        return "#30343d" if self.dark else "#e3e5ea"

    @property
    def paper(self) -> str:
        """The background."""
        return "#15171c" if self.dark else "#ffffff"

    @property
    def kinds(self) -> dict[str, tuple[str, str, str]]:
        """kind -> (fill, stroke, shape): shape and lightness differ too, so that grey paper keeps them apart."""
        if self.dark:
            return {
                "front": ("#ffb454", "#ffb454", "circle"),
                "entry": ("#6f9bff", "#6f9bff", "circle"),
                "below": ("#15171c", "#9aa0ab", "circle"),
                "reference": ("#15171c", "#d7dae0", "diamond"),
            }
        return {
            "front": ("#0b3d91", "#0b3d91", "circle"),
            "entry": ("#7fb0ee", "#3f74b8", "circle"),
            "below": ("#ffffff", "#6b7280", "circle"),
            "reference": ("#ffffff", "#16181d", "diamond"),
        }


@dataclass(frozen=True)
class Frame:
    """The data ranges of the axes and the way from data to pixels."""

    look: Look
    scores: tuple[float, float]
    accuracies: tuple[float, float]
    ticks: list[float] = field(default_factory=list)

    def pixel(self, score: float, accuracy: float) -> tuple[float, float]:
        low, high = (math.log(value) for value in self.scores)
        bottom, top = self.accuracies
        return (
            (math.log(score) - low) / (high - low) * self.look.width,
            (top - accuracy) / (top - bottom) * self.look.height,
        )


def frame(points: Sequence[tuple[float, float]], threshold: float, look: Look) -> Frame:
    """Axis ranges with room around the points; x reaches round numbers of the 1-2-5 series."""
    scores = [score for score, _ in points] or [0.001, 1.0]
    low, high = min(scores), max(scores)
    spread = max(math.log10(high / low), 0.6)
    low, high = low / 10 ** (0.07 * spread), high * 10 ** (0.12 * spread)
    accuracies = [*(accuracy for _, accuracy in points), threshold]
    bottom, top = min(accuracies), max(accuracies)
    margin = max((top - bottom) * 0.12, 0.005)
    ticks = [
        float(f"{digit}e{power}")
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digit in ((1, 2, 5) if look.width / math.log10(high / low) > 10 * look.font else (1,))
    ]
    return Frame(
        look,
        (low, high),
        (max(bottom - margin, 0.0), min(top + margin, 1.0 + margin / 2)),
        [tick for tick in ticks if low <= tick <= high],
    )
