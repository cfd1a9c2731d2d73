"""What the API says: the JSON of contests, rows and submissions, cut to what the asker may see."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from leaderboard.domain import claims, standings
from leaderboard.domain.contests import is_private
from leaderboard.domain.final import FinalRow
from leaderboard.domain.ranking import Row
from leaderboard.domain.tokens import Viewer
from leaderboard.storage.tables import SCORED, Contest, State, Submission, Team
from scoring.report import Report

FROM_LABELS: dict[str, Any] = {
    "accuracy": None,
    "accuracy_problem": None,
    "flags": (),
    "details": None,
    "holdout": None,
    "predictions": None,
}
"""The fields of a report that hold something of the test set's or the hold-out's labels, and what hides it."""
FROM_THE_FILE = frozenset(
    {
        "rule",
        "rule_version",
        "dataset",
        "threshold",
        "scores",
        "measured",
        "claimed",
        "layers",
        "numbers",
        "unknown_operations",
        "file_problems",
        "rankable",
        "status",
        "notes",
        "file",
        "costs",
        "provenance",
    }
)
"""The others: they follow from the file alone, and from whether the threshold is reached, which the state says."""


class Answer(BaseModel):
    """Read from objects by attribute."""

    model_config = ConfigDict(from_attributes=True)


class ContestView(Answer):
    """A contest. `threshold` is an accuracy, 0 to 1."""

    name: str
    title: str
    dataset: str
    rule_name: str
    rule_version: int
    rule: dict[str, Any]
    threshold: float
    created_at: datetime
    closed_at: datetime | None
    private_until: datetime | None
    private: bool
    daily_limit: int
    total_limit: int
    max_bytes: int
    feedback: str
    shown_names: str
    shown_places: int | None
    opens_at: datetime | None
    deadline: datetime | None
    grace_s: int
    interval_s: int
    practice: bool
    counts: str
    final_at: datetime | None


class FinalView(Answer):
    """A line of the final ranking; `rank` is null below the threshold."""

    rank: int | None
    team_id: int
    team: str
    submission: int
    state: str
    score: float | None
    accuracy: float | None


class RankingView(Answer):
    """A page of the ranking; `total` counts the rows of all pages."""

    section: str
    total: int
    page: int
    pages: int
    size: int
    rows: list[Row]


class SubmissionView(Answer):
    """A submission. What only its owner may see is null for others."""

    id: int
    contest: str
    team_id: int
    team: str
    state: str
    reason: str | None
    file_name: str | None
    note: str
    sha256: str
    size_bytes: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    practice: bool
    late: bool
    validated_at: datetime | None
    validated_remark: str
    attempts: int | None
    disqualified_at: datetime | None
    disqualified_reason: str | None
    rule_name: str
    rule_version: int
    isolation: str
    score: float | None
    params: float | None
    ops: float | None
    score_with_bitmask: float | None
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    measured: dict[str, Any] | None
    claimed: dict[str, Any] | None
    differences: list[str]
    flattering: list[str]


class SubmissionsView(Answer):
    """Submissions, the newest first; `next_before` gives the next page, null at the end."""

    submissions: list[SubmissionView]
    next_before: int | None


class EnteredView(Answer):
    """The answer to an upload; `new` is false when the same file was there already."""

    new: bool
    submission: SubmissionView


class CheckView(Answer):
    """Nothing speaks against an upload; `known` is the submission of the same file, which makes it needless."""

    known: SubmissionView | None


class LogView(Answer):
    """What happened to a submission, for its owner."""

    state: str
    reason: str
    next_step: str
    lines: list[str]
    ahead: int | None
    """Submissions queued before this one; null when it is not queued."""
    expected_s: float | None
    """Seconds until it is scored, by the last twenty; null when it is not queued, or nothing was scored yet."""


class ViewerView(Answer):
    """Who holds the token, and what is left of the team's quota."""

    role: str
    team_id: int | None
    team: str | None
    contest: str | None
    left_today: int | None
    left_total: int | None


def contest_view(contest: Contest) -> ContestView:
    """A contest as everybody may see it."""
    columns = {name: getattr(contest, name) for name in ContestView.model_fields if name not in ("name", "private")}
    return ContestView(name=contest.slug, private=is_private(contest), **columns)


def team_name(team: Team, contest: Contest, viewer: Viewer) -> str:
    """What the viewer may know a team by."""
    return team.name if contest.shown_names == "names" or viewer.owns(team.id) else team.pseudonym


