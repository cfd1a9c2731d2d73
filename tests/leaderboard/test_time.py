"""Opening, deadline, grace, extensions, practice, what counts, what organisers can undo, and the hidden final phase."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest
from board_helpers import auth, content, scripted, submit
from fastapi.testclient import TestClient
from sqlalchemy import select

from contest.errors import UsageError
from leaderboard.app import create_app
from leaderboard.board import Board
from leaderboard.domain import contests, final, queue, ranking, submissions, tokens
from leaderboard.domain.contests import ClosedError
from leaderboard.domain.submissions import QuotaError
from leaderboard.domain.tokens import Viewer
from leaderboard.settings import BoardSettings
from leaderboard.storage.tables import Contest, FinalResult, State, Submission, Team, now

HOUR = timedelta(hours=1)


def both(board: Board, name: str = "Alpha") -> tuple[Contest, Team]:
    with board.database.read() as session:
        contest = contests.find(session, "cifar")
        return contest, contests.find_team(session, contest, name)


def change(board: Board, **changes: Any) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), changes)


def change_team(board: Board, name: str = "Alpha", **changes: Any) -> None:
    with board.database.write() as session:
        contests.change_team(session, contests.find_team(session, contests.find(session, "cifar"), name), changes)


def enter(board: Board, at: datetime, name: str = "Alpha", **script: Any) -> Submission:
    contest, team = both(board, name)
    with board.files.incoming(10**6) as incoming:
        incoming.write(content(**script))
        return board.submit(contest, team, incoming, at=at)[0]


def ranked(board: Board) -> list[tuple[str, float]]:
    with board.database.read() as session:
        return [(row.team, row.score) for row in ranking.page(session, contests.find(session, "cifar")).rows]


def test_the_moment_of_the_accepted_upload_counts(any_board: Board) -> None:
    """It began before the deadline and is entered and scored long after it."""
    deadline = now() - HOUR
    change(any_board, deadline=deadline)
    entry = enter(any_board, deadline - timedelta(seconds=1), report={"score": 0.01})
    any_board.work.score(entry.id)
    assert (entry.late, entry.practice, ranked(any_board)) == (False, False, [("Alpha", 0.01)])
    with pytest.raises(ClosedError, match="is closed since"):
        enter(any_board, deadline + timedelta(seconds=1), report={}, n=1)


def test_grace_is_marked_and_an_extension_is_a_teams_own(any_board: Board) -> None:
    deadline = now() - HOUR
    change(any_board, deadline=deadline, grace_s=600)
    assert enter(any_board, deadline + timedelta(seconds=500), n=1).late
    with pytest.raises(ClosedError):
        enter(any_board, deadline + timedelta(seconds=700), n=2)
    change_team(any_board, "Beta", deadline=now() + HOUR)
    assert not enter(any_board, now(), "Beta", n=3).late
    with pytest.raises(ClosedError):
        enter(any_board, now(), "Alpha", n=4)


def test_nothing_is_taken_before_it_opens(board: Board) -> None:
    change(board, opens_at=now() + HOUR)
    with pytest.raises(ClosedError, match="opens at"):
        enter(board, now(), n=1)
    with pytest.raises(UsageError, match="open after its deadline"):
        change(board, deadline=now())


def test_practice_goes_on_and_is_never_ranked(any_board: Board) -> None:
    any_board.work.score(enter(any_board, now(), report={"score": 0.02}).id)
    change(any_board, deadline=now() - HOUR, practice=True)
    entry = enter(any_board, now(), report={"score": 0.001})
    any_board.work.score(entry.id)
    with any_board.database.read() as session:
        found = session.get_one(Submission, entry.id)
        assert found.practice and found.state == State.RANKED
        assert len(ranking.history(session, contests.find(session, "cifar"))) == 1
    assert ranked(any_board) == [("Alpha", 0.02)]


def test_own_quota_and_interval(any_board: Board) -> None:
    change(any_board, daily_limit=1, interval_s=3600)
    enter(any_board, now(), n=1)
    with pytest.raises(QuotaError, match="its 1 submissions of today"):
        enter(any_board, now(), n=2)
    change_team(any_board, daily_limit=5)
    with pytest.raises(QuotaError, match="may submit again at"):
        enter(any_board, now(), n=2)
    change_team(any_board, interval_s=0)
    enter(any_board, now(), n=2)
    enter(any_board, now(), "Beta", n=2)


def test_best_last_or_chosen(any_board: Board) -> None:
    numbers = []
    for score in (0.02, 0.01, 0.03):
        entry = enter(any_board, now(), report={"score": score})
        any_board.work.score(entry.id)
        numbers.append(entry.id)
    assert ranked(any_board) == [("Alpha", 0.01)]
    change(any_board, counts="last")
    assert ranked(any_board) == [("Alpha", 0.03)]
    change(any_board, counts="chosen")
    assert ranked(any_board) == [("Alpha", 0.01)], "nothing chosen: the best"
    with any_board.database.write() as session:
        _, team = both(any_board)
        submissions.choose(session, session.get_one(Team, team.id), session.get_one(Submission, numbers[0]))
    assert ranked(any_board) == [("Alpha", 0.02)]
    with any_board.database.write() as session, pytest.raises(UsageError, match="cannot count"):
        _, beta = both(any_board, "Beta")
        submissions.choose(session, session.get_one(Team, beta.id), session.get_one(Submission, numbers[0]))
    change(any_board, deadline=now() - HOUR)
    with any_board.database.write() as session, pytest.raises(ClosedError):
        submissions.choose(session, session.get_one(Team, team.id), session.get_one(Submission, numbers[1]))


def test_organisers_cancel_and_run_again_free_of_quota(any_board: Board) -> None:
    change(any_board, daily_limit=2)
    contest, team = both(any_board)
    first, second = (enter(any_board, now(), report={"score": 0.01 + n / 100}) for n in range(2))
    with any_board.database.write() as session:
        running = queue.claim(session, first.id, "worker", 60)
        queue.cancel(session, session.get_one(Submission, first.id), "the worker hangs")
    assert running is not None
    with any_board.database.write() as session:
        from board_helpers import make_report

        from leaderboard.domain.standings import judge

        assert queue.finish(session, running, judge(make_report(0.001), running.rule)) is None, "too late"
    with any_board.database.read() as session:
        found = session.get_one(Submission, first.id)
        assert found.state == State.CANCELLED and "the worker hangs" in found.reason
        assert submissions.quota(session, contest, team).today == 1
    any_board.work.score()
    assert ranked(any_board) == [("Alpha", 0.02)]
    with any_board.database.write() as session:
        queue.rerun(session, session.get_one(Submission, first.id))
        queue.rerun(session, session.get_one(Submission, second.id))
    assert ranked(any_board) == [], "what is being scored again is not ranked meanwhile"
    for _ in range(2):
        any_board.work.score()
    assert ranked(any_board) == [("Alpha", 0.01)]
    with any_board.database.read() as session:
        assert len(submissions.results(session, second.id)) == 2
        assert submissions.quota(session, contest, team).today == 0
    with any_board.database.write() as session, pytest.raises(UsageError, match="has ended already"):
        queue.cancel(session, session.get_one(Submission, second.id), "why")


def test_waiting_is_told(any_board: Board) -> None:
    for n in range(3):
        enter(any_board, now(), report={"score": 0.01}, n=n)
    with any_board.database.read() as session:
        assert queue.expected_s(session, 2) is None, "nothing was scored yet"
    any_board.work.score()
    with any_board.database.write() as session:
        done = session.get_one(Submission, 1)
        done.started_at, done.finished_at = now() - timedelta(seconds=40), now()
    with any_board.database.read() as session:
        assert queue.expected_s(session, 1) == pytest.approx(80, abs=1)


PUBLIC, PRIVATE = 0.913, 0.917437
PATHS = (
    "/",
    "/contests/cifar",
    "/contests/cifar/final",
    "/contests/cifar/chart.json",
    "/contests/cifar/plot.svg",
    "/contests/cifar/rules",
    "/contests/cifar/submit",
    "/submissions/1",
    "/submissions/1/state",
    "/submissions/1/layers.json",
    "/contests/cifar/teams/1",
    "/compare?id=1&id=2",
    "/metrics",
    "/readyz",
    "/api/v1/contests",
    "/api/v1/contests/cifar",
    "/api/v1/contests/cifar/ranking",
    "/api/v1/contests/cifar/points",
    "/api/v1/contests/cifar/records",
    "/api/v1/contests/cifar/submissions",
    "/api/v1/contests/cifar/final",
    "/api/v1/submissions/1",
    "/api/v1/submissions/1/report",
    "/api/v1/submissions/1/log",
    "/api/v1/me",
)


def sign_in(client: TestClient, token: str) -> dict[str, str]:
    if not token:
        return {}
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/login").text)
    assert found is not None
    client.post("/login", data={"token": token, "csrf": found[1]})
    return auth(token)


OTHER_EACH_TIME = "|".join(
    (
        r'name="csrf" value="[^"]+"',
        r"clip[0-9]+",
        r"gradient_[0-9]+",
        r"contest_http.*",
        r"contest_[a-z_]+_created.*",
        r"python_.*",
        r"process_.*",
    )
)


def answers(settings: BoardSettings, token: str) -> dict[str, tuple[int, str, str]]:
    """Of every path what a client sees, without what is another each time."""
    with TestClient(create_app(settings, scripted), raise_server_exceptions=False) as client:
        headers = sign_in(client, token)
        found = {}
        for path in PATHS:
            answer = client.get(path, headers=headers)
            text = re.sub(OTHER_EACH_TIME, "", answer.text)
            found[path] = answer.status_code, text, answer.headers.get("etag", "")
    return found


@pytest.mark.parametrize("asker", ["public", "team"])
def test_nothing_of_the_final_phase_leaks_before_its_moment(
    settings: BoardSettings, board: Board, asker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Page, API, ETag, metrics and log are the same before and after the private scoring, and hold none of it."""
    script = {"report": {"score": 0.01, "accuracy": PUBLIC}, "private": {"score": 0.01, "accuracy": PRIVATE}}
    board.work.score(enter(board, now(), **script).id)
    board.work.score(enter(board, now(), "Beta", report={"score": 0.02}, private={"score": 0.02, "accuracy": 0.6}).id)
    with board.database.write() as session:
        token = tokens.create(session, session.get_one(Team, 1)) if asker == "team" else ""
    change(board, deadline=now() - HOUR, final_at=now() + HOUR, final_data="private")
    quiet = BoardSettings(**{**vars(settings), "workers": 0, "sweep_s": 3600})
    before = answers(quiet, token)
    caplog.set_level("DEBUG")
    board.jobs.sweep()
    for _ in range(3):
        board.work.score()
    with board.database.read() as session:
        (first, second) = session.scalars(select(FinalResult).order_by(FinalResult.id))
        assert (first.accuracy, first.state, second.state) == (PRIVATE, State.RANKED, State.BELOW_THRESHOLD)
    after = answers(quiet, token)
    digits = str(PRIVATE)[2:]
    for path in PATHS:
        assert digits not in after[path][1] and "91.74" not in after[path][1], path
        assert after[path] == before[path], path
    assert digits not in caplog.text and "below_threshold" not in caplog.text
    assert after["/api/v1/contests/cifar/final"][0] == 403
    change(board, final_at=now() - timedelta(seconds=1))
    shown = answers(quiet, token)
    assert "91.74" in shown["/contests/cifar/final"][1] and digits in shown["/api/v1/contests/cifar/final"][1]


