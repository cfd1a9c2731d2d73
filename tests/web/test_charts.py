"""The accuracy-against-score chart: its figures, its formats, hostile names."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from seeding import report

from contest.cli import cli
from contest.errors import UsageError
from leaderboard.charts import networks
from leaderboard.charts.accuracy_score import ChartPoint, pareto_front, plot, references, render, specification
from leaderboard.charts.marks import Look, frame
from leaderboard.charts.networks import layer_specification, layers_of
from scoring.report import Report
from scoring.rules import load_rule

LAB = load_rule("lab")


def entries(count: int, seed: int = 0) -> list[ChartPoint]:
    chance = random.Random(seed)
    return [
        ChartPoint(f"test entry {i}", chance.uniform(0.88, 0.95), 10 ** chance.uniform(-2.7, -1), team=f"test team {i}")
        for i in range(count)
    ]


def data_of(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of the points layer."""
    (layer,) = [layer for layer in spec["layer"] if "shape" in layer["encoding"]]
    rows: list[dict[str, Any]] = layer["data"]["values"]
    return rows


def names_shown(spec: dict[str, Any]) -> list[str]:
    found = [layer for layer in spec["layer"] if "text" in layer["encoding"] and "stroke" not in layer["mark"]]  # halos
    return [row["name"] for layer in found for row in layer["data"]["values"]]


@pytest.mark.parametrize("seed", range(8))
def test_pareto_front_is_what_nothing_dominates(seed: int) -> None:
    points = entries(40, seed)

    def dominated(p: ChartPoint) -> bool:
        return any(
            q.score <= p.score and q.accuracy >= p.accuracy and (q.score < p.score or q.accuracy > p.accuracy)
            for q in points
        )

    assert pareto_front(points) == sorted((p for p in points if not dominated(p)), key=lambda p: p.score)


def test_equal_entries_are_on_the_front_once() -> None:
    twins = [ChartPoint("a", 0.91, 0.01), ChartPoint("b", 0.91, 0.01)]
    assert [p.name for p in pareto_front(twins)] == ["a"]


def test_reference_scores_of_resnet18_follow_from_its_size() -> None:
    parameters, macs = 11_173_962, 555_417_600 + 5_120
    half = 16 / 32
    expected = {
        "lab": parameters * half / 5.6e6 + 2 * macs * half / 8.3e8,
        "lab-macs": parameters * half / 5.6e6 + macs * half / 2.8e8,
        "micronet": 2.0,
    }
    for rule, score in expected.items():
        (point,) = [p for p in references(rule) if p.name.startswith("ResNet18")]
        assert point.score == pytest.approx(score, abs=5e-5)


def test_references_say_where_they_come_from() -> None:
    assert len(references("lab")) == 7
    assert all(point.about for point in references("lab"))
    assert references("digits") == ()


def test_kinds() -> None:
    points = [ChartPoint("best", 0.92, 0.01), ChartPoint("worse", 0.91, 0.02), ChartPoint("low", 0.8999, 0.005)]
    kinds = {row["name"]: row["kind"] for row in data_of(specification(points, LAB, 0.9, Look()))}
    assert kinds["best"] == "entry on the Pareto front"
    assert kinds["worse"] == "entry"
    assert kinds["low"] == "below 90 %"
    assert kinds["ResNet-20, 2 bits (APoT)"] == "reference, not ranked"


def test_far_below_is_counted_not_drawn() -> None:
    text = json.dumps(
        specification([ChartPoint("good", 0.91, 0.01), ChartPoint("random", 0.1, 0.001)], LAB, 0.9, Look())
    )
    assert "Below 78 %, not drawn: 1." in text
    assert '"random"' not in text


def test_what_cannot_be_drawn_is_left_out() -> None:
    odd = [
        ChartPoint("nan", float("nan"), 0.1),
        ChartPoint("zero", 0.9, 0.0),
        ChartPoint("infinite", 0.9, float("inf")),
    ]
    rows = data_of(specification(odd, LAB, 0.9, Look()))
    assert {row["kind"] for row in rows} == {"reference, not ranked"}


def test_an_empty_chart_without_references_can_be_drawn() -> None:
    assert render([], load_rule("digits"), 0.9, "svg").startswith(b"<svg")


def test_the_footnote_of_lab_is_there() -> None:
    text = json.dumps(specification(entries(3), LAB, 0.9, Look()))
    assert "0.998 + 0.669" in text
    assert "0.998" not in json.dumps(specification(entries(3), load_rule("lab-macs"), 0.9, Look()))


