"""The pages of contests: all of them, one ranking with filters and orders and its charts, the rules.

Charts are specifications for Vega in the browser, and files for download.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response

from contest.errors import UsageError
from leaderboard.charts import accuracy_score
from leaderboard.charts.marks import Look
from leaderboard.charts.networks import layer_specification, layers_of
from leaderboard.domain import contests, final, ranking, standings, submissions
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.ranking import Section
from leaderboard.service.access import check_public, revision_tag
from leaderboard.service.api import Id, Slug
from leaderboard.service.schemas import final_view
from leaderboard.storage.database import Cache
from leaderboard.storage.tables import Contest
from leaderboard.terms import further, names_of
from leaderboard.web import formats
from leaderboard.web.page import TheVisit, Visit, said

router = APIRouter()
PAGE_SIZE = 50
_PODIUM = 3
_CONVENTIONS = {
    "flops": "a multiply-accumulate counts 2: one multiplication, one addition",
    "macs": "a multiply-accumulate counts 1",
    "micronet": "multiplications scaled by bits / 32, additions at full precision, batch norm 3 an element",
}


@dataclass(frozen=True)
class RankingQuery:
    """What a reader asked of the ranking, as it stands in the address."""

    base: str
    section: Section = "ranked"
    sort: str = ""
    descending: bool = False
    query: str = ""
    max_score: float | None = None
    min_accuracy: float | None = None
    """In percent, as people write it."""
    page: int = 1

    @property
    def filtered(self) -> bool:
        return bool(self.query) or self.max_score is not None or self.min_accuracy is not None

    def url(self, **changes: Any) -> str:
        """The address of this view with changes."""
        view = replace(self, **changes)
        wanted = {
            "section": view.section if view.section != "ranked" else "",
            "sort": view.sort,
            "descending": "1" if view.descending else "",
            "q": view.query,
            "max_score": "" if view.max_score is None else f"{view.max_score:g}",
            "min_accuracy": "" if view.min_accuracy is None else f"{view.min_accuracy:g}",
            "page": str(view.page) if view.page > 1 else "",
        }
        query = urlencode({key: value for key, value in wanted.items() if value})
        return f"{view.base}?{query}" if query else view.base

    def sorted_by(self, key: str, smaller_first: bool) -> str:
        """Order by a column; by the same again: the other way round."""
        descending = not self.descending if self.sort == key else not smaller_first
        return self.url(sort=key, descending=descending, page=1)

    def section_url(self, section: Section) -> str:
        return self.url(section=section, page=1)

    def page_url(self, page: int) -> str:
        return self.url(page=page)

    def unfiltered(self) -> str:
        return self.url(query="", max_score=None, min_accuracy=None, page=1)


def parse(base: str, query: Mapping[str, str]) -> RankingQuery:
    """A view from an address. Raises UsageError that names what makes no sense."""
    section = query.get("section") or "ranked"
    if section not in ranking.SECTIONS:
        raise UsageError(f"section '{section[:40]}' is none of {', '.join(ranking.SECTIONS)}")
    page = query.get("page") or "1"
    if not (page.isascii() and page.isdecimal() and 1 <= int(page[:9]) <= 1_000_000):
        raise UsageError(f"page '{page[:40]}' is no number from 1 on")
    sort = query.get("sort", "")
    if sort and sort not in ranking.SORTS:
        raise UsageError(f"sort '{sort[:40]}' is none of {', '.join(ranking.SORTS)}")
    return RankingQuery(
        base,
        "below_threshold" if section == "below_threshold" else "ranked",
        sort,
        query.get("descending") == "1",
        query.get("q", "").strip()[:80],
        _limit(query, "max_score"),
        _limit(query, "min_accuracy"),
        int(page),
    )


def _limit(query: Mapping[str, str], name: str) -> float | None:
    text = query.get(name, "").strip().replace(",", ".").removesuffix("%").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1e12:
        raise UsageError(f"{name.replace('_', ' ')} '{text[:40]}' is no number from 0 on")
    return value


@router.get("/")
def home(visit: TheVisit) -> Response:
    """All contests with their first three."""
    with visit.board.database.read() as session:
        boards = []
        for contest in contests.listing(session):
            private = contests.is_private(contest)
            rows = () if private else ranking.page(session, contest, size=_PODIUM, whole=visit.viewer.admin).rows
            boards.append({"contest": contest, "private": private, "rows": rows})
        return visit.page("home.html", boards=boards)


@router.get("/contests/{slug}")
def table(slug: Slug, visit: TheVisit) -> Response:
    """The ranking. For visitors it is made once for each revision and address."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
    base, notice = f"/contests/{slug}", ""
    try:
        view = parse(base, visit.request.query_params)
    except UsageError as error:
        view, notice = RankingQuery(base), str(error)
    if visit.signed_in or notice:
        return visit.page(**_ranking_page(visit, contest, view, notice), status=422 if notice else 200)
    tag = revision_tag(contest, visit.viewer, view.url(), str(contest.closed_at), visit.language)
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Cookie, Accept-Language"}
    if tag in (part.strip() for part in visit.request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    pages: Cache[str] = visit.request.app.state.pages
    html = pages.get(
        (contest.id, view.url(), visit.language), tag, lambda: visit.html(**_ranking_page(visit, contest, view, ""))
    )
    return HTMLResponse(html, headers=headers)


def _ranking_page(visit: Visit, contest: Contest, view: RankingQuery, notice: str) -> dict[str, Any]:
    data: dict[str, Any] = {"template": "ranking.html", "here": "ranking", "contest": contest, "view": view}
    if contests.is_private(contest) and not visit.viewer.admin:
        return {**data, "private": True, "notice": notice}
    with visit.board.database.read() as session:
        page = ranking.page(
            session,
            contest,
            view.section,
            sort=view.sort,
            descending=view.descending,
            query=view.query,
            max_score=view.max_score,
            min_accuracy=None if view.min_accuracy is None else view.min_accuracy / 100,
            page=view.page,
            size=PAGE_SIZE,
            whole=visit.viewer.admin,
        )
        newest = next(iter(contests.notices(session, contest)), None)
        best, ranked_teams = ranking.leader(session, contest, whole=visit.viewer.admin), ranking.count(session, contest)
        records = ranking.history(session, contest, whole=visit.viewer.admin)
    return {
        **data,
        "private": False,
        "notice": notice,
        "page": page,
        "further": names_of(further(row.measured) for row in page.rows),
        "best": best,
        "ranked_teams": ranked_teams,
        "newest": newest,
        "records": records,
    }


@router.get("/contests/{slug}/final")
def final_ranking(slug: Slug, visit: TheVisit) -> Response:
    """The final ranking, once it is public; before, when it will be."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        if contest.final_at is None:
            raise NotFoundError(f"contest '{slug}' has no final phase")
        rows = []
        if final.may_see(contest, visit.viewer):
            rows = [final_view(row, contest, visit.viewer) for row in final.ranking(session, contest)]
    return visit.page("final.html", contest=contest, here="final", rows=rows, public=final.public(contest))


@router.get("/contests/{slug}/news")
def news(slug: Slug, visit: TheVisit) -> Response:
    """The organiser's text, announcements and answers."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
        found = contests.notices(session, contest)
    return visit.page("news.html", contest=contest, here="news", notices=found)


@router.get("/contests/{slug}/rules")
def rules(slug: Slug, visit: TheVisit) -> Response:
    """What counts, and how."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
    rule = contests.rule_of(contest)
    return visit.page(
        "rules.html",
        contest=contest,
        here="rules",
        rule=rule,
        convention=_CONVENTIONS[rule.convention],
        references=accuracy_score.references(rule.name),
        coarse_step=standings.COARSE_STEP,
    )


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
        sections = [
            ranking.measured_places(session, contest, section, whole=visit.viewer.admin) for section in ranking.SECTIONS
        ]
    return [
        accuracy_score.ChartPoint(
            place.team,
            place.accuracy,
            place.score,
            params=place.params,
            ops=place.ops,
            further=further(measured),
            url=f"/submissions/{place.submission_id}",
            about=visit.say("submitted %(day)s", day=f"{submitted_at:%Y-%m-%d}"),
            network=_network(measured),
            baseline=place.baseline,
        )
        for found in sections
        for place, submitted_at, measured in found
    ]


def _network(measured: Mapping[str, Any]) -> dict[str, str]:
    """What was measured of a network, for the tooltip."""
    told = {
        "weights": formats.count(measured.get("nonzeros")),
        "MACs": formats.count(measured.get("macs")),
        "bits": f"{formats.bits(measured.get('q_w'))} / {formats.bits(measured.get('q_a'))}",
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
