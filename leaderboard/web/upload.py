"""The form that takes a network in, while it arrives: nothing of the file is kept in memory or in a second file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from contest.errors import ContestError, UsageError
from leaderboard.domain import contests, queue, submissions
from leaderboard.domain.tokens import ForbiddenError, UnauthorizedError
from leaderboard.service.access import check_declared, detail_of, status_of, submitting_team, upload_limit
from leaderboard.service.api import Slug
from leaderboard.service.middleware import FORM_OVERHEAD_BYTES
from leaderboard.storage.file_store import Incoming
from leaderboard.storage.tables import Contest, Team, now
from leaderboard.web.page import TheVisit, Visit, see_other

_FIELD_BYTES = 4096
_PARTS = 5


class UploadForm:
    """A multipart/form-data body in pieces: short fields into `fields`, the part FILE into an incoming file.

    `before_file` is called with the fields that stand before the file (a browser sends them in the form's order), so
    that a form can be turned away before its file has arrived. What it raises, and TooLargeError, `feed` raises.
    Raises UsageError for a body that is no such form.
    """

    def __init__(
        self, content_type: str, name: str, incoming: Incoming, before_file: Callable[[Mapping[str, str]], None]
    ) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UsageError("the body is no multipart/form-data with a boundary")
        self.fields: dict[str, str] = {}
        self.file_name = ""
        self._name, self._incoming, self._before_file = name, incoming, before_file
        self._parts, self._disposition, self._header, self._value = 0, b"", b"", b""
        self._field: str | None = None
        self._text = b""
        self._ended = False
        self._parser = MultipartParser(
            options[b"boundary"],
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_header,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
                "on_end": self._on_end,
            },
        )

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body."""
        try:
            self._parser.write(chunk)
        except MultipartParseError as error:
            raise UsageError("the form is damaged: its parts cannot be told apart") from error

    def finish(self) -> None:
        """The body has ended. Raises UsageError when its last part has not, or no file was in it."""
        if not self._ended:
            raise UsageError("the form is damaged: it breaks off")
        if not self.file_name:
            raise UsageError("no file was chosen")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise UsageError(f"the form has more than {_PARTS} parts")
        self._disposition, self._header, self._value, self._field, self._text = b"", b"", b"", None, b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header = self._limited(self._header + data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value = self._limited(self._value + data[start:end])

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _on_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        if name == self._name and b"filename" in options:
            if self.file_name:
                raise UsageError("the form has more than one file")
            self._before_file(self.fields)
            self.file_name = file_name
        else:
            self._field = name

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._field is None:
            self._incoming.write(data[start:end])
        else:
            self._text = self._limited(self._text + data[start:end])

    def _end(self) -> None:
        if self._field is not None:
            self.fields[self._field] = self._text.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self._ended = True

    def _limited(self, text: bytes) -> bytes:
        if len(text) > _FIELD_BYTES:
            raise UsageError(f"a field of the form has more than {_FIELD_BYTES} bytes")
        return text


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
        waiting = sum(queue.queue_depth(session).values())
        expected_s = queue.expected_s(session, waiting)
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
