"""The form that takes a network in."""

from __future__ import annotations

import contextlib
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from contest.errors import ContestError
from leaderboard.domain import contests, submissions
from leaderboard.service.api import Slug, check_declared, submitting_team, upload_limit
from leaderboard.service.problems import detail_of, status_of
from leaderboard.service.rate_limits import FORM_OVERHEAD_BYTES
from leaderboard.storage.signer import ForbiddenError, UnauthorizedError
from leaderboard.storage.tables import Contest, Team, now
from leaderboard.web.multipart import UploadForm
from leaderboard.web.page import TheVisit, Visit, see_other

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

    Who may not submit is turned away before the body is read, a form that this site did not send before its file is,
    and a file that is too large as soon as that is known. The script asks for JSON, to show progress; a browser
    without it gets a redirect.
    """

    def begin() -> tuple[Contest, Team]:
        with visit.board.database.read() as session:
            contest = contests.find(session, slug)
            team = submitting_team(session, contest, visit.viewer)
            # Here the file's hash is not known: the same file again needs a place that is free, as a new one does.
            submissions.check_may_submit(session, contest, team)
            return contest, team

    script = "application/json" in visit.request.headers.get("accept", "")
    accepted = now()
    try:
        contest, team = await run_in_threadpool(begin)
    except UnauthorizedError as error:
        raise ForbiddenError("sign in with your team's token to submit") from error
    try:
        path = await _take(visit, contest, team, accepted)
    except ContestError as error:
        status, detail = status_of(error), detail_of(error)
        if script:
            return JSONResponse({"detail": detail}, status)
        return await run_in_threadpool(_form, visit, contest, detail, status)
    return JSONResponse({"location": path}) if script else see_other(path)


async def _take(visit: Visit, contest: Contest, team: Team, accepted: datetime) -> str:
    """Store and enter the file; the path of the submission's page."""
    request, board = visit.request, visit.board
    limit = upload_limit(board, contest)
    check_declared(request, limit + FORM_OVERHEAD_BYTES, limit)
    with board.uploading(team), board.files.incoming(limit) as incoming:
        form = UploadForm(
            request.headers.get("content-type", ""),
            "file",
            incoming,
            before_file=lambda fields: visit.check_csrf(fields.get("csrf")),
        )
        async for chunk in request.stream():
            form.feed(chunk)
        form.finish()  # a form without a file ends here: none gets on without its token
        note = form.fields.get("note", "")
        submission, _ = await run_in_threadpool(
            board.submit, contest, team, incoming, name=form.file_name, note=note, at=accepted
        )
    request.app.state.metrics.uploads.inc(incoming.size_bytes)
    return f"/submissions/{submission.id}"


def _form(visit: Visit, contest: Contest, notice: str = "", status: int = 200) -> Response:
    team = visit.team if visit.viewer.contest_id == contest.id else None
    quota, practice = None, False
    with visit.board.database.read() as session:
        waiting = sum(submissions.queue_depth(session).values())
        expected_s = submissions.expected_s(session, waiting)
        if team is not None:
            quota = submissions.quota(session, contest, team)
            with contextlib.suppress(ContestError):  # what speaks against an upload stands on the page anyway
                practice = submissions.check_open(session, contest, team).practice
    return visit.page(
        "submit.html",
        status=status,
        contest=contest,
        here="submit",
        notice=notice,
        may_submit=team is not None,
        own_deadline=team.deadline if team else None,
        waiting=waiting,
        expected_s=expected_s,
        practice=practice,
        quota=quota,
        note="",
        max_bytes=upload_limit(visit.board, contest),
    )
