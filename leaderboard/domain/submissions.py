"""A submission: who may hand in, when and how much; what becomes of it, and who sees it.

What keeps it true whatever dies: a file is on disk before its row is committed; a row is committed before anybody is
told; `queue` says which worker's result is taken.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, defer, joinedload

from contest.errors import ContestError, UsageError
from leaderboard.domain import ranking, standings
from leaderboard.domain.contests import ClosedError, NotFoundError, is_private
from leaderboard.domain.tokens import PUBLIC, Viewer
from leaderboard.storage.file_store import StoredFile
from leaderboard.storage.tables import SCORED, Contest, Result, State, Submission, Team, now
from leaderboard.text import file_name, one_line
from scoring.report import Report


class QuotaError(ContestError):
    """The team has used up its submissions."""

    exit_code = 3


class DisqualifiedError(ContestError):
    """The team may not submit any more."""

    exit_code = 3


@dataclass(frozen=True)
class Quota:
    """How many submissions a team has left."""

    today: int
    total: int


@dataclass(frozen=True)
class Admission:
    """How an upload comes in."""

    practice: bool = False
    late: bool = False


def check_open(session: Session, contest: Contest, team: Team, at: datetime | None = None) -> Admission:
    """Raise unless the team may submit: asked before a body is read, and again, for that moment, when it is entered.

    So an upload that began in time counts, however long it takes to arrive and to be scored.
    """
    at = at or now()
    if team.disqualified_at is not None:
        raise DisqualifiedError(f"team '{team.name}' is disqualified: {team.disqualified_reason}")
    if contest.opens_at is not None and at < contest.opens_at:
        raise ClosedError(f"contest '{contest.slug}' opens at {contest.opens_at:%Y-%m-%d %H:%M} UTC")
    end = team.deadline or contest.deadline
    ended = contest.closed_at is not None and at >= contest.closed_at
    if ended or (end is not None and at > end + timedelta(seconds=contest.grace_s)):
        if contest.practice:
            return Admission(practice=True)
        over = contest.closed_at if ended else end
        raise ClosedError(f"contest '{contest.slug}' is closed since {over:%Y-%m-%d %H:%M} UTC")
    return Admission(late=end is not None and at > end)


def quota(session: Session, contest: Contest, team: Team) -> Quota:
    """What is left of the daily (UTC) and the total limit. Attempts that failed through our fault do not count."""
    midnight = datetime.combine(now().date(), datetime.min.time(), tzinfo=UTC)
    mine = (Submission.team_id == team.id, Submission.our_fault.is_(False))
    used = session.scalar(select(func.count()).where(*mine)) or 0
    today = session.scalar(select(func.count()).where(*mine, Submission.created_at >= midnight)) or 0
    daily, total = limits(contest, team)
    return Quota(max(0, daily - today), max(0, total - used))


def limits(contest: Contest, team: Team) -> tuple[int, int]:
    """(a day, in total): the team's own, where an organiser gave it some."""
    return (
        contest.daily_limit if team.daily_limit is None else team.daily_limit,
        contest.total_limit if team.total_limit is None else team.total_limit,
    )


def disk_bytes(session: Session, team: Team) -> int:
    """What the files of a team take."""
    return session.scalar(select(func.sum(Submission.size_bytes)).where(Submission.team_id == team.id)) or 0


def check_interval(session: Session, contest: Contest, team: Team, at: datetime) -> None:
    """Raise QuotaError when the last upload of the team is too young."""
    interval = timedelta(seconds=contest.interval_s if team.interval_s is None else team.interval_s)
    if not interval:
        return
    mine = (Submission.team_id == team.id, Submission.our_fault.is_(False))
    last = session.scalar(select(func.max(Submission.created_at)).where(*mine))
    if last is not None and at < last + interval:
        raise QuotaError(f"team '{team.name}' may submit again at {last + interval:%Y-%m-%d %H:%M:%S} UTC")


def check_may_submit(
    session: Session, contest: Contest, team: Team, size_bytes: int = 0, at: datetime | None = None
) -> Admission:
    """Raise unless the team may submit another file now, of this size if that is known.

    Asked before a body is read, and again, under the team's lock, when the file is entered.
    """
    admission = check_open(session, contest, team, at)
    check_quota(session, contest, team)
    check_interval(session, contest, team, at or now())
    used = disk_bytes(session, team)
    if used + max(size_bytes, 1) > contest.team_bytes:
        raise QuotaError(
            f"the files of team '{team.name}' take {used / 2**20:.1f} MiB of {contest.team_bytes / 2**20:.0f} MiB; "
            "this one does not fit: ask the organisers for more room"
        )
    return admission


def check_quota(session: Session, contest: Contest, team: Team) -> None:
    """Raise QuotaError when nothing is left."""
    left = quota(session, contest, team)
    if left.total < 1:
        raise QuotaError(f"team '{team.name}' has used all {limits(contest, team)[1]} submissions of this contest")
    if left.today < 1:
        raise QuotaError(
            f"team '{team.name}' has used its {limits(contest, team)[0]} submissions of today; more after midnight UTC"
        )


log = logging.getLogger("leaderboard.submissions")


AGAIN = (State.FAILED, State.CANCELLED)
"""The same file handed in again is tried again."""


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
        requeue(known, "submitted again after a failure")
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
        log=log_line(f"received {stored.size_bytes} bytes, sha256 {stored.sha256}"),
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


def shown_log(submission: Submission) -> Sequence[str]:
    """The owner's log as lines."""
    return tuple(submission.log.splitlines())


def requeue(submission: Submission, why: str) -> None:
    submission.state, submission.reason, submission.our_fault = State.QUEUED, "", False
    submission.attempts, submission.claim, submission.lease_until, submission.retry_at = 0, "", None, None
    submission.announced_at = now()
    submission.log += log_line(why)


def log_line(text: str) -> str:
    return f"{now():%Y-%m-%d %H:%M:%S} {text}\n"
