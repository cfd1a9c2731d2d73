"""Baselines of the organiser; predictions of scored networks, by which copies are found"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("teams", sa.Column("baseline", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("submissions", sa.Column("validated_at", sa.DateTime(), nullable=True))
    op.add_column("submissions", sa.Column("validated_remark", sa.String(500), nullable=False, server_default=""))
    op.create_table(
        "fingerprints",
        sa.Column("submission_id", sa.Integer(), nullable=False),
        sa.Column("dataset", sa.String(64), nullable=False),
        sa.Column("predictions", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["submission_id"], ["submissions.id"], name=op.f("fk_fingerprints_submission_id")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_fingerprints")),
    )
    op.create_index(op.f("ix_fingerprints_dataset"), "fingerprints", ["dataset"], unique=False)


def downgrade() -> None:
    op.drop_table("fingerprints")
    op.drop_column("submissions", "validated_remark")
    op.drop_column("submissions", "validated_at")
    op.drop_column("teams", "baseline")
