"""The roster: who is in which team, from a table of the organiser's; teams renamed, merged, given new tokens.

One row a person. `team` and `mail` are known by several names (also French and German), every other column is kept
and comes back with the marks.
"""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import contests, standings, tokens
from leaderboard.domain.tokens import ForbiddenError
from leaderboard.storage.tables import (
    Contest,
    JoinCode,
    Member,
    RecordEntry,
    Result,
    Standing,
    Submission,
    Team,
    Token,
    now,
)
from leaderboard.text import mail_address, name_key, one_line

_TEAM = ("team", "group", "équipe", "equipe", "groupe", "gruppe")
_MAIL = ("mail", "email", "e-mail", "mail address", "email address", "courriel", "adresse e-mail")
_NAME = ("name", "member", "student", "full name", "nom", "étudiant")
_REAL = ("real name", "team's real name")
MAX_ROWS = 5000


@dataclass(frozen=True)
class Person:
    """One row of a roster."""

    mail: str
    team: str = ""
    name: str = ""
    real_name: str = ""
    columns: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Handout:
    """A token for one person, to be handed out once."""

    team: str
    name: str
    mail: str
    token: str


@dataclass
class Imported:
    """What reading a roster changed."""

    handouts: list[Handout] = field(default_factory=list)
    teams: int = 0
    added: int = 0
    changed: int = 0


def parse(text: str) -> list[Person]:
    """The rows of a roster: commas, semicolons or tabs. Raises UsageError that names the line."""
    text = text.removeprefix("\ufeff")
    head = text.splitlines()[0] if text.strip() else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
    heads = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
    known = {
        what: next((heads[n] for n in names if n in heads), None)
        for what, names in (("team", _TEAM), ("mail", _MAIL), ("name", _NAME), ("real", _REAL))
    }
    if known["mail"] is None:
        raise UsageError(f"the roster's first line names no column of mails; it must have one of {', '.join(_MAIL)}")
    people: list[Person] = []
    seen: dict[str, int] = {}
    try:
        for row in reader:
            line = reader.line_num
            if None in row or None in row.values():
                raise UsageError(f"line {line} of the roster has another number of columns than the first line")
            if not any(value.strip() for value in row.values()):
                continue
            person = _person(row, known, line)
            if (before := seen.setdefault(person.mail.casefold(), line)) != line:
                raise UsageError(f"line {line} of the roster has the mail of line {before}: one row for each person")
            people.append(person)
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num} of the roster is no table row: {error}") from error
    if len(people) > MAX_ROWS:
        raise UsageError(f"the roster has {len(people)} rows; at most {MAX_ROWS} are allowed")
    return people


def _person(row: dict[str, str], known: dict[str, str | None], line: int) -> Person:
    def value(what: str) -> str:
        name = known[what]
        return row[name].strip() if name is not None else ""

    others = {key.strip(): text.strip()[:500] for key, text in row.items() if key not in known.values() and key.strip()}
    try:
        return Person(mail_address(value("mail")), value("team"), value("name")[:120], value("real")[:120], others)
    except UsageError as error:
        raise UsageError(f"line {line} of the roster: {error}") from error


def import_roster(
    session: Session, contest: Contest, people: Sequence[Person], actor: str = "command line"
) -> Imported:
    """Make teams and members; each new member of a team gets a token. Who is there already keeps theirs."""
    done = Imported()
    for person in people:
        team = None
        if person.team:
            team = contests.find_team_or_none(session, contest, person.team)
            if team is None:
                team = contests.add_team(session, contest, person.team, actor)
                done.teams += 1
            team.real_name = person.real_name or team.real_name
        member = find_member(session, contest, person.mail)
        if member is None:
            member = Member(contest_id=contest.id, mail=person.mail, mail_key=person.mail.casefold())
            session.add(member)
            done.added += 1
        elif (member.team_id, member.name, member.columns) != (team and team.id, person.name, person.columns):
            done.changed += 1
        moved = team is not None and member.team_id != team.id
        member.name, member.columns = person.name, person.columns
        if team is not None:
            member.team_id = team.id
        session.flush()
        if team is not None and (moved or member.joined_at is None):
            done.handouts.append(_hand_out(session, member, team))
    contests.record(session, actor, "read roster", contest, teams=done.teams, added=done.added, changed=done.changed)
    return done