def final_view(row: FinalRow, contest: Contest, viewer: Viewer) -> FinalView:
    """A line of the final ranking with the name that the viewer may know."""
    name = team_name(row.team, contest, viewer)
    return FinalView(
        rank=row.rank,
        team_id=row.team.id,
        team=name,
        submission=row.submission_id,
        state=row.state,
        score=row.score,
        accuracy=row.accuracy,
    )


def submission_view(submission: Submission, contest: Contest, viewer: Viewer) -> SubmissionView:
    """A submission, without what the viewer may not see, under the contest's feedback."""
    own = viewer.owns(submission.team_id)
    hidden = standings.coarse(contest) and not viewer.admin
    scored = submission.state in SCORED
    result: dict[str, Any] = dict.fromkeys(
        ("score", "params", "ops", "score_with_bitmask", "accuracy", "accuracy_low", "accuracy_high")
    )
    if scored or own:
        result = {name: getattr(submission, name) for name in result}
    if hidden:
        result |= {"accuracy_low": None, "accuracy_high": None}
        if result["accuracy"] is not None:
            result["accuracy"] = standings.shown_accuracy(contest, result["accuracy"])
    return SubmissionView(
        id=submission.id,
        contest=contest.slug,
        team_id=submission.team_id,
        team=team_name(submission.team, contest, viewer),
        state=submission.state,
        reason=shown_reason(submission, contest, viewer),
        file_name=submission.file_name if own else None,
        note=submission.note,
        sha256=submission.sha256,
        size_bytes=submission.size_bytes,
        created_at=submission.created_at,
        started_at=submission.started_at,
        finished_at=submission.finished_at,
        practice=submission.practice,
        late=submission.late,
        validated_at=submission.validated_at,
        validated_remark=submission.validated_remark,
        attempts=submission.attempts if own else None,
        disqualified_at=submission.disqualified_at,
        disqualified_reason=submission.disqualified_reason or None,
        rule_name=submission.rule_name,
        rule_version=submission.rule_version,
        isolation=submission.isolation,
        measured=submission.measured if scored or own else None,
        claimed=submission.claimed if scored or own else None,
        differences=list(claims.differences(submission.measured, submission.claimed)),
        flattering=list(claims.flattering(submission.measured, submission.claimed)),
        **result,
    )


_NEXT_STEPS = {
    State.REFUSED: "Mend what the reason names; `contest score FILE` on your machine says the same, layer by layer, "
    "before you hand it in.",
    State.BELOW_THRESHOLD: "It is scored, but only networks at or above the threshold are ranked: "
    "`contest score FILE --data FOLDER` gives its accuracy on your machine.",
    State.FAILED: "Hand the same file in again: it costs nothing of your quota.",
    State.CANCELLED: "Ask your organisers, or hand the same file in again: it costs nothing of your quota.",
}


def next_step(state: str) -> str:
    """What the owner of a submission can do now."""
    return _NEXT_STEPS.get(State(state), "")


def shown_reason(submission: Submission, contest: Contest, viewer: Viewer) -> str | None:
    """The reason of a state for its owner; without the exact accuracy under coarse feedback."""
    if not viewer.owns(submission.team_id):
        return None
    if not standings.coarse(contest) or viewer.admin or submission.accuracy is None:
        return submission.reason
    told = f"accuracy about {standings.shown_accuracy(contest, submission.accuracy):.3f} (coarse feedback)"
    return f"{told}; {submission.reason}" if submission.state == State.REFUSED else told


def shown_report(report: Report, contest: Contest, viewer: Viewer) -> Report:
    """A report as the viewer may see it: under coarse feedback without what comes from labels, field by field."""
    if viewer.admin or not standings.coarse(contest):
        return report
    return dataclasses.replace(report, **FROM_LABELS)


def report_json(report: Report, contest: Contest, viewer: Viewer) -> dict[str, Any]:
    """The same as JSON, with the accuracy in steps where more may not be said."""
    shown = shown_report(report, contest, viewer)
    data = shown.to_json()
    if report.accuracy is not None and shown.accuracy is None:
        value = standings.shown_accuracy(contest, report.accuracy.value)
        data["accuracy"] = {
            "value": value,
            "correct": None,
            "total": report.accuracy.total,
            "low": None,
            "high": None,
            "loss": None,
        }
    return data
