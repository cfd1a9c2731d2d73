"""A submission's life, on every storage."""

from __future__ import annotations

import dataclasses
import threading
from datetime import timedelta

import pytest
from board_helpers import content, make_report
from board_helpers import submit as hand_in
from sqlalchemy import func, select, update

from contest.errors import UsageError
from leaderboard.board import Board
from leaderboard.domain import contests, queue, standings, submissions
from leaderboard.domain.contests import ClosedError, NotFoundError
from leaderboard.domain.queue import Claim
from leaderboard.domain.standings import judge
from leaderboard.domain.submissions import DisqualifiedError, QuotaError
from leaderboard.domain.tokens import PUBLIC, Viewer
from leaderboard.storage.file_store import StoredFile
from leaderboard.storage.tables import Contest, Result, Standing, State, Submission, Team, now
from scoring.rules import load_rule

LAB = load_rule("lab")


def contest_and_team(board: Board, team: str = "Alpha") -> tuple[Contest, Team]:
    with board.database.read() as session:
        contest = contests.find(session, "cifar")
        return contest, contests.find_team(session, contest, team)


def store(board: Board, **script: object) -> StoredFile:
    return board.files.take([content(**script)], 1000)


def submit(board: Board, team: str = "Alpha", **script: object) -> int:
    contest, member = contest_and_team(board, team)
    with board.database.write() as session:
        return submissions.enter(session, contest, member, store(board, **script))[0].id


def get(board: Board, number: int) -> Submission:
    with board.database.read() as session:
        return submissions.find(session, number, Viewer("admin"))


def claim(board: Board, number: int, lease_s: float = 60) -> Claim | None:
    with board.database.write() as session:
        return queue.claim(session, number, "worker", lease_s)


@pytest.mark.parametrize(
    ("script", "state", "fault", "words"),
    [
        ({"report": {"accuracy": 0.95, "score": 0.5}}, State.RANKED, False, "0.95"),
        ({"report": {"accuracy": 0.9}}, State.RANKED, False, "0.9"),
        ({"report": {"accuracy": 0.8999}}, State.BELOW_THRESHOLD, False, "0.8999"),
        ({"report": {"accuracy": None}}, State.FAILED, True, "no test data"),
        ({"report": {"status": "flagged", "problems": ["hides a table"]}}, State.REFUSED, False, "hides a table"),
        ({"report": {"score": float("nan")}}, State.FAILED, True, "no score"),
        ({"refuse": "it is a pickle"}, State.REFUSED, False, "it is a pickle"),
        ({"crash": 1}, State.FAILED, True, "no fault of yours"),
    ],
)
def test_every_ending_has_a_state_and_a_reason(
    board: Board, script: dict[str, object], state: State, fault: bool, words: str
) -> None:
    number = submit(board, **script)
    board.work.score(number)
    found = get(board, number)
    assert (found.state, found.our_fault) == (state, fault)
    assert words in found.reason
    assert str(board.settings.directory) not in found.reason + found.log  # no path of the machine
    assert "Traceback" not in found.log
    assert found.finished_at is not None and not found.claim


def test_the_row_keeps_what_was_measured(any_board: Board) -> None:
    number = submit(any_board, report={"score": 0.25, "accuracy": 0.93, "claimed": {"q_w": 2.0}})
    any_board.work.score(number)
    found = get(any_board, number)
    assert (found.score, found.params, found.ops, found.accuracy) == (0.25, 0.0625, 0.1875, 0.93)
    assert (found.rule_name, found.rule_version, found.isolation) == ("lab", LAB.version, "test")
    assert found.measured is not None and found.measured["q_w"] == 4.0 and found.claimed == {"q_w": 2.0}
    with any_board.database.read() as session:
        report = submissions.latest_result(session, number)
        assert report is not None and report.report["scores"]["lab"]["total"] == 0.25


def test_the_same_file_is_the_same_submission(any_board: Board) -> None:
    contest, team = contest_and_team(any_board)
    stored = store(any_board)
    with any_board.database.write() as session:
        first, new = submissions.enter(session, contest, team, stored)
    with any_board.database.write() as session:
        second, again = submissions.enter(session, contest, team, stored)
    assert (new, again, second.id) == (True, False, first.id)
    _, other = contest_and_team(any_board, "Beta")
    with any_board.database.write() as session:
        third, new = submissions.enter(session, contest, other, stored)
    assert new and third.id != first.id