def _hand_out(session: Session, member: Member, team: Team) -> Handout:
    """A token of a team for one of its members; another of theirs is useless from now on."""
    label = member.mail[:80]
    mine = select(Token.id).join(Team, Team.id == Token.team_id)
    mine = mine.where(Team.contest_id == team.contest_id, Token.label == label, Token.revoked_at.is_(None))
    session.execute(update(Token).where(Token.id.in_(mine)).values(revoked_at=now()))
    member.joined_at = now()
    return Handout(team.name, member.name, member.mail, tokens.create(session, team, label=label))


def find_member(session: Session, contest: Contest, mail: str) -> Member | None:
    """A person by mail."""
    same = (Member.contest_id == contest.id, Member.mail_key == mail.casefold())
    return session.scalar(select(Member).where(*same))


def members(session: Session, contest: Contest, team: Team | None = None) -> list[Member]:
    """The people of a contest, or of one team, by team and mail."""
    statement = select(Member).where(Member.contest_id == contest.id).order_by(Member.team_id, Member.mail_key)
    return list(session.scalars(statement.where(Member.team_id == team.id) if team is not None else statement))


def add_member(session: Session, team: Team, mail: str, name: str = "", actor: str = "command line") -> Handout:
    """A late member of a team (or one who changes the team): gives the token."""
    mail = mail_address(mail)
    member = find_member(session, team.contest, mail)
    if member is None:
        member = Member(contest_id=team.contest_id, mail=mail, mail_key=mail.casefold(), columns={})
        session.add(member)
    member.name = one_line(name, "name", 120, required=False) or member.name or ""
    member.team_id = team.id
    session.flush()
    contests.record(session, actor, "add member", team.contest, team=team.name, mail=mail)
    return _hand_out(session, member, team)


def rotate(session: Session, team: Team, actor: str = "command line") -> list[Handout]:
    """New tokens for a team (one for each member, or one), the old ones useless."""
    session.execute(update(Token).where(Token.team_id == team.id, Token.revoked_at.is_(None)).values(revoked_at=now()))
    contests.record(session, actor, "rotate tokens", team.contest, team=team.name)
    people = members(session, team.contest, team)
    if not people:
        return [Handout(team.name, "", "", tokens.create(session, team, label="rotated"))]
    return [_hand_out(session, member, team) for member in people]


def rename(
    session: Session, team: Team, name: str = "", real_name: str | None = None, actor: str = "command line"
) -> None:
    """Another name on the board, another one for organisers, or both. Raises UsageError when the name is taken."""
    before, contest = team.name, team.contest
    if name:
        name = one_line(name, "team name", 80)
        other = contests.find_team_or_none(session, contest, name)
        if other is not None and other.id != team.id:
            raise UsageError(f"contest '{contest.slug}' has a team '{name}' already; choose another name")
        team.name, team.name_key = name, name_key(name)
    if real_name is not None:
        team.real_name = one_line(real_name, "real name", 120, required=False)
    contest.revision += 1
    contests.record(session, actor, "rename team", contest, team=before, name=team.name)


def merge(session: Session, source: Team, into: Team, actor: str = "command line") -> None:
    """Give everything of one team to another, and remove it. The same file of both becomes one submission."""
    if source.id == into.id or source.contest_id != into.contest_id:
        raise UsageError("two different teams of one contest can be merged")
    contest = source.contest
    session.execute(select(Contest).where(Contest.id == contest.id).with_for_update())
    session.execute(delete(Standing).where(Standing.team_id == source.id))
    theirs = {s.sha256: s for s in session.scalars(select(Submission).where(Submission.team_id == into.id))}
    for submission in session.scalars(select(Submission).where(Submission.team_id == source.id)).all():
        if (same := theirs.get(submission.sha256)) is None:
            submission.team_id = into.id
            continue
        moved = update(Result).where(Result.submission_id == submission.id)
        session.execute(moved.values(submission_id=same.id))
        session.execute(delete(RecordEntry).where(RecordEntry.submission_id == submission.id))
        same.created_at = min(same.created_at, submission.created_at)
        session.delete(submission)
    for table in (Token, Member):
        session.execute(update(table).where(table.team_id == source.id).values(team_id=into.id))
    session.flush()
    name = source.name
    session.delete(source)
    session.flush()
    session.expire_all()
    standings.rebuild(session, contest)
    contests.record(session, actor, "merge teams", contest, team=name, into=into.name)


