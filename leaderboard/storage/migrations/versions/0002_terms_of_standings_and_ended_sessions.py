"""Standings hold the terms of the score, so that the ranking needs no other table; sessions that were signed out"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    with op.batch_alter_table("standings", schema=None) as batch_op:
        batch_op.add_column(sa.Column("params", sa.Double(), nullable=False, server_default="0"))
        batch_op.add_column(sa.Column("ops", sa.Double(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE standings SET "
        "params = coalesce((SELECT s.params FROM submissions s WHERE s.id = standings.submission_id), 0), "
        "ops = coalesce((SELECT s.ops FROM submissions s WHERE s.id = standings.submission_id), 0)"
    )
    with op.batch_alter_table("standings", schema=None) as batch_op:  # the program always gives them
        batch_op.alter_column("params", server_default=None)
        batch_op.alter_column("ops", server_default=None)
    op.create_table(
        "ended_sessions",
        sa.Column("key", sa.String(length=16), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_ended_sessions")),
    )
    with op.batch_alter_table("ended_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ended_sessions_expires_at"), ["expires_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("ended_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ended_sessions_expires_at"))
    op.drop_table("ended_sessions")
    with op.batch_alter_table("standings", schema=None) as batch_op:
        batch_op.drop_column("ops")
        batch_op.drop_column("params")
