"""The charts of a study, as Altair specifications: one for the page, the PNG and the slide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import optuna

from search.output.progress import bits_text
from search.policy.ranking import Judge, StageCost
from search.study.study import Study
from search.study.trial import TrialRecord

Chart = Any
BLUE, GREEN, GREY, PALE, RED = "#2f6db3", "#2e8b57", "#9aa0a6", "#d5d9de", "#c0392b"
WIDTH, HEIGHT = 640, 360


def rows(study: Study, judge: Judge) -> list[dict[str, Any]]:
    """One row for each result, in the order in which it came."""
    found = []
    for record in sorted(judge.records, key=lambda r: r.number):
        assert record.result is not None
        found.append(
            {
                "trial": record.number,
                "stage": stage_of(record),
                "network": record.candidate.architecture.family,
                "architecture": str(record.candidate.architecture),
                "bits": bits_text(record.candidate.bits),
                "p_s": record.candidate.structured,
                "p_u": record.candidate.unstructured,
                "score": record.result.price.total,
                "accuracy": 100 * record.result.accuracy,
                "forecast": 100 * judge.predicted(record),
                "MACs": record.result.price.macs,
                "seconds": record.result.seconds,
            }
        )
    return found


KINDS = {"long": "long tuning", "child": "short tuning", "parent": "float parent", "refine": "refined"}
DONE = ("long tuning", "short tuning", "refined", "explored")
"""Kinds of records that are networks which may be handed in."""


def stage_of(record: TrialRecord) -> str:
    if record.state == "PRUNED":
        return "stopped"
    if record.stage == "explore":
        return "explored" if record.at_end else "paused"
    if record.stage == "parent" and not record.at_end:
        return "paused"
    return KINDS[record.stage]


def _stage_colour(data: Sequence[Mapping[str, Any]]) -> Any:
    colours = {
        "long tuning": GREEN,
        "refined": GREEN,
        "short tuning": BLUE,
        "explored": BLUE,
        "float parent": GREY,
        "paused": PALE,
        "stopped": RED,
    }
    domain = [kind for kind in colours if any(row["stage"] == kind for row in data)]
    return alt.Color("stage:N", scale=alt.Scale(domain=domain, range=[colours[kind] for kind in domain]), title=None)


def front(data: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows trained to their end that no other such row beats in both score and accuracy, cheapest first."""
    best, kept = -1.0, []
    done = [row for row in data if row["stage"] in DONE]
    for row in sorted(done, key=lambda r: (r["score"], -r["accuracy"])):
        if row["accuracy"] > best:
            best = row["accuracy"]
            kept.append(row)
    return kept


def pareto(study: Study, judge: Judge, finalists: Sequence[dict[str, Any]] = ()) -> Chart:
    """Accuracy on validation against score (log), the front, the threshold, the finalists' test accuracy.

    Trainings that wait half done have no accuracy yet that could be compared.
    """
    data = [row for row in rows(study, judge) if row["stage"] != "paused"]
    x = alt.X(
        "score:Q", scale=alt.Scale(type="log", nice=False, padding=20), title=f"score ({study.settings.rule_name})"
    )
    low = min((r["accuracy"] for r in data), default=0.0)
    span = alt.Scale(domain=[max(0.0, low - 2), 100], zero=False)
    y = alt.Y("accuracy:Q", scale=span, title="accuracy (%)")
    tip = ["trial", "architecture", "bits", "p_s", "p_u", "score", "accuracy", "stage"]
    points = alt.Chart(alt.Data(values=data)).mark_circle(size=70, opacity=0.8)
    tips = [
        alt.Tooltip(name, type="nominal" if name in ("architecture", "bits", "stage") else "quantitative")
        for name in tip
    ]
    layers = [
        alt.Chart(alt.Data(values=[{"y": 100 * study.settings.threshold}]))
        .mark_rule(strokeDash=[6, 4], color=RED)
        .encode(y=alt.Y("y:Q", scale=span)),
        alt.Chart(alt.Data(values=front(data))).mark_line(color=GREY, interpolate="step-after").encode(x=x, y=y),
        points.encode(x=x, y=y, color=_stage_colour(data), tooltip=tips),
    ]
    if finalists:
        layers.append(
            alt.Chart(alt.Data(values=list(finalists)))
            .mark_point(shape="diamond", size=160, filled=True, color="black")
            .encode(x=x, y=y)
        )
    title = {
        "text": "Accuracy against score",
        "subtitle": "circles: validation; dashed: the threshold"
        + ("; diamonds: finalists on the test set" if finalists else ""),
    }
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def history(study: Study, judge: Judge) -> Chart:
    """The best score so far among candidates that reach the threshold by forecast, trial after trial."""
    data = rows(study, judge)
    best: float | None = None
    steps = []
    for row in data:
        enough = row["stage"] in DONE and row["forecast"] >= 100 * study.settings.threshold
        if enough and (best is None or row["score"] < best):
            best = row["score"]
        if best is not None:
            steps.append({"trial": row["trial"], "best": best})
    x = alt.X("trial:Q", title="trial", scale=alt.Scale(nice=False, padding=12), axis=alt.Axis(format="d"))
    y = alt.Y("score:Q", scale=alt.Scale(type="log", nice=False, padding=20), title="score")
    points = alt.Chart(alt.Data(values=data)).mark_circle(size=60).encode(x=x, y=y, color=_stage_colour(data))
    line = alt.Chart(alt.Data(values=steps)).mark_line(color="black", interpolate="step-after")
    title = {
        "text": "History",
        "subtitle": "line: lowest score of a network whose lower bound of accuracy reaches the threshold",
    }
    layers = [points, line.encode(x=x, y=alt.Y("best:Q"))] if steps else [points]
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT, title=title)