_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # nothing that reads like something else


class JoinError(ForbiddenError):
    """The code, the mail or the team does not let this person in."""


def new_code(
    session: Session, contest: Contest, domain: str = "", days: int | None = None, actor: str = "command line"
) -> JoinCode:
    """A new code for a class, good for so many days. `domain`: mails of it may join without being on the roster."""
    domain = one_line(domain, "domain", 120, required=False).casefold().removeprefix("@")
    if domain and "." not in domain:
        raise UsageError(f"'{domain}' is no domain of mails, as example.edu is one")
    text = "-".join("".join(secrets.choice(_LETTERS) for _ in range(4)) for _ in range(3))
    expires = now() + timedelta(days=days) if days else None
    code = JoinCode(contest_id=contest.id, code=text, domain=domain, expires_at=expires)
    session.add(code)
    session.flush()
    contests.record(session, actor, "make class code", contest, code=text, domain=domain or "the roster")
    return code


def codes(session: Session, contest: Contest) -> list[JoinCode]:
    """The codes of a contest that are good now."""
    mine = select(JoinCode).where(JoinCode.contest_id == contest.id, JoinCode.revoked_at.is_(None))
    return [code for code in session.scalars(mine.order_by(JoinCode.id)) if not _over(code)]


def revoke(session: Session, contest: Contest, text: str, actor: str = "command line") -> None:
    """Make a code useless; who joined with it stays."""
    code = session.scalar(select(JoinCode).where(JoinCode.contest_id == contest.id, JoinCode.code == _clean(text)))
    if code is None or code.revoked_at is not None:
        raise UsageError(f"contest '{contest.slug}' has no class code '{text[:40]}' that could be revoked")
    code.revoked_at = now()
    contests.record(session, actor, "revoke class code", contest, code=code.code)


def join(session: Session, text: str, mail: str, team_name: str = "", name: str = "") -> Handout:
    """Let a person in: to the team that the roster says, else to a new one of this name. Gives the token.

    Raises JoinError for a wrong code, a mail that may not, a team that exists; UsageError for what is no mail.
    """
    code = session.scalar(select(JoinCode).where(JoinCode.code == _clean(text)))
    if code is None or _over(code):
        raise JoinError("this class code is unknown, revoked or out of date: ask your organisers")
    contest, mail = session.get_one(Contest, code.contest_id), mail_address(mail)
    if contest.closed_at is not None:
        raise JoinError("this contest is closed")
    member = find_member(session, contest, mail)
    if member is None and not (code.domain and mail.casefold().endswith("@" + code.domain)):
        raise JoinError("this mail address is not on the roster of this class: ask your organisers")
    if member is not None and member.joined_at is not None:
        raise JoinError("this mail address has joined already: organisers can give it a new token")
    if member is None:
        member = Member(contest_id=contest.id, mail=mail, mail_key=mail.casefold(), columns={})
        session.add(member)
    member.name = member.name or one_line(name, "name", 120, required=False)
    if member.team is None:
        if contests.find_team_or_none(session, contest, one_line(team_name, "team name", 80)) is not None:
            raise JoinError(
                "a team of this name exists: choose another name. To work with that team, ask its members for their "
                "token, or your organisers to add you"
            )
        member.team = contests.add_team(session, contest, team_name, "class code")
    session.flush()
    member.joined_at = now()
    token = tokens.create(session, member.team, label=mail[:80])
    contests.record(session, "class code", "join", contest, team=member.team.name, mail=mail)
    return Handout(member.team.name, member.name, mail, token)


def _over(code: JoinCode) -> bool:
    return code.revoked_at is not None or (code.expires_at is not None and code.expires_at <= now())


def _clean(text: str) -> str:
    return "-".join("".join(text.upper().split()).split("-"))[:40]
