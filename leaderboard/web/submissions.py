"""The pages of what was submitted: one submission, two beside each other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import FileResponse, JSONResponse, Response
from sqlalchemy.orm import Session

from leaderboard.charts.networks import layers_of
from leaderboard.domain import contests, queue, ranking, standings, submissions
from leaderboard.domain.contests import NotFoundError
from leaderboard.domain.tokens import ForbiddenError
from leaderboard.service.access import owned
from leaderboard.service.api import Id
from leaderboard.service.schemas import (
    SubmissionView,
    next_step,
    report_json,
    shown_report,
    submission_view,
)
from leaderboard.storage.tables import SCORED, TERMINAL, Contest, State, Submission
from leaderboard.terms import added_to, further, names_of
from leaderboard.web import formats
from leaderboard.web.page import TheVisit, Visit, see_other
from scoring.report import Report

router = APIRouter()

# key -> (how it is written, what it means)
_QUANTITIES = {
    "p_s_weights": (formats.share, "part of the parent's weights that structured pruning removed"),
    "p_s_ops": (formats.share, "part of the parent's operations that structured pruning removed"),
    "p_u": (formats.share, "part of the parent's weights that are zero"),
    "q_w": (formats.bits, "bits of a weight, mean over the nonzero ones"),
    "q_a": (formats.bits, "bits of an activation, mean over operations"),
    "q_ops": (formats.bits, "bits of an operation, mean over operations"),
    "weights": (formats.count, "weights of convolutions and linear layers"),
    "nonzeros": (formats.count, "weights that are not zero"),
    "parameters": (formats.count, "all stored numbers that inference needs"),
    "macs": (formats.count, "multiply-accumulates for one image"),
}
_CHECKS = (
    "Every operation is known to the rules.",
    "Weights lie on their declared grid; activation bits hold on every path.",
    "Every stored number is used, and charged.",
    "Two runs agree bit for bit.",
    "Another batch size and order changes no more than 5 predictions.",
)


@dataclass(frozen=True)
class Cell:
    """A figure in the comparison."""

    text: str
    better: bool


@dataclass(frozen=True)
class Line:
    """A quantity of two submissions; `ratio` is second to first."""

    label: str
    meaning: str
    cells: tuple[Cell, Cell]
    ratio: str


@router.get("/submissions/{submission}")
def page(submission: Id, visit: TheVisit) -> Response:
    """A submission: its state, score, layers, checks, provenance; its log for the owner."""
    with visit.board.database.read() as session:
        found = submissions.find(session, submission, visit.viewer)
        contest = found.contest
        report = report_for(session, found, visit)
        history = submissions.results(session, found.id)
        waiting = queue.ahead(session, found) if found.state == State.QUEUED else 0
        expected_s = queue.expected_s(session, waiting) if found.state == State.QUEUED else None
        previous = submissions.previous(session, found) if visit.viewer.owns(found.team_id) else None
        rank = ranking.place(session, contest, found.id)
        best = None if contests.is_private(contest) else ranking.leader(session, contest)
    shown = submission_view(found, contest, visit.viewer)
    owner = visit.viewer.owns(found.team_id)
    scored = found.state in SCORED
    hidden = standings.coarse(contest) and not visit.viewer.admin
    return visit.page(
        "submission.html",
        contest=contest,
        s=shown,
        rank=rank,
        best_id=best.submission_id if best else None,
        terminal=found.state in TERMINAL,
        scored=scored,
        ahead=waiting,
        expected_s=expected_s,
        owner=owner,
        previous=previous,
        next_step=next_step(found.state) if owner else "",
        chosen=found.team.chosen_id == found.id and owner,
        may_choose=_may_choose(contest, found, visit),
        disqualified=found.disqualified_reason or found.team.disqualified_reason,
        quantities=_quantities(shown),
        checks=_checks(visit, shown, report) if scored else [],
        layers=layers_of(report),
        scores=report.scores if report else {},
        further=names_of(added_to(score) for score in report.scores.values()) if report else [],
        notes=[note[:500] for note in report.notes] if report else [],
        classes=_classes(report),
        holdout=_holdout(report),
        footnote=contests.rule_of(contest).footnote,
        provenance=_provenance(report),
        history=history,
        log=submissions.shown_log(found) if owner and not hidden else (),
    )


def _may_choose(contest: Contest, submission: Submission, visit: Visit) -> bool:
    own = visit.viewer.team_id == submission.team_id and not submission.practice
    asked = "chosen" in (contest.counts, contest.final_counts)
    return own and asked and submission.state in SCORED and submission.team.chosen_id != submission.id


@router.post("/submissions/{submission}/choose")
def choose(submission: Id, visit: TheVisit, csrf: Annotated[str, Form()] = "") -> Response:
    """The team says that this one counts."""
    visit.check_csrf(csrf)
    with visit.board.database.write() as session:
        found = submissions.find(session, submission, visit.viewer)
        if visit.viewer.team_id != found.team_id:
            raise ForbiddenError("only the team itself chooses what counts")
        submissions.choose(session, found.team, found)
    return see_other(f"/submissions/{submission}")


@router.get("/submissions/{submission}/state")
def state(submission: Id, visit: TheVisit) -> JSONResponse:
    """What the page of a waiting submission asks for again and again."""
    with visit.board.database.read() as session:
        found = submissions.find(session, submission, visit.viewer)
        waiting = queue.ahead(session, found) if found.state == State.QUEUED else 0
        expected_s = queue.expected_s(session, waiting) if found.state == State.QUEUED else None
    about = formats.duration(expected_s, visit.say) if expected_s else ""
    label = visit.say(found.state.replace("_", " "))
    answer = {
        "state": found.state,
        "label": label,
        "ahead": waiting,
        "about": about,
        "terminal": found.state in TERMINAL,
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-store"})


@router.get("/submissions/{submission}/file")
def file(submission: Id, visit: TheVisit) -> Response:
    """The submitted file, for its team and organisers."""
    with visit.board.database.read() as session:
        found = owned(session, submission, visit.viewer)
    path = visit.board.files.path(found.sha256)
    if not path.is_file():
        raise NotFoundError(f"the file of submission {submission} is not here any more")
    return FileResponse(path, media_type="application/octet-stream", filename=found.file_name)


@router.get("/submissions/{submission}/report.json")
def report_file(submission: Id, visit: TheVisit) -> Response:
    """The report as `contest score --json` writes it, as far as the visitor may see it."""
    with visit.board.database.read() as session:
        found = submissions.find(session, submission, visit.viewer)
        report = submissions.latest_report(session, submission)
        hidden = found.state not in SCORED and not visit.viewer.owns(found.team_id)
        if report is None or hidden:
            raise NotFoundError(f"submission {submission} has no report")
        data = report_json(report, found.contest, visit.viewer)
    headers = {"Content-Disposition": f'attachment; filename="submission-{submission}.json"'}
    return Response(json.dumps(data, indent=2), media_type="application/json", headers=headers)


@router.get("/compare")
def compare(visit: TheVisit, ids: Annotated[list[str] | None, Query(alias="id", max_length=10)] = None) -> Response:
    """Two submissions beside each other."""
    wanted = [i for text in ids or [] if (i := text.strip()[:12])]
    known = [int(i) for i in wanted if i.isascii() and i.isdecimal() and 0 < int(i) < 2**31]
    if len(wanted) != 2 or len(known) != 2:
        message = f"Choose two submissions; {len(wanted)} came in." if wanted else ""
        return visit.page("compare.html", ids=wanted, pair=(), message=message, rows=(), layers=(), verdict="")
    with visit.board.database.read() as session:
        pair = [submissions.find(session, i, visit.viewer) for i in known]
        reports = [report_for(session, s, visit) for s in pair]
        views = [submission_view(s, s.contest, visit.viewer) for s in pair]
        same = pair[0].contest_id == pair[1].contest_id
    message = "" if same else visit.say("These two are of different contests: their scores do not compare.")
    return visit.page(
        "compare.html",
        contest=pair[0].contest if same else None,
        ids=wanted,
        pair=views,
        message=message,
        rows=lines_of(views),
        layers=[layers_of(report) for report in reports],
        verdict=_verdict(visit, views) if same else "",
    )


def report_for(session: Session, submission: Submission, visit: Visit) -> Report | None:
    """The newest report as the visitor may see it; of refused files for their owner only."""
    if not (submission.state in SCORED or visit.viewer.owns(submission.team_id)):
        return None
    report = submissions.latest_report(session, submission.id)
    return None if report is None else shown_report(report, submission.contest, visit.viewer)


def _quantities(submission: SubmissionView) -> list[dict[str, Any]]:
    """Measured and claimed, row by row; a claimed p_s stands beside both numbers that it may mean."""
    measured, claimed = submission.measured or {}, submission.claimed or {}
    rows, shown = [], set()
    for key, (write, meaning) in _QUANTITIES.items():
        name = "p_s" if key.startswith("p_s_") and key not in claimed else key
        shown.add(name)
        rows.append(
            {
                "key": key,
                "meaning": meaning,
                "measured": write(measured.get(key)),
                "claimed": write(claimed.get(name)) if name in claimed else "",
                "differs": name in submission.differences,
                "flatters": name in submission.flattering,
            }
        )
    rows += [
        {
            "key": str(key)[:40],
            "meaning": "claimed by the file",
            "measured": "",
            "claimed": _fact(value),
            "differs": False,
            "flatters": False,
        }
        for key, value in list(claimed.items())[:20]
        if key not in shown
    ]
    return [row for row in rows if row["measured"] not in ("–", "") or row["claimed"]]


def _classes(report: Report | None) -> list[tuple[str, float]]:
    """(class, accuracy) where the report has them."""
    rows = report.details.get("per_class", ()) if report and report.details else ()
    return [(row["name"][:60], row["accuracy"]) for row in rows[:200] if row["accuracy"] is not None]


def _holdout(report: Report | None) -> float | None:
    """The accuracy on the organiser's private hold-out."""
    return formats.number(report.holdout.get("value")) if report and report.holdout else None