def importance(study: Study) -> Chart | None:
    """Parameter importance by Optuna (PED-ANOVA) for the study's value; None with fewer networks than say something."""
    if sum(r.is_network for r in study.records()) < IMPORTANT:
        return None
    pareto_study = study.settings.objective == "pareto"
    target = (lambda t: t.values[0]) if pareto_study else None
    try:
        found = optuna.importance.get_param_importances(
            study.optuna, evaluator=optuna.importance.PedAnovaImportanceEvaluator(), target=target
        )
    except (ValueError, RuntimeError):
        return None  # Optuna's words for: fewer than two trials that differ
    data = [{"parameter": name, "importance": value} for name, value in list(found.items())[:15] if value > 0]
    if not data:
        return None
    bars = alt.Chart(alt.Data(values=data)).mark_bar(color=BLUE)
    return bars.encode(
        x=alt.X("importance:Q", title="importance (share)"), y=alt.Y("parameter:N", sort="-x", title=None)
    ).properties(width=WIDTH, height=22 * len(data), title="Which choices decide the objective (PED-ANOVA)")


IMPORTANT = 10
"""Networks below which an importance is a coincidence."""
COMPRESSION = ("weight bits", "activation bits", "p_s", "p_u")
PARALLEL = ("weight bits", "activation bits", "p_s", "p_u", "million MACs", "accuracy", "score")


def parallel(study: Study, judge: Judge) -> Chart:
    """Parallel coordinates: each line a candidate, each axis scaled to what was seen.

    Coloured as reaching the threshold is a network whose lower bound of accuracy does; a float parent, whose score is
    that of the child which it promises, never is: its line begins behind the axes of compression, which it has none of.
    """
    values: list[dict[str, Any]] = []
    for record in judge.records:
        assert record.result is not None
        values.append(
            {
                "trial": record.number,
                "enough": "yes" if judge.reached(record) else "no" if record.is_network else "float parent",
                "million MACs": record.result.price.macs / 1e6,
                "accuracy": 100 * record.result.accuracy,
                "score": record.result.price.total,
            }
        )
        if record.is_network:
            bits, pruned = record.candidate.bits, (record.candidate.structured, record.candidate.unstructured)
            values[-1].update(zip(COMPRESSION, (bits.weights, bits.activations, *pruned), strict=True))
    lines, labels = [], []
    for place, axis in enumerate(PARALLEL):
        seen = [float(v[axis]) for v in values if axis in v]
        low, high = min(seen, default=0.0), max(seen, default=1.0)
        span = high - low or 1.0
        lines += [
            {
                "trial": v["trial"],
                "enough": v["enough"],
                "axis": axis,
                "place": place,
                "value": (float(v[axis]) - low) / span,
            }
            for v in values
            if axis in v
        ]
        labels.append({"axis": axis, "value": -0.06, "text": f"{low:.4g}"})
        if high > low:
            labels.append({"axis": axis, "value": 1.0, "text": f"{high:.4g}"})
    x = alt.X("axis:N", sort=list(PARALLEL), title=None, axis=alt.Axis(labelAngle=0, grid=True))
    y = alt.Y("value:Q", axis=None, scale=alt.Scale(domain=[-0.08, 1.08]))
    colour = alt.Color(
        "enough:N",
        scale=alt.Scale(domain=["yes", "no", "float parent"], range=[BLUE, "#b9773d", PALE]),
        title="reaches threshold",
    )
    paths = (
        alt.Chart(alt.Data(values=lines))
        .mark_line(opacity=0.6)
        .encode(x=x, y=y, detail="trial:N", color=colour, order="place:Q")
    )
    limits = (
        alt.Chart(alt.Data(values=labels))
        .mark_text(dy=-6, dx=4, align="left", fontSize=10)
        .encode(x=x, y=y, text="text:N")
    )
    return alt.layer(paths, limits).properties(width=WIDTH + 80, height=HEIGHT, title="Parallel coordinates")


def stage_costs(stages: Sequence[StageCost]) -> Chart:
    """Time of each stage, with the best score after it."""
    longest = max((stage.seconds for stage in stages), default=0.0)
    unit, seconds = ("minutes", 60.0) if longest > 120 else ("seconds", 1.0)
    data = [
        {
            "stage": f"{place}. {stage.name}",
            "time": stage.seconds / seconds,
            "best": ""
            if stage.best_score is None
            else f"{stage.best_score:.5f} at {100 * (stage.best_accuracy or 0):.1f} %",
        }
        for place, stage in enumerate(stages, start=1)
    ]
    base = alt.Chart(alt.Data(values=data)).encode(y=alt.Y("stage:N", title=None, sort=None))
    room = alt.Scale(domain=[0.0, 1.3 * max(longest / seconds, 1e-3)], nice=False)  # for the words behind a bar
    bars = base.mark_bar(color=BLUE).encode(x=alt.X("time:Q", title=unit, scale=room))
    texts = base.mark_text(align="left", dx=4).encode(x=alt.X("time:Q", scale=room), text="best:N")
    title = {
        "text": "What each stage cost, and the best candidate after it",
        "subtitle": "score at validation accuracy",
    }
    return alt.layer(bars, texts).properties(width=WIDTH, height=34 * max(1, len(data)), title=title)


def figures(
    study: Study, judge: Judge, stages: Sequence[StageCost], finalists: Sequence[dict[str, Any]]
) -> dict[str, Chart]:
    """All charts of a study by name, in the order of the report."""
    found: dict[str, Chart | None] = {
        "pareto": pareto(study, judge, finalists),
        "history": history(study, judge),
        "importance": importance(study),
        "parallel": parallel(study, judge),
        "stages": stage_costs(stages) if stages else None,
    }
    return {name: chart for name, chart in found.items() if chart is not None}
