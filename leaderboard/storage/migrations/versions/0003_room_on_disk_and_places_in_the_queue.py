"""What a team's files may take on disk; places in the queue; files are found by their hash"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Columns are added in place, with their defaults: tables that others refer to cannot be made anew in SQLite.
    op.add_column("contests", sa.Column("team_bytes", sa.BigInteger(), nullable=False, server_default=str(2 * 1024**3)))
    op.add_column("submissions", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("submissions", sa.Column("retry_at", sa.DateTime(), nullable=True))
    op.drop_index("ix_submissions_state", "submissions")
    op.create_index("ix_submissions_queue", "submissions", ["state", "priority", "id"], unique=False)
    op.create_index("ix_submissions_sha256", "submissions", ["sha256"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_submissions_sha256", "submissions")
    op.drop_index("ix_submissions_queue", "submissions")
    op.create_index("ix_submissions_state", "submissions", ["state", "id"], unique=False)
    op.drop_column("submissions", "retry_at")
    op.drop_column("submissions", "priority")
    op.drop_column("contests", "team_bytes")