def _checks(visit: Visit, submission: SubmissionView, report: Report | None) -> list[dict[str, Any]]:
    """What was checked. A scored file passed all that blocks ranking, or its report names what it did not pass."""
    problems = [problem[:500] for problem in report.problems] if report else []
    flags = [flag[:500] for flag in report.flags] if report else []
    if report and report.accuracy_problem is None and submission.state == State.BELOW_THRESHOLD:
        problems.append(visit.say("The accuracy is below the threshold."))  # how far is not for this visitor
    differ, flatter = ", ".join(submission.differences), ", ".join(submission.flattering)
    checks = [{"passed": True, "text": visit.say(text)} for text in _CHECKS]
    checks.append(
        {
            "passed": not flatter,
            "text": visit.say("Claimed better than measured: %(names)s.", names=flatter)
            if flatter
            else visit.say("Claimed otherwise, but no better than measured: %(names)s.", names=differ)
            if differ
            else visit.say("What the file claims agrees with what was measured."),
        }
    )
    if submission.isolation:
        told = visit.say("Opened in a child process under isolation “%(level)s”.", level=submission.isolation)
        checks.append({"passed": True, "text": told})
    return checks + [{"passed": False, "text": text} for text in (*problems, *flags)]


def _provenance(report: Report | None) -> list[tuple[str, str]]:
    """What the file says of its making: claims of the participant, shown as they are."""
    facts = report.provenance if report else {}
    return [(key[:80].replace("_", " "), _fact(value)) for key, value in list(facts.items())[:40]]


