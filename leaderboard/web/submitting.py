"""The form that takes a network in."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from contest.errors import ContestError
from leaderboard import contests, submissions
from leaderboard.api import Slug, submitting_team
from leaderboard.files import CHUNK
from leaderboard.models import Contest, Team
from leaderboard.problems import detail_of, status_of
from leaderboard.security import ForbiddenError, UnauthorizedError
from leaderboard.web.site import TheVisit, Visit, see_other

router = APIRouter()


@router.get("/contests/{slug}/submit")
def form(slug: Slug, visit: TheVisit) -> Response:
    """The form, for a team that is signed in; others are told how to."""
    with visit.board.database.read() as session:
        contest = contests.find(session, slug)
    return _form(visit, contest)


@router.post("/contests/{slug}/submissions")
async def submit(slug: Slug, visit: TheVisit) -> Response:
    """Take the form in: to the submission's page, or back to the form with the reason.

    Who may not submit is turned away before the body is read; the body is limited while it streams (`limits`). The
    script asks for JSON, to show progress; a browser without it gets a redirect.
    """

    def begin() -> tuple[Contest, Team]:
        with visit.board.database.read() as session:
            contest = contests.find(session, slug)
            team = submitting_team(session, contest, visit.viewer)
            submissions.check_open(session, contest, team)
            return contest, team

    script = "application/json" in visit.request.headers.get("accept", "")
    try:
        contest, team = await run_in_threadpool(begin)
    except UnauthorizedError as error:
        raise ForbiddenError("sign in with your team's token to submit") from error
    async with visit.request.form(max_files=1, max_fields=5) as fields:
        file, note = fields.get("file"), fields.get("note", "")
        try:
            visit.check_csrf(fields.get("csrf"))
            path = await run_in_threadpool(_take, visit, contest, team, file, note if isinstance(note, str) else "")
        except ContestError as error:
            status, detail = status_of(error), detail_of(error)
            if script:
                return JSONResponse({"detail": detail}, status)
            return await run_in_threadpool(_form, visit, contest, detail, status)
    return JSONResponse({"location": path}) if script else see_other(path)


def _take(visit: Visit, contest: Contest, team: Team, file: object, note: str) -> str:
    """Store and enter the file; the path of the submission's page."""
    if not isinstance(file, UploadFile) or not file.filename:
        raise ForbiddenError("no file was chosen")
    source = file.file
    limit = min(contest.max_bytes, visit.board.settings.max_upload_bytes)
    stored = visit.board.files.take(iter(lambda: source.read(CHUNK), b""), limit)
    visit.request.app.state.metrics.uploads.inc(stored.size_bytes)
    submission, _ = visit.board.submit(contest, team, stored, name=file.filename, note=note)
    return f"/submissions/{submission.id}"


def _form(visit: Visit, contest: Contest, notice: str = "", status: int = 200) -> Response:
    team = visit.team if visit.viewer.contest_id == contest.id else None
    quota = None
    if team is not None:
        with visit.board.database.read() as session:
            quota = submissions.quota(session, contest, team)
    return visit.page(
        "submit.html", status=status, contest=contest, here="submit", notice=notice, may_submit=team is not None,
        quota=quota, note="", max_bytes=min(contest.max_bytes, visit.board.settings.max_upload_bytes),
        base_url=str(visit.request.base_url).rstrip("/"),
    )  # fmt: skip
