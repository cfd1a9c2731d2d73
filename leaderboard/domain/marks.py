"""Marks: a row for each member, with the roster's own columns, what the team reached, and points."""

from __future__ import annotations

import ast
import csv
import io
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from contest.errors import UsageError
from leaderboard.domain import claims, contests, final, ranking, roster
from leaderboard.domain.ranking import places_of
from leaderboard.storage.tables import SCORED, Contest, Member, Standing, Submission, Team

_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "sqrt": math.sqrt,
}
NAMES = ("score", "accuracy", "rank", "teams", "threshold", "best", "baselines", "submissions", "late", "ranked")
"""What a formula may speak of. A team without a figure has infinity as its score and rank, and 0 as its accuracy."""


@dataclass(frozen=True)
class Formula:
    """An expression of the organiser's, such as `6 - 2 * log10(score / best)`. Evaluated by us, never by Python."""

    text: str
    tree: ast.expr

    @staticmethod
    def parse(text: str) -> Formula:
        """Raises UsageError for anything but arithmetic on the known names."""
        if len(text) > 500:
            raise UsageError(f"the formula has {len(text)} characters; at most 500 are allowed")
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise UsageError(f"the formula '{text[:80]}' is no expression: {error}") from error
        found = Formula(text, tree)
        found(dict.fromkeys(NAMES, 1.0))  # unknown names and forms are told now, not with the first team
        return found

    def __call__(self, values: Mapping[str, float]) -> float | None:
        """The points; None where the formula has no finite value."""
        try:
            value = float(_value(self.tree, values))
        except (ZeroDivisionError, OverflowError, ValueError, TypeError):
            return None
        return value if math.isfinite(value) else None


def _value(node: ast.expr, values: Mapping[str, float]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            if name not in values:
                raise UsageError(f"the formula speaks of '{name[:40]}'; it may speak of {', '.join(NAMES)}")
            return values[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand, values))
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(left, values), _value(right, values))
        case ast.BoolOp(op=op, values=parts):
            truths = [bool(_value(part, values)) for part in parts]
            return all(truths) if isinstance(op, ast.And) else any(truths)
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, values) else orelse, values)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument, values) for argument in arguments))
    raise UsageError(
        f"the formula may hold numbers, + - * / // %, comparisons, and, or, not, a if b else c, "
        f"{', '.join(_FUNCTIONS)}; not '{ast.unparse(node)[:60]}'"
    )


@dataclass(frozen=True)
class PointsTable:
    """Points by steps: the first row whose limit is not passed."""

    name: str
    steps: tuple[tuple[float, float], ...]

    @staticmethod
    def parse(text: str) -> PointsTable:
        """From CSV: `rank,points` (or score, baselines) and rows of limits. Raises UsageError that names the line."""
        rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"))) if row]
        if not rows or len(rows[0]) != 2 or rows[0][0].strip() not in ("rank", "score", "baselines"):
            raise UsageError("a table of points begins with 'rank,points', 'score,points' or 'baselines,points'")
        steps = []
        for line, row in enumerate(rows[1:], 2):
            try:
                limit, points = (float(cell) for cell in row)
            except ValueError:
                raise UsageError(f"line {line} of the table of points is not two numbers") from None
            steps.append((limit, points))
        return PointsTable(rows[0][0].strip(), tuple(sorted(steps, reverse=rows[0][0].strip() == "baselines")))

    def __call__(self, values: Mapping[str, float]) -> float | None:
        value = values[self.name]
        reached = (lambda limit: value >= limit) if self.name == "baselines" else (lambda limit: value <= limit)
        return next((points for limit, points in self.steps if reached(limit)), 0.0)


Points = Formula | PointsTable


def rows(session: Session, contest: Contest, points: Points | None = None) -> list[dict[str, Any]]:
    """A row for each member, and one for each team without members, by rank and then by name."""
    people: dict[int | None, list[Member]] = {}
    for member in roster.members(session, contest):
        people.setdefault(member.team_id, []).append(member)
    extra = list(dict.fromkeys(key for found in people.values() for member in found for key in member.columns))
    found = [
        _row(member, extra, told)
        for team in contests.teams(session, contest)
        if not team.baseline
        for told in (_team(session, contest, team, points),)
        for member in people.get(team.id) or (None,)
    ]
    found += [_row(member, extra, {"team": ""}) for member in people.get(None, ())]
    keys = list(dict.fromkeys(key for row in found for key in row))
    found = [{key: row.get(key, "") for key in keys} for row in found]
    return sorted(found, key=lambda row: (row.get("rank") or math.inf, str(row["team"]).casefold(), row["mail"]))


