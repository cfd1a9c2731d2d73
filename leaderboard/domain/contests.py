"""Contests and teams: made, found, closed, reopened, disqualified; every change is written down as an event."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from contest.errors import ContestError, UsageError
from leaderboard.domain import standings
from leaderboard.storage.tables import Contest, Event, Notice, Submission, Team, now
from leaderboard.text import name_key, one_line, pseudonym, slug
from scoring.rules import Rule, load_rule
from scoring.rules import built_in as built_in_rules

CHANGEABLE = (
    "daily_limit",
    "total_limit",
    "team_bytes",
    "private_until",
    "feedback",
    "title",
    "about",
    "shown_names",
    "shown_places",
    "opens_at",
    "deadline",
    "grace_s",
    "interval_s",
    "practice",
    "counts",
    "final_at",
    "final_counts",
    "final_data",
)


COUNTS = ("best", "last", "chosen")


class NotFoundError(UsageError):
    """What was asked for does not exist, or not for whoever asked."""


class ClosedError(ContestError):
    """The contest takes no submissions."""

    exit_code = 3


def create(
    session: Session,
    name: str,
    rule: Rule,
    *,
    title: str = "",
    daily_limit: int = 10,
    total_limit: int = 500,
    max_bytes: int = 64 * 1024 * 1024,
    team_bytes: int = 2 * 1024**3,
    private_until: datetime | None = None,
    feedback: Literal["full", "coarse"] = "full",
    isolation: str = "",
    shown_names: Literal["names", "pseudonyms"] = "names",
    shown_places: int | None = None,
    actor: str = "command line",
) -> Contest:
    """A new contest, open at once. Raises UsageError when the name is taken or a limit makes no sense."""
    if session.scalar(select(Contest.id).where(Contest.slug == slug(name))) is not None:
        raise UsageError(f"contest '{name}' exists already; choose another name")
    for what, value in (
        ("daily limit", daily_limit),
        ("total limit", total_limit),
        ("size limit", max_bytes),
        ("limit of a team's files", team_bytes),
    ):
        if value < 1:
            raise UsageError(f"the {what} is {value}; it must be at least 1")
    from scoring.sandbox.limits import at_least  # 0.6 s, and only here

    at_least("none", isolation or None)  # UsageError for a name that is no level
    contest = Contest(
        slug=name,
        title=one_line(title or name, "title", 200),
        **rule_columns(rule),
        daily_limit=daily_limit,
        total_limit=total_limit,
        max_bytes=max_bytes,
        team_bytes=team_bytes,
        private_until=private_until,
        feedback=feedback,
        isolation=isolation,
        shown_names=shown_names,
        shown_places=shown_places,
    )
    session.add(contest)
    session.flush()
    record(session, actor, "create contest", contest, rule=rule.name, version=rule.version)
    return contest


def rule_columns(rule: Rule) -> dict[str, Any]:
    """What a contest's row keeps of its rule."""
    return {
        "rule_name": rule.name,
        "rule_version": rule.version,
        "rule": rule.to_json(),
        "dataset": rule.dataset,
        "threshold": float(rule.threshold),
    }


def rule_of(contest: Contest) -> Rule:
    """The rule as it was when the contest was made (or changed)."""
    return Rule.from_json(contest.rule)


def scoring_rule(contest: Contest) -> Rule:
    """The contest's rule under the version that this program scores by.

    A contest that was not rescored since keeps its ranking of the older version; new results do not stand in it.
    """
    rule = rule_of(contest)
    newest = load_rule(rule.name).version if rule.name in built_in_rules() else rule.version
    return dataclasses.replace(rule, version=max(rule.version, newest))


def told_rule(contest: Contest) -> str:
    """The rule, in one line, so that no organiser has another one than he thinks."""
    rule = rule_of(contest)
    built_in = load_rule(rule.name) if rule.name in built_in_rules() else rule
    newest = scoring_rule(contest).version
    unit = {"macs": "multiply-accumulates"}.get(rule.convention, "operations")
    told = (
        f"rule {rule.name} version {rule.version}: {rule.params_reference:,.0f} parameters, "
        f"{rule.operations_reference:,.0f} {unit}. {rule.history or built_in.history}"
    )
    if newest > rule.version:
        told = (
            f"{told.rstrip()} This program scores by version {newest}, so new results stand in no ranking: "
            f"`contest admin rescore --rule {rule.name}` moves the contest, and earlier results keep theirs."
        )
    return told.rstrip()


def find(session: Session, name: str) -> Contest:
    """A contest by its name. Raises NotFoundError."""
    contest = session.scalar(select(Contest).where(Contest.slug == name))
    if contest is None:
        raise NotFoundError(f"there is no contest '{name[:80]}'")
    return contest


def the_only(session: Session, name: str = "", rule: str = "") -> Contest | None:
    """The contest with this name, or without a name the newest (of that rule, where one is named); None without any."""
    found = select(Contest).order_by(Contest.id.desc()).limit(1)
    if name:
        found = found.where(Contest.slug == name)
    if rule:
        found = found.where(Contest.rule_name == rule)
    return session.scalar(found)


