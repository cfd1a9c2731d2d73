"""Whatever the OpenAPI document allows, and what it does not allow: never a 5xx, always what is documented."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from board_helpers import auth, content, scripted, submit
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from leaderboard.app import create_app
from leaderboard.board import open_board
from leaderboard.domain import contests, tokens
from leaderboard.service import api
from leaderboard.settings import BoardSettings
from scoring.rules import load_rule

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[FastAPI, list[dict[str, str]]]]:
    """A service with one ranked and one refused submission; headers of nobody, a team, an organiser, a wrong token."""
    directory = tmp_path_factory.mktemp("schema")
    settings = BoardSettings(
        directory=directory,
        requests_per_minute=10**9,
        writes_per_minute=10**9,
        max_upload_bytes=10_000,
        workers=0,  # each call starts and stops the application: worker threads would be most of the time
    )
    board = open_board(settings, scripted)
    with board.database.write() as session:
        contest = contests.create(session, "cifar", load_rule("lab"), daily_limit=10**6, total_limit=10**6)
        headers = auth(tokens.create(session, contests.add_team(session, contest, "Alpha")))
        organiser = auth(tokens.create(session, None))
        team = contests.find_team(session, contest, "Alpha")
    for script in ({"report": {}}, {"refuse": "no"}):
        submission, _ = submit(board, contest, team, content(**script))
        board.work.score(submission.id)
    board.close()
    app = create_app(settings, scripted, pages=False)
    yield app, [{}, headers, organiser, auth("contest_0000000000000000_" + "A" * 43)]
    app.state.board.database.engine.dispose()


def _document() -> FastAPI:
    """Only the API's routes: its document is the same, and no board is needed to collect the tests."""
    app = FastAPI()
    app.include_router(api.router)
    return app


schema = schemathesis.openapi.from_asgi("/openapi.json", _document())


def call(case: schemathesis.Case, app: FastAPI, headers: dict[str, str]) -> None:
    """With the ids and the contest that exist as well as with arbitrary ones."""
    path = dict(case.path_parameters or {})
    if "contest" in path and len(str(path["contest"])) % 2:
        path["contest"] = "cifar"
    if "submission" in path and isinstance(path["submission"], int):
        path["submission"] = path["submission"] % 3 or path["submission"]
    case.path_parameters = path
    response = case.call(app=app, headers=headers)
    case.validate_response(response, checks=CHECKS, headers=headers)


@schema.parametrize()
@hypothesis_settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_document_holds(case: schemathesis.Case, service: tuple[FastAPI, list[dict[str, str]]]) -> None:
    app, everybody = service
    for headers in everybody:
        call(case, app, headers)


@pytest.mark.slow
@schema.parametrize()
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_document_holds_at_length(case: schemathesis.Case, service: tuple[FastAPI, list[dict[str, str]]]) -> None:
    app, everybody = service
    for headers in everybody:
        call(case, app, headers)
