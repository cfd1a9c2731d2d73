"""Class codes: teams that come by themselves."""

from __future__ import annotations

import secrets
from datetime import timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import contests, roster, tokens
from leaderboard.domain.roster import Handout
from leaderboard.storage.signer import ForbiddenError
from leaderboard.storage.tables import Contest, JoinCode, Member, now
from leaderboard.text import mail_address, one_line

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
    member = roster.find_member(session, contest, mail)
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