def test_simultaneous_uploads_of_one_file_make_one_submission(any_board: Board) -> None:
    contest, team = contest_and_team(any_board)
    results = []
    barrier = threading.Barrier(8)

    def upload() -> None:
        barrier.wait()
        results.append(hand_in(any_board, contest, team, content(report={})))

    threads = [threading.Thread(target=upload) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8
    assert sum(new for _, new in results) == 1
    assert len({submission.id for submission, _ in results}) == 1


def test_the_last_place_of_a_quota_is_given_once(any_board: Board) -> None:
    with any_board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), {"daily_limit": 3})
    contest, team = contest_and_team(any_board)
    files = [content(note=i) for i in range(8)]
    results: list[str] = []
    barrier = threading.Barrier(8)

    def upload(data: bytes) -> None:
        barrier.wait()
        try:
            hand_in(any_board, contest, team, data)
            results.append("taken")
        except QuotaError:
            results.append("refused")

    threads = [threading.Thread(target=upload, args=(data,)) for data in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["refused"] * 5 + ["taken"] * 3


def test_quota_of_the_day_and_in_total_without_our_failures(board: Board) -> None:
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), {"daily_limit": 2, "total_limit": 3})
    contest, team = contest_and_team(board)
    with board.database.read() as session:
        assert submissions.quota(session, contest, team) == submissions.Quota(2, 3)
    board.work.score(submit(board, crash=1))  # our fault: not counted
    board.work.score(submit(board, refuse="no"))  # the team's: counted
    submit(board, n=1)
    with pytest.raises(QuotaError, match="today"):
        submit(board, n=2)
    with board.database.write() as session:
        for row in session.scalars(select(Submission)):
            row.created_at = now() - timedelta(days=2)
    submit(board, n=2)
    with pytest.raises(QuotaError, match="all 3"):
        submit(board, n=3)


def test_a_failure_is_tried_again_by_the_same_upload(board: Board) -> None:
    number = submit(board, crash=1)
    board.work.score(number)
    assert get(board, number).state == State.FAILED
    assert submit(board, crash=1) == number
    assert get(board, number).state == State.QUEUED and not get(board, number).our_fault


def test_a_machine_without_time_is_our_fault_and_tries_again(any_board: Board) -> None:
    """A child that overran the clock says nothing of the file: queued again, then failed, and never counted."""
    contest, team = contest_and_team(any_board)
    number = submit(any_board, late=1)
    for attempt in (1, 2):
        any_board.work.score(number)
        found = get(any_board, number)
        assert (found.state, found.attempts, found.claim) == (State.QUEUED, attempt, "")
        with any_board.database.write() as session:
            assert queue.sweep(session, attempts=3) == []  # not at once: the machine is busy
            session.get_one(Submission, number).announced_at = now() - timedelta(minutes=1)
        with any_board.database.write() as session:
            assert queue.sweep(session, attempts=3) == [number]
    any_board.work.score(number)
    found = get(any_board, number)
    assert (found.state, found.our_fault) == (State.FAILED, True) and "could not score" in found.reason
    assert found.log.count("tried again") == 2 and str(any_board.settings.directory) not in found.log
    with any_board.database.read() as session:
        assert submissions.quota(session, contest, team).today == contest.daily_limit
    assert submit(any_board, late=1) == number and get(any_board, number).state == State.QUEUED


def test_closed_and_disqualified_are_kept_out(board: Board) -> None:
    with board.database.write() as session:
        contest = contests.find(session, "cifar")
        contests.disqualify_team(session, contests.find_team(session, contest, "Beta"), "two accounts")
    with pytest.raises(DisqualifiedError, match="two accounts"):
        submit(board, "Beta")
    with board.database.write() as session:
        contests.close(session, contests.find(session, "cifar"))
    with pytest.raises(ClosedError):
        submit(board)
    with board.database.write() as session:
        contests.reopen(session, contests.find(session, "cifar"))
    submit(board)


def test_one_claim_only(any_board: Board) -> None:
    number = submit(any_board)
    claims, barrier = [], threading.Barrier(6)

    def take() -> None:
        barrier.wait()
        claims.append(claim(any_board, number))

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(c is not None for c in claims) == 1


