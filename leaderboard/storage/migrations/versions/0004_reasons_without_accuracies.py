"""The reason of a refused submission holds nothing of its accuracy, so that coarse feedback can show it as it is"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    connection = op.get_bind()
    refused = connection.execute(sa.text("SELECT id FROM submissions WHERE state = 'refused'")).scalars().all()
    for number in refused:
        newest = "SELECT report FROM results WHERE submission_id = :id ORDER BY id DESC LIMIT 1"
        found = connection.execute(sa.text(newest), {"id": number}).scalar()
        report = (json.loads(found) if isinstance(found, str) else found) or {}
        problems = [str(problem) for problem in report.get("problems") or ()]
        if not problems:
            continue
        # The programs up to now wrote what they had to say of the accuracy last.
        accuracy, threshold = (report.get("accuracy") or {}).get("value"), report.get("threshold", 1.0)
        told = problems[:-1] if accuracy is None or accuracy < threshold else problems
        reason = sa.text("UPDATE submissions SET reason = :reason WHERE id = :id")
        connection.execute(reason, {"reason": "; ".join(told), "id": number})


def downgrade() -> None:
    pass
