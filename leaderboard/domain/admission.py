"""Who may submit what, and when: dates, quotas, intervals, room on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contest.errors import ContestError
from leaderboard.domain.contests import ClosedError
from leaderboard.storage.tables import Contest, Submission, Team, now


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
