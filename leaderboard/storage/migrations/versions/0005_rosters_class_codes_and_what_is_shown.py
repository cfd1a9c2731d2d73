"""Rosters, class codes, real names and pseudonyms; how much of a ranking everybody sees"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from leaderboard.text import pseudonym

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("contests", sa.Column("shown_names", sa.String(12), nullable=False, server_default="names"))
    op.add_column("contests", sa.Column("shown_places", sa.Integer(), nullable=True))
    op.add_column("teams", sa.Column("real_name", sa.String(120), nullable=False, server_default=""))
    op.add_column("teams", sa.Column("pseudonym", sa.String(40), nullable=False, server_default=""))
    connection, taken = op.get_bind(), set()
    for number, contest in connection.execute(sa.text("SELECT id, contest_id FROM teams ORDER BY id")).all():
        name = pseudonym(lambda name, contest=contest: (contest, name) in taken)  # type: ignore[misc]
        taken.add((contest, name))
        connection.execute(sa.text("UPDATE teams SET pseudonym = :name WHERE id = :id"), {"name": name, "id": number})
    op.create_table(
        "members",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("contest_id", sa.Integer(), nullable=False),
        sa.Column("team_id", sa.Integer(), nullable=True),
        sa.Column("mail", sa.String(254), nullable=False),
        sa.Column("mail_key", sa.String(254), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("columns", sa.JSON(), nullable=False),
        sa.Column("joined_at", sa.DateTime(), nullable=True),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["contest_id"], ["contests.id"], name=op.f("fk_members_contest_id")),
        sa.ForeignKeyConstraint(["team_id"], ["teams.id"], name=op.f("fk_members_team_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_members")),
        sa.UniqueConstraint("contest_id", "mail_key", name=op.f("uq_members_contest_id_mail_key")),
    )
    op.create_index(op.f("ix_members_team_id"), "members", ["team_id"], unique=False)
    op.create_table(
        "join_codes",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("contest_id", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(40), nullable=False),
        sa.Column("domain", sa.String(120), nullable=False),
        sa.Column("created_at", sa.DateTime(), nullable=False),
        sa.Column("expires_at", sa.DateTime(), nullable=True),
        sa.Column("revoked_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["contest_id"], ["contests.id"], name=op.f("fk_join_codes_contest_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_join_codes")),
        sa.UniqueConstraint("code", name=op.f("uq_join_codes_code")),
    )
    op.create_index(op.f("ix_join_codes_contest_id"), "join_codes", ["contest_id"], unique=False)


def downgrade() -> None:
    op.drop_table("join_codes")
    op.drop_table("members")
    op.drop_column("teams", "pseudonym")
    op.drop_column("teams", "real_name")
    op.drop_column("contests", "shown_places")
    op.drop_column("contests", "shown_names")
