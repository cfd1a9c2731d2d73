"""A submission's life: entered, claimed, scored, ended. The row is the queue's record; messages only wake workers.

What keeps it true whatever dies: a file is on disk before its row is committed; a row is committed before anybody is
told; a worker owns a submission only while its lease lasts, and a result is taken only from the claim that owns it;
`sweep` gives back what a dead worker held and announces again what nobody heard of.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, defer, joinedload

from contest.errors import UsageError
from leaderboard.domain import copies, ranking, standings
from leaderboard.domain.admission import check_may_submit, check_open
from leaderboard.domain.contests import NotFoundError, is_private, record, rule_columns, scoring_rule
from leaderboard.domain.standings import Verdict
from leaderboard.domain.tokens import PUBLIC, Viewer
from leaderboard.storage.file_store import StoredFile
from leaderboard.storage.tables import SCORED, TERMINAL, Contest, Result, State, Submission, Team, now
from leaderboard.text import file_name, one_line
from scoring.report import Report
from scoring.rules import Rule

log = logging.getLogger("leaderboard.submissions")
ANNOUNCE_AGAIN = timedelta(seconds=30)
"""A queued submission whose message is older was perhaps never heard of."""


AGAIN = (State.FAILED, State.CANCELLED)
"""The same file handed in again is tried again."""
QUEUE_ORDER = (Submission.priority, Submission.id)
"""Whose turn it is. A message only wakes a worker, so one that goes back into the queue keeps its place."""


@dataclass(frozen=True)
class Claim:
    """One worker's right to score one submission, until the lease runs out."""

    submission_id: int
    name: str
    sha256: str
    file_name: str
    rule: Rule
    isolation: str


def find_same(session: Session, team: Team, sha256: str) -> Submission | None:
    """The submission of this content by this team."""
    same = (Submission.contest_id == team.contest_id, Submission.team_id == team.id, Submission.sha256 == sha256)
    return session.scalar(select(Submission).where(*same))


def enter(
    session: Session,
    contest: Contest,
    team: Team,
    stored: StoredFile,
    *,
    name: str = "",
    note: str = "",
    at: datetime | None = None,
) -> tuple[Submission, bool]:
    """Enter a stored file, whose upload was accepted `at`: gives the submission and whether it is new.

    The same file by the same team is the same submission, however often and however simultaneously it arrives; one
    that failed is tried again. Raises ClosedError, DisqualifiedError, QuotaError, UsageError.
    """
    note = one_line(note, "note", 500, required=False)
    # One upload at a time for each team: else two could both see the last free place of the quota.
    team = session.execute(select(Team).where(Team.id == team.id).with_for_update()).scalar_one()
    known = find_same(session, team, stored.sha256)
    if known is not None and known.state not in AGAIN:
        return known, False
    at = at or now()
    if known is not None:
        check_open(session, contest, team, at)
        _requeue(known, "submitted again after a failure")
        session.flush()
        return known, False
    admission = check_may_submit(session, contest, team, stored.size_bytes, at)
    submission = Submission(
        contest_id=contest.id,
        team_id=team.id,
        sha256=stored.sha256,
        size_bytes=stored.size_bytes,
        file_name=file_name(name),
        note=note,
        created_at=at,
        practice=admission.practice,
        late=admission.late,
        announced_at=now(),
        log=_line(f"received {stored.size_bytes} bytes, sha256 {stored.sha256}"),
    )
    session.add(submission)
    session.flush()
    return submission, True


def find(session: Session, submission_id: int, viewer: Viewer = PUBLIC) -> Submission:
    """A submission that the viewer may see. Raises NotFoundError, the same for hidden and for missing ones."""
    submission = session.scalar(
        select(Submission)
        .options(joinedload(Submission.team), joinedload(Submission.contest))
        .where(Submission.id == submission_id)
    )
    if submission is None or not visible(session, submission, viewer):
        raise NotFoundError(f"there is no submission {submission_id} that you may see")
    return submission


def visible(session: Session, submission: Submission, viewer: Viewer) -> bool:
    """Owners and organisers see everything; others see what is scored, once the ranking is public."""
    if viewer.owns(submission.team_id):
        return True
    if submission.state not in SCORED or is_private(submission.contest):
        return False
    shown = ranking.shown_teams(session, submission.contest)
    return shown is None or submission.team_id in shown