def listing(session: Session) -> list[Contest]:
    """All contests, the newest first."""
    return list(session.scalars(select(Contest).order_by(Contest.id.desc())))


def is_private(contest: Contest) -> bool:
    """Whether the ranking is still hidden from everybody but the organisers."""
    return contest.private_until is not None and contest.private_until > now()


def clock(contest: Contest) -> tuple[bool, bool, bool]:
    """What passes by itself: (opened, past the deadline, final ranking public). Part of every ETag."""
    moments = (contest.opens_at, contest.deadline, contest.final_at)
    return tuple(moment is not None and moment <= now() for moment in moments)  # type: ignore[return-value]


def change_team(session: Session, team: Team, changes: dict[str, Any], actor: str = "command line") -> None:
    """A team's own deadline and limits; None takes the contest's again."""
    for key, value in changes.items():
        if key not in ("deadline", "daily_limit", "total_limit", "interval_s"):
            raise UsageError(f"'{key}' of a team cannot be changed")
        if isinstance(value, int) and value < (0 if key == "interval_s" else 1):
            raise UsageError(f"the {key.replace('_', ' ')} is {value}; it must be at least 1")
        setattr(team, key, value)
    record(session, actor, "change team", team.contest, team=team.name, **{k: str(v) for k, v in changes.items()})


def close(session: Session, contest: Contest, actor: str = "command line") -> None:
    """Take no more submissions; what is queued is still scored."""
    if contest.closed_at is None:
        before, contest.closed_at = standings.coarse(contest), now()
        _shown_otherwise(session, contest, before)
        record(session, actor, "close", contest)


def reopen(session: Session, contest: Contest, actor: str = "command line") -> None:
    """Take submissions again."""
    if contest.closed_at is not None:
        before, contest.closed_at = standings.coarse(contest), None
        _shown_otherwise(session, contest, before)
        record(session, actor, "reopen", contest)


def change(session: Session, contest: Contest, changes: dict[str, Any], actor: str = "command line") -> None:
    """Change limits, privacy or feedback. Raises UsageError for a limit below 1."""
    before, counts = standings.coarse(contest), contest.counts
    for key, value in changes.items():
        if key not in CHANGEABLE:
            raise UsageError(f"'{key}' of a contest cannot be changed")
        if key == "shown_places" and value is not None and value < 1:
            raise UsageError(f"{value} places of the ranking cannot be shown; it must be at least 1")
        if key.endswith(("_limit", "_bytes")) and value < 1:
            raise UsageError(f"the {key.replace('_', ' ')} is {value}; it must be at least 1")
        if key.endswith("_s") and value < 0:
            raise UsageError(f"{key.removesuffix('_s')} is {value} s; it cannot be below 0")
        if key in ("counts", "final_counts") and value not in COUNTS:
            raise UsageError(f"what counts is '{value}', none of {', '.join(COUNTS)}")
        setattr(contest, key, value)
    if contest.opens_at and contest.deadline and contest.opens_at >= contest.deadline:
        raise UsageError("the contest would open after its deadline")
    if contest.counts != counts:
        standings.rebuild(session, contest)
    _shown_otherwise(session, contest, before)
    record(session, actor, "change", contest, **{key: str(value) for key, value in changes.items()})


def add_team(session: Session, contest: Contest, name: str, actor: str = "command line") -> Team:
    """A new team. Raises UsageError when a team of the contest has the name, in whatever case."""
    name = one_line(name, "team name", 80)
    if find_team_or_none(session, contest, name) is not None:
        raise UsageError(f"contest '{contest.slug}' has a team '{name}' already; choose another name")
    taken = set(session.scalars(select(Team.pseudonym).where(Team.contest_id == contest.id)))
    team = Team(contest_id=contest.id, name=name, name_key=name_key(name), pseudonym=pseudonym(taken.__contains__))
    session.add(team)
    session.flush()
    record(session, actor, "add team", contest, team=name)
    return team


def add_baseline(session: Session, contest: Contest, name: str, actor: str = "command line") -> Team:
    """A baseline of the organiser's: like a team, but without a rank and without limits."""
    team = find_team_or_none(session, contest, name)
    if team is not None and not team.baseline:
        raise UsageError(f"'{name}' is a team; choose another name for the baseline")
    team = team or add_team(session, contest, name, actor)
    team.baseline, team.daily_limit, team.total_limit, team.interval_s = True, 1000, 1000, 0
    session.flush()
    return team


def announce(
    session: Session, contest: Contest, title: str, body: str = "", *, answer: bool = False, actor: str = "command line"
) -> Notice:
    """Tell everybody something, or answer a question on the rules for everybody."""
    if len(body) > 20_000:
        raise UsageError(f"the text has {len(body)} characters; at most 20000 are allowed")
    notice = Notice(contest_id=contest.id, title=one_line(title, "title", 200), body=body, answer=answer)
    session.add(notice)
    session.flush()
    contest.revision += 1
    record(session, actor, "answer" if answer else "announce", contest, title=notice.title)
    return notice


