"""Networks that answer alike: equal files in two teams, and networks whose predictions are nearly the same.

Weights can be permuted, rescaled or written in another format; what a network says of ten thousand images stays. Two
networks trained apart disagree in about as many images as both err in; one that was copied, converted or trained a
little further does not. For organisers alone: a suspicion is no proof, and a common teacher makes networks alike, too.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from leaderboard.storage.tables import Contest, Fingerprint, Submission, Team

NEARLY = 0.6
"""Networks that differ in fewer images than this, times the images that one of them gets wrong, are shown as alike.

How often networks agree depends on how good they are: of 90 % on CIFAR-10, networks trained apart agree in 88 to 92 %
of images, of 97 % on digits in 97 to 98.5 %. Relative to their errors they differ in 0.66 and more, tunings of one
parent in 0.70 and more, and copies that were changed a little in 0.04 to 0.57 (docs/organiser.md has the table).
"""
_MOST = 2000


@dataclass(frozen=True)
class Copy:
    """Two submissions of two teams that answer alike; the other may be of a past contest."""

    submission_id: int
    team: str
    other_id: int
    other_team: str
    other_contest: str
    agreement: float
    same_file: bool


def store(session: Session, submission_id: int, dataset: str, predictions: bytes) -> None:
    """Keep what a network said of the test images: one class an image."""
    session.merge(Fingerprint(submission_id=submission_id, dataset=dataset, predictions=zlib.compress(predictions, 6)))


def find(session: Session, contest: Contest, nearly: float = NEARLY) -> list[Copy]:
    """Pairs of which one is of this contest, the most alike first. `nearly`: see NEARLY."""
    copies = {(c.submission_id, c.other_id): c for c in _alike(session, contest, nearly)}
    copies |= {(c.submission_id, c.other_id): c for c in _same_files(session, contest)}
    return sorted(copies.values(), key=lambda copy: (-copy.agreement, copy.submission_id))


def _same_files(session: Session, contest: Contest) -> list[Copy]:
    other, other_team = aliased(Submission), aliased(Team)
    statement = (
        select(Submission.id, Team.name, other.id, other_team.name, Contest.slug)
        .join(Team, Team.id == Submission.team_id)
        .join(other, other.sha256 == Submission.sha256)
        .join(other_team, other_team.id == other.team_id)
        .join(Contest, Contest.id == other.contest_id)
        .where(Submission.contest_id == contest.id, other.team_id != Submission.team_id)
    )
    rows = session.execute(statement).all()
    return [Copy(*row, agreement=1.0, same_file=True) for row in rows if row[4] != contest.slug or row[0] > row[2]]


def _alike(session: Session, contest: Contest, nearly: float) -> list[Copy]:
    statement = (
        select(
            Fingerprint.submission_id,
            Submission.team_id,
            Team.name,
            Contest.slug,
            Fingerprint.predictions,
            Submission.accuracy,
        )
        .join(Submission, Submission.id == Fingerprint.submission_id)
        .join(Team, Team.id == Submission.team_id)
        .join(Contest, Contest.id == Submission.contest_id)
        .where(Fingerprint.dataset == contest.dataset)
        .order_by(Submission.id.desc())
        .limit(_MOST)
    )
    rows = session.execute(statement).all()
    said = [np.frombuffer(zlib.decompress(row.predictions), np.uint8) for row in rows]
    length = max((len(one) for one in said), default=0)
    whole = [i for i, one in enumerate(said) if len(one) == length]
    table = np.stack([said[i] for i in whole]) if whole else np.zeros((0, 1), np.uint8)
    errors = np.array([1 - (rows[i].accuracy or 0.0) for i in whole])
    found = []
    for place, i in enumerate(whole):
        row = rows[i]
        if row.slug != contest.slug:
            continue
        agreement = (table == table[place]).mean(1)
        for other_place in np.flatnonzero(1 - agreement <= nearly * (errors + errors[place]) / 2):
            other = rows[whole[other_place]]
            mirrored = other.slug == contest.slug and other.submission_id >= row.submission_id
            if other.team_id != row.team_id and not mirrored:
                share = float(agreement[other_place])
                found.append(
                    Copy(row.submission_id, row.name, other.submission_id, other.name, other.slug, share, False)
                )
    return found
