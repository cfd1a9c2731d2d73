"""The tables. A submission's row is the queue's record, too: its state decides, queue messages only wake workers.

Times are aware and in UTC. Scores, accuracies and states of `Submission` are those of the newest scoring; every
scoring stays as a `Result`. `Standing` and `RecordEntry` are kept up to date in the transaction that changes a
state, so that the whole ranking is one index range whatever the number of submissions.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from leaderboard.storage.database import Base


class State(StrEnum):
    """Where a submission is. All but the first two are terminal."""

    QUEUED = "queued"
    RUNNING = "running"
    RANKED = "ranked"
    BELOW_THRESHOLD = "below_threshold"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = (State.RANKED, State.BELOW_THRESHOLD, State.REFUSED, State.FAILED, State.CANCELLED)
SCORED = (State.RANKED, State.BELOW_THRESHOLD)


def now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


class Contest(Base):
    """A contest: a rule, limits and dates."""

    __tablename__ = "contests"

    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    title: Mapped[str] = mapped_column(String(200))
    rule_name: Mapped[str] = mapped_column(String(64))
    rule_version: Mapped[int]
    rule: Mapped[dict[str, Any]]
    """The rule file's content: the database needs no file to be understood."""
    dataset: Mapped[str] = mapped_column(String(64))
    threshold: Mapped[float]
    created_at: Mapped[datetime] = mapped_column(default=now)
    opens_at: Mapped[datetime | None]
    deadline: Mapped[datetime | None]
    """Uploads that were accepted until then count, however long the queue is."""
    grace_s: Mapped[int] = mapped_column(default=0, server_default="0")
    """For so long after the deadline uploads count, marked as late."""
    interval_s: Mapped[int] = mapped_column(default=0, server_default="0")
    """Between two uploads of a team."""
    practice: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Whether teams may go on after the end; such submissions are scored, marked and never ranked."""
    counts: Mapped[str] = mapped_column(String(8), default="best", server_default="best")
    """Which submission of a team stands in the ranking: best, last or chosen (by the team; else its best)."""
    final_at: Mapped[datetime | None]
    """When the final ranking appears; None: there is no final phase."""
    final_counts: Mapped[str] = mapped_column(String(8), default="best", server_default="best")
    """Which submission of a team is scored in the final phase."""
    final_data: Mapped[str] = mapped_column(String(64), default="", server_default="")
    """The private data set of the final phase, by its name in the workers' folder; empty: the public figures."""
    final_begun_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]
    private_until: Mapped[datetime | None]
    """Before this moment only organisers see the ranking; teams see their own submissions."""
    daily_limit: Mapped[int] = mapped_column(default=10)
    total_limit: Mapped[int] = mapped_column(default=500)
    max_bytes: Mapped[int] = mapped_column(default=64 * 1024 * 1024)
    team_bytes: Mapped[int] = mapped_column(BigInteger, default=2 * 1024**3)
    """What the files of one team may take on disk."""
    feedback: Mapped[str] = mapped_column(String(10), default="full")
    """full, or coarse: accuracy in steps until the contest is closed, against probing of the test set."""
    isolation: Mapped[str] = mapped_column(String(20), default="")
    """The weakest isolation of the scoring child that is ranked; empty is any."""
    about: Mapped[str] = mapped_column(Text, default="", server_default="")
    """The organiser's own text, in Markdown."""
    shown_names: Mapped[str] = mapped_column(String(12), default="names", server_default="names")
    """names, or pseudonyms: what everybody but organisers sees of other teams."""
    shown_places: Mapped[int | None]
    """Of the ranking everybody sees so many places, and organisers all; None is all."""
    revision: Mapped[int] = mapped_column(default=0)
    """Counts changes of what the ranking shows: the ETag of its pages."""


class Team(Base):
    """A team of one contest."""

    __tablename__ = "teams"
    __table_args__ = (UniqueConstraint("contest_id", "name_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"))
    name: Mapped[str] = mapped_column(String(80))
    name_key: Mapped[str] = mapped_column(String(120))
    """Normalised and case-folded: no two teams that read the same."""
    real_name: Mapped[str] = mapped_column(String(120), default="", server_default="")
    """What organisers call it; nobody else sees it."""
    pseudonym: Mapped[str] = mapped_column(String(40), default="", server_default="")
    """What everybody else sees where a contest shows pseudonyms."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    disqualified_at: Mapped[datetime | None]
    disqualified_reason: Mapped[str] = mapped_column(Text, default="")
    deadline: Mapped[datetime | None]
    """Its own, in place of the contest's; so are the three limits."""
    daily_limit: Mapped[int | None]
    total_limit: Mapped[int | None]
    interval_s: Mapped[int | None]
    chosen_id: Mapped[int | None]
    """The submission that the team chose to count."""
    baseline: Mapped[bool] = mapped_column(default=False, server_default=false())
    """The organiser's own: on the board, marked, without a rank."""

    contest: Mapped[Contest] = relationship()


