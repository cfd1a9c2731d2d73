"""The pages: Jinja templates, a short script of our own, Vega from the vl-convert package. No build step."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from leaderboard.service.middleware import Buckets
from leaderboard.storage.database import Cache
from leaderboard.web import account, administration, page, ranking, submissions, teams, upload
from leaderboard.web.page import error_page

JOIN_FAILURES_PER_MINUTE = 10
router = APIRouter(include_in_schema=False)
for part in (ranking, submissions, teams, upload, account, administration, page):
    router.include_router(part.router)


def mount(app: FastAPI) -> None:
    """Errors of pages become pages; what all visitors see alike is kept until the ranking changes."""
    app.state.error_page = error_page
    app.state.join_failures = Buckets(JOIN_FAILURES_PER_MINUTE)
    app.state.pages, app.state.charts = Cache[str](200), Cache[bytes](60)
