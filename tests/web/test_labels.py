"""Label placement: whatever the points, no text covers a text or a point."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leaderboard.charts.label_placement import Box, place, text_width

AREA = Box(0, 0, 800, 400)
POINTS = st.lists(st.tuples(st.floats(5, 795), st.floats(5, 395)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.integers(1, 18))
def test_nothing_covers_anything(points: list[tuple[float, float]], letters: int) -> None:
    labels = place(["m" * letters] * len(points), points, AREA, size=12, obstacles=points, radius=5)
    boxes = [label.box for label in labels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    for box in boxes:
        assert box.within(AREA)
        assert not any(
            box.left < x + 5 and x - 5 < box.right and box.top < y + 5 and y - 5 < box.bottom for x, y in points
        )
    assert len({label.index for label in labels}) == len(labels)


def test_one_label_stands_right_of_its_point_without_a_line() -> None:
    (label,) = place(["name"], [(100, 100)], AREA, size=12, radius=5)
    assert not label.leader
    assert label.align == "left"
    assert label.box.left > 105
    assert (label.box.top + label.box.bottom) / 2 == 100


def test_at_the_right_edge_it_stands_left() -> None:
    (label,) = place(["a long name"], [(790, 200)], AREA, size=12, radius=5)
    assert label.box.right <= 790


def test_the_first_is_placed_when_not_all_fit() -> None:
    points = [(400.0, 200.0 + i / 10) for i in range(60)]
    labels = place([f"network number {i}" for i in range(60)], points, AREA, size=14, obstacles=points, radius=6)
    assert labels[0].index == 0
    assert len(labels) < 60


def test_labels_avoid_lines_where_they_can() -> None:
    line = ((0.0, 100.0), (800.0, 100.0))
    (label,) = place(["name"], [(100, 100)], AREA, size=12, radius=5, lines=[line])
    assert not label.box.crossed_by(line)


def test_what_would_be_clutter_is_left_out() -> None:
    wall = [Box(0, 0, 800, 180), Box(0, 220, 800, 400), Box(0, 180, 300, 220), Box(330, 180, 800, 220)]
    assert place(["a name that does not fit"], [(315, 200)], AREA, size=12, taken=wall) == []


@pytest.mark.parametrize(
    ("segment", "crosses"),
    [
        (((0, 0), (10, 10)), True),
        (((0, 5), (3, 5)), False),
        (((0, 6), (20, 6)), True),
        (((4, 0), (4, 20)), False),  # along the edge
        (((0, 20), (20, 21)), False),
    ],
)
def test_crossing(segment: tuple[tuple[float, float], tuple[float, float]], crosses: bool) -> None:
    assert Box(4, 4, 8, 8).crossed_by(segment) is crosses


def test_width_is_an_estimate_on_the_wide_side() -> None:
    # Advance widths of Helvetica (Adobe's font metrics, thousandths of the size).
    widths = {"R": 722, "e": 556, "s": 500, "N": 722, "t": 278, "-": 333, "2": 556, "0": 556}
    for text in ("ResNet-20", "tteess", "00-22"):
        true = sum(widths[c] for c in text) / 1000 * 16
        assert true <= text_width(text, 16) <= 1.35 * true


def test_a_name_that_could_be_anothers_has_a_line_to_its_point() -> None:
    """Beside each other and one above: the names of the bundled networks stood at each other's points."""
    points = [(210.0, 555.0), (227.0, 564.0), (330.0, 597.0), (352.0, 622.0), (458.0, 574.0)]
    names = ["inverted-8m-3bit", "inverted-8m-4bit", "thin-17m-4bit-70", "thin-17m-4bit", "thin-22m-6bit"]
    placed = place(names, points, Box(135, 115, 1434, 700), size=20, radius=8, lines=[((210, 555), (1434, 555))])
    assert len(placed) == len(names)
    for label in placed:
        box, own = label.box, points[label.index]
        away = [math.hypot(max(box.left - x, x - box.right, 0), max(box.top - y, y - box.bottom, 0)) for x, y in points]
        others = [d for d, point in zip(away, points, strict=True) if point != own]
        assert label.leader or min(others) > 1.3 * away[label.index], names[label.index]
