"""A team's pages: its submissions, its tries as a picture and a table, what the last costs, why its figures differ."""

from __future__ import annotations

import json
import re
from dataclasses import fields, replace
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.charts import networks as chart
from leaderboard.domain import contests, marks, ranking, submissions
from leaderboard.domain.claims import Own, explain
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.tokens import ForbiddenError
from leaderboard.service.access import owned
from leaderboard.service.api import Id, Slug
from leaderboard.service.schemas import SubmissionView, submission_view, team_name
from leaderboard.storage.tables import SCORED, Contest, Team
from leaderboard.terms import KEY, added_to, further
from leaderboard.web.page import TheVisit, Visit
from leaderboard.web.ranking import Theme, Width, look_for
from leaderboard.web.submissions import lines_of, report_for
from scoring.advice import Advice, advice
from scoring.costs import Costs
from scoring.report import Report

router = APIRouter()
PAGE_SIZE = 50
_DRAWN = 80
"""Of a team's tries the newest so many are drawn."""
_HELP = 5
"""So many layers are named where changes help most."""


@router.get("/contests/{slug}/teams/{team_id}/tries.csv")
def tries(slug: Slug, team_id: Id, visit: TheVisit) -> Response:
    """All submissions of one's own team as a table."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        if not visit.viewer.owns(team_id):
            raise ForbiddenError("only the team itself and organisers may see all its tries")
        rows = submissions.listing(session, contest, visit.viewer, team_id=team_id, size=10_000)
        views = [submission_view(row, contest, visit.viewer) for row in rows]
    table = [
        {
            "number": v.id,
            "submitted": f"{v.created_at:%Y-%m-%d %H:%M:%S}",
            "file": v.file_name,
            "note": v.note,
            "state": v.state,
            "reason": v.reason,
            "score": v.score,
            "params": v.params,
            "ops": v.ops,
            **further(v.measured),
            "accuracy": v.accuracy,
            **{key: value for key, value in (v.measured or {}).items() if key != KEY},
        }
        for v in reversed(views)
    ]
    keys = list(dict.fromkeys(key for row in table for key in row))
    text = marks.to_csv([{key: row.get(key, "") for key in keys} for row in table])
    headers = {"Content-Disposition": f'attachment; filename="{slug}-tries.csv"'}
    return Response(text.encode("utf-8-sig"), media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/contests/{slug}/teams/{team_id}/tries.json")
def tries_chart(
    slug: Slug, team_id: Id, visit: TheVisit, width: Width = 1000, theme: Theme = "light", x: chart.Axis = "score"
) -> Response:
    """A team's own tries by technique, with arrows from parent to child, as a Vega-Lite document."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        if not visit.viewer.owns(team_id):
            raise ForbiddenError("only the team itself and organisers may see all its tries")
        found = _scored(session, contest, visit, team_id, _DRAWN)
        drawn = [one for view in reversed(found) if (one := _try(session, contest, view)) is not None]
    rule = contests.rule_of(contest)
    look = replace(look_for(width, theme, visit), interactive=False)
    document = chart.specification(chart.linked(drawn), rule, contest.threshold, look, x=x)
    return Response(json.dumps(document), media_type="application/json", headers={"Cache-Control": "no-store"})


def _scored(session: Session, contest: Contest, visit: Visit, team_id: int, most: int) -> list[SubmissionView]:
    """The team's scored submissions, the newest first."""
    rows = submissions.listing(session, contest, visit.viewer, team_id=team_id, size=4 * most)
    return [submission_view(row, contest, visit.viewer) for row in rows if row.state in SCORED][:most]


def _try(session: Session, contest: Contest, view: SubmissionView) -> chart.Try | None:
    """A submission as a try, its accuracy as the viewer may see it; `parent 12` in its note names its parent."""
    report = submissions.latest_report(session, view.id)
    named = re.search(r"\bparent\W{0,3}(\d{1,9})", view.note, re.IGNORECASE)
    one = None
    if report is not None and view.accuracy is not None:
        one = chart.try_of(str(view.id), report, contest.rule_name, parent=named[1] if named else "")
    return replace(one, accuracy=view.accuracy, url=f"/submissions/{view.id}") if one and view.accuracy else None