def test_the_final_phase_scores_the_counting_submission_once(any_board: Board) -> None:
    change(any_board, final_at=now() + HOUR, final_counts="last", final_data="private", deadline=now() + HOUR)
    for n, score in enumerate((0.01, 0.03)):
        script = {"report": {"score": score}, "private": {"score": score, "accuracy": 0.95}}
        any_board.work.score(enter(any_board, now(), n=n, **script).id)
    any_board.jobs.sweep()
    with any_board.database.read() as session:
        assert session.scalars(select(FinalResult)).all() == [], "the deadline has not passed"
    change(any_board, deadline=now() - HOUR)
    change_team(any_board, "Beta", deadline=now() + HOUR)
    any_board.jobs.sweep()
    with any_board.database.read() as session:
        assert session.scalars(select(FinalResult)).all() == [], "one team has an extension"
    change_team(any_board, "Beta", deadline=None)
    waiting = enter(any_board, now() - 2 * HOUR, "Beta", report={"score": 0.5}, private={"score": 0.5, "accuracy": 0.1})
    any_board.jobs.sweep()
    with any_board.database.read() as session:
        assert session.scalars(select(FinalResult)).all() == [], "the queue is not empty"
    any_board.work.score(waiting.id)
    any_board.jobs.sweep()
    any_board.jobs.sweep()
    for _ in range(4):
        any_board.work.score()
    with any_board.database.read() as session:
        rows = final.ranking(session, contests.find(session, "cifar"))
        assert [(row.rank, row.team.name, row.score, row.accuracy) for row in rows] == [
            (1, "Alpha", 0.03, 0.95),
            (None, "Beta", 0.5, 0.1),
        ]
        assert not final.may_see(contests.find(session, "cifar"), Viewer("team", 1, 1))
        assert final.may_see(contests.find(session, "cifar"), Viewer("admin"))


