"""The pages of contests: all of them, one ranking with filters and orders, the rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import HTMLResponse, Response

from contest.errors import UsageError
from leaderboard.cache import Cache
from leaderboard.charts import accuracy_score
from leaderboard.domain import contests, ranking
from leaderboard.domain.ranking_cache import Section
from leaderboard.service.api import Slug, revision_tag
from leaderboard.storage.tables import Contest
from leaderboard.web.page import TheVisit, Visit

router = APIRouter()
PAGE_SIZE = 50
_PODIUM = 3
_CONVENTIONS = {
    "flops": "a multiply-accumulate counts 2: one multiplication, one addition",
    "macs": "a multiply-accumulate counts 1",
    "micronet": "multiplications scaled by bits / 32, additions at full precision, batch norm 3 an element",
}


@dataclass(frozen=True)
class RankingView:
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


def parse(base: str, query: Mapping[str, str]) -> RankingView:
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
    return RankingView(
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
        view, notice = RankingView(base), str(error)
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


def _ranking_page(visit: Visit, contest: Contest, view: RankingView, notice: str) -> dict[str, Any]:
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
        "best": best,
        "ranked_teams": ranked_teams,
        "newest": newest,
        "records": records,
    }


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
        coarse_step=ranking.COARSE_STEP,
    )
