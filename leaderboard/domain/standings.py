"""Keeps the tables that the ranking is read from: the best of each team, and who held the record when.

`update` runs in the transaction that ends a scoring; `rebuild` makes everything anew from the submissions.

While a contest gives coarse feedback, accuracies count in its steps here, too: which of two submissions is a team's
best would otherwise tell which of them is right more often, and many such answers are the test set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, insert, or_, select
from sqlalchemy.orm import Session

from leaderboard.storage.tables import SCORED, Contest, RecordEntry, Standing, State, Submission, Team
from leaderboard.terms import with_terms
from scoring.report import Report
from scoring.rules import Rule


@dataclass(frozen=True)
class Verdict:
    """How one scoring ended. A report is there whenever costs could be measured.

    reason: of a refused file, what is wrong with the file; what its accuracy is stands in no such reason.
    again: it failed for a reason that may be gone in a moment, so the queue tries again before it gives up.
    """

    state: State
    reason: str
    report: Report | None = None
    our_fault: bool = False
    log: tuple[str, ...] = field(default=())
    again: bool = False

    def score(self, rule: Rule) -> float | None:
        """Under a rule, where it can be ranked."""
        return score_of(self.report, rule) if self.report else None

    @property
    def accuracy(self) -> float | None:
        return accuracy_of(self.report) if self.report else None

    def columns(self, rule: Rule) -> dict[str, Any]:
        """The columns of a submission that come from the report."""
        report = self.report
        score = report.scores.get(rule.name) if report else None
        accuracy = report.accuracy if report else None
        return {
            "rule_name": rule.name,
            "rule_version": rule.version,
            "score": self.score(rule),
            "params": finite(score.params) if score else None,
            "ops": finite(score.ops) if score else None,
            "score_with_bitmask": finite(score.total_with_bitmask) if score else None,
            "accuracy": self.accuracy,
            "accuracy_low": finite(accuracy.low) if accuracy else None,
            "accuracy_high": finite(accuracy.high) if accuracy else None,
            "isolation": isolation_of(report)[:20] if report else "",
            "measured": with_terms(report.measured, score) if report else None,
            "claimed": (dict(report.claimed) or None) if report else None,
        }


def judge(report: Report, rule: Rule) -> Verdict:
    """The state that a report earns under a rule."""
    log = tuple(_log(report, rule))

    def ended(state: State, reason: str, *, our_fault: bool = False) -> Verdict:
        return Verdict(state, reason, report, our_fault, log)

    score, accuracy = score_of(report, rule), accuracy_of(report)

    if report.status == "flagged":
        return ended(State.REFUSED, "; ".join(report.file_problems))
    if score is None:
        return ended(State.FAILED, f"the report has no score under rule '{rule.name}'", our_fault=True)
    if accuracy is None:
        return ended(State.FAILED, f"no test data of '{rule.dataset}' where the score was made", our_fault=True)
    if accuracy < rule.threshold:
        return ended(State.BELOW_THRESHOLD, f"accuracy {accuracy:.4f} is below the threshold {rule.threshold:g}")
    if report.status != "rankable" or not report.rankable:
        return ended(State.FAILED, f"the report's status '{report.status}' does not fit its figures", our_fault=True)
    return ended(State.RANKED, f"accuracy {accuracy:.4f}, score {score:.6g} under rule '{rule.name}'")


def finite(value: object) -> float | None:
    """A number that can be ranked, or None."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def score_of(report: Report, rule: Rule) -> float | None:
    """A report's score under a rule, where it can be ranked."""
    score = report.scores.get(rule.name)
    return finite(score.total) if score else None


def accuracy_of(report: Report) -> float | None:
    """A report's accuracy, where it can be ranked."""
    return finite(report.accuracy.value) if report.accuracy else None


def isolation_of(report: Report) -> str:
    """At which level of isolation the file was opened; empty when the report does not say."""
    return str(report.file.get("isolation") or "")


def _log(report: Report, rule: Rule) -> list[str]:
    lines = []
    for name, score in report.scores.items():
        mark = " (this contest)" if name == rule.name else ""
        terms = " + ".join(str(value) for value in score.terms.values())
        lines.append(f"rule {name}: {terms} = {score.total}{mark}")
    lines.append(f"isolation of the scoring process: {isolation_of(report) or 'unknown'}")
    return lines


COARSE_STEP = 0.005
"""Accuracies are shown in these steps under coarse feedback."""
_ROUNDING = 1e-9
"""0.905 / 0.005 is a little less than 181 in binary."""


def coarse(contest: Contest) -> bool:
    """Whether accuracies are hidden behind steps now."""
    return contest.feedback == "coarse" and contest.closed_at is None


def shown_accuracy(contest: Contest, accuracy: float) -> float:
    """An accuracy as it may be shown: in steps, rounded down, while a contest with coarse feedback is open."""
    if coarse(contest):
        return math.floor(accuracy / COARSE_STEP + _ROUNDING) * COARSE_STEP
    return accuracy


def update(session: Session, contest: Contest, submission: Submission) -> None:
    """Bring standings and records up to date after one submission of a team was scored, or lost its score.

    The caller holds the contest's row lock, so that two workers cannot both think theirs is the team's best.
    """
    session.flush()
    update_team(session, contest, submission.team_id)
    known = session.get(RecordEntry, (contest.id, submission.id))
    if known is not None:
        rebuild_records(session, contest)  # a record holder changed (scored anew, disqualified): rare
    elif _counts(session, contest, submission):
        _insert_record(session, contest, submission)
    contest.revision += 1


