"""The API, version 1. Reading needs no token; submitting and one's own logs need a team's bearer token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel, TypeAdapter
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from leaderboard.board import Board
from leaderboard.domain import contests, final, queue, ranking, standings, submissions
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.ranking import HeldRecord, Point
from leaderboard.domain.tokens import ForbiddenError, Viewer
from leaderboard.service.access import (
    TheBoard,
    TheViewer,
    check_declared,
    check_public,
    declared_bytes,
    owned,
    problem,
    revision_tag,
    submitting_team,
    upload_limit,
)
from leaderboard.service.schemas import (
    CheckView,
    ContestView,
    EnteredView,
    FinalView,
    LogView,
    RankingView,
    SubmissionsView,
    SubmissionView,
    ViewerView,
    contest_view,
    final_view,
    next_step,
    report_json,
    submission_view,
)
from leaderboard.storage.database import Cache
from leaderboard.storage.file_store import TooLargeError
from leaderboard.storage.tables import Contest, State, Team, now

router = APIRouter(prefix="/api/v1", tags=["leaderboard"])

Slug = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,64}$", description="The contest's name.")]
Id = Annotated[int, Path(ge=1, le=2**31 - 1)]
Size = Annotated[int, Query(ge=1, le=200, description="Rows a page.")]
Text = Annotated[str, Query(max_length=120)]
Sha256 = Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$", description="The file's hash, if it is known.")]
IfNoneMatch = Annotated[str | None, Header()]

_POINTS, _RECORDS = TypeAdapter(list[Point]), TypeAdapter(list[HeldRecord])


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": Problem, "content": {"application/problem+json": {}}} for status in (*statuses, 422, 429, 503)
    }


@router.get("/contests", responses=_problems())
def list_contests(board: TheBoard) -> list[ContestView]:
    """All contests, the newest first."""
    with board.database.read() as session:
        return [contest_view(contest) for contest in contests.listing(session)]


@router.get("/contests/{contest}", responses=_problems(404))
def get_contest(contest: Slug, board: TheBoard) -> ContestView:
    """One contest."""
    with board.database.read() as session:
        return contest_view(contests.find(session, contest))


@router.get("/contests/{contest}/ranking", response_model=RankingView, responses={304: {}, **_problems(401, 404)})
def get_ranking(
    contest: Slug,
    board: TheBoard,
    viewer: TheViewer,
    request: Request,
    section: Literal["ranked", "below_threshold"] = "ranked",
    sort: Literal["", "score", "accuracy", "params", "ops", "team", "time"] = "",
    descending: bool = False,
    team: Annotated[str, Query(max_length=80, description="Part of a team's name.")] = "",
    max_score: Annotated[float | None, Query(ge=0, le=1e12)] = None,
    min_accuracy: Annotated[float | None, Query(ge=0, le=1)] = None,
    page: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
    size: Size = 50,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The best submission of each team: by score, ties by accuracy, then by time (below the threshold: by accuracy)."""

    def view(session: Session, found: Contest) -> bytes:
        result = ranking.page(
            session,
            found,
            section,
            sort=sort,
            descending=descending,
            query=team,
            max_score=max_score,
            min_accuracy=min_accuracy,
            page=page,
            size=size,
            whole=viewer.admin,
        )
        return (
            RankingView(
                section=section,
                total=result.total,
                page=result.page,
                pages=result.pages,
                size=result.size,
                rows=list(result.rows),
            )
            .model_dump_json()
            .encode()
        )

    return _revised(request, board, contest, viewer, if_none_match, view)


@router.get("/contests/{contest}/points", response_model=list[Point], responses={304: {}, **_problems(401, 404)})
def get_points(
    contest: Slug, board: TheBoard, viewer: TheViewer, request: Request, if_none_match: IfNoneMatch = None
) -> Response:
    """What a chart draws: the best of each team, at most 1,000 ranked and 1,000 below the threshold."""
    return _revised(
        request,
        board,
        contest,
        viewer,
        if_none_match,
        lambda session, found: _POINTS.dump_json(ranking.points(session, found, whole=viewer.admin)),
    )


@router.get("/contests/{contest}/records", response_model=list[HeldRecord], responses={304: {}, **_problems(401, 404)})
def get_records(
    contest: Slug, board: TheBoard, viewer: TheViewer, request: Request, if_none_match: IfNoneMatch = None
) -> Response:
    """The history of the record, the oldest first."""
    return _revised(
        request,
        board,
        contest,
        viewer,
        if_none_match,
        lambda session, found: _RECORDS.dump_json(ranking.history(session, found, whole=viewer.admin)),
    )