def test_a_dead_workers_submission_goes_back_and_its_late_result_is_dropped(any_board: Board) -> None:
    number = submit(any_board)
    lost = claim(any_board, number, lease_s=-1)
    assert lost is not None
    with any_board.database.write() as session:
        assert queue.sweep(session, attempts=3) == [number]
    assert get(any_board, number).state == State.QUEUED
    taken = claim(any_board, number)
    assert taken is not None
    with any_board.database.write() as session:
        assert not queue.heartbeat(session, lost, 60)
        assert queue.heartbeat(session, taken, 60)
        assert not queue.finish(session, lost, judge(make_report(0.5), LAB))
        assert queue.finish(session, taken, judge(make_report(0.25), LAB))
    assert get(any_board, number).score == 0.25
    with any_board.database.read() as session:
        assert session.scalar(select(func.count()).select_from(Result)) == 1


def test_a_file_that_takes_workers_down_fails_in_the_end(any_board: Board) -> None:
    number = submit(any_board)
    for _ in range(3):
        assert claim(any_board, number, lease_s=-1) is not None
        with any_board.database.write() as session:
            queue.sweep(session, attempts=3)
    found = get(any_board, number)
    assert found.state == State.FAILED and found.our_fault and "died 3 times" in found.reason


def test_a_running_lease_is_left_alone(any_board: Board) -> None:
    number = submit(any_board)
    claim(any_board, number)
    with any_board.database.write() as session:
        assert queue.sweep(session, attempts=3) == []
    assert get(any_board, number).state == State.RUNNING


def test_what_comes_back_keeps_its_place(any_board: Board) -> None:
    """A worker takes the one whose turn it is, not the one that its message names."""
    first, second, third = (submit(any_board, report={}, n=n) for n in range(3))
    lost = claim(any_board, first)
    with any_board.database.write() as session:
        session.get_one(Submission, first).lease_until = now() - timedelta(seconds=1)
        queue.sweep(session, attempts=3)
    assert lost is not None
    with any_board.database.read() as session:
        assert [queue.ahead(session, session.get_one(Submission, n)) for n in (first, second, third)] == [0, 1, 2]
    taken = []
    for _ in range(4):
        with any_board.database.write() as session:
            found = queue.claim(session, None, "worker", 60)
            taken.append(found.submission_id if found else None)
    assert taken == [first, second, third, None]


def test_what_is_scored_anew_for_all_waits_behind_what_is_new(any_board: Board) -> None:
    old = submit(any_board, report={})
    any_board.work.score(old)
    with any_board.database.write() as session:
        queue.rescore(session, contests.find(session, "cifar"), load_rule("micronet"))
    new = submit(any_board, report={}, n=1)
    with any_board.database.write() as session:
        claims = [queue.claim(session, None, "worker", 60) for _ in range(2)]
    assert [c.submission_id for c in claims if c] == [new, old]


def test_a_pause_before_the_next_try_is_kept(any_board: Board) -> None:
    number = submit(any_board, late=1)
    any_board.work.score()
    assert get(any_board, number).state == State.QUEUED
    with any_board.database.write() as session:
        assert queue.claim(session, None, "worker", 60) is None, "its machine was too busy: not at once"
        session.get_one(Submission, number).retry_at = now() - timedelta(seconds=1)
    with any_board.database.write() as session:
        assert queue.claim(session, None, "worker", 60) is not None


def test_what_nobody_heard_of_is_announced_again_once(any_board: Board) -> None:
    number = submit(any_board)
    with any_board.database.write() as session:
        assert queue.sweep(session, 3) == []  # announced a moment ago
        session.get_one(Submission, number).announced_at = now() - timedelta(minutes=1)
    with any_board.database.write() as session:
        assert queue.sweep(session, 3) == [number]
        assert queue.sweep(session, 3) == []


def test_a_worker_that_stops_gives_back_without_counting(any_board: Board) -> None:
    number = submit(any_board)
    held = claim(any_board, number)
    assert held is not None
    with any_board.database.write() as session:
        queue.release(session, held)
    found = get(any_board, number)
    assert (found.state, found.attempts) == (State.QUEUED, 0)