def update_team(session: Session, contest: Contest, team_id: int) -> None:
    """Choose the best submission of a team anew."""
    session.execute(delete(Standing).where(Standing.contest_id == contest.id, Standing.team_id == team_id))
    _insert_best(session, contest, Submission.team_id == team_id)


def rebuild(session: Session, contest: Contest) -> None:
    """Make standings and records of a contest anew from its submissions."""
    session.flush()
    session.execute(delete(Standing).where(Standing.contest_id == contest.id))
    _insert_best(session, contest)
    rebuild_records(session, contest)
    contest.revision += 1


def rebuild_records(session: Session, contest: Contest) -> None:
    """Make the history of the record anew: the running minimum over time."""
    session.flush()
    session.execute(delete(RecordEntry).where(RecordEntry.contest_id == contest.id))
    before = func.min(Submission.score).over(order_by=(Submission.created_at, Submission.id), rows=(None, -1))
    scored = (
        eligible(contest, (State.RANKED,)).where(Team.baseline.is_(False)).add_columns(before.label("best")).subquery()
    )
    better = or_(scored.c.best.is_(None), scored.c.score < scored.c.best)
    columns = [scored.c[name] for name in ("contest_id", "id", "score", "accuracy", "created_at")]
    names = ["contest_id", "submission_id", "score", "accuracy", "submitted_at"]
    session.execute(insert(RecordEntry).from_select(names, select(*columns).where(better)))


def order_of(contest: Contest, section: str) -> tuple[ColumnElement[Any], ...]:
    """The ranking: by score among the ranked, by accuracy below the threshold; ties by the other, then by time."""
    by_accuracy, by_score = _counted(contest, Standing.accuracy.expression).desc(), Standing.score.asc()
    first = (by_score, by_accuracy) if section == State.RANKED else (by_accuracy, by_score)
    return *first, Standing.submitted_at.asc(), Standing.submission_id.asc()


def _counted(contest: Contest, accuracy: ColumnElement[Any]) -> ColumnElement[Any]:
    """An accuracy as it counts in orders."""
    return func.floor(accuracy / COARSE_STEP + _ROUNDING) if coarse(contest) else accuracy


def eligible(contest: Contest, states: tuple[State, ...]) -> Select[Any]:
    """The submissions of teams in good standing that were scored under the contest's rule."""
    return (
        select(Submission.__table__)
        .join(Team, Team.id == Submission.team_id)
        .where(
            Submission.contest_id == contest.id,
            Submission.state.in_(states),
            Submission.disqualified_at.is_(None),
            Submission.practice.is_(False),
            Submission.rule_name == contest.rule_name,
            Submission.rule_version == contest.rule_version,
            Submission.score.is_not(None),
            Submission.accuracy.is_not(None),
            Team.disqualified_at.is_(None),
        )
    )


def counting_order(contest: Contest, counts: str) -> tuple[ColumnElement[Any], ...]:
    """A team's submissions, the one that counts first: its best, its last or the one that it chose (else its best).

    The best is the best ranked one, or without one the best below the threshold.
    """
    accuracy = _counted(contest, Submission.accuracy.expression)
    ranked = Submission.state == State.RANKED
    best: tuple[ColumnElement[Any], ...] = (
        case((ranked, 0), else_=1),
        case((ranked, Submission.score), else_=-accuracy),
        case((ranked, -accuracy), else_=Submission.score),
        Submission.created_at.expression,
        Submission.id.expression,
    )
    if counts == "last":
        return Submission.created_at.desc(), Submission.id.desc()
    if counts == "chosen":
        return case((Submission.id == Team.chosen_id, 0), else_=1), *best
    return best


def _insert_best(session: Session, contest: Contest, *which: ColumnElement[bool]) -> None:
    """One row for each team: the submission that counts."""
    order = counting_order(contest, contest.counts)
    place = func.row_number().over(partition_by=Submission.team_id, order_by=order)
    best = eligible(contest, SCORED).where(*which).add_columns(place.label("place")).subquery()
    names = ["contest_id", "team_id", "section", "submission_id", "score", "params", "ops", "accuracy", "submitted_at"]
    columns: list[ColumnElement[Any]] = [best.c[name] for name in ("contest_id", "team_id", "state", "id", "score")]
    columns += [func.coalesce(best.c[name], 0.0) for name in ("params", "ops")]
    columns += [best.c[name] for name in ("accuracy", "created_at")]
    session.execute(insert(Standing).from_select(names, select(*columns).where(best.c.place == 1)))


def _counts(session: Session, contest: Contest, submission: Submission) -> bool:
    found = eligible(contest, (State.RANKED,)).where(Submission.id == submission.id, Team.baseline.is_(False))
    return session.scalar(found) is not None


def _insert_record(session: Session, contest: Contest, submission: Submission) -> None:
    """Scorings end in any order: what counts is the time of submission."""
    score, at = submission.score, submission.created_at
    assert score is not None and submission.accuracy is not None
    earlier = or_(
        RecordEntry.submitted_at < at, and_(RecordEntry.submitted_at == at, RecordEntry.submission_id < submission.id)
    )
    mine = RecordEntry.contest_id == contest.id
    best = session.scalar(select(func.min(RecordEntry.score)).where(mine, earlier))
    if best is not None and best <= score:
        return
    session.execute(delete(RecordEntry).where(mine, ~earlier, RecordEntry.score >= score))
    session.add(_record(contest.id, submission.id, score, submission.accuracy, at))
    session.flush()


def _record(contest_id: int, submission_id: int, score: float, accuracy: float, at: datetime) -> RecordEntry:
    return RecordEntry(
        contest_id=contest_id, submission_id=submission_id, score=score, accuracy=accuracy, submitted_at=at
    )