@router.get("/contests/{slug}/teams/{team_id}")
def team(slug: Slug, team_id: Id, visit: TheVisit, before: Annotated[int | None, Query(ge=1)] = None) -> Response:
    """A team's submissions; to the team itself all of them, and what is left of its quota."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        shown = session.get(Team, team_id)
        if shown is None or shown.contest_id != contest.id:
            raise NotFoundError(f"contest '{slug}' has no team {team_id}")
        own = visit.viewer.owns(team_id)
        if contests.is_private(contest) and not own:
            raise NotFoundError(f"the teams of contest '{slug}' are not public yet")
        visible = ranking.shown_teams(session, contest)
        if visible is not None and team_id not in visible and not own:
            raise NotFoundError(f"contest '{slug}' has no team {team_id}")
        rows = submissions.listing(session, contest, visit.viewer, team_id=team_id, before=before, size=PAGE_SIZE + 1)
        left = submissions.quota(session, contest, shown) if own else None
        views = [submission_view(row, contest, visit.viewer) for row in rows[:PAGE_SIZE]]
        newest = _scored(session, contest, visit, team_id, 2) if own and before is None else []
        report = submissions.latest_report(session, newest[0].id) if newest else None
    older = views[-1].id if len(rows) > PAGE_SIZE else None
    return visit.page(
        "team.html",
        contest=contest,
        shown=shown,
        name=team_name(shown, contest, visit.viewer),
        submissions=views,
        quota=left,
        older=older,
        last=newest[0] if newest else None,
        helps=_helps(contest, report),
        previous=newest[1].id if len(newest) > 1 else None,
        changes=[row for row in lines_of(newest[::-1]) if row.cells[0].text != row.cells[1].text]
        if len(newest) > 1
        else [],
    )


def _helps(contest: Contest, report: Report | None) -> list[Advice]:
    """Where a change helps most; nothing where a report has no costs (those of earlier versions)."""
    if report is None or not report.costs:
        return []
    return advice(Costs.from_json(report.costs), contests.rule_of(contest))[:_HELP]


@router.get("/submissions/{submission}/why")
def why(submission: Id, visit: TheVisit) -> Response:
    """Why the team's own number differs: it types its figures, the page names known causes."""
    with visit.board.database.read() as session:
        found = owned(session, submission, visit.viewer)
        contest, report = found.contest, report_for(session, found, visit)
        before = submissions.previous(session, found)
        earlier = submissions.latest_report(session, before) if before is not None else None
    if report is None or contest.rule_name not in report.scores:
        raise NotFoundError(f"submission {submission} has no report")
    rule, notice, causes, figure = contests.rule_of(contest), "", [], None
    typed = {field.name: visit.request.query_params.get(field.name, "")[:40] for field in fields(Own)}
    try:
        own = Own(**{key: _own_number(key, text) for key, text in typed.items()})
        figure = own.total(rule, added_to(report.scores[rule.name]))
        causes = explain(report, rule, own, earlier) if any(typed.values()) else []
    except UsageError as error:
        notice = str(error)
    return visit.page(
        "why.html",
        status=422 if notice else 200,
        contest=contest,
        number=submission,
        typed=typed,
        causes=causes,
        figure=figure,
        score=report.scores[contest.rule_name].total,
        notice=notice,
    )


def _own_number(key: str, text: str) -> float | None:
    """A figure as people write it: 0.4, 40 %, 8.4e6, a decimal comma."""
    cleaned = text.strip().replace(",", ".").replace(" ", "")
    if not cleaned:
        return None
    try:
        value = float(cleaned.removesuffix("%")) / (100 if cleaned.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e15 or (key in ("p_s", "p_u") and value > 1):
        raise UsageError(f"{key.replace('_', ' ')} is '{text[:40]}', which cannot be")
    return value