def listing(
    session: Session,
    contest: Contest,
    viewer: Viewer = PUBLIC,
    *,
    team_id: int | None = None,
    state: str = "",
    before: int | None = None,
    size: int = 50,
) -> list[Submission]:
    """Submissions that the viewer may see, the newest first; `before` is the last id of the page before."""
    filters: list[ColumnElement[bool]] = [Submission.contest_id == contest.id]
    if not viewer.admin:
        own = Submission.team_id == viewer.team_id
        public = and_(Submission.state.in_(SCORED), Team.disqualified_at.is_(None))
        if (shown := ranking.shown_teams(session, contest)) is not None:
            public = and_(public, Submission.team_id.in_(shown))
        if is_private(contest):
            filters.append(own)
        elif team_id is None or team_id != viewer.team_id:
            filters.append(public if viewer.team_id is None else or_(own, public))
    if team_id is not None:
        filters.append(Submission.team_id == team_id)
    if state:
        filters.append(Submission.state == state)
    if before is not None:
        filters.append(Submission.id < before)
    statement = (
        select(Submission)
        .join(Submission.team)
        .options(joinedload(Submission.team))
        .where(*filters)
        .order_by(Submission.id.desc())
        .limit(size)
    )
    return list(session.scalars(statement))


def previous(session: Session, submission: Submission) -> int | None:
    """The number of the team's scored submission before this one."""
    mine = (Submission.team_id == submission.team_id, Submission.id < submission.id, Submission.state.in_(SCORED))
    return session.scalar(select(func.max(Submission.id)).where(*mine))


def latest_result(session: Session, submission_id: int) -> Result | None:
    """The newest scoring with its report."""
    return session.scalar(
        select(Result).where(Result.submission_id == submission_id).order_by(Result.id.desc()).limit(1)
    )


def latest_report(session: Session, submission_id: int) -> Report | None:
    """The report of the newest scoring; None also for one of another version that this one cannot read."""
    result = latest_result(session, submission_id)
    try:
        return None if result is None else Report.from_json(result.report)
    except UsageError as error:
        log.warning("report of submission %d: %s", submission_id, error)
        return None


def results(session: Session, submission_id: int) -> list[Result]:
    """All scorings, the oldest first, without their reports: a new rule adds one and changes none."""
    mine = select(Result).where(Result.submission_id == submission_id).order_by(Result.id)
    return list(session.scalars(mine.options(defer(Result.report, raiseload=True))))


def claim(session: Session, submission_id: int | None, worker: str, lease_s: float) -> Claim | None:
    """Take a queued submission (None: the one whose turn it is); None when somebody else has it or it is done."""
    name = f"{worker[:50]}/{secrets.token_hex(8)}"
    due = or_(Submission.retry_at.is_(None), Submission.retry_at <= now())
    if submission_id is None:
        first = select(Submission.id).where(Submission.state == State.QUEUED, due).order_by(*QUEUE_ORDER).limit(1)
        submission_id = session.scalar(first.with_for_update(skip_locked=True))
        if submission_id is None:
            return None
    taken = session.execute(
        update(Submission)
        .where(Submission.id == submission_id, Submission.state == State.QUEUED)
        .values(
            state=State.RUNNING,
            claim=name,
            attempts=Submission.attempts + 1,
            started_at=now(),
            retry_at=None,
            lease_until=now() + timedelta(seconds=lease_s),
        )
    )
    if not taken.rowcount:  # type: ignore[attr-defined]
        return None
    row = session.get_one(Submission, submission_id)
    row.log += _line(f"scoring begins, attempt {row.attempts}")
    contest = session.get_one(Contest, row.contest_id)
    return Claim(submission_id, name, row.sha256, row.file_name, scoring_rule(contest), contest.isolation)