@router.get(
    "/contests/{contest}/submissions", response_model=SubmissionsView, responses={304: {}, **_problems(401, 404)}
)
def list_submissions(
    contest: Slug,
    board: TheBoard,
    viewer: TheViewer,
    request: Request,
    team_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    state: State | None = None,
    before: Annotated[int | None, Query(ge=1, le=2**31 - 1, description="The `next_before` of the last page.")] = None,
    size: Size = 50,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Submissions that the asker may see, the newest first."""

    def view(session: Session, found: Contest) -> bytes:
        rows = submissions.listing(session, found, viewer, team_id=team_id, state=state or "", before=before, size=size)
        views = [submission_view(row, found, viewer) for row in rows]
        next_before = rows[-1].id if len(rows) == size else None
        return SubmissionsView(submissions=views, next_before=next_before).model_dump_json().encode()

    if viewer.role == "public":  # who sees what is scored only, and that changes the contest's revision
        return _revised(request, board, contest, viewer, if_none_match, view, private=True)
    with board.database.read() as session:
        return Response(view(session, contests.find(session, contest)), media_type="application/json")


@router.post(
    "/contests/{contest}/submissions",
    status_code=202,
    responses={200: {"model": EnteredView}, **_problems(401, 403, 404, 408, 413)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def submit(
    contest: Slug,
    board: TheBoard,
    viewer: TheViewer,
    request: Request,
    response: Response,
    name: Annotated[str, Query(max_length=255, description="The file's name, for display.")] = "model.pt",
    note: Annotated[str, Query(max_length=500)] = "",
    sha256: Sha256 = "",
) -> EnteredView:
    """Submit a model file as the body. 202: queued; 200: the same file was there already.

    Whether the team may submit is checked before the body is read; with `sha256` also whether it is there already.
    """

    def begin() -> tuple[Contest, Team, EnteredView | None]:
        with board.database.read() as session:
            found = contests.find(session, contest)
            team = submitting_team(session, found, viewer)
            return found, team, _may_submit(session, found, team, viewer, sha256, declared_bytes(request))

    accepted = now()
    found, team, known = await run_in_threadpool(begin)
    limit = upload_limit(board, found)
    check_declared(request, limit, limit)
    if known is not None:
        response.status_code, response.headers["Connection"] = 200, "close"
        return known
    with board.uploading(team), board.files.incoming(limit) as incoming:
        async for chunk in request.stream():
            incoming.write(chunk)
        submission, new = await run_in_threadpool(
            board.submit, found, team, incoming, name=name, note=note, at=accepted
        )
    request.app.state.metrics.uploads.inc(incoming.size_bytes)
    response.status_code = 202 if new else 200
    response.headers["Location"] = f"/api/v1/submissions/{submission.id}"

    def view() -> SubmissionView:
        with board.database.read() as session:
            return submission_view(submissions.find(session, submission.id, viewer), found, viewer)

    return EnteredView(new=new, submission=await run_in_threadpool(view))


@router.get("/contests/{contest}/submissions/check", responses=_problems(401, 403, 404, 413))
def check_submission(
    contest: Slug,
    board: TheBoard,
    viewer: TheViewer,
    sha256: Sha256 = "",
    size_bytes: Annotated[int, Query(ge=0, le=2**40)] = 0,
) -> CheckView:
    """What an upload would be answered, asked before anything is sent. `known`: the same file is there already."""
    with board.database.read() as session:
        found = contests.find(session, contest)
        team = submitting_team(session, found, viewer)
        known = _may_submit(session, found, team, viewer, sha256, size_bytes)
        if known is None and size_bytes > (limit := upload_limit(board, found)):
            raise TooLargeError(limit)
        return CheckView(known=known.submission if known else None)


@router.get("/contests/{contest}/final", responses=_problems(401, 403, 404))
def get_final(contest: Slug, board: TheBoard, viewer: TheViewer) -> list[FinalView]:
    """The final ranking, once it is public."""
    with board.database.read() as session:
        found = contests.find(session, contest)
        if not final.may_see(found, viewer):
            raise ForbiddenError(f"contest '{contest}' shows no final ranking now")
        return [final_view(row, found, viewer) for row in final.ranking(session, found)]


@router.post("/submissions/{submission}/choose", responses=_problems(401, 403, 404))
def choose(submission: Id, board: TheBoard, viewer: TheViewer) -> SubmissionView:
    """Say that this submission of the team counts, where a contest leaves that to the teams."""
    with board.database.write() as session:
        found = owned(session, submission, viewer)
        submissions.choose(session, submitting_team(session, found.contest, viewer), found)
        return submission_view(found, found.contest, viewer)


@router.get("/submissions/{submission}", responses=_problems(401, 404))
def get_submission(submission: Id, board: TheBoard, viewer: TheViewer) -> SubmissionView:
    """One submission."""
    with board.database.read() as session:
        found = submissions.find(session, submission, viewer)
        return submission_view(found, found.contest, viewer)


@router.get("/submissions/{submission}/report", responses=_problems(401, 404))
def get_report(submission: Id, board: TheBoard, viewer: TheViewer) -> dict[str, Any]:
    """What `contest score --json` says of the file: terms, layers, checks."""
    with board.database.read() as session:
        found = submissions.find(session, submission, viewer)
        report = submissions.latest_report(session, submission)
        if report is None:
            raise NotFoundError(f"submission {submission} has no report (state: {found.state})")
        return report_json(report, found.contest, viewer)


@router.get("/submissions/{submission}/log", responses=_problems(401, 403, 404))
def get_log(submission: Id, board: TheBoard, viewer: TheViewer) -> LogView:
    """What happened so far, for the owner."""
    with board.database.read() as session:
        found = owned(session, submission, viewer)
        reason = submission_view(found, found.contest, viewer).reason or ""
        waiting = queue.ahead(session, found) if found.state == State.QUEUED else None
        hidden = standings.coarse(found.contest) and not viewer.admin
        lines = [] if hidden else list(submissions.shown_log(found))
        expected_s = None if waiting is None else queue.expected_s(session, waiting)
        return LogView(
            state=found.state,
            reason=reason,
            next_step=next_step(found.state),
            lines=lines,
            ahead=waiting,
            expected_s=expected_s,
        )


@router.get("/submissions/{submission}/file", response_class=FileResponse, responses=_problems(401, 403, 404))
def get_file(submission: Id, board: TheBoard, viewer: TheViewer) -> Response:
    """The submitted file, for its owner and organisers."""
    with board.database.read() as session:
        found = owned(session, submission, viewer)
    path = board.files.path(found.sha256)
    if not path.is_file():
        return problem(404, f"the file of submission {submission} is not here any more")
    return FileResponse(path, media_type="application/octet-stream", filename=found.file_name)


@router.get("/me", responses=_problems(401))
def get_me(board: TheBoard, viewer: TheViewer) -> ViewerView:
    """Who the token belongs to, and what is left of the quota."""
    with board.database.read() as session:
        team = session.get(Team, viewer.team_id) if viewer.team_id else None
        left = submissions.quota(session, team.contest, team) if team else None
        return ViewerView(
            role=viewer.role,
            team_id=viewer.team_id,
            team=team.name if team else None,
            contest=team.contest.slug if team else None,
            left_today=left.today if left else None,
            left_total=left.total if left else None,
        )


def _may_submit(
    session: Session, contest: Contest, team: Team, viewer: Viewer, sha256: str, size_bytes: int
) -> EnteredView | None:
    """The same file's submission, if it is there; else raises unless the team may submit now."""
    known = submissions.find_same(session, team, sha256) if sha256 else None
    if known is not None and known.state not in submissions.AGAIN:
        return EnteredView(new=False, submission=submission_view(known, contest, viewer))
    if known is None:
        submissions.check_may_submit(session, contest, team, size_bytes)
    return None


def _revised(
    request: Request,
    board: Board,
    contest: str,
    viewer: Viewer,
    if_none_match: str | None,
    view: Callable[[Session, Contest], bytes],
    *,
    private: bool = False,
) -> Response:
    """Answer from the ranking, or 304 when the asker has this revision. An answer is made once for each revision.

    `private`: the answer holds nothing of a private ranking.
    """
    answers: Cache[bytes] = request.app.state.answers
    with board.database.read() as session:
        found = contests.find(session, contest)
        if not private:
            check_public(found, viewer)
        question = (request.url.path, request.url.query)
        tag = revision_tag(found, viewer, *question)
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Vary": "Authorization"}
        if if_none_match and tag in (part.strip() for part in if_none_match.split(",")):
            return Response(status_code=304, headers=headers)
        answer = answers.get((found.id, *question), tag, lambda: view(session, found))
    return Response(answer, media_type="application/json", headers=headers)