@pytest.mark.parametrize("count", [1, 12, 40])
def test_the_front_and_the_references_are_named(count: int) -> None:
    points = entries(count, seed=3)
    shown = names_shown(specification(points, LAB, 0.9, Look()))
    front = pareto_front(points)
    assert {front[0].name, front[-1].name} <= set(shown)
    assert len(shown) == len(set(shown))


def key_of(spec: dict[str, Any]) -> dict[str, str]:
    """Sign -> name, as the notes under the picture have it."""
    (notes,) = [layer["mark"]["text"] for layer in spec["layer"] if layer["mark"].get("baseline") == "top"]
    signs = " ".join(notes).split("90 %: ")[1].split(" · ")
    return dict(sign.replace("\u00a0", " ").split(" ", 1) for sign in signs)


@pytest.mark.parametrize("seed", [1, 3])
def test_sixty_teams_find_themselves_in_a_picture(seed: int) -> None:
    """Its name, or else its rank (a letter below the line) and that in the key. On a page one can hover."""
    points = [
        replace(p, accuracy=0.9 + abs(p.accuracy - 0.9) * (1 if i % 4 else -0.6))
        for i, p in enumerate(entries(60, seed))
    ]
    spec = specification(points, LAB, 0.9, Look())
    shown = names_shown(spec)
    key = key_of(spec)
    assert {p.name for p in points} | {p.name for p in references("lab")} == set(shown) - set(key) | set(key.values())
    assert set(key) <= set(shown)
    ranks = [p.name for p in sorted(points, key=lambda p: p.score) if p.accuracy >= 0.9]
    assert all(ranks[int(sign) - 1] == name for sign, name in key.items() if sign.isdigit())
    assert "Numbers are ranks" not in json.dumps(specification(points, LAB, 0.9, Look(interactive=True)))


def test_a_baseline_is_a_reference_and_takes_no_rank() -> None:
    points = [replace(p, accuracy=0.9 + abs(p.accuracy - 0.9)) for p in entries(60, 3)]
    baseline = replace(points[0], name="ours", score=1e-6, baseline=True)
    spec = specification([*points, baseline], LAB, 0.9, Look())
    ((kind, network),) = [(row["kind"], row["name"]) for row in data_of(spec) if row["name"] == "ours"]
    assert (kind, network) == ("reference, not ranked", "ours") and "not drawn" not in json.dumps(spec)
    ranks = [p.name for p in sorted(points, key=lambda p: p.score)]
    key = key_of(spec)
    assert len(key) > 20 and all(ranks[int(sign) - 1] == name for sign, name in key.items() if sign.isdigit())


def test_formats(tmp_path: Path) -> None:
    files = plot(entries(5), LAB, 0.9, tmp_path / "deep" / "plot")
    assert [f.name for f in files] == ["plot.png", "plot.svg", "plot.pdf", "plot.html"]
    starts = [f.read_bytes()[:8] for f in files]
    assert starts[0] == b"\x89PNG\r\n\x1a\n"
    assert starts[1].startswith(b"<svg")
    assert starts[2].startswith(b"%PDF")
    assert starts[3].startswith(b"<!doctyp")
    width = int.from_bytes(files[0].read_bytes()[16:20], "big")
    assert width >= 1920  # sharp on a slide
    html = files[3].read_text(encoding="utf-8")
    assert not re.search(r"<(script|link)[^>]+(src|href)=", html)  # works offline


def test_one_format(tmp_path: Path) -> None:
    assert plot(entries(2), LAB, 0.9, tmp_path / "x.SVG") == [tmp_path / "x.SVG"]
    with pytest.raises(UsageError, match=r"'x\.gif' ends in '\.gif'"):
        plot([], LAB, 0.9, tmp_path / "x.gif")


def test_names_stay_text_in_html_and_svg() -> None:
    evil = '</script><script>alert(1)</script><img src=x onerror="alert(2)">'
    html = render([ChartPoint(evil, 0.91, 0.01, team=evil)], LAB, 0.9, "html", title=evil).decode()
    assert "<script>alert" not in html
    assert "<img src=x" not in html
    svg = render([ChartPoint(evil, 0.91, 0.01)], LAB, 0.9, "svg").decode()
    assert "<script" not in svg
    assert "<img" not in svg


def test_dark_and_light_differ_only_in_colours() -> None:
    def bare(look: Look) -> str:
        return re.sub(r"#[0-9a-f]{6}", "#", json.dumps(specification(entries(6), LAB, 0.9, look)))

    assert bare(Look(dark=True)) == bare(Look())