def notices(session: Session, contest: Contest) -> list[Notice]:
    """Announcements and answers, the newest first."""
    mine = select(Notice).where(Notice.contest_id == contest.id).order_by(Notice.id.desc())
    return list(session.scalars(mine))


def validate(
    session: Session, submission: Submission, remark: str = "", *, undo: bool = False, actor: str = "command line"
) -> None:
    """Say that an organiser looked at a submission; the remark is public."""
    submission.validated_at = None if undo else now()
    submission.validated_remark = "" if undo else one_line(remark, "remark", 500, required=False)
    submission.contest.revision += 1
    action = "take validation back" if undo else "validate"
    record(session, actor, action, submission.contest, submission=submission.id, remark=remark)


def find_team(session: Session, contest: Contest, name: str) -> Team:
    """A team by its name. Raises NotFoundError."""
    team = find_team_or_none(session, contest, name)
    if team is None:
        raise NotFoundError(f"contest '{contest.slug}' has no team '{name[:80]}'")
    return team


def find_or_add_team(session: Session, contest: Contest, name: str, actor: str = "command line") -> Team:
    """The team with this name, made if there is none."""
    return find_team_or_none(session, contest, name) or add_team(session, contest, name, actor)


def teams(session: Session, contest: Contest, query: str = "", limit: int | None = None) -> list[Team]:
    """Teams of a contest by name: those that have `query` in it, at most `limit`."""
    statement = select(Team).where(Team.contest_id == contest.id).order_by(Team.name_key).limit(limit)
    if query:
        statement = statement.where(Team.name_key.contains(name_key(query), autoescape=True))
    return list(session.scalars(statement))


def count_teams(session: Session, contest: Contest) -> int:
    """How many teams a contest has."""
    return session.scalar(select(func.count()).where(Team.contest_id == contest.id)) or 0


def find_submission(session: Session, contest: Contest, number: int | None) -> Submission:
    """A submission of this contest. Raises NotFoundError."""
    found = session.get(Submission, number) if number is not None else None
    if found is None or found.contest_id != contest.id:
        raise NotFoundError(f"contest '{contest.slug}' has no submission {number}")
    return found


def disqualify_team(session: Session, team: Team, reason: str, actor: str = "command line") -> None:
    """Take a team out of the ranking; its submissions stay, with the reason. An empty reason is refused."""
    team.disqualified_reason = one_line(reason, "reason", 500)
    team.disqualified_at = now()
    _after_change(session, team, actor, "disqualify team", team=team.name, reason=team.disqualified_reason)


def readmit_team(session: Session, team: Team, actor: str = "command line") -> None:
    """Undo a disqualification."""
    team.disqualified_at, team.disqualified_reason = None, ""
    _after_change(session, team, actor, "readmit team", team=team.name)


def disqualify_submission(session: Session, submission: Submission, reason: str, actor: str = "command line") -> None:
    """Take one submission out of the ranking; the team's next best takes its place."""
    submission.disqualified_reason = one_line(reason, "reason", 500)
    submission.disqualified_at = now()
    told = {"submission": submission.id, "reason": submission.disqualified_reason}
    _after_change(session, submission.team, actor, "disqualify submission", **told)


def readmit_submission(session: Session, submission: Submission, actor: str = "command line") -> None:
    """Undo a disqualification."""
    submission.disqualified_at, submission.disqualified_reason = None, ""
    _after_change(session, submission.team, actor, "readmit submission", submission=submission.id)


def events(session: Session, contest: Contest, limit: int = 100) -> list[Event]:
    """What organisers did, the newest first."""
    query = select(Event).where(Event.contest_id == contest.id).order_by(Event.id.desc()).limit(limit)
    return list(session.scalars(query))


def record(session: Session, actor: str, action: str, contest: Contest | None, **details: Any) -> None:
    """Write down what an organiser did."""
    session.add(Event(actor=actor, action=action, contest_id=contest.id if contest else None, details=details))


def count_submissions(session: Session, contest: Contest) -> dict[str, int]:
    """How many submissions are in each state."""
    query = select(Submission.state, func.count()).where(Submission.contest_id == contest.id).group_by(Submission.state)
    return dict(session.execute(query).all())


def find_team_or_none(session: Session, contest: Contest, name: str) -> Team | None:
    """A team by its name, in whatever case."""
    return session.scalar(select(Team).where(Team.contest_id == contest.id, Team.name_key == name_key(name.strip())))


def _after_change(session: Session, of: Team, actor: str, action: str, **details: Any) -> None:
    """What counts of one team changed: its place, and perhaps the history of the record."""
    contest = session.execute(select(Contest).where(Contest.id == of.contest_id).with_for_update()).scalar_one()
    session.flush()
    standings.update_team(session, contest, of.id)
    standings.rebuild_records(session, contest)
    contest.revision += 1
    record(session, actor, action, contest, **details)


def _shown_otherwise(session: Session, contest: Contest, coarse_before: bool) -> None:
    """A contest looks different now; if accuracies count in other steps, so do the standings."""
    if standings.coarse(contest) != coarse_before:
        standings.rebuild(session, contest)
    contest.revision += 1