def _fact(value: object) -> str:
    text = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value)
    if isinstance(value, float):
        text = f"{value:.4g}"
    return text if len(text) <= 300 else text[:299] + "…"


def lines_of(pair: Sequence[SubmissionView]) -> list[Line]:
    def line(label: str, values: Sequence[Any], write: Any, smaller: bool | None = True, meaning: str = "") -> Line:
        first, second = (formats.number(value) for value in values)
        better = (False, False)
        if first is not None and second is not None and smaller is not None and first != second:
            better = (first < second, second < first) if smaller else (first > second, second > first)
        ratio = f"{second / first:.3g}×" if first and second is not None else ""
        return Line(label, meaning, (Cell(write(first), better[0]), Cell(write(second), better[1])), ratio)

    added = [further(s.measured) for s in pair]
    rows = [
        line("Score", [s.score for s in pair], formats.score),
        line("Accuracy", [s.accuracy for s in pair], formats.accuracy, smaller=False),
        line("Parameter term", [s.params for s in pair], formats.score),
        line("Operation term", [s.ops for s in pair], formats.score),
        *(line(name.capitalize(), [terms.get(name) for terms in added], formats.score) for name in names_of(added)),
        line("Score with bitmask", [s.score_with_bitmask for s in pair], formats.score),
    ]
    rows += [
        line(key, [(s.measured or {}).get(key) for s in pair], write, None, meaning)
        for key, (write, meaning) in _QUANTITIES.items()
    ]
    return [row for row in rows if {cell.text for cell in row.cells} != {"–"}]


def _verdict(visit: Visit, pair: Sequence[SubmissionView]) -> str:
    """One sentence, where both are scored."""
    first, second = pair
    if not (first.score and second.score and first.accuracy and second.accuracy):
        return ""
    if first.score == second.score:
        return visit.say("Both have the same score.")
    low, high = sorted(pair, key=lambda s: s.score or 0)
    points = 100 * ((low.accuracy or 0) - (high.accuracy or 0))
    values = {
        "number": low.id,
        "part": f"{(low.score or 0) / (high.score or 1):.0%}",
        "points": f"{abs(points):.2f}",
    }
    if points >= 0:
        return visit.say(
            "Submission %(number)s has %(part)s of the other's score at %(points)s points more accuracy.", **values
        )
    return visit.say(
        "Submission %(number)s has %(part)s of the other's score at %(points)s points less accuracy.", **values
    )