def test_a_dead_worker_loses_no_final_result(any_board: Board) -> None:
    any_board.work.score(enter(any_board, now(), report={}, private={"accuracy": 0.93}).id)
    change(any_board, final_at=now(), final_data="private", deadline=now() - HOUR)
    any_board.jobs.sweep()
    with any_board.database.write() as session:
        lost = final.claim(session, "worker", 60)
        session.execute(select(FinalResult)).scalar_one().lease_until = now() - timedelta(seconds=1)
    assert lost is not None
    any_board.jobs.sweep()
    any_board.work.score()
    with any_board.database.write() as session:
        from board_helpers import make_report

        from leaderboard.domain.standings import judge

        assert final.finish(session, lost, judge(make_report(0.9, 0.99), lost.rule), 3) is None
        assert session.execute(select(FinalResult)).scalar_one().accuracy == 0.93


def test_without_private_data_the_public_figures_are_final(any_board: Board) -> None:
    any_board.work.score(enter(any_board, now(), report={"score": 0.01}).id)
    change(any_board, final_at=now(), deadline=now() - HOUR)
    any_board.jobs.sweep()
    with any_board.database.read() as session:
        (row,) = final.ranking(session, contests.find(session, "cifar"))
        assert (row.rank, row.score, row.accuracy) == (1, 0.01, 0.91)


def test_a_worker_takes_what_a_rerun_left(board: Board) -> None:
    contest, team = both(board)
    number = submit(board, contest, team, content(report={}))[0].id
    board.work.score()
    with board.database.write() as session:
        queue.rerun(session, session.get_one(Submission, number))
    board.jobs.sweep()
    board.work.score()
    with board.database.read() as session:
        assert session.get_one(Submission, number).state == State.RANKED
