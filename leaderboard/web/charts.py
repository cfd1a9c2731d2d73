"""Charts of the pages: specifications for Vega in the browser, files for download."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from fastapi.responses import Response

from leaderboard.cache import Cache
from leaderboard.charts import accuracy_score
from leaderboard.charts.layer_bars import layer_specification, layers_of
from leaderboard.charts.marks import Look
from leaderboard.domain import contests, ranking, submissions
from leaderboard.service.api import Id, Slug, check_public, revision_tag
from leaderboard.storage.tables import Contest
from leaderboard.web import formats
from leaderboard.web.language import said
from leaderboard.web.page import TheVisit, Visit

router = APIRouter()
Width = Annotated[int, Query(ge=240, le=2400, description="Pixels that the chart may take.")]
Theme = Literal["light", "dark"]
_TYPES = {"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"}
_STEP = 40
_AXIS = 84
"""What the y axis takes of the width, in pixels."""


def look_for(width: int, theme: Theme, visit: Visit) -> Look:
    """A chart that fits into so many pixels of a page; widths are rounded down so that few are made."""
    width = max(width // _STEP * _STEP, 280)
    narrow = width < 640
    return Look(
        width=width - _AXIS,
        height=round(min(max(0.48 * width, 300), 500)),
        font=12 if narrow else 14,
        small=10 if narrow else 12,
        note=11 if narrow else 12,
        dot=60 if narrow else 90,
        dark=theme == "dark",
        interactive=True,
        title=False,
        labels=8 if narrow else 80,
        language=visit.language,
        words=partial(said, visit.language),  # not the visit's own: looks are keys of what is kept
    )


@router.get("/contests/{slug}/chart.json")
def specification(slug: Slug, visit: TheVisit, width: Width = 1000, theme: Theme = "light") -> Response:
    """Accuracy against score, as a Vega-Lite document."""
    contest = _public(visit, slug)
    look = look_for(width, theme, visit)

    def make() -> bytes:
        rule = contests.rule_of(contest)
        return json.dumps(accuracy_score.specification(_points(visit, contest), rule, contest.threshold, look)).encode()

    return _cached(visit, contest, ("chart", look), make, "application/json")


@router.get("/contests/{slug}/plot.{kind}")
def plot(slug: Slug, kind: Literal["png", "svg", "pdf"], visit: TheVisit) -> Response:
    """The same chart as a file, ready for a slide."""
    contest = _public(visit, slug)

    def make() -> bytes:
        rule = contests.rule_of(contest)
        title = visit.say("%(title)s: accuracy against score", title=contest.title)
        look = Look(language=visit.language, words=partial(said, visit.language))
        return accuracy_score.render(_points(visit, contest), rule, contest.threshold, kind, look=look, title=title)

    return _cached(visit, contest, ("plot", kind, visit.language), make, _TYPES[kind])


@router.get("/submissions/{submission}/layers.json")
def layers(submission: Id, visit: TheVisit, width: Width = 1000, theme: Theme = "light") -> Response:
    """Each layer's part of the score, as a Vega-Lite document."""
    with visit.board.database.read() as session:
        submissions.find(session, submission, visit.viewer)
        report = submissions.latest_report(session, submission)
    rows = layers_of(report)
    document = layer_specification(rows, look_for(width, theme, visit))
    return Response(json.dumps(document), media_type="application/json", headers={"Cache-Control": "no-store"})


def _public(visit: Visit, slug: str) -> Contest:
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
    check_public(contest, visit.viewer)
    return contest


def _points(visit: Visit, contest: Contest) -> list[accuracy_score.ChartPoint]:
    with visit.board.database.read() as session:
        found = ranking.points(session, contest, whole=visit.viewer.admin)
    return [
        accuracy_score.ChartPoint(
            p.team,
            p.accuracy,
            p.score,
            params=p.params,
            ops=p.ops,
            url=f"/submissions/{p.submission_id}",
            about=visit.say("submitted %(day)s", day=f"{p.submitted_at:%Y-%m-%d}"),
            network=_network(p),
            baseline=p.baseline,
        )
        for p in found
    ]


def _network(point: ranking.Point) -> dict[str, str]:
    """What was measured of a network, for the tooltip."""
    told = {
        "weights": formats.count(point.nonzeros),
        "MACs": formats.count(point.macs),
        "bits": f"{formats.bits(point.q_w)} / {formats.bits(point.q_a)}",
    }
    return {key: text for key, text in told.items() if formats.DASH not in text}


def _cached(
    visit: Visit, contest: Contest, what: tuple[object, ...], make: Callable[[], bytes], media_type: str
) -> Response:
    tag = revision_tag(contest, visit.viewer, *(str(part) for part in what), str(contest.closed_at))
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Cookie, Accept-Language"}
    if tag in (part.strip() for part in visit.request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    store: Cache[bytes] = visit.request.app.state.charts
    return Response(store.get((contest.id, *what), tag, make), media_type=media_type, headers=headers)
