"""A leaderboard from Python and from the command line: one elsewhere, over HTTP, or the one of this machine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from contest.errors import ContestError, UsageError
from leaderboard.storage.file_store import CHUNK
from leaderboard.storage.tables import TERMINAL, State

if TYPE_CHECKING:
    from leaderboard.settings import BoardSettings

POLL_S = 1.0
_POLL_SLOWEST_S = 10.0
_RETRIES = 5
_TOTAL_LOCAL = 1_000_000  # nobody needs a quota on their own machine


class ServerError(ContestError):
    """The leaderboard said no, or nothing."""

    exit_code = 3


class Client:
    """One leaderboard, and who we are there."""

    def __init__(self, url: str, token: str = "", transport: httpx.BaseTransport | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"'{url}' is no address of a leaderboard; it must begin with http:// or https://")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url.rstrip("/"), headers=headers, timeout=60, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def contest(self, name: str = "") -> dict[str, Any]:
        """A contest by name; without a name the token's own, else the newest."""
        if not name and "authorization" in self._http.headers:
            name = self._get("/api/v1/me")["contest"] or ""
        if name:
            return dict(self._get(f"/api/v1/contests/{name}"))
        found = self._get("/api/v1/contests")
        if not found:
            raise UsageError(f"there is no contest at {self._http.base_url}")
        return dict(found[0])

    def ranking(self, contest: str, section: str = "ranked") -> list[dict[str, Any]]:
        """All rows, page after page."""
        rows: list[dict[str, Any]] = []
        page, pages = 1, 1
        while page <= pages:
            answer = self._get(
                f"/api/v1/contests/{contest}/ranking", params={"section": section, "page": page, "size": 200}
            )
            rows += answer["rows"]
            page, pages = page + 1, answer["pages"]
        return rows

    def submit(self, contest: str, path: Path, note: str = "") -> tuple[dict[str, Any], bool]:
        """Upload a file: gives the submission and whether it is new. A lost connection is tried again: the same
        file is the same submission. Asked first: whether it is welcome, since a server that turns an upload away may
        hang up before its reason is read."""

        def body() -> Iterator[bytes]:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(CHUNK), b"")

        if not path.is_file():
            raise UsageError(f"file '{path}' does not exist")
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        size_bytes = path.stat().st_size
        asked = {"sha256": sha256, "size_bytes": size_bytes}
        known = self._get(f"/api/v1/contests/{contest}/submissions/check", params=asked)["known"]
        if known is not None:
            return dict(known), False
        answer = self._ask(
            lambda: self._http.post(
                f"/api/v1/contests/{contest}/submissions",
                params={"name": path.name, "note": note, "sha256": sha256},
                content=body(),
                headers={"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)},
            )
        )
        return dict(answer["submission"]), bool(answer["new"])

    def wait(
        self, submission: int, limit_s: float = 3600, on_state: Callable[[str], None] | None = None
    ) -> dict[str, Any]:
        """The submission once it has ended. Raises ServerError after `limit_s`."""
        deadline, pause = time.monotonic() + limit_s, POLL_S
        while True:
            found = dict(self._get(f"/api/v1/submissions/{submission}"))
            if on_state is not None:
                on_state(found["state"])
            if found["state"] in TERMINAL:
                return found
            if time.monotonic() > deadline:
                raise ServerError(f"submission {submission} is still {found['state']} after {limit_s:g} s")
            time.sleep(pause)
            pause = min(1.2 * pause, _POLL_SLOWEST_S)  # a class waits for an hour after its deadline

    def _get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        return self._ask(lambda: self._http.get(path, params=params))

    def _ask(self, request: Callable[[], httpx.Response]) -> Any:
        for attempt in range(_RETRIES):
            try:
                response = request()
            except httpx.TransportError as error:
                if attempt == _RETRIES - 1:
                    raise ServerError(f"{self._http.base_url} does not answer: {error}") from error
                time.sleep(min(2.0**attempt / 2, 8))
                continue
            if response.status_code == 503 and attempt < _RETRIES - 1:
                time.sleep(min(2.0**attempt / 2, 8))
                continue
            wait = response.headers.get("Retry-After", "")  # too many requests; a used-up quota names no seconds
            if response.status_code == 429 and wait.isdecimal() and attempt < _RETRIES - 1:
                time.sleep(min(int(wait), 60))
                continue
            if response.is_success:
                return response.json()
            raise ServerError(f"the leaderboard answers {response.status_code}: {_detail(response)}")
        raise AssertionError("unreachable")


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase


def submit_here(
    file: Path, team: str, settings: BoardSettings, *, note: str = "", rule: str = "", contest: str = ""
) -> dict[str, Any]:
    """Score a file and enter it in the board of this machine: `contest submit FILE --team NAME`.

    rule: the contest of this rule, which begins if there is none; '': the newest contest, or one of rule lab.
    Returns the submission as the API gives it: `state`, `score`, `accuracy`, `reason` and the rest.
    """
    from leaderboard.board import enter_file
    from leaderboard.domain import contests, queue, submissions
    from leaderboard.domain.tokens import Viewer
    from leaderboard.scoring_queue import ScoringWork
    from leaderboard.service.schemas import submission_view
    from leaderboard.storage.database import open_database
    from leaderboard.storage.file_store import FileStore
    from scoring.rules import DEFAULT, load_rule

    asked = load_rule(rule) if rule else None
    database, files = open_database(settings), FileStore(settings.files)
    with database.write() as session:
        chosen = contests.the_only(session, contest, asked.name if asked else "")
        if chosen is None:
            begun = asked or load_rule(DEFAULT)
            chosen = contests.create(
                session, contest or begun.name, begun, daily_limit=_TOTAL_LOCAL, total_limit=_TOTAL_LOCAL
            )
        member = contests.find_or_add_team(session, chosen, team)
    with database.write() as session:
        queue.sweep(session, settings.attempts)  # a scoring that was interrupted here may be repeated
    with files.incoming(chosen.max_bytes) as incoming:
        incoming.read(file)
        submission, _ = enter_file(database, chosen, member, incoming, name=file.name, note=note)
    if submission.state == State.QUEUED:
        ScoringWork(settings, database, files).score(submission.id)
    with database.read() as session:
        viewer = Viewer("admin")
        found = submissions.find(session, submission.id, viewer)
        entry = submission_view(found, found.contest, viewer).model_dump(mode="json")
    database.close()
    return entry