class Member(Base):
    """A person on the roster. Organisers alone see any of it."""

    __tablename__ = "members"
    __table_args__ = (UniqueConstraint("contest_id", "mail_key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"))
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"), index=True)
    mail: Mapped[str] = mapped_column(String(254))
    mail_key: Mapped[str] = mapped_column(String(254))
    """Lower case: the same mail whatever its spelling."""
    name: Mapped[str] = mapped_column(String(120), default="")
    columns: Mapped[dict[str, Any]] = mapped_column(default=dict)
    """The roster's other columns, given back with the marks."""
    joined_at: Mapped[datetime | None]
    """When the person got a token; a class code gives one only once."""
    created_at: Mapped[datetime] = mapped_column(default=now)

    team: Mapped[Team | None] = relationship()


class JoinCode(Base):
    """A code that an organiser tells a class: whoever knows it and is on the roster (or has a mail there) may join."""

    __tablename__ = "join_codes"

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"), index=True)
    code: Mapped[str] = mapped_column(String(40), unique=True)
    domain: Mapped[str] = mapped_column(String(120), default="")
    """Mails of this domain may join, too; empty: the roster's alone."""
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Token(Base):
    """A bearer token. `key` is its public half; of the secret half only the hash is here."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(16), unique=True)
    digest: Mapped[str] = mapped_column(String(64))
    role: Mapped[str] = mapped_column(String(10))
    """team or admin."""
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id"), index=True)
    label: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    team: Mapped[Team | None] = relationship()


class Submission(Base):
    """One file entered by one team in one contest."""

    __tablename__ = "submissions"
    __table_args__ = (
        UniqueConstraint("contest_id", "team_id", "sha256"),
        Index("ix_submissions_queue", "state", "priority", "id"),
        Index("ix_submissions_sha256", "sha256"),
        Index("ix_submissions_contest", "contest_id", "id"),
        Index("ix_submissions_contest_state", "contest_id", "state", "id"),
        Index("ix_submissions_team", "team_id", "id"),
        Index("ix_submissions_team_day", "team_id", "created_at"),
        Index("ix_submissions_team_best", "team_id", "state", "score"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"))
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    file_name: Mapped[str] = mapped_column(String(120))
    """As the participant called it, cleaned; shown, never opened."""
    note: Mapped[str] = mapped_column(String(500), default="")
    created_at: Mapped[datetime] = mapped_column(default=now)
    """When its upload was accepted."""
    practice: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Handed in after the end: scored, never ranked."""
    late: Mapped[bool] = mapped_column(default=False, server_default=false())
    """Handed in within the grace after the deadline."""

    state: Mapped[str] = mapped_column(String(20), default=State.QUEUED)
    reason: Mapped[str] = mapped_column(Text, default="")
    log: Mapped[str] = mapped_column(Text, default="")
    """What happened, line by line, for the owner."""
    our_fault: Mapped[bool] = mapped_column(default=False)
    """The attempt failed through no fault of the team's and does not count against its quota."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    attempts: Mapped[int] = mapped_column(default=0)
    claim: Mapped[str] = mapped_column(String(80), default="")
    """Names the one worker run whose result will be taken."""
    lease_until: Mapped[datetime | None]
    priority: Mapped[int] = mapped_column(default=0)
    """The queue is served by this, the lowest first, then by number: what is scored anew for all stands behind."""
    retry_at: Mapped[datetime | None]
    """Not before this moment is a queued submission tried again."""
    announced_at: Mapped[datetime | None]
    """When a message was last put into the queue."""

    disqualified_at: Mapped[datetime | None]
    disqualified_reason: Mapped[str] = mapped_column(Text, default="")

    validated_at: Mapped[datetime | None]
    validated_remark: Mapped[str] = mapped_column(String(500), default="", server_default="")
    """An organiser looked at it, and what everybody may read of that."""

    rule_name: Mapped[str] = mapped_column(String(64), default="")
    rule_version: Mapped[int] = mapped_column(default=0)
    score: Mapped[float | None]
    params: Mapped[float | None]
    ops: Mapped[float | None]
    score_with_bitmask: Mapped[float | None]
    accuracy: Mapped[float | None]
    accuracy_low: Mapped[float | None]
    accuracy_high: Mapped[float | None]
    isolation: Mapped[str] = mapped_column(String(20), default="")
    measured: Mapped[dict[str, Any] | None]
    claimed: Mapped[dict[str, Any] | None]

    contest: Mapped[Contest] = relationship()
    team: Mapped[Team] = relationship()


class Result(Base):
    """One scoring of one submission under one rule; never changed afterwards."""

    __tablename__ = "results"
    __table_args__ = (Index("ix_results_submission", "submission_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    state: Mapped[str] = mapped_column(String(20))
    reason: Mapped[str] = mapped_column(Text, default="")
    rule_name: Mapped[str] = mapped_column(String(64))
    rule_version: Mapped[int]
    score: Mapped[float | None]
    accuracy: Mapped[float | None]
    report: Mapped[dict[str, Any]]
    """What `contest score --json` returns."""


class Standing(Base):
    """The best submission of a team, one row among the ranked and one among those below the threshold."""

    __tablename__ = "standings"

    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"), primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"), primary_key=True)
    section: Mapped[str] = mapped_column(String(20), primary_key=True)
    """ranked or below_threshold."""
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    score: Mapped[float]
    params: Mapped[float] = mapped_column(default=0.0)
    ops: Mapped[float] = mapped_column(default=0.0)
    accuracy: Mapped[float]
    submitted_at: Mapped[datetime]


Index(
    "ix_standings_order",
    Standing.contest_id,
    Standing.section,
    Standing.score,
    Standing.accuracy.desc(),
    Standing.submitted_at,
    Standing.submission_id,
)


class Notice(Base):
    """An announcement, or an answer on the rules, in Markdown."""

    __tablename__ = "notices"

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    answer: Mapped[bool] = mapped_column(default=False)
    title: Mapped[str] = mapped_column(String(200))
    body: Mapped[str] = mapped_column(Text, default="")


class Fingerprint(Base):
    """What a scored network said of the test images: copies say the same."""

    __tablename__ = "fingerprints"

    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"), primary_key=True)
    dataset: Mapped[str] = mapped_column(String(64), index=True)
    predictions: Mapped[bytes] = mapped_column(LargeBinary)
    """A byte an image, compressed."""


class FinalResult(Base):
    """A team's counting submission in the final phase: scored once."""

    __tablename__ = "final_results"
    __table_args__ = (UniqueConstraint("contest_id", "team_id"), Index("ix_final_results_state", "state", "id"))

    id: Mapped[int] = mapped_column(primary_key=True)
    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"))
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id"))
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    state: Mapped[str] = mapped_column(String(20), default=State.QUEUED)
    reason: Mapped[str] = mapped_column(Text, default="")
    attempts: Mapped[int] = mapped_column(default=0)
    claim: Mapped[str] = mapped_column(String(80), default="")
    lease_until: Mapped[datetime | None]
    score: Mapped[float | None]
    accuracy: Mapped[float | None]
    finished_at: Mapped[datetime | None]

    team: Mapped[Team] = relationship()


class RecordEntry(Base):
    """A submission that was the contest's best when it came in."""

    __tablename__ = "records"

    contest_id: Mapped[int] = mapped_column(ForeignKey("contests.id"), primary_key=True)
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"), primary_key=True)
    score: Mapped[float]
    accuracy: Mapped[float]
    submitted_at: Mapped[datetime]

    submission: Mapped[Submission] = relationship()


class EndedSession(Base):
    """A browser session that was signed out: its cookie is worthless although its signature is still good."""

    __tablename__ = "ended_sessions"

    key: Mapped[str] = mapped_column(String(16), primary_key=True)
    expires_at: Mapped[datetime] = mapped_column(index=True)
    """After this moment the cookie is out of date by itself, and the row may go."""


class Event(Base):
    """What organisers did, when and why."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(default=now)
    actor: Mapped[str] = mapped_column(String(80))
    action: Mapped[str] = mapped_column(String(40))
    contest_id: Mapped[int | None] = mapped_column(ForeignKey("contests.id"), index=True)
    details: Mapped[dict[str, Any]]