def luminance(colour: str) -> float:
    """Relative luminance by WCAG 2.2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_contrast(dark: bool) -> None:
    look = Look(dark=dark)
    assert contrast(look.ink, look.paper) >= 7
    assert contrast(look.quiet, look.paper) >= 4.5
    assert all(contrast(stroke, look.paper) >= 3 for _, stroke, _ in look.kinds.values())
    # On grey paper, too: front and other entries, which share a shape, differ in lightness.
    assert contrast(look.kinds["front"][0], look.kinds["entry"][0]) >= 1.5


def test_layer_chart_sums_to_the_score() -> None:
    assert layers_of(None) == []
    made = Report.from_json(report(0.93))
    spec = layer_specification(layers_of(made), Look())
    assert sum(row["score"] for row in spec["data"]["values"]) == pytest.approx(made.score.total)


@pytest.mark.parametrize("count", [1, 4, 6])
def test_no_entry_of_a_small_contest_is_without_its_name(count: int) -> None:
    """Close to each other, to the front and to the line: the bundled networks stand so."""
    points = [ChartPoint(f"network {i}", 0.9045 - 0.0007 * i, 0.0039 * 1.35**i) for i in range(count)]
    spec = specification(points, load_rule("lab"), 0.9, Look())
    shown = {
        row["name"] for layer in spec["layer"] for row in layer.get("data", {}).get("values", []) if "align" in row
    }
    assert {point.name for point in points} <= shown


@pytest.mark.parametrize(("low", "high", "width"), [(0.003, 2.0, 1100), (0.0001, 50.0, 240), (0.5, 12.0, 700)])
def test_every_decade_has_its_number(low: float, high: float, width: int) -> None:
    ticks = frame([(low, 0.9), (high, 0.92)], 0.9, Look(width=width)).ticks
    decades = [10.0**power for power in range(-6, 4) if low <= 10.0**power <= high]
    assert set(decades) <= {float(f"{tick:.6g}") for tick in ticks}


def test_tries_are_grouped_by_what_was_measured_and_linked_to_their_parents() -> None:
    assert networks.technique_of({"q_w": 32, "weights": 100, "nonzeros": 100}) == "float"
    assert networks.technique_of({"q_w": 16.0, "weights": 100, "nonzeros": 60}) == "half, pruned"
    assert networks.technique_of({"q_w": 1.2, "weights": 100, "nonzeros": 60, "p_s_weights": 0.1}) == (
        "1 bit, channels removed, pruned"
    )
    made = [
        networks.try_of(str(i), Report.from_json(report(0.9 + i / 100, macs=8e6 / i, bits=bits)), "lab")
        for i, bits in ((1, 8), (2, 4), (3, 4))
    ]
    assert all(made)
    one, two, three = (replace(t, signature=s) for t, s in zip(made, "aab", strict=True) if t)
    linked = networks.linked([one, two, three, replace(one, name="4", parent="3"), replace(one, name="5", parent="77")])
    assert [t.parent for t in linked] == ["", "1", "", "3", "4"]
    look = Look(width=900)
    spec = networks.specification(linked[:3], LAB, 0.9, look)
    arrow, *_ = [row for layer in spec["layer"] for row in layer.get("data", {}).get("values", []) if "angle" in row]
    assert arrow["value"] == pytest.approx(one.score) and arrow["to"] == pytest.approx(two.score)
    assert len(_) == 1  # the same row as line and as head
    assert -90 < arrow["angle"] < 0 and arrow["dx"] > 0  # to the left and up: the head stands right of the child
    assert {row["technique"] for row in data_of(spec)} == {
        "8 bits, channels removed, pruned",
        "4 bits, channels removed, pruned",
    }
    alone = networks.specification(linked[:3], LAB, 0.9, look, group=False, link=False, x="macs")
    assert "angle" not in json.dumps(alone) and "multiply-accumulates" in json.dumps(alone)
    assert {row["value"] for row in data_of(alone)} == {8e6, 4e6, round(8e6 / 3)}


def test_files_are_plotted(tmp_path: Path) -> None:
    for i, bits in ((1, 8), (2, 4)):
        (tmp_path / f"try{i}.json").write_text(json.dumps(report(0.9 + i / 100, bits=bits)))
    files = [str(tmp_path / f"try{i}.json") for i in (1, 2)]
    arguments = ["plot", *files, "--group", "technique", "--link", "parent", "--out", str(tmp_path / "x.svg")]
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    drawn = (tmp_path / "x.svg").read_text(encoding="utf-8")
    assert all(text in drawn for text in ("try1", "try2", "8 bits, channels removed, pruned", "90 % line"))
    refused = CliRunner().invoke(cli, ["plot", str(tmp_path), "--out", str(tmp_path / "y.svg")])
    assert "no study" in str(refused.exception)
