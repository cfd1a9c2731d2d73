"""Opening and deadline, grace, intervals, what counts; a team's own limits; practice; the final phase"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _columns() -> dict[str, tuple[sa.Column[Any], ...]]:
    contest: tuple[sa.Column[Any], ...] = (
        sa.Column("opens_at", sa.DateTime(), nullable=True),
        sa.Column("deadline", sa.DateTime(), nullable=True),
        sa.Column("grace_s", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("interval_s", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("practice", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("counts", sa.String(8), nullable=False, server_default="best"),
        sa.Column("final_at", sa.DateTime(), nullable=True),
        sa.Column("final_counts", sa.String(8), nullable=False, server_default="best"),
        sa.Column("final_data", sa.String(64), nullable=False, server_default=""),
        sa.Column("final_begun_at", sa.DateTime(), nullable=True),
    )
    team: tuple[sa.Column[Any], ...] = (
        sa.Column("deadline", sa.DateTime(), nullable=True),
        sa.Column("daily_limit", sa.Integer(), nullable=True),
        sa.Column("total_limit", sa.Integer(), nullable=True),
        sa.Column("interval_s", sa.Integer(), nullable=True),
        sa.Column("chosen_id", sa.Integer(), nullable=True),
    )
    submission: tuple[sa.Column[Any], ...] = (
        sa.Column("practice", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("late", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    return {"contests": contest, "teams": team, "submissions": submission}


def upgrade() -> None:
    for table, columns in _columns().items():
        for column in columns:
            op.add_column(table, column)
    op.create_table(
        "final_results",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("contest_id", sa.Integer(), nullable=False),
        sa.Column("team_id", sa.Integer(), nullable=False),
        sa.Column("submission_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim", sa.String(80), nullable=False),
        sa.Column("lease_until", sa.DateTime(), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["contest_id"], ["contests.id"], name=op.f("fk_final_results_contest_id")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_final_results_team_id")),
        sa.ForeignKeyConstraint(["submission_id"], ["submissions.id"], name=op.f("fk_final_results_submission_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_final_results")),
        sa.UniqueConstraint("contest_id", "team_id", name=op.f("uq_final_results_contest_id_team_id")),
    )
    op.create_index("ix_final_results_state", "final_results", ["state", "id"], unique=False)


def downgrade() -> None:
    op.drop_table("final_results")
    for table, columns in _columns().items():
        for column in columns:
            op.drop_column(table, column.name)