def _row(member: Member | None, extra: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    person = {"name": member.name if member else "", "mail": member.mail if member else ""}
    person |= {key: member.columns.get(key, "") if member else "" for key in extra}
    return person | dict(told)


def _team(session: Session, contest: Contest, team: Team, points: Points | None) -> dict[str, Any]:
    mine = Submission.team_id == team.id
    count, first, last, late = session.execute(
        select(
            func.count(),
            func.min(Submission.created_at),
            func.max(Submission.created_at),
            func.sum(case((Submission.late, 1), else_=0)),
        ).where(mine, Submission.practice.is_(False))
    ).one()
    standing = session.scalar(select(Standing).where(Standing.team_id == team.id))
    best = session.get(Submission, standing.submission_id) if standing else None
    rank = ranking.place(session, contest, best.id) if best else None
    values = _values(session, contest, best, rank, count, bool(best and best.late))
    told: dict[str, Any] = {
        "team": team.name,
        "real name": team.real_name,
        "rank": rank or "",
        "score": best.score if best else "",
        "accuracy": best.accuracy if best else "",
        "submission": best.id if best else "",
        "submissions": count,
        "late submissions": late or 0,
        "first": _moment(first),
        "last": _moment(last),
        "late": "late" if best and best.late else "",
        "baselines beaten": int(values["baselines"]),
        "claimed otherwise": _claims(best) if best else "",
        "remarks": _remarks(team, best),
    }
    if contest.final_begun_at is not None:
        row = next((row for row in final.ranking(session, contest) if row.team.id == team.id), None)
        told |= {
            "final rank": (row and row.rank) or "",
            "final score": row.score if row else "",
            "final accuracy": row.accuracy if row else "",
        }
    if points is not None:
        value = points(values)
        told["points"] = "" if value is None else round(value, 4)
    return told


def _values(
    session: Session, contest: Contest, best: Submission | None, rank: int | None, count: int, late: bool
) -> dict[str, float]:
    places = places_of(session, contest, "ranked", whole=True).places
    teams = [place for place in places if place.rank]
    score = best.score if best and rank and best.score is not None else math.inf
    beaten = sum(score < place.score for place in places if not place.rank)
    return {
        "score": score,
        "accuracy": (best.accuracy or 0.0) if best else 0.0,
        "rank": float(rank or math.inf),
        "teams": float(len(teams)),
        "threshold": contest.threshold,
        "best": teams[0].score if teams else math.inf,
        "baselines": float(beaten),
        "submissions": float(count),
        "late": float(late),
        "ranked": float(bool(rank)),
    }


def _claims(best: Submission) -> str:
    keys = claims.differences(best.measured, best.claimed)
    claimed, measured = best.claimed or {}, best.measured or {}
    # `p_s` is one number of the formula and two of a network: of weights is what a claim means first.
    found = {key: measured.get(key, measured.get(f"{key}_weights")) for key in keys}
    return "; ".join(f"{key}: claimed {_written(claimed[key])}, measured {_written(found[key])}" for key in keys)


def _written(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _remarks(team: Team, best: Submission | None) -> str:
    told = [f"disqualified: {team.disqualified_reason}"] if team.disqualified_at else []
    if best and best.validated_at:
        told.append(f"validated: {best.validated_remark}" if best.validated_remark else "validated")
    return "; ".join(told)


def _moment(moment: Any) -> str:
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def to_csv(found: Sequence[Mapping[str, Any]]) -> str:
    """A table for spreadsheets. Text that one of them would take for a formula begins with an apostrophe."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    if found:
        writer.writerow([_cell(key) for key in found[0]])
        writer.writerows([_cell(value) for value in row.values()] for row in found)
    return buffer.getvalue()


def _cell(value: Any) -> Any:
    dangerous = isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r")
    return f"'{value}" if dangerous else value


def addresses(session: Session, contest: Contest, state: str) -> list[str]:
    """Mails of the members of teams that are ranked, below the threshold, or have nothing scored (`none`)."""
    scored = select(Submission.team_id).where(Submission.contest_id == contest.id, Submission.state.in_(SCORED))
    sections = {
        "ranked": select(Standing.team_id).where(Standing.contest_id == contest.id, Standing.section == "ranked"),
        "below": select(Standing.team_id).where(Standing.contest_id == contest.id, Standing.section != "ranked"),
    }
    mails = select(Member.mail).where(Member.contest_id == contest.id).order_by(Member.mail_key)
    if state == "none":
        return list(session.scalars(mails.where((Member.team_id.is_(None)) | Member.team_id.not_in(scored))))
    return list(session.scalars(mails.where(Member.team_id.in_(sections[state]))))


def best_files(session: Session, contest: Contest) -> Iterable[tuple[str, str]]:
    """(hash, TEAM/NUMBER-name) of each team's counting submission."""
    statement = (
        select(Submission, Team.name)
        .join(Standing, Standing.submission_id == Submission.id)
        .join(Team, Team.id == Submission.team_id)
        .where(Standing.contest_id == contest.id)
        .order_by(Team.name_key)
    )
    for submission, name in session.execute(statement):
        yield submission.sha256, f"{_folder(name)}/{submission.id}-{submission.file_name}"


def _folder(name: str) -> str:
    text = "".join(c if c.isalnum() or c in " -_." else "_" for c in name).strip(" .")
    return text or "team"
