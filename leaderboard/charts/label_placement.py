"""Where to write the names of points so that nothing covers anything.

Pure geometry in pixels, y downwards. Labels are placed one after another, the most important first, each at the
cheapest free place around its point; one that finds no place is left out rather than written over something.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_NARROW = frozenset("iIl.,:;'|!fjtr()[] -1/")
_WIDE = frozenset("mwMW@%—")
_DIRECTIONS = 24
_RINGS = (2.0, 3.0, 4.2, 5.6, 7.2, 9.0)
"""Distances at which a label with a leader line is tried, in font sizes."""
_LEADER_COST = 40.0
_LINE_COST = 120.0
_DOT_COST, _CROSSING_COST = 60.0, 90.0
"""Of a leader line that runs below another point, and that crosses another; only where no limit holds."""
_FOREIGN_COST = 90.0
"""Of a name without a leader line that stands about as near to another point as to its own."""
_FOREIGN = 1.4
"""So many times as far as its own point another one must be."""
_PADDING = 4.0
_TRIES = 12
_FEW = 16
"""Labels up to which other orders are tried."""


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """True where the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """True where this box lies inside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )

    def crossed_by(self, segment: Segment) -> bool:
        """True where a line segment runs through the box (Liang-Barsky clipping)."""
        (x0, y0), (x1, y1) = segment
        enter, leave = 0.0, 1.0
        for delta, low, high in (
            (x1 - x0, self.left - x0, self.right - x0),
            (y1 - y0, self.top - y0, self.bottom - y0),
        ):
            if delta == 0:
                if low >= 0 or high <= 0:
                    return False
                continue
            near, far = sorted((low / delta, high / delta))
            enter, leave = max(enter, near), min(leave, far)
        return enter < leave


Point = tuple[float, float]
Segment = tuple[Point, Point]


@dataclass(frozen=True)
class Label:
    """Where a text stands: its box, the side at which the text is aligned, and whether a leader line joins it."""

    index: int
    box: Box
    align: str
    leader: bool

    @property
    def anchor(self) -> Point:
        """Where the text is anchored: the middle of the side that `align` names, or the centre."""
        middle = (self.box.left + self.box.right) / 2
        x = {"left": self.box.left + _PADDING, "right": self.box.right - _PADDING}.get(self.align, middle)
        return (x, (self.box.top + self.box.bottom) / 2)


def text_width(text: str, size: float) -> float:
    """Pixels that a text takes at most in a common sans-serif face (an estimate on the wide side)."""
    units = 0.0
    for character in text:
        if character in _NARROW:
            units += 0.37
        elif character in _WIDE or ord(character) > 0x2E7F:
            units += 1.0
        elif character.isupper():
            units += 0.74
        else:
            units += 0.585
    return units * size


def place(
    texts: Sequence[str],
    points: Sequence[Point],
    area: Box,
    *,
    size: float,
    obstacles: Sequence[Point] = (),
    radius: float = 8.0,
    lines: Sequence[Segment] = (),
    taken: Sequence[Box] = (),
    limit: float = math.inf,
    exempt: int = 0,
    fixed: Sequence[tuple[Point, Label]] = (),
) -> list[Label]:
    """Places for the texts of points, in order of importance.

    Where one that no limit holds for finds no place, it is placed before all others, and they again.

    Args:
        texts: one for each of `points`; the first is placed first.
        points: in pixels.
        area: no label leaves it.
        size: of the font, in pixels.
        obstacles: all points that are drawn; no label covers one.
        radius: of a drawn point, in pixels.
        lines: drawn lines, which a label crosses only where nothing else is free.
        taken: boxes of text that is there already.
        limit: what a place may cost; a dearer one is clutter, and the label is left out.
        exempt: for so many labels, from the first, no limit holds.
        fixed: labels that are there already, with their points.

    Returns:
        The labels that found a place; no two boxes overlap and none covers a point.
    """
    dots = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in (*obstacles, *points)]
    order, found = list(range(len(texts))), list[Label]()
    for _ in range(_TRIES):
        labels, _ = _greedy(order, texts, points, area, size, dots, radius, lines, taken, limit, exempt, fixed)
        placed = {label.index for label in labels}
        missing = [index for index in order if index < exempt and index not in placed]
        if not found or sum(i < exempt for i in placed) > sum(label.index < exempt for label in found):
            found = labels
        if not missing:
            break
        order = missing + [index for index in order if index not in missing]
    if len(texts) > _FEW:
        return found
    # Of few, the place that is cheapest for one may push the others aside: each goes first once.
    best = math.inf
    for first in [None, *range(len(texts))]:
        turn = order if first is None else [first, *(index for index in order if index != first)]
        labels, cost = _greedy(turn, texts, points, area, size, dots, radius, lines, taken, limit, exempt, fixed)
        if {label.index for label in labels} >= {label.index for label in found} and cost < best:
            found, best = labels, cost
    return found


def _greedy(
    order: Sequence[int],
    texts: Sequence[str],
    points: Sequence[Point],
    area: Box,
    size: float,
    dots: Sequence[Box],
    radius: float,
    lines: Sequence[Segment],
    taken: Sequence[Box],
    limit: float,
    exempt: int,
    fixed: Sequence[tuple[Point, Label]],
) -> tuple[list[Label], float]:
    """One after another in that order, each at the cheapest place that is left; what all places cost."""
    boxes = [*taken, *(label.box for _, label in fixed)]
    leaders: list[Segment] = [(point, _nearest(label.box, point)) for point, label in fixed if label.leader]
    labels, total = list[Label](), 0.0
    middles = [((dot.left + dot.right) / 2, (dot.top + dot.bottom) / 2) for dot in dots]
    for index in order:
        text, point = texts[index], points[index]
        width, height = text_width(text, size) + 2 * _PADDING, 1.25 * size
        best: tuple[float, Label] | None = None
        for cost, centre, leader in _candidates(point, width, height, radius, size):
            if cost >= (best[0] if best is not None else limit if index >= exempt else math.inf):
                continue
            box = Box(centre[0] - width / 2, centre[1] - height / 2, centre[0] + width / 2, centre[1] + height / 2)
            if not box.within(area) or any(box.overlaps(other) for other in (*boxes, *dots)):
                continue
            below = sum(box.crossed_by(line) for line in leaders)
            if below and index >= exempt:
                continue
            cost += _CROSSING_COST * below
            if not leader and _is_foreign(box, point, middles):
                cost += _FOREIGN_COST
            cost += _LINE_COST * sum(box.crossed_by(line) for line in lines)
            if leader:
                line = (point, _nearest(box, point))
                if any(other.crossed_by(line) for other in boxes):
                    continue
                crossed = sum(dot.crossed_by(line) for dot in dots if not _holds(dot, point))
                crossing = sum(_cross(line, other) for other in leaders)
                if (crossed or crossing) and index >= exempt:
                    continue
                cost += _DOT_COST * crossed + _CROSSING_COST * crossing
            if cost < (best[0] if best is not None else limit if index >= exempt else math.inf):
                side = "left" if box.left >= point[0] else "right" if box.right <= point[0] else "center"
                best = (cost, Label(index, box, side, leader))
        if best is not None:
            cost, label = best
            total += cost
            labels.append(label)
            boxes.append(label.box)
            if label.leader:
                leaders.append((points[index], _nearest(label.box, points[index])))
    return labels, total


def _candidates(
    point: Point, width: float, height: float, radius: float, size: float
) -> list[tuple[float, Point, bool]]:
    """(cost, centre, with a leader line) of places around a point: beside it first, then further out."""
    x, y = point
    gap = radius + 0.3 * size
    beside = [
        (0.0, (x + gap + width / 2, y), False),
        (2.0, (x + gap / 2 + width / 2, y - gap / 2 - height / 2), False),
        (3.0, (x, y - gap - height / 2), False),
        (4.0, (x + gap / 2 + width / 2, y + gap / 2 + height / 2), False),
        (5.0, (x, y + gap + height / 2), False),
        (6.0, (x - gap - width / 2, y), False),
        (7.0, (x - gap / 2 - width / 2, y - gap / 2 - height / 2), False),
        (8.0, (x - gap / 2 - width / 2, y + gap / 2 + height / 2), False),
    ]
    out = []
    for ring in _RINGS:
        for step in range(_DIRECTIONS):
            angle = 2 * math.pi * step / _DIRECTIONS
            reach = ring * size
            # The ring is measured to the nearest edge of the text, so that long names stand as near as short ones.
            centre = (
                x + math.cos(angle) * reach + math.copysign(width / 2, math.cos(angle)) * (abs(math.cos(angle)) > 0.1),
                y - math.sin(angle) * reach,
            )
            out.append((_LEADER_COST + reach + (0 if math.cos(angle) > 0 else 5), centre, True))
    return beside + out


def _nearest(box: Box, point: Point) -> Point:
    """The point of a box that is nearest to a point outside."""
    return (min(max(point[0], box.left), box.right), min(max(point[1], box.top), box.bottom))


def _is_foreign(box: Box, point: Point, others: Sequence[Point]) -> bool:
    """Whether a reader may take the name for that of another point."""
    own = math.dist(point, _nearest(box, point))
    return any(
        math.dist(other, _nearest(box, other)) < _FOREIGN * own for other in others if math.dist(other, point) > 1.0
    )


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point[0] <= box.right and box.top <= point[1] <= box.bottom


def _cross(a: Segment, b: Segment) -> bool:
    """True where two segments properly intersect."""

    def side(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(*a, b[0]) * side(*a, b[1]) < 0 and side(*b, a[0]) * side(*b, a[1]) < 0