def test_a_new_rule_queues_everything_and_keeps_old_results(any_board: Board) -> None:
    numbers = [submit(any_board, report={"score": s}) for s in (0.1, 0.2)]
    for number in numbers:
        any_board.work.score(number)
    with any_board.database.write() as session:
        contest = contests.find(session, "cifar")
        assert queue.rescore(session, contest, load_rule("micronet")) == 2
    for number in numbers:
        assert get(any_board, number).state == State.QUEUED
        any_board.work.score(number)
        found = get(any_board, number)
        assert (found.state, found.rule_name) == (State.RANKED, "micronet")
        with any_board.database.read() as session:
            assert [r.rule_name for r in submissions.results(session, number)] == ["lab", "micronet"]


def test_strangers_see_scored_submissions_only(board: Board) -> None:
    ranked, refused = submit(board, report={}), submit(board, refuse="no")
    for number in (ranked, refused):
        board.work.score(number)
    _, alpha = contest_and_team(board)
    _, beta = contest_and_team(board, "Beta")
    for viewer, seen in (
        (PUBLIC, [ranked]),
        (Viewer("team", beta.id, beta.contest_id), [ranked]),
        (Viewer("team", alpha.id, alpha.contest_id), [refused, ranked]),
        (Viewer("admin"), [refused, ranked]),
    ):
        with board.database.read() as session:
            contest = contests.find(session, "cifar")
            assert [row.id for row in submissions.listing(session, contest, viewer)] == seen
            if refused not in seen:
                with pytest.raises(NotFoundError):
                    submissions.find(session, refused, viewer)
    with board.database.write() as session:
        contests.change(session, contests.find(session, "cifar"), {"private_until": now() + timedelta(days=1)})
    with board.database.read() as session:
        contest = contests.find(session, "cifar")
        assert submissions.listing(session, contest, PUBLIC) == []
        assert len(submissions.listing(session, contest, Viewer("team", alpha.id, alpha.contest_id))) == 2
        with pytest.raises(NotFoundError):
            submissions.find(session, ranked, PUBLIC)


def test_a_damaged_file_is_our_fault(board: Board) -> None:
    number = submit(board, report={})
    board.files.path(get(board, number).sha256).write_bytes(b"other")
    board.work.score(number)
    found = get(board, number)
    assert (found.state, found.our_fault) == (State.FAILED, True) and "damaged" in found.reason


def test_notes_are_limited(board: Board) -> None:
    contest, team = contest_and_team(board)
    with pytest.raises(UsageError, match="501 characters"), board.database.write() as session:
        submissions.enter(session, contest, team, store(board), note="x" * 501)


def test_results_of_two_versions_never_stand_in_one_ranking(any_board: Board) -> None:
    """A contest of an older version keeps its ranking; what is scored since waits until it is brought forward."""
    old, new = submit(any_board, report={"score": 0.1}), submit(any_board, report={"score": 0.05})
    any_board.work.score(old)
    with any_board.database.write() as session:
        contest = contests.find(session, "cifar")
        earlier = dataclasses.replace(LAB, version=LAB.version - 1)
        for column, value in contests.rule_columns(earlier).items():
            setattr(contest, column, value)
        for table in (Submission, Result):
            session.execute(update(table).values(rule_version=earlier.version))
        standings.rebuild(session, contest)
    any_board.work.score(new)
    found = get(any_board, new)
    assert (found.state, found.rule_version) == (State.RANKED, LAB.version)
    assert f"version {LAB.version} of the rule and the ranking is of version {earlier.version}" in found.reason
    assert ranked(any_board) == [old]
    with any_board.database.write() as session:
        contest = contests.find(session, "cifar")
        told = contests.told_rule(contest)
        assert f"version {LAB.version}, so new results stand in no ranking: `contest admin rescore --rule lab`" in told
        assert queue.rescore(session, contest, LAB) == 2
        assert "rescore" not in contests.told_rule(contest)
    for number in (old, new):
        any_board.work.score(number)
    assert ranked(any_board) == [new]
    assert "admin rescore" not in get(any_board, new).reason
    with any_board.database.read() as session:
        versions = [result.rule_version for result in submissions.results(session, old)]
    assert versions == [earlier.version, LAB.version]


def ranked(board: Board) -> list[int]:
    """The submissions in the ranking, best first."""
    with board.database.read() as session:
        return list(session.scalars(select(Standing.submission_id).order_by(Standing.score)))