def heartbeat(session: Session, claim: Claim, lease_s: float) -> bool:
    """Prolong the lease; False when the submission is no longer this worker's."""
    kept = session.execute(
        update(Submission).where(*_held(claim)).values(lease_until=now() + timedelta(seconds=lease_s))
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


def finish(session: Session, claim: Claim, verdict: Verdict, attempts: int = 1) -> State | None:
    """Store how a scoring ended: gives the submission's state; None, and nothing is stored, when it is no longer ours.

    An verdict that may be better another time goes back to the queue, until `attempts` were made.
    """
    submission = session.scalar(select(Submission).where(*_held(claim)).with_for_update())
    if submission is None:
        return None
    if verdict.again and submission.attempts < attempts:
        submission.state, submission.claim, submission.lease_until = State.QUEUED, "", None
        submission.announced_at = now()  # so that `sweep` waits a while before it announces it again
        submission.retry_at = now() + ANNOUNCE_AGAIN
        submission.log += _line(f"{verdict.reason}; tried again in about {ANNOUNCE_AGAIN.total_seconds():.0f} s")
        return State.QUEUED
    contest = session.execute(select(Contest).where(Contest.id == submission.contest_id).with_for_update()).scalar_one()
    if verdict.state in SCORED and claim.rule.version != contest.rule_version:
        why = (
            f"{verdict.reason}; this is version {claim.rule.version} of the rule and the ranking is of version "
            f"{contest.rule_version}, so it counts once the organiser runs `contest admin rescore`"
        )
        verdict = replace(verdict, reason=why)
    _end(submission, verdict)
    if verdict.report is not None:
        session.add(
            Result(
                submission_id=submission.id,
                state=verdict.state,
                reason=verdict.reason,
                rule_name=claim.rule.name,
                rule_version=claim.rule.version,
                score=verdict.score,
                accuracy=verdict.accuracy,
                report=verdict.report.to_json(),
            )
        )
    for column, value in verdict.columns(claim.rule).items():
        setattr(submission, column, value)
    if verdict.report is not None and verdict.report.predictions is not None:
        copies.store(session, submission.id, contest.dataset, verdict.report.predictions)
    standings.update(session, contest, submission)
    return verdict.state


def release(session: Session, claim: Claim) -> None:
    """Give a submission back unscored (the worker is shutting down); the attempt does not count."""
    session.execute(
        update(Submission)
        .where(*_held(claim))
        .values(state=State.QUEUED, claim="", lease_until=None, announced_at=None, attempts=Submission.attempts - 1)
    )


def sweep(session: Session, attempts: int) -> list[int]:
    """Take back what dead workers held, and give the submissions that must be announced (again)."""
    present = now()
    lost = session.scalars(
        select(Submission)
        .where(Submission.state == State.RUNNING, Submission.lease_until < present)
        .with_for_update(skip_locked=True)
    ).all()
    for submission in lost:
        if submission.attempts >= attempts:
            reason = f"the scoring process died {submission.attempts} times; this does not count against your quota"
            _end(submission, Verdict(State.FAILED, reason, our_fault=True))
        else:
            submission.state, submission.claim, submission.lease_until = State.QUEUED, "", None
            submission.announced_at = None
            submission.log += _line("the worker fell silent; back in the queue")
    session.flush()
    unheard = session.scalars(
        select(Submission.id)
        .where(
            Submission.state == State.QUEUED,
            or_(Submission.announced_at.is_(None), Submission.announced_at < present - ANNOUNCE_AGAIN),
        )
        .order_by(*QUEUE_ORDER)
        .limit(500)
    ).all()
    if unheard:
        session.execute(update(Submission).where(Submission.id.in_(unheard)).values(announced_at=present))
    return list(unheard)


def rescore(session: Session, contest: Contest, rule: Rule, actor: str = "command line") -> int:
    """Put every submission back into the queue under a new rule; gives how many. Earlier results stay as they are."""
    for column, value in rule_columns(rule).items():
        setattr(contest, column, value)
    session.flush()
    queued = session.execute(
        update(Submission)
        .where(Submission.contest_id == contest.id)
        .values(
            state=State.QUEUED,
            claim="",
            lease_until=None,
            attempts=0,
            announced_at=None,
            our_fault=False,
            priority=1,
            retry_at=None,
        )
    )
    count = int(queued.rowcount)  # type: ignore[attr-defined]
    session.expire_all()
    standings.rebuild(session, contest)
    record(session, actor, "rescore", contest, rule=rule.name, version=rule.version, submissions=count)
    return count


def queued(session: Session, contest: Contest) -> list[int]:
    """The queued submissions of a contest, the oldest first."""
    mine = (Submission.contest_id == contest.id, Submission.state == State.QUEUED)
    return list(session.scalars(select(Submission.id).where(*mine).order_by(Submission.id)))


def cancel(session: Session, submission: Submission, reason: str, actor: str = "command line") -> None:
    """Take a waiting or running submission out; it does not count against the quota. A worker's result is dropped."""
    if submission.state in TERMINAL:
        raise UsageError(f"submission {submission.id} has ended already: {submission.state.replace('_', ' ')}")
    reason = one_line(reason, "reason", 500)
    _end(submission, Verdict(State.CANCELLED, f"cancelled by the organisers: {reason}", our_fault=True))
    record(session, actor, "cancel", submission.contest, submission=submission.id, reason=reason)


def rerun(session: Session, submission: Submission, actor: str = "command line") -> None:
    """Score a submission again, free of quota, at its own place in the queue. Earlier results stay stored."""
    contest = session.execute(select(Contest).where(Contest.id == submission.contest_id).with_for_update()).scalar_one()
    _requeue(submission, "scored again by the organisers")
    submission.announced_at = None
    standings.update(session, contest, submission)
    record(session, actor, "run again", contest, submission=submission.id)


def choose(session: Session, team: Team, submission: Submission) -> None:
    """The team says which of its submissions counts. Raises UsageError for one that cannot."""
    if submission.team_id != team.id or submission.state not in SCORED or submission.practice:
        raise UsageError(f"submission {submission.id} cannot count for team '{team.name}'")
    contest = session.execute(select(Contest).where(Contest.id == team.contest_id).with_for_update()).scalar_one()
    check_open(session, contest, team)
    team.chosen_id = submission.id
    session.flush()
    standings.update_team(session, contest, team.id)
    contest.revision += 1


def expected_s(session: Session, before: int) -> float | None:
    """Seconds until a submission with so many before it is scored, by the last twenty; None when none was scored."""
    ended = select(Submission.started_at, Submission.finished_at)
    ended = ended.where(Submission.state.in_((*SCORED, State.REFUSED)), Submission.finished_at.is_not(None))
    rows = session.execute(ended.order_by(Submission.id.desc()).limit(20)).all()
    times = [(end - start).total_seconds() for start, end in rows if start and end and end >= start]
    if not times:
        return None
    working = session.scalar(select(func.count()).where(Submission.state == State.RUNNING)) or 1
    return (before + 1) / working * sum(times) / len(times)


def queue_depth(session: Session) -> dict[str, int]:
    """Submissions that are queued or running, for metrics."""
    query = (
        select(Submission.state, func.count())
        .where(Submission.state.in_((State.QUEUED, State.RUNNING)))
        .group_by(Submission.state)
    )
    counts: dict[str, int] = {State.QUEUED: 0, State.RUNNING: 0}
    counts.update(session.execute(query).all())
    return counts


def ahead(session: Session, submission: Submission) -> int:
    """How many submissions are queued before this one."""
    mine, place = submission.priority, Submission.priority
    earlier = or_(place < mine, and_(place == mine, Submission.id < submission.id))
    return session.scalar(select(func.count()).where(Submission.state == State.QUEUED, earlier)) or 0


def shown_log(submission: Submission) -> Sequence[str]:
    """The owner's log as lines."""
    return tuple(submission.log.splitlines())


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return Submission.id == claim.submission_id, Submission.state == State.RUNNING, Submission.claim == claim.name


def _end(submission: Submission, verdict: Verdict) -> None:
    assert verdict.state in TERMINAL
    submission.state, submission.reason = verdict.state, verdict.reason
    submission.our_fault, submission.finished_at = verdict.our_fault, now()
    submission.claim, submission.lease_until, submission.priority = "", None, 0
    for line in verdict.log:
        submission.log += _line(line)
    submission.log += _line(f"{verdict.state}: {verdict.reason}")


def _requeue(submission: Submission, why: str) -> None:
    submission.state, submission.reason, submission.our_fault = State.QUEUED, "", False
    submission.attempts, submission.claim, submission.lease_until, submission.retry_at = 0, "", None, None
    submission.announced_at = now()
    submission.log += _line(why)


def _line(text: str) -> str:
    return f"{now():%Y-%m-%d %H:%M:%S} {text}\n"
